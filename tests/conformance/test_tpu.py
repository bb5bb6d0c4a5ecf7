"""MaxText on slices of two and four workers, one process each, as on TPUs but that JAX computes on CPUs: workers are hosts over real sshd."""

import json

import pytest

from tests.hosts.lab import laboratory, missing

from .test_main_job import curve

pytestmark = [pytest.mark.trainer, pytest.mark.thorough(3)]

LONG = 1800
"""Seconds that four processes of MaxText may take on two cores, twice."""
RECIPE = {
    "version": 1,
    "name": "slice",
    "model": {
        "id": "tiny",
        "init": "random",
        "architecture": {"hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "kv_heads": 2, "max_length": 256},
    },
    "data": {"train": "rows.jsonl", "eval": "held.jsonl", "format": "completion", "max_length": 64},
    "train": {"steps": 8, "batch": {"global": 8}, "precision": "fp32"},
    "optim": {"lr": 0.002, "warmup_steps": 2},
    "checkpoint": {"every": 4},
}


@pytest.fixture(params=[2, 4])
def workers(request, tmp_path, shared_home, trainer_python, monkeypatch, tune):
    """Hosts with the trainer's environment, and a clusters.yaml that calls them a slice, and this machine `here`."""
    if why := missing():
        pytest.skip(why)
    trainer_python("maxtext")
    with laboratory(request.param, shared_home) as lab:  # which may lie below /tmp, where each host has its own
        for node in lab.nodes:
            node.configured("AllowUsers root", "PermitRootLogin prohibit-password")  # who may use this tree's environments
            node.run("mkdir", "-p", "-m", "700", "/run/tune")
            node.run("ln", "-s", str(shared_home / "envs"), "/run/tune/envs")
        first = lab.nodes[0].host()
        files = {"identity": first.identity, "known_hosts": first.known_hosts}
        addresses = [node.address for node in lab.nodes]
        about = {
            "type": f"v4-{8 * request.param}",
            "accelerator": "cpu",
            "user": "root",
            "folder": "/run/tune",
            "threads": 1,
            **files,
        }
        slice_ = {"kind": "tpu", "hosts": addresses, "interpreter": first.interpreter, **about}
        targets = {"slice": slice_, "here": {"kind": "local", "accelerator": "cpu", "threads": 1}}
        (tmp_path / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": targets}))
        monkeypatch.setenv("TUNE_CLUSTERS", str(tmp_path / "clusters.yaml"))
        yield lab.nodes


@pytest.mark.timeout(LONG + 300)
def test_workers_train_as_one_process(tune, workers, tmp_path):
    """SUCCEEDED, every loss and the evaluation within 1e-5 of a run on one process, one log a worker, and what the first worker exported
    is the model that one process leaves.
    """
    rows = [{"prompt": f"Say {n}.", "completion": f" {n}!" * (1 + n % 3)} for n in range(72)]
    for name, part in (("rows", rows[:64]), ("held", rows[64:])):
        (tune.cwd / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tune.cwd / "r.yaml").write_text(json.dumps(RECIPE))
    for job, words in {"all": ("--on", "slice", "--set", f"resources.hosts={len(workers)}"), "one": ("--on", "here")}.items():
        tune("submit", "r.yaml", "--to", "maxtext", *words, "--id", job)
        tune("wait", job, "--timeout", str(LONG), code=None, timeout=LONG + 60)
        [row] = tune.json("status", job)
        assert (row["state"], row["step"]) == ("SUCCEEDED", 8), (row, tune("logs", job).stdout[-6000:])
    for name in ("loss", "eval_loss"):
        together, alone = curve(tune, "all", name), curve(tune, "one", name)
        assert together.keys() == alone.keys() != set()
        assert max(abs(together[step] - alone[step]) for step in alone) < 1e-5
    for rank in range(len(workers)):
        assert "completed step: 7" in tune("logs", "all", "--host", str(rank)).stdout
    for job in ("all", "one"):
        tune("pull", job, "--into", str(tmp_path / job))
    sizes = {job: (tmp_path / job / "work/checkpoint/model.safetensors").stat().st_size for job in ("all", "one")}
    assert sizes["all"] == sizes["one"] > 1000
