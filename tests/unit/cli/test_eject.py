"""`tune translate --eject`: a folder that trains without tune."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from backends.registry import BACKENDS

ROOT = Path(__file__).parents[3]
SHORT = (str(ROOT / "recipes" / "quickstart.yaml"), "--set", "train.steps=4", "--set", "optim.warmup_steps=1")


@pytest.mark.trainer
@pytest.mark.parametrize(
    "trainer",
    [
        pytest.param("torchtune", marks=pytest.mark.core),
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("litgpt", "axolotl", "trl", "maxtext")),
    ],
)
def test_it_trains_by_the_trainer_alone(tune, trainer_python, trainer):
    """In an empty environment run.sh trains with nothing but the trainer's packages: the promised files are there, and losses are those of
    the same recipe under tune.
    """
    assert tune("translate", *SHORT, "--to", trainer, "--eject", "alone").stdout == "alone\n"
    folder = tune.cwd / "alone"
    (folder / "env").symlink_to(Path(trainer_python(trainer)).parents[1])
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tune.cwd), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([folder / "run.sh"], env=bare, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "done: checkpoint/config.json" in done.stdout
    assert list((folder / "checkpoint").glob("*.safetensors"))
    [log] = [path for pattern in BACKENDS[trainer].watch for path in folder.glob(pattern)]
    job = tune("submit", *SHORT, "--to", trainer, "--follow").stdout.strip()
    losses = [point["value"] for point in tune.json("metrics", job)["points"] if point["name"] == "loss"]
    words = [float(word) for word in re.findall(r"\d+\.\d+(?:e-?\d+)?", log.read_text())]
    assert len(losses) == 4
    assert all(any(abs(word - loss) < 1e-5 for word in words) for loss in losses)


@pytest.mark.parametrize("trainer", BACKENDS)
def test_the_folder_explains_itself(tune, trainer):
    """For each trainer: its config, a copy of the data, the lock, the commands, a script that the shell can read, and a README that names
    every file and what is lost; nothing in it imports tune.
    """
    tune("translate", *SHORT, "--to", trainer, "--eject", "alone", "--set", "resources.accelerator=any", *on(tune, trainer))
    folder = tune.cwd / "alone"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    readme = (folder / "README.md").read_text()
    assert {"run.sh", "requirements.txt", BACKENDS[trainer].config, "inputs/train.jsonl"} <= files
    assert [name for name in files - {"README.md", "run.sh"} if f"`{name}`" not in readme] == []
    assert "What is lost without tune" in readme
    subprocess.run(["sh", "-n", folder / "run.sh"], check=True)
    texts = [path.read_text() for path in folder.glob("*.py")]
    assert not any(re.search(r"^\s*(from|import) (orchestrator|backends|tunesmith)", text, re.MULTILINE) for text in texts)


def on(tune, trainer):
    """A target that the trainer can use."""
    if "cpu" in BACKENDS[trainer].accelerators:
        return ()
    (tune.cwd / "clusters.yaml").write_text(
        "version: 1\ntargets:\n  gpu: {kind: ssh, hosts: [g], accelerator: cuda, devices: 1, memory_gib: 80}\n"
    )
    return ("--on", "gpu")


def test_what_cannot_stand_alone_is_refused(tune):
    """Several hosts, and a folder that has something in it, are refused with the way out; of several trainers those that cannot are
    named.
    """
    many = ("--set", "resources.hosts=2", "--set", "resources.devices=1")
    (tune.cwd / "clusters.yaml").write_text(
        "version: 1\ntargets:\n  two: {kind: ssh, hosts: [a, b], accelerator: cpu, devices: 1}\n"
    )
    refused = tune("translate", *SHORT, *many, "--on", "two", "--to", "trl", "--eject", "alone", code=2)
    assert "runs on several hosts" in refused.stderr
    assert "--as slurm" in refused.stderr
    (tune.cwd / "mine").mkdir()
    (tune.cwd / "mine" / "file").write_text("x")
    assert "not empty" in tune("translate", *SHORT, "--to", "trl", "--eject", "mine", code=2).stderr
    assert [path.name for path in (tune.cwd / "mine").iterdir()] == ["file"]
    some = tune("translate", *SHORT, "--set", "log.trackers=[mlflow]", "--to", "trl,maxtext", "--eject", "some")
    assert some.stdout == "some/trl\n"
    assert "maxtext: left out" in some.stderr


def test_trainers_are_named_in_order(tune):
    """`--to A,B`: translate shows both side by side, submit takes the first that can; a wrong name is told."""
    assert set(tune.json("translate", *SHORT, "--to", "trl,litgpt")["backends"]) == {"trl", "litgpt"}
    assert "by litgpt on 1 device" in tune("submit", *SHORT, "--to", "litgpt,trl", "--dry-run").stdout
    first = ("--set", "log.trackers=[mlflow]", "--to", "maxtext,trl", "--dry-run")
    assert "by trl on 1 device" in tune("submit", *SHORT, *first).stdout
    assert "litgtp: is not a trainer" in tune("translate", *SHORT, "--to", "trl,litgtp", code=None).stderr
    assert json.loads(tune("fit", *SHORT, "--to", "litgpt,trl", "--json").stdout)
