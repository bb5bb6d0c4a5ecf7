"""torchtune beyond one process and plain fine-tuning: what its recipes leave out or miscount is made good."""

import json
import shutil
import subprocess
from math import log
from pathlib import Path

import pytest

from backends.registry import BACKENDS

pytestmark = pytest.mark.trainer
HERE = Path(__file__).parent

CLOSE = 1e-5
"""Largest difference of a step's loss, in nats."""
CLUSTERS = "version: 1\ntargets: {local: {kind: local, accelerator: cpu, devices: 4}}\n"
RECIPE = """\
version: 1
name: tt
model:
  id: tiny
  init: random
  architecture: {hidden_size: 128, intermediate_size: 256, layers: 2, heads: 4, kv_heads: 4, max_length: 128}
data: {train: rows.jsonl, format: text, max_length: 96}
train: {steps: 6, batch: {global: 8, micro: 2}, precision: fp32}
optim: {lr: 3e-3, warmup_steps: 1}
"""
PAIRS = ("--set", "data.train=pairs.jsonl", "--set", "data.format=preference", "--set", "method.kind=dpo")
MERGED = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
work = Path(sys.argv[1])
base, merged = (load_file(place / "model.safetensors") for place in (work / sys.argv[2], work / "checkpoint"))
adapter, facts = load_file(work / "adapter/adapter_model.safetensors"), json.loads((work / "adapter/adapter_config.json").read_text())
assert facts["use_dora"] and set(facts["target_modules"]) == {"q_proj", "down_proj"} | {"k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}
worst, moved = 0.0, 0.0
for name in [n for n in adapter if n.endswith("lora_A.weight")]:
    stem = name.removesuffix(".lora_A.weight")
    low = adapter[f"{stem}.lora_B.weight"] @ adapter[name] * facts["lora_alpha"] / facts["r"]
    weight = stem.removeprefix("base_model.model.") + ".weight"
    new = base[weight] + low
    new *= (adapter[f"{stem}.lora_magnitude_vector"] / new.norm(dim=1))[:, None]
    worst = max(worst, (new - merged[weight]).abs().max().item())
    moved = max(moved, (base[weight] - merged[weight]).abs().max().item())
print(json.dumps([worst, moved]))
"""

FAR = """
import sys
from safetensors.torch import load_file
one, two = map(load_file, sys.argv[1:])
assert one.keys() == two.keys()
print(max((one[name] - two[name]).abs().max().item() for name in one))
"""


def prose(n):
    """A sentence; of unequal lengths, so that processes have unequal numbers of tokens."""
    return f"Row {n} says " + "so " * (1 + n * 5 % 11) + f"and is {n * n}."


@pytest.fixture
def train(tune, home):
    """Runs a recipe by torchtune; its job's folder, and its metrics: name -> step -> value."""
    rows = [{"text": prose(n)} for n in range(40)]
    pairs = [{"prompt": f"Add {n}: ", "chosen": prose(n), "rejected": prose(n + 3)} for n in range(40)]
    for name, lines in (("rows", rows), ("pairs", pairs)):
        (tune.cwd / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (tune.cwd / "clusters.yaml").write_text(CLUSTERS)
    (tune.cwd / "recipe.yaml").write_text(RECIPE)

    def run(*words):
        job = tune("submit", "recipe.yaml", "--to", "torchtune", *words, "--follow").stdout.strip()
        curves = {}
        for point in tune.json("metrics", job)["points"]:
            curves.setdefault(point["name"], {})[point["step"]] = point["value"]
        return home / "jobs" / job / "1" / "work", curves

    return run


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--set", "method.kind=pretrain"), id="weights", marks=pytest.mark.thorough),
        pytest.param(("--set", "method.adapter=lora", *PAIRS), id="pairs", marks=pytest.mark.thorough),
    ],
)
def test_two_processes_learn_what_one_learns(train, words):
    """Every step's loss is the mean over both processes, and the same as with one."""
    (_, one), (work, two) = train(*words), train(*words, "--set", "resources.devices=2")
    assert list(two["loss"]) == list(range(1, 7))
    assert one["loss"] == {step: pytest.approx(value, abs=CLOSE) for step, value in two["loss"].items()}
    assert one["lr"] == two["lr"]
    assert (work / "checkpoint" / "model.safetensors").stat().st_size > 0


@pytest.mark.parametrize(
    ("sizes", "processes"),
    [
        pytest.param((), 2, id="two", marks=pytest.mark.thorough(2)),
        pytest.param((), 4, id="two-by-two", marks=pytest.mark.thorough(3)),
        pytest.param(("family=qwen2", "tied=true"), 2, id="tied", marks=pytest.mark.thorough(3)),
    ],
)
def test_processes_that_share_each_matrix_learn_what_one_learns(train, trainer_python, sizes, processes):
    """resources.tensor: losses, norms before clipping and exported weights are those of one process, with noise on the embeddings too."""
    sets = ["train.steps=3", "train.grad_clip=1.0", "train.neftune_alpha=5.0", *(f"model.architecture.{each}" for each in sizes)]
    words = [word for each in sets for word in ("--set", each)]
    shared = ("--set", f"resources.devices={processes}", "--set", "resources.tensor=2")
    (alone, one), (work, two) = train(*words), train(*words, *shared)
    for name in ("loss", "grad_norm"):
        assert list(two[name]) == [1, 2, 3]
        assert one[name] == {step: pytest.approx(value, abs=CLOSE) for step, value in two[name].items()}
    assert one["tokens"] == two["tokens"]
    files = [str(each / "checkpoint" / "model.safetensors") for each in (alone, work)]
    done = subprocess.run([trainer_python("torchtune"), "-c", FAR, *files], capture_output=True, text=True, check=True)
    assert float(done.stdout) < CLOSE


@pytest.mark.thorough
def test_preferences_of_all_weights(train):
    """The first loss of DPO is ln 2, whatever the labels' smoothing; then rewards move apart."""
    _, curves = train(*PAIRS, "--set", "method.preference.label_smoothing=0.1")
    assert curves["loss"][1] == pytest.approx(log(2), abs=CLOSE)
    margins = curves["rewards/margins"]
    assert list(margins) == list(range(1, 7))
    assert margins[1] == 0 != margins[6]
    assert all(0 <= share <= 1 for share in curves["rewards/accuracies"].values())


@pytest.mark.thorough
def test_dora_is_what_its_adapter_says(train, trainer_python):
    """The merged weights are those that PEFT would make of the adapter: magnitude times direction, row by row."""
    work, _ = train("--set", "method.adapter=dora")
    model = json.loads((work / "model.json").read_text())["folder"]
    done = subprocess.run(
        [trainer_python("torchtune"), "-c", MERGED, str(work), model], capture_output=True, text=True, check=True
    )
    worst, moved = json.loads(done.stdout)
    assert worst < 1e-6 < 1e-3 < moved


@pytest.mark.thorough
def test_four_bits_in_two_processes(train):
    """QLoRA trains split over two processes; the checkpoint is not in four bits, nor in two types."""
    wide = ("--set", "model.architecture.hidden_size=256", "--set", "train.steps=3")
    work, curves = train("--set", "method.adapter=qlora", *wide, "--set", "resources.devices=2")
    assert curves["loss"][3] < curves["loss"][1]
    with (work / "checkpoint" / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert {each["dtype"] for name, each in header.items() if name != "__metadata__"} == {"F32"}


@pytest.mark.thorough
def test_a_teacher_who_says_the_same(train, tune):
    """With itself as the teacher a model's divergence is 0, so that the loss is the labels' share of it; micro-batches change nothing."""
    start, _ = train("--set", "train.steps=2")
    (tune.cwd / "start").symlink_to(start / "checkpoint")
    words = ("--set", "model.init=pretrained", "--set", "model.id=./start", "--set", "model.architecture=null")
    words += ("--set", "method.kind=distill", "--set", "method.distill.teacher=./start", "--set", "method.distill.ratio=0.25")
    words += ("--set", "method.adapter=lora", "--set", "data.format=text")
    (_, small), (_, whole) = train(*words), train(*words, "--set", "train.batch.micro=8")
    assert small["kd_loss"][1] == pytest.approx(0, abs=CLOSE)
    assert small["loss"][1] == pytest.approx(0.75 * small["class_loss"][1], abs=CLOSE)
    assert small["kd_loss"][6] > 1e-3
    assert small["loss"] == {step: pytest.approx(value, abs=CLOSE) for step, value in whole["loss"].items()}


@pytest.fixture
def beside(tmp_path):
    """A folder with our programs and what a job's data step writes beside them."""
    for shim in (HERE.parents[1] / "backends").rglob("shims/tune_*.py"):
        shutil.copy(shim, tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text('{"longest": 64}')
    return tmp_path


def test_adapters_that_read_one_input_are_multiplied_together(beside, python, twin, call):
    """Joined or each by itself, compiled or not, q, k, v, gate and up have the same logits and gradients, and nothing of a step stays in memory."""
    found = json.loads(
        call([python("torchtune"), str(HERE / "joined_by_hand.py"), str(twin("llama-2"))], beside).stdout.splitlines()[-1]
    )
    assert found == {"layers": 10, "logits": pytest.approx(0, abs=CLOSE), "gradients": pytest.approx(0, abs=CLOSE), "kept": 0}


@pytest.mark.parametrize(("rows", "graphs"), [((40, 33, 21, 9), 2), ((40, 40, 40, 9), 4)], ids=["many", "one"])
def test_layers_are_compiled_once_for_many_lengths(beside, python, twin, call, rows, graphs):
    """Where micro-batches have many lengths there are two graphs, one for the first layer, whose input is not trained; where most have
    one, that length has graphs of its own. The logits are the same.
    """
    argv = [python("torchtune"), str(HERE / "lengths_by_hand.py"), str(twin("llama-2")), *map(str, rows)]
    found = json.loads(call(argv, beside).stdout.splitlines()[-1])
    assert found == {"graphs": graphs, "logits": pytest.approx(0, abs=CLOSE)}


def test_a_model_that_rounds_rounds_as_the_recipe_says(beside, call, python, twin):
    """method.qat int8-int4: logits and gradients are those of rounding by hand, and far from those of no rounding. A group that does
    not divide a layer's inputs is refused by name, which torchao would pass over.
    """
    argv = [python("torchtune"), str(HERE / "qat_by_hand.py"), str(twin("llama-2"))]
    found = json.loads(call([*argv, "16"], beside).stdout.splitlines()[-1])
    assert found["logits"] < 1e-5
    assert found["gradients"] < 1e-5
    assert found["plain"] > 0.1
    refused = call([*argv, "40"], beside, check=False)
    assert "method.qat.group: 40 does not divide the 64 inputs of layers.0.attn.q_proj" in refused.stderr


LENGTHS = """
import torch, tune_shared
torch.cuda.is_available = lambda: True
def of(length, longest):
    ids, labels = tune_shared.even(torch.ones(2, length, dtype=torch.long), torch.ones(2, length, dtype=torch.long), 7, longest)
    assert ids.shape == labels.shape and (ids[:, length:] == 7).all() and (labels[:, length:] == -100).all() and (ids[:, :length] == 1).all()
    return ids.shape[1]
print([of(*each) for each in ((1, 500), (64, 500), (65, 500), (65, 100), (100, 100))])
torch.cuda.is_available = lambda: False
print(of(65, 500))
"""


def test_lengths_are_even_on_a_gpu(beside, python, call):
    """Micro-batches are padded to multiples of 64, without loss, and never beyond the longest row; on a CPU they stay as they are."""
    found = call([python("torchtune"), "-c", LENGTHS], beside).stdout.splitlines()
    assert [json.loads(line) for line in found[-2:]] == [[64, 64, 128, 100, 100], 65]


@pytest.mark.thorough(3)
def test_a_compiled_model_rounds_as_it_does_uncompiled(beside, python, twin, call, monkeypatch):
    """In bf16 a compiled model with adapters that change nothing has the log-probabilities of its reference, to the bit; by torch's own
    choice it has not.
    """
    argv = [python("torchtune"), str(HERE / "rounded_by_hand.py"), str(twin("llama-2"))]
    (beside / "data" / "manifest.json").write_text('{"longest": 512}')
    ((name, value),) = ((name, value) for name, value in BACKENDS["torchtune"].env.items() if "EMULATE" in name)
    assert json.loads(call(argv, beside).stdout.splitlines()[-1]) > 1e-2
    monkeypatch.setenv(name, value)
    assert json.loads(call(argv, beside).stdout.splitlines()[-1]) == 0
