"""Real trainers on a real Slurm, as a user runs them: one node, two nodes, and the same jobs on this machine beside them."""

import pytest

from tests.slurm import site

from .test_main_job import QUICKSTART, curve

pytestmark = pytest.mark.trainer
SHORT = ("--set", "train.epochs=null", "--set", "train.steps=8", "--set", "optim.warmup_steps=2")
LONG = 1500
"""Seconds that four jobs may take where two cores serve all nodes."""
TARGETS = """\
version: 1
targets:
  hpc: {kind: slurm, nodes: 2, devices: 2, threads: 1, pace: 1, time: 50}
  here: {kind: local, threads: 1}
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
    """LitGPT LoRA on one node, torchtune with two processes over two nodes: SUCCEEDED, their metrics whole, and their losses those of a
    run on this machine.
    """
    jobs = {
        "lora-hpc": ("hpc", "--to", "litgpt", "--set", "method.adapter=lora"),
        "lora-here": ("here", "--to", "litgpt", "--set", "method.adapter=lora"),
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
    for there, here, close in (("lora-hpc", "lora-here", 1e-6), ("both-hpc", "full-here", 1e-5)):
        ours, theirs = curve(tune, there, "loss"), curve(tune, here, "loss")
        assert max(abs(ours[step] - theirs[step]) for step in ours) < close, (there, ours, theirs)
