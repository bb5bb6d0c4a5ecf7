"""The list of an attempt's checkpoints is true at every moment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHIMS = Path(__file__).parents[3] / "backends" / "shims"
WRITER = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
import tune_checkpoints
for step in range(1, 10_000):
    place = pathlib.Path(f"out/step-{step}")
    place.mkdir(parents=True)
    for part in "abc":
        (place / part).write_text("x" * 1000)
    tune_checkpoints.complete(place, step, keep=2)
"""


@pytest.fixture
def shim(tmp_path, monkeypatch):
    """The module, in an empty job's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SHIMS))
    sys.modules.pop("tune_checkpoints", None)
    import tune_checkpoints  # noqa: PLC0415 - a shim lies in no package

    return tune_checkpoints


def save(step):
    """A checkpoint's folder."""
    place = Path(f"out/step-{step}")
    place.mkdir(parents=True)
    (place / "weights").write_text("w")
    return place


def listed():
    """What the index says: steps, and folders that are there."""
    return [(each["step"], Path(each["folder"]).is_dir()) for each in json.loads(Path("checkpoints.json").read_text())]


def test_all_are_kept_unless_told(shim):
    """Without a number every checkpoint remains, in order; one that is written again is listed once."""
    for step in (5, 10, 15):
        shim.complete(save(step).resolve(), step)
    shim.complete("out/step-15", 15)
    assert listed() == [(5, True), (10, True), (15, True)]


def test_the_oldest_go(shim):
    """With a number that many remain, the newest; the others are neither listed nor there."""
    for step in (5, 10, 15, 20):
        shim.complete(save(step), step, keep=2)
    assert listed() == [(15, True), (20, True)]
    assert sorted(path.name for path in Path("out").iterdir()) == ["step-15", "step-20"]


def test_where_an_attempt_begins(shim):
    """At 0, or after the checkpoint that it is told; one that is gone is an error that says so."""
    assert shim.begun() == 0
    Path("resume.json").write_text('{"step": 10}')
    with pytest.raises(FileNotFoundError, match="the checkpoint to go on from is gone"):
        shim.begun()
    Path("resume").symlink_to(save(10).resolve())
    assert shim.begun() == 10


@pytest.mark.parametrize("moment", range(8))
def test_killed_at_any_moment_the_list_is_true(tmp_path, moment):
    """Whatever is listed is there with all its files, and two checkpoints are listed from the second on."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(SHIMS)], cwd=tmp_path)
    index = tmp_path / "checkpoints.json"
    while not index.exists() or len(json.loads(index.read_text())) < 2:
        time.sleep(0.001)
    time.sleep(0.0137 * moment)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = json.loads(index.read_text())
    assert len(found) == 2
    for each in found:
        assert sorted(part.name for part in (tmp_path / each["folder"]).iterdir()) == ["a", "b", "c"]
