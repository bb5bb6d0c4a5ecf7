"""Trackers, really run: the same run at every service, whichever trainer reports."""

import json
import sqlite3
import subprocess

import pytest

RECIPE = """
version: 1
name: tracked
model: {id: random, init: random, architecture: {hidden_size: 32, intermediate_size: 64, layers: 2, heads: 2, kv_heads: 2}}
data: {train: rows.jsonl, format: text, max_length: 64}
train: {steps: 3, batch: {global: 2}, precision: fp32}
optim: {lr: 0.001, warmup_steps: 1}
log: {trackers: [tensorboard, wandb, mlflow, trackio], project: mine, wandb_mode: offline}
"""
EVENTS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
seen = EventAccumulator(sys.argv[1])
seen.Reload()
found = {tag: [(each.step, each.value) for each in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}
params = seen.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
print(json.dumps([found, str(params)]))
"""


@pytest.mark.trainer
@pytest.mark.parametrize(
    "trainer",
    [
        pytest.param("torchtune", marks=pytest.mark.core),
        pytest.param("litgpt", marks=pytest.mark.thorough),
        pytest.param("trl", marks=pytest.mark.thorough),
        pytest.param("axolotl", marks=pytest.mark.thorough),
        pytest.param("unsloth", marks=pytest.mark.thorough),
    ],
)
def test_every_service_has_the_same_run(tune, home, trainer_python, monkeypatch, trainer):
    """Without a key and offline: a run called as the job, with the recipe's settings, tune's names and values of the metrics by step,
    and the job's id; `tune pull` brings all of it.
    """
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a b c", "b c d", "c d a", "d")))
    (tune.cwd / "r.yaml").write_text(RECIPE)
    job = tune("submit", "r.yaml", "--to", trainer, "--follow").stdout.strip()
    points = tune.json("metrics", job)["points"]
    wanted = {name: {p["step"]: p["value"] for p in points if p["name"] == name} for name in ("loss", "lr")}
    assert set(wanted["loss"]) == {1, 2, 3}
    tune("pull", job)
    out = tune.cwd / job / "work" / "out"

    argv = [trainer_python(trainer), "-c", EVENTS, str(out / "tensorboard" / job)]
    scalars, params = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    for name, values in wanted.items():
        assert dict(map(tuple, scalars[name])) == pytest.approx(values, rel=1e-6)
    assert "optim.lr" in params

    [run] = [path.parent for path in out.glob("mlflow/*/*/meta.yaml") if (path.parent / "params").is_dir()]
    assert (run / "tags" / "mlflow.runName").read_text() == job
    assert (run / "tags" / "tunesmith.job").read_text() == job
    assert float((run / "params" / "optim.lr").read_text()) == 0.001
    logged = [line.split() for line in (run / "metrics" / "loss").read_text().splitlines()]
    assert {int(step): float(value) for _, value, step in logged} == pytest.approx(wanted["loss"])

    [record] = out.glob("wandb/offline-run-*/run-*.wandb")
    raw = record.read_bytes()
    assert all(word.encode() in raw for word in (job, "mine", "optim.lr", "grad_norm", f"tune status {job}"))

    [table] = out.glob("trackio/mine.db")
    with sqlite3.connect(table) as database:
        rows = database.execute("SELECT step, metrics FROM metrics WHERE run_name = ?", (job,)).fetchall()
    assert {step: json.loads(metrics)["loss"] for step, metrics in rows} == pytest.approx(wanted["loss"])


@pytest.mark.trainer
@pytest.mark.thorough
def test_a_run_that_tunix_begins_at_wandb_is_ours(tune, home, monkeypatch):
    """MaxText's LoRA trains by Tunix, which begins a run of its own: it has the job's name, the recipe's project and settings."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a b c", "b c d", "c d a", "d")))
    (tune.cwd / "r.yaml").write_text(
        RECIPE.replace("tensorboard, wandb, mlflow, trackio", "tensorboard, wandb") + "method: {adapter: lora}\n"
    )
    job = tune("submit", "r.yaml", "--to", "maxtext", "--follow").stdout.strip()
    work = home / "jobs" / job / "1" / "work"
    [record] = (work / "out").glob("wandb/offline-run-*/run-*.wandb")
    raw = record.read_bytes()
    assert [word for word in (job, "mine", "optim.lr", "loss", f"tune status {job}") if word.encode() not in raw] == []


def test_a_key_is_only_asked_for_online(tune, monkeypatch):
    """Online wandb wants its key as a secret of the job, and says so before anything is submitted."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "r.yaml").write_text(RECIPE.replace(", wandb_mode: offline", ""))
    assert "WANDB_API_KEY: is not set" in tune("submit", "r.yaml", "--to", "trl", code=None).stderr
    refused = tune(
        "translate", "r.yaml", "--to", "trl", "--set", "log.trackers=[tensorboard]", "--set", "log.wandb_mode=offline", code=2
    )
    assert "has no effect without wandb in log.trackers" in refused.stderr
