"""What a trainer resolved, as it is written down when training begins."""

import json
from pathlib import Path

import pytest
import tune_resolved


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A job's folder with a config and a spec."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    (tmp_path / "main.yaml").write_text("lr: 0.1\noptimizer: {betas: [0.9, 0.95]}\nsteps: null\ngone: 1\n")
    (tmp_path / "data.json").write_text('{"seed": 3}')
    return tmp_path


def test_the_keys_that_were_written():
    """Only keys of the config's file are kept, with the trainer's values: what it knows besides may be a token."""
    resolved = {"lr": 0.2, "optimizer": {"betas": (0.9, 0.99), "fused": True}, "steps": 7, "hf_access_token": "secret"}
    tune_resolved.record("main.yaml", resolved)
    said = json.loads(Path("resolved.json").read_text())
    assert said["config"] == {"lr": 0.2, "optimizer": {"betas": [0.9, 0.99]}, "steps": 7}
    assert said["specs"] == {"data.json": {"seed": 3}}


def test_what_json_has_not(folder):
    """A value of the trainer's own type becomes text, a spec that is no JSON null; nothing else is left in the folder."""
    (folder / "data.json").write_text("{")
    tune_resolved.record("main.yaml", {"lr": Path("out")})
    assert json.loads(Path("resolved.json").read_text()) == {"config": {"lr": "out"}, "specs": {"data.json": None}}
    assert sorted(path.name for path in folder.iterdir()) == ["data.json", "main.yaml", "resolved.json"]


def test_one_process_writes(monkeypatch):
    """Of several processes the first."""
    monkeypatch.setenv("RANK", "1")
    tune_resolved.record("main.yaml", {"lr": 0.2})
    assert not Path("resolved.json").exists()
