"""A job that says it trains while its device is idle, with an nvidia-smi that says so."""

import json
import os

import pytest

SMI = """#!/bin/sh
case "$*" in
*utilization*) {use} ;;
*bus_id*) echo "0, 00000000:3B:00.0, 12, Disabled" ;;
esac
"""
SCRIPT = "import time\nfor step in range({steps}):\n    print('step', step + 1, 'loss', 1 / (step + 1), flush=True)\n    time.sleep(0.5)\n"


@pytest.fixture
def submit(tune, tmp_path, monkeypatch):
    """Submits a script that takes a step each half second, beside such an nvidia-smi."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets: {local: {kind: local, accelerator: cuda, devices: 1}}\n")

    def run(use, steps, code, **retry):
        (folder / "nvidia-smi").write_text(SMI.replace("{use}", use))
        (folder / "nvidia-smi").chmod(0o755)
        (tune.cwd / "train.py").write_text(SCRIPT.replace("{steps}", str(steps)))
        recipe = {
            "version": 1,
            "name": "idle",
            "model": {"id": "org/name"},
            "data": {"train": "rows.jsonl", "format": "text"},
            "train": {"steps": steps, "batch": {"global": 1}},
            "optim": {"lr": 0.1},
            "resources": {"accelerator": "cuda"},
            "retry": {"hang": 0, **retry},
            "native": {
                "command": {
                    "argv": ["python3", "train.py"],
                    "inputs": ["./train.py"],
                    "metrics": {"pattern": r"step (?P<step>\d+) loss (?P<loss>\S+)"},
                    "files": ["train.py"],
                }
            },
        }
        (tune.cwd / "r.yaml").write_text(json.dumps(recipe))
        leaves = ("model.id", "optim.lr", "data.train", "train.steps", "train.batch.global")
        lost = (word for leaf in leaves for word in ("--accept", leaf))
        tune("submit", "r.yaml", "--to", "command", "--id", "idle", "--follow", *lost, code=code)
        [job] = tune.json("status", "idle")
        return job

    return run


def test_an_idle_device_ends_the_job(submit):
    """Although steps and lines come: the job has failed as a hang, and says which device, for how long, and the limit."""
    job = submit("echo 0, 0, 12", 900, 1, idle_minutes=0.05)
    assert (job["state"], job["reason"]) == ("FAILED", "hang")
    assert job["detail"].startswith("device 0 of ")
    assert "used less than 1 % of the time for 0." in job["detail"]
    assert job["detail"].endswith("(retry.idle_minutes is 0.05)")


@pytest.mark.parametrize("use", ["echo 0, 97, 12", "echo '0, [N/A], 12'", "echo 'Failed to initialize NVML'; exit 18"])
def test_a_device_that_works_or_is_not_known_to_be_idle_does_not(submit, use):
    """Far beyond the limit."""
    assert submit(use, 16, 0, idle_minutes=0.05)["state"] == "SUCCEEDED"
