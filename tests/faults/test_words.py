"""What the commands say of real jobs: documents for scripts, and a word where there is nothing to show."""

import csv
import io
import json
import os
import subprocess
import sys
from datetime import datetime

import pytest

from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from orchestrator.transports.base import SshAddress


@pytest.fixture
def ended(lab):
    """Two jobs that have trained three steps."""
    for id in ("one", "two"):
        lab.submit(id, lab.training(3), steps=3)
        assert lab.wait(id).state == "SUCCEEDED"
    return lab


def test_several_jobs_are_one_table(tune, ended):
    """The CSV of two jobs has one line of names, a column that says whose a point is, and times that any reader understands."""
    rows = list(csv.DictReader(io.StringIO(tune("metrics", "one", "two", "--csv").stdout)))
    losses = [(row["job"], row["step"]) for row in rows if row["name"] == "loss"]
    assert losses == [(job, step) for job in ("one", "two") for step in "123"]
    assert datetime.fromisoformat(rows[0]["time"].replace("Z", "+00:00")).year > 2000


def test_every_command_has_a_document(tune, ended):
    """wait, cancel, retry, logs, pull and doctor print JSON; a job that had ended before is no failure of cancel."""
    assert [job["state"] for job in tune.json("wait", "one", "two")] == ["SUCCEEDED", "SUCCEEDED"]
    assert [job["state"] for job in tune.json("cancel", "one")] == ["SUCCEEDED"]
    assert "ended before" in tune("cancel", "one").stdout
    assert tune.json("retry", "two") == [{"id": "two", "attempt": 2}]
    lines = [json.loads(line)["line"] for line in tune("logs", "one", "--json").stdout.splitlines()]
    assert any("train" in line for line in lines)
    assert len(tune.json("pull", "one")["files"]) >= 3
    assert tune.json("doctor")["programs"]
    assert ended.wait("two", until=lambda job: job.ended and job.attempt == 2).state == "SUCCEEDED"


def test_an_error_is_a_document_too(tune, ended):
    """With --json a refusal is an object on stdout, with the words of stderr in parts."""
    done = tune("metrics", "nope", "--json", code=2)
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["what"]) == ("NotFound", "nope")
    assert error["rule"] in done.stderr


def test_nothing_to_show_is_told(tune, ended):
    """A metric, a target, a file or a log that is not there is named, beside what there is."""
    said = tune("metrics", "one", "--name", "losss", code=2).stderr
    assert "is not a metric of one" in said and "did you mean loss?" in said
    assert "there are jobs of local" in tune("status", "--on", "nope").stderr
    assert tune("status", "--on", "local").stderr == ""
    said = tune("pull", "one", "--file", "nope.txt", code=2).stderr
    assert "--file nope.txt: is not in the folder of attempt 1 of one" in said
    assert (tune.cwd / "one" / "work" / "checkpoint" / "config.json").exists()
    (ended.home.jobs / "one" / "1" / "log").unlink()
    assert "has no log: it never started, or its folder was removed" in tune("logs", "one", code=2).stderr


def test_a_state_folder_that_is_a_file_is_named(tune, tmp_path, monkeypatch):
    """No command takes a file for an empty state folder."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "file"))
    assert "TUNE_HOME should name a folder" in tune("status", code=4).stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_is_not_utf_8(tune, ended, encoding):
    """Curves and names are shown with marks for what the terminal cannot, and nothing breaks."""
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    for words in (("metrics", "one", "--plot"), ("status",)):
        argv = [sys.executable, "-m", "orchestrator.cli", *words]
        done = subprocess.run(argv, env=env, cwd=tune.cwd, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_who_follows_hears_why_a_job_waits(tune, lab):
    """--follow names what keeps a job from starting, as status does."""
    nowhere = Candidate.of("lab", "ssh", [Node("gone", ssh=SshAddress("127.0.0.1", port=1))])
    lab.submit("far", lab.training(3), steps=3, where=[nowhere])
    lab.wait("far", until=lambda job: job.detail)
    argv = [sys.executable, "-c", "from orchestrator.cli.follow import follow; raise SystemExit(follow('far'))"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as following:
        said = []
        for line in following.stderr:
            said.append(line)
            if "gone" in line:
                tune("cancel", "far", "--abandon")
    assert any("waiting to start: " in line and "gone" in line for line in said), said
    assert following.returncode == 1


RECIPE = """
version: 1
name: small
model: {id: none, init: random, architecture: {hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2, kv_heads: 1, max_length: 256}}
data: {train: rows.jsonl, format: text, max_length: 64}
train: {steps: 2, batch: {global: 2}, precision: fp32}
optim: {lr: 1e-3, warmup_steps: 1}
"""


def test_keys_of_one_trainer_choose_it(tune):
    """A recipe that writes keys for one trainer runs there without --to; another trainer refuses it, by the section's name."""
    (tune.cwd / "r.yaml").write_text(RECIPE + "native: {axolotl: {sample_packing_group_size: 3}}\n")
    assert tune.json("submit", "r.yaml", "--dry-run")["backend"] == "axolotl"
    assert "native.axolotl  litgpt does not read it" in " ".join(
        tune("submit", "r.yaml", "--to", "litgpt", "--dry-run", code=3).stderr.split("\n")
    ).replace("   ", " ")
    assert tune("submit", "r.yaml", "--to", "litgpt", "--accept", "native.axolotl", "--dry-run").returncode == 0


def test_a_gpu_recipe_without_a_gpu_is_one_sentence(tune):
    """A machine without the accelerator is named once, with the way out, and not once a trainer."""
    (tune.cwd / "r.yaml").write_text(RECIPE + "resources: {accelerator: cuda}\n")
    said = tune("submit", "r.yaml", "--dry-run", code=3).stderr
    assert said.startswith("target local: has no GPU, and the recipe asks for cuda")
    assert "--on TARGET" in said
    assert said.count("resources.accelerator") == 1
