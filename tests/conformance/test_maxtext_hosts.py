"""MaxText on two hosts: two processes with a folder each, which meet over the loopback and share no file of the job."""

import json
import os
import socket
import subprocess
from pathlib import Path
from tempfile import mkdtemp

import pytest

from backends.checkpoints import LINK, checkpoints, resumed
from backends.compile import plan
from backends.plan import HEAD, PORT, RANK
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

from .test_resume import RECIPE, Attempt, prose

pytestmark = [pytest.mark.trainer, pytest.mark.thorough(3), pytest.mark.timeout(1500)]

CLOSE = 1e-5
"""Largest difference of a step's loss, in nats, and of a weight."""
SHORT = ("train.steps=4", "train.batch.micro=null", "checkpoint.every=2", "checkpoint.resume=false", "optim.warmup_steps=1")
HELD = ("data.eval=rows.held.jsonl",)
PAIRS = ("data.train=pairs.jsonl", "data.eval=pairs.held.jsonl", "data.format=preference")
RANK_4 = ("method.lora.rank=4",)
FAR = """
import sys
from safetensors.flax import load_file
one, two = map(load_file, sys.argv[1:])
assert one.keys() == two.keys()
print(max(abs(one[name] - two[name]).max().item() for name in one))
"""


@pytest.fixture
def trained(tmp_path, shared_home, trainer_python):
    """Runs a recipe on so many hosts, perhaps from a checkpoint that lies on the first; what lies there then."""
    pairs = [{"prompt": f"Add {n}: ", "chosen": prose(n), "rejected": prose(n + 3)} for n in range(56)]
    for name, rows in {"rows": [{"text": prose(n)} for n in range(56)], "pairs": pairs}.items():
        for part, some in (("", rows[:48]), (".held", rows[48:])):
            (tmp_path / f"{name}{part}.jsonl").write_text("\n".join(map(json.dumps, some)) + "\n")

    def run(hosts, *sets, after=None, slices=1):
        wanted = parse(RECIPE, base=str(tmp_path), sets=[*SHORT, f"resources.hosts={hosts}", *sets])
        made, python = plan(BACKENDS["maxtext"], wanted, Target(devices=2, hosts=hosts, slices=slices)), trainer_python("maxtext")
        folder, links = Path(mkdtemp(dir=tmp_path)), [{}] * hosts
        if after:
            chosen = after.checkpoints()[0]
            made = resumed(made, chosen.step, 4, BACKENDS["maxtext"].resume, "maxtext.yml")
            links = [{LINK: place} for place in (after.work / chosen.folder, folder / "nowhere")]
        each = [Attempt("maxtext", made, folder / str(rank), python, shared_home, links[rank]).make() for rank in range(hosts)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for step in made.steps:
            running = []
            for rank, one in enumerate(each if step.everywhere else each[:1]):
                places = {HEAD: "127.0.0.1", PORT: str(port), RANK: str(rank)}
                env = {**os.environ, **dict(made.env), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
                argv = [places.get(word, word) for word in step.argv]
                with (one.work / "log").open("ab") as log:
                    running.append(subprocess.Popen(argv, cwd=one.work, env=env, stdout=log, stderr=log))
            codes = [process.wait() for process in running]
            assert not any(codes), (step.name, codes, (each[0].work / "log").read_text()[-5000:])
        return each[0]

    return run


@pytest.mark.parametrize(
    "sets",
    [
        pytest.param(("method.adapter=lora", *RANK_4, *HELD), id="lora"),
        pytest.param(("method.adapter=qlora", *RANK_4, *HELD), id="qlora"),
        pytest.param(("method.kind=dpo", *PAIRS), id="dpo"),
        pytest.param(("method.kind=orpo", *PAIRS), id="orpo"),
        pytest.param(("method.kind=distill", "method.distill.teacher=./teacher", *HELD), id="distill"),
    ],
)
def test_two_hosts_train_what_one_does(trained, trainer_python, tmp_path, sets):
    """Losses, norms, the evaluation and what the first host exports are those of one process, checkpoints on the way included."""
    if "method.kind=distill" in sets:
        (trained(1).work / "checkpoint").rename(tmp_path / "teacher")
    two, one = trained(2, *sets), trained(1, *sets)
    for name in ("loss", "grad_norm", "eval_loss"):
        alone = one.curve(name)
        assert two.curve(name) == {step: pytest.approx(value, abs=CLOSE) for step, value in alone.items()}
        assert alone
    index = [checkpoints((each.work / "checkpoints.json").read_text()) for each in (two, one)]
    assert [[each.step for each in found] for found in index] == [[2, 4], [2, 4]]
    files = [f"{each}.safetensors" for each in ("checkpoint/model", *(["adapter/adapter_model"] if "lora" in str(sets) else []))]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    for file in files:
        argv = [trainer_python("maxtext"), "-c", FAR, *(str(each.work / file) for each in (one, two))]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
        assert float(done.stdout) < CLOSE


@pytest.mark.parametrize(
    "sets",
    [
        pytest.param(("resources.devices=2",), id="full"),
        pytest.param(("method.adapter=lora", *RANK_4), id="lora"),
    ],
)
def test_two_hosts_go_on_from_a_checkpoint_of_the_first(trained, trainer_python, sets):
    """Of two hosts with devices of their own, losses, norms and rates after the checkpoint are those of a run that was not interrupted,
    and so are the weights at the end; the second host has nothing of it.
    """
    whole = trained(2, *sets, "checkpoint.resume=true")
    assert [(each.step, each.lacks) for each in whole.checkpoints()] == [(2, ""), (4, "")]
    again = trained(2, *sets, "checkpoint.resume=true", after=whole)
    assert [each.step for each in again.checkpoints()] == [2, 4]
    for name in ("loss", "grad_norm", "lr"):
        due = {step: value for step, value in whole.curve(name).items() if step > 2}
        assert again.curve(name) == pytest.approx(due, rel=1e-6)
        assert list(due) == [3, 4]
    files = [str(each.work / "checkpoint/model.safetensors") for each in (whole, again)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([trainer_python("maxtext"), "-c", FAR, *files], env=env, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1e-6


def test_two_slices_train_what_one_does(trained):
    """Each has all weights and rows of its own, on two devices: losses and norms are those of one process."""
    two = trained(2, "resources.devices=2", slices=2)
    assert "dcn_data_parallelism: 2" in (two.work / "maxtext.yml").read_text()
    one = trained(1)
    for name in ("loss", "grad_norm"):
        assert two.curve(name) == {step: pytest.approx(value, abs=CLOSE) for step, value in one.curve(name).items()}
        assert one.curve(name)
