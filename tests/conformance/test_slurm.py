"""Real trainers on a real Slurm, as a user runs them: one node, two nodes, and the same jobs on this machine beside them."""

import pytest

from tests.slurm import site

from .test_main_job import QUICKSTART, curve

pytestmark = pytest.mark.trainer
SHORT = ("--set", "train.epochs=null", "--set", "train.steps=8", "--set", "optim.warmup_steps=2")
LONG = 1500
"""Seconds that five jobs may take where two cores serve all nodes."""
TARGETS = """\
version: 1
targets:
  hpc: {kind: slurm, nodes: 2, devices: 2, threads: 1, pace: 1, time: 50}
  here: {kind: local, accelerator: cpu, devices: 4, threads: 1}
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm of two nodes, and a clusters.yaml that has it."""
    path = tmp_path / "clusters.yaml"
    path.write_text(TARGETS)
    monkeypatch.setenv("TUNE_CLUSTERS", str(path))
    with site.running(tmp_path / "slurm", nodes=2) as running:
        yield running


@pytest.mark.timeout(LONG + 300)
def test_trainers_on_one_node_and_on_two(tune, slurm):
    """LitGPT LoRA and torchtune on one node, torchtune with two processes over two nodes: SUCCEEDED, their metrics whole, and their
    losses those of a run on this machine.
    """
    jobs = {
        "lora-hpc": ("hpc", "--to", "litgpt", "--set", "method.adapter=lora"),
        "lora-here": ("here", "--to", "litgpt", "--set", "method.adapter=lora"),
        "full-hpc": ("hpc", "--to", "torchtune"),
        "full-here": ("here", "--to", "torchtune"),
        "both-hpc": ("hpc", "--to", "torchtune", "--set", "resources.hosts=2"),
    }
    for job, (target, *words) in jobs.items():
        tune("submit", QUICKSTART, "--on", target, *SHORT, *words, "--id", job)
    tune("wait", *jobs, "--timeout", str(LONG))
    events = tune("status", "--events", *jobs).stdout
    for row in tune.json("status", *jobs):
        logs = tune("logs", row["id"]).stdout[-3000:]
        assert (row["state"], row["step"], row["reachable"]) == ("SUCCEEDED", 8, True), (row, events, logs)
        assert list(curve(tune, row["id"], "loss")) == list(range(1, 9))
    for there, here, close in (("lora-hpc", "lora-here", 1e-6), ("full-hpc", "full-here", 1e-6), ("both-hpc", "full-here", 1e-5)):
        ours, theirs = curve(tune, there, "loss"), curve(tune, here, "loss")
        assert max(abs(ours[step] - theirs[step]) for step in ours) < close, (there, ours, theirs)


@pytest.mark.thorough
@pytest.mark.timeout(LONG + 300)
@pytest.mark.parametrize("trainer", ["torchtune", "axolotl"])
def test_two_processes_on_each_of_two_nodes(tune, slurm, trainer_python, trainer):
    """Data-parallel over two nodes with two processes on each, the losses are those of four processes on this machine."""
    trainer_python(trainer)
    assert_same_over_nodes(tune, trainer, "hpc")


def assert_same_over_nodes(tune, trainer, target):
    """Four processes over two nodes of a target, and the same four on this machine: SUCCEEDED, metrics whole, losses within 1e-6."""
    four = ("--to", trainer, *SHORT, "--set", "train.batch.global=8")
    shapes = {"there": (target, 2, 2), "here": ("here", 1, 4)}
    for job, (where, hosts, devices) in shapes.items():
        shape = ("--set", f"resources.hosts={hosts}", "--set", f"resources.devices={devices}")
        tune("submit", QUICKSTART, "--on", where, *four, *shape, "--id", job)
        tune("wait", job, "--timeout", str(LONG), code=None, timeout=LONG + 60)  # one after the other: they share two cores
    for row in tune.json("status", *shapes):
        logs = tune("logs", row["id"]).stdout[-3000:]
        assert (row["state"], row["step"]) == ("SUCCEEDED", 8), (row, tune("status", "--events", *shapes).stdout, logs)
    ours, theirs = (curve(tune, job, "loss") for job in shapes)
    assert list(ours) == list(theirs) == list(range(1, 9))
    assert max(abs(ours[step] - theirs[step]) for step in ours) < 1e-6, (ours, theirs)
