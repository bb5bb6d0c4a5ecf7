"""A plan as another orchestrator's task file: what the engines' own packages say of it, and that its program trains."""

import fcntl
import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from backends.compile import plan
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.agent.provision import find_uv
from orchestrator.client.errors import InvalidRequest, NotFound
from orchestrator.client.recipes import load
from orchestrator.client.translate import export
from orchestrator.exporting.engines import EMBEDDED, ENGINES
from orchestrator.exporting.program import LONGEST, modules
from tests.conftest import ROOT

QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
TWO = ["resources.hosts=2", "resources.devices=2", "train.batch.global=16"]


def written(engine, *sets, accelerator="cpu", memory=None, **more):
    """The task of the quickstart for a machine; as values where it is YAML."""
    recipe = load(QUICKSTART, list(sets))
    hosts, devices = recipe.resources.hosts, recipe.resources.devices
    decided = plan(BACKENDS["litgpt"], recipe, Target("t", accelerator, devices, memory, hosts=hosts), **more)
    text = ENGINES[engine](decided, memory)
    return text if engine == "slurm" else yaml.safe_load(text)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_plan_gives_the_same_bytes(engine):
    """A task file can be kept under version control: it changes when the plan does."""
    one, two = (export(load(QUICKSTART), engine, to="litgpt") for _ in range(2))
    assert one == two
    assert one != export(load(QUICKSTART, ["optim.lr=1e-4"]), engine, to="litgpt")


@pytest.mark.parametrize("engine", ENGINES)
def test_its_program_fits_into_one_argument(engine):
    """Engines hand the program to a shell as one argument, of which Linux takes 131,072 bytes."""
    task = written(engine, *TWO)
    words = [task] if engine == "slurm" else [task.get("run") or task.get("commands", [""])[0]]
    words += task["spec"]["trainer"]["command"] + task["spec"]["trainer"]["args"] if engine == "kubeflow" else []
    assert max(len(word.encode()) for word in words) <= LONGEST + 2000


def test_its_program_has_what_it_imports():
    """Every module of ours that a carried module imports is carried too: the node has nothing else."""
    texts = modules()
    imports = re.findall(r"^\s*from (orchestrator\S*) import (\S+)", "\n".join(texts.values()), re.MULTILINE)
    found = {f"{package}.{name}" if package == "orchestrator.agent" else package for package, name in imports}
    missing = {name for name in found if f"{name.replace('.', '/')}.py" not in texts}
    assert imports
    assert not missing


def test_devices_and_hosts_are_asked_for():
    """Two nodes of two GPUs with 40 GiB each, in each engine's words."""
    cuda = {"accelerator": "cuda", "memory": 39.5}
    sky = written("skypilot", *TWO, **cuda)
    assert (sky["num_nodes"], sky["resources"]["accelerators"]) == (2, "40GB+:2")
    dstack = written("dstack", *TWO, **cuda)
    assert (dstack["nodes"], dstack["resources"]["gpu"]) == (2, {"count": 2, "memory": "40GB.."})
    trainer = written("kubeflow", *TWO, **cuda)["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["resourcesPerNode"]["limits"]) == (2, {"nvidia.com/gpu": 2})
    slurm = written("slurm", *TWO, **cuda)
    assert "#SBATCH --nodes=2\n" in slurm
    assert "#SBATCH --gpus-per-node=2\n" in slurm


@pytest.mark.parametrize("engine", ENGINES)
def test_secrets_are_named_and_not_told(engine, monkeypatch):
    """A tracker's key has no value in a task file; the engine is told its name."""
    monkeypatch.setenv("WANDB_API_KEY", "not-to-be-seen")
    text = export(load(QUICKSTART, ["secrets=[WANDB_API_KEY]"]), engine, to="litgpt")
    assert "not-to-be-seen" not in text
    assert "WANDB_API_KEY" in text or engine == "slurm"  # whose jobs have the environment of `sbatch`


def test_what_cannot_travel_is_refused(tmp_path):
    """A file that a TrainJob does not take, an engine that nobody knows: named, with the way out."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "input": "", "output": "b"}\n' * (EMBEDDED // 40))
    with pytest.raises(InvalidRequest, match=r"rows.jsonl: a TrainJob carries .* volume"):
        export(load(QUICKSTART, [f"data.train={rows}"]), "kubeflow", to="litgpt")
    with pytest.raises(NotFound, match="no engine that plans are exported to"):
        export(load(QUICKSTART), "skyplot")


def test_slurm_takes_the_script():
    """It is a shell script, of which Slurm's own lines come first."""
    text = written("slurm", *TWO)
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    lines = text.splitlines()
    assert all(line.startswith("#") for line in lines[: max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))])


CHECKS = {
    "skypilot": (  # what a GPU is it looks up in a catalogue, which is fetched: so schemas, and a task without
        "skypilot==0.14.1",
        "import sys, json, sky\nfrom sky.utils import common_utils, schemas\n"
        "for each in json.load(sys.stdin):\n"
        "    common_utils.validate_schema(each, schemas.get_task_schema(), 'task: ')\n"
        "    common_utils.validate_schema(each['resources'], schemas.get_resources_schema(), 'resources: ')\n"
        "    if 'accelerators' not in each['resources']: sky.Task.from_yaml_config(each)",
    ),
    "dstack": (
        "dstack==0.22.5",
        "import sys, json\nfrom dstack._internal.core.models.configurations import parse_run_configuration\n"
        "for each in json.load(sys.stdin):\n    parse_run_configuration(each)",
    ),
    "kubeflow": (
        "kubeflow-trainer-api==2.3.0",
        "import sys, json\nfrom kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob as Job\n"
        "for each in json.load(sys.stdin):\n    assert Job.from_dict(each).to_dict() == each",
    ),
}
"""Engine -> its package, and a program of its environment that refuses what its models refuse."""


@pytest.mark.thorough
@pytest.mark.parametrize("engine", CHECKS)
def test_the_engine_takes_it(engine, shared_home, tmp_path):
    """Its own package reads the task: one node and two, with and without GPUs and secrets. And refuses a key that there is not."""
    package, program = CHECKS[engine]
    folder = shared_home / "engines" / f"task-{package.replace('==', '-')}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{engine}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".ready").exists():
            subprocess.run([find_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
            install = [find_uv(), "pip", "install", "--quiet", "--python", str(folder / "bin/python"), package]
            if subprocess.run(install, check=False).returncode:
                pytest.skip(f"{package} does not install here")
            (folder / ".ready").touch()
    cuda = {"accelerator": "cuda", "memory": 80.0}
    tasks = [written(engine), written(engine, *TWO), written(engine, *TWO, **cuda), written(engine, "secrets=[TOKEN]", **cuda)]
    env = {**os.environ, "HOME": str(tmp_path)}

    def read(documents):
        argv = [str(folder / "bin/python"), "-c", program]
        return subprocess.run(
            argv, input=json.dumps(documents), text=True, capture_output=True, env=env, cwd=tmp_path, check=False
        )

    done = read(tasks)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read([{**tasks[0], "no such key": 1}]).returncode != 0


@pytest.mark.trainer
def test_its_program_trains(shared_home, trainer_python, tmp_path):
    """Run by a shell as Kubeflow's container does it, the plan trains; a second node without rank or head is refused in words."""
    trainer_python("litgpt")
    (tmp_path / "envs").symlink_to(shared_home / "envs")
    trainer = written("kubeflow", "train.steps=12")["spec"]["trainer"]
    env = {**os.environ, "TUNE_TASK_FOLDER": str(tmp_path), "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run([*trainer["command"], *trainer["args"]], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list((tmp_path / "work" / "checkpoint").glob("*.safetensors"))
    assert "step 12 | loss train" in done.stdout
    two = written("kubeflow", *TWO)["spec"]["trainer"]
    lost = {name: value for name, value in env.items() if not name.startswith("PET_")}
    done = subprocess.run([*two["command"], *two["args"]], env=lost, capture_output=True, text=True, check=False)
    assert (done.returncode, "PET_NODE_RANK and PET_MASTER_ADDR should say" in done.stdout) == (2, True)
