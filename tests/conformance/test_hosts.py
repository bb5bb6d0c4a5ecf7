"""Real trainers on other hosts, over real sshd, as a user runs them: hosts without internet, without root, without anything of ours."""

import json
import time

import pytest

from backends.checkpoints import checkpoints
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
  env: {{UV_COMPILE_BYTECODE: "false"}}
targets:
  lab:
    kind: ssh
    accelerator: cpu
    devices: 1
    hosts: [{{name: a, address: {hosts[0].address}}}, {{name: b, address: {hosts[1].address}}}]
  alone:
    kind: ssh
    accelerator: cpu
    devices: 1
    threads: 1
    hosts: [{{name: a, address: {hosts[0].address}}}]
"""
    path = tmp_path / "clusters.yaml"
    path.write_text(text)
    monkeypatch.setenv("TUNE_CLUSTERS", str(path))
    return hosts


@pytest.mark.thorough(2)
@pytest.mark.timeout(LONG + 300)
def test_four_jobs_on_two_hosts(tune, lab, tmp_path):
    """LitGPT LoRA on one host and torchtune on the other at once, a third job waits and starts by itself, then one job over both
    with two processes: all SUCCEEDED, their metrics whole, their results brought here.
    """
    tune("targets", "check", "lab")
    jobs = {
        "lora": ("--to", "litgpt", "--set", "method.adapter=lora"),
        "full": ("--to", "torchtune"),
        "third": ("--to", "torchtune"),  # whichever host is free: torchtune is made on both, LitGPT on one
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


STEPS, EVERY = 150, 50
RESUMED = ("--set", f"train.steps={STEPS}", "--set", f"checkpoint.every={EVERY}", "--set", "checkpoint.resume=true")


def rebooted(tune, node, job):
    """Reboot a host once a job there has a complete checkpoint; that one's step."""
    index, end = f".tune/jobs/{job}/1/work/checkpoints.json", time.monotonic() + LONG
    while not (node.home / index).exists():
        [row] = tune.json("status", job)
        assert row["state"] not in ("FAILED", "LOST", "SUCCEEDED"), tune("logs", job).stdout[-3000:]
        assert time.monotonic() < end
        time.sleep(0.2)
    node.reboot()
    return checkpoints((node.home / index).read_text())[-1].step


@pytest.mark.thorough(3)
@pytest.mark.parametrize("trainer", ["litgpt", "torchtune"])
@pytest.mark.timeout(LONG + 300)
def test_a_host_that_is_rebooted_in_mid_training(tune, lab, trainer):
    """A real training is LOST with its host and goes on from its last complete checkpoint, by itself and by
    `tune retry --from-checkpoint`: SUCCEEDED, and its steps, losses and rates are those of a run that nothing happened to.
    """
    words = ("submit", QUICKSTART, "--on", "alone", "--to", trainer, *RESUMED)
    whole, itself, by_hand = (f"{trainer}-{job}" for job in ("whole", "itself", "by-hand"))  # the hosts are those of all tests
    tune(*words, "--id", whole)
    tune("wait", whole, "--timeout", str(LONG))
    for job, tries in ((itself, 1), (by_hand, 0)):
        tune(*words, "--id", job, "--set", f"retry.lost={tries}")
        step = rebooted(tune, lab[0], job)
        if not tries:
            assert "LOST host_rebooted" in tune("wait", job, "--timeout", str(LONG), code=1).stdout
            assert tune("retry", job, "--from-checkpoint").stdout == f"{job} attempt 2\n"
        tune("wait", job, "--timeout", str(LONG))
        [row] = tune.json("status", job)
        assert (row["state"], row["attempt"], row["step"]) == ("SUCCEEDED", 2, STEPS), tune("status", "--events", job).stdout
        for name, close in (("loss", 1e-5), ("lr", 1e-8)):
            due = {at: value for at, value in curve(tune, whole, name).items() if at > step}
            seen = curve(tune, job, name)
            assert list(seen) == list(due) == list(range(step + 1, STEPS + 1))
            assert max(abs(due[at] - seen[at]) for at in due) < close
    events = tune("status", "--events", itself).stdout
    assert "LOST" in events
    assert "host_rebooted" in events
