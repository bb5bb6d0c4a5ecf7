"""Real trainers on a real Ray cluster, as a user runs them: one node, and two with the trainer's own rendezvous."""

import pytest

from tests.hosts.ray import ray  # noqa: F401

from .test_main_job import QUICKSTART, curve
from .test_slurm import assert_same_over_nodes

pytestmark = pytest.mark.trainer

SHORT = ("--set", "train.epochs=null", "--set", "train.steps=8", "--set", "optim.warmup_steps=2")
LONG = 1500
"""Seconds that a cluster and four trainings may take where two cores serve all hosts."""


@pytest.fixture
def cluster(ray, tmp_path, shared_home, trainer_python, monkeypatch):  # noqa: F811
    """A clusters.yaml, and nodes on which the environments are there."""
    folder = f"/tmp/{tmp_path.name}"
    for trainer in ("litgpt", "torchtune", "axolotl"):
        trainer_python(trainer)
    for node in ray.nodes:
        node.run("mkdir", "-m", "700", folder)
        node.run("ln", "-s", str(shared_home / "envs"), f"{folder}/envs")
    path = tmp_path / "clusters.yaml"
    path.write_text(
        f"version: 1\ntargets:\n  ray: {{kind: ray, address: '{ray.url}', hosts: 2, devices: 2, folder: '{folder}', threads: 1}}\n"
        "  here: {kind: local, accelerator: cpu, devices: 4, threads: 1}\n"
    )
    monkeypatch.setenv("TUNE_CLUSTERS", str(path))
    return ray


@pytest.mark.thorough
@pytest.mark.timeout(LONG + 600)
def test_one_node_and_two(tune, cluster, tmp_path):
    """LitGPT LoRA on one node and torchtune with two processes on two, submitted at once: SUCCEEDED, their metrics whole and equal to
    those of this machine, their results brought here. The check says what the cluster has, and refuses what it has not.
    """
    tune("targets", "check", "ray")
    jobs = {
        "lora": ("--on", "ray", "--to", "litgpt", "--set", "method.adapter=lora"),
        "both": ("--on", "ray", "--to", "torchtune", "--set", "resources.hosts=2"),
        "lora-here": ("--on", "here", "--to", "litgpt", "--set", "method.adapter=lora"),
        "alone-here": ("--on", "here", "--to", "torchtune"),
    }
    for job, words in jobs.items():
        tune("submit", QUICKSTART, *SHORT, *words, "--id", job)
    tune("wait", *jobs, "--timeout", str(LONG), code=None, timeout=LONG + 60)
    events = tune("status", "--events", *jobs).stdout
    for row in tune.json("status", *jobs):
        assert (row["state"], row["step"], row["reachable"]) == ("SUCCEEDED", 8, True), (
            row,
            events,
            tune("logs", row["id"]).stdout,
        )
        assert list(curve(tune, row["id"], "loss")) == list(range(1, 9))
    for there, here, close in (("lora", "lora-here", 1e-6), ("both", "alone-here", 1e-5)):
        mine, other = curve(tune, there, "loss"), curve(tune, here, "loss")
        assert max(abs(mine[step] - other[step]) for step in mine) < close
    tune("pull", "lora", "--into", str(tmp_path / "lora"))
    assert (tmp_path / "lora/work/checkpoint/model.safetensors").stat().st_size > 1000


@pytest.mark.thorough(3)
@pytest.mark.timeout(LONG + 600)
@pytest.mark.parametrize("trainer", ["torchtune", "axolotl"])
def test_two_processes_on_each_of_two_nodes(tune, cluster, trainer):
    """Data-parallel over two nodes with two processes on each, the losses are those of four processes on this machine."""
    assert_same_over_nodes(tune, trainer, "ray")
