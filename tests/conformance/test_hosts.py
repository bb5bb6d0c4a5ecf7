"""Real trainers on other hosts, over real sshd, as a user runs them: hosts without internet, without root, without anything of ours."""

import json

import pytest

from tests.hosts.lab import LOGIN, hosts, network  # noqa: F401

from .test_main_job import QUICKSTART, curve

pytestmark = pytest.mark.trainer

SHORT = ("--on", "lab", "--set", "train.epochs=null", "--set", "train.steps=8", "--set", "optim.warmup_steps=2")
LONG = 1500
"""Seconds that wheels, two environments and four jobs may take where two cores serve all hosts."""


@pytest.fixture
def lab(hosts, tmp_path, monkeypatch):  # noqa: F811
    """Two hosts in a clusters.yaml."""
    first = hosts[0].host()
    text = f"""\
version: 1
defaults:
  user: {LOGIN}
  identity: {first.identity}
  known_hosts: {first.known_hosts}
  interpreter: {first.interpreter}
  provision: offline
targets:
  lab:
    kind: ssh
    accelerator: cpu
    devices: 1
    hosts: [{{name: a, address: {hosts[0].address}}}, {{name: b, address: {hosts[1].address}}}]
"""
    path = tmp_path / "clusters.yaml"
    path.write_text(text)
    monkeypatch.setenv("TUNE_CLUSTERS", str(path))
    return hosts


@pytest.mark.thorough
@pytest.mark.timeout(LONG + 300)
def test_four_jobs_on_two_hosts(tune, lab, tmp_path):
    """LitGPT LoRA on one host and torchtune on the other at once, a third job waits and starts by itself, then one job over both
    with two processes: all SUCCEEDED, their metrics whole, their results brought here.
    """
    tune("targets", "check", "lab")
    jobs = {
        "lora": ("--to", "litgpt", "--set", "method.adapter=lora"),
        "full": ("--to", "torchtune"),
        "third": ("--to", "litgpt"),
        "both": ("--to", "torchtune", "--set", "resources.hosts=2"),
    }
    for job, words in jobs.items():
        tune("submit", QUICKSTART, *SHORT, *words, "--id", job)
    tune("wait", *jobs, "--timeout", str(LONG))
    events = tune("status", "--events", *jobs).stdout
    for row in tune.json("status", *jobs):
        assert (row["state"], row["step"], row["reachable"]) == ("SUCCEEDED", 8, True), (row, events)
        assert list(curve(tune, row["id"], "loss")) == list(range(1, 9))
    alone, together = curve(tune, "full", "loss"), curve(tune, "both", "loss")
    assert max(abs(alone[step] - together[step]) for step in alone) < 1e-5
    tune("pull", "lora", "--into", str(tmp_path / "lora"))
    assert {"plan.json", "metrics.csv", "log"} <= {path.name for path in (tmp_path / "lora").iterdir()}
    config = json.loads((tmp_path / "lora/work/adapter/adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert (tmp_path / "lora/work/checkpoint/model.safetensors").stat().st_size > 1000
