"""An upgrade while jobs run: what the release before has started is followed on, and its controller is replaced."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from orchestrator.daemon import client
from tests.waiting import until

ROOT = Path(__file__).parents[2]
RELEASE = "eb738d3"
"""The last commit with a store of version 1 and a controller of release 1."""
STEPS = 6
SCRIPT = f"""
echo once >> ran
for step in $(seq {STEPS}); do
  echo "{{{{'loss': $((10 - step)).5, 'step': $step}}}}"
  [ $step != 3 ] || while [ ! -e ../../../../go ]; do sleep 0.02; done
done
"""
RECIPE = {
    "version": 1,
    "name": "older",
    "model": {"id": "org/name"},
    "data": {"train": "rows.jsonl", "format": "text"},
    "train": {"steps": STEPS, "batch": {"global": 2}},
    "optim": {"lr": 0.1},
    "native": {
        "command": {
            "argv": ["/bin/sh", "-c", SCRIPT],
            "metrics": {"pattern": r"'loss': (?P<loss>[\d.]+), 'step': (?P<step>\d+)"},
        }
    },
}
ACCEPTED = ("model.id", "train.batch.global", "data.train", "train.steps", "optim.lr")
SUBMIT = ("submit", "r.yaml", "--to", "command", *(word for leaf in ACCEPTED for word in ("--accept", leaf)))


@pytest.fixture
def older(tmp_path):
    """The code of the release before, out of the history."""
    archive = subprocess.run(["git", "archive", RELEASE], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history does not go back to {RELEASE}: {archive.stderr.decode().strip()}")
    folder = tmp_path / "older"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def upgraded(older, tune, lab):
    """A state folder in which the release before runs a job that waits in its third step, and has another one queued."""
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    (tune.cwd / "r.yaml").write_text(json.dumps(RECIPE))
    for id in ("going", "next"):
        argv = [sys.executable, "-m", "orchestrator.cli", *SUBMIT, "--id", id]
        subprocess.run(argv, cwd=tune.cwd, env={**os.environ, "PYTHONPATH": str(older)}, check=True, capture_output=True)
    end = time.monotonic() + 60
    while not (log := lab.home.log_of("going", 1)).exists() or b"'step': 3" not in log.read_bytes():
        assert time.monotonic() < end, lab.log()
        time.sleep(0.02)
    yield lab
    (lab.home.path / "go").touch()
    for pid in client._controllers(lab.home, 99):
        os.kill(pid, signal.SIGKILL)


def supervisor(lab, id):
    """Pid of a job's runner."""
    return json.loads((lab.home.jobs / id / "1" / "run.json").read_text())["supervisor"]


def controller(lab):
    """Pid of the one controller; others that were started at the same time leave after a moment."""
    end = time.monotonic() + 30
    while len(found := client._controllers(lab.home, 99)) != 1:
        assert time.monotonic() < end, (found, lab.log())
        time.sleep(0.02)
    return found[0]


def gone(pid):
    """Has a process ended? One that is only waited for has."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("first", "in_place"),
    [
        ("status", True),
        pytest.param("killed", False, marks=pytest.mark.long),
        *(pytest.param(first, False, marks=pytest.mark.thorough) for first in ("status", "submit")),
        *(pytest.param(first, True, marks=pytest.mark.thorough) for first in ("submit", "killed")),
    ],
)
def test_a_running_job_is_followed_on(older, upgraded, tune, first, in_place):
    """Whatever is called first after an upgrade, beside the old code or in its place: the store is migrated, the old
    controller is replaced, what runs goes on in its process to its end, and what waited runs once.
    """
    lab = upgraded
    old, runner = controller(lab), supervisor(lab, "going")
    if in_place:
        shutil.rmtree(older)
    if first == "killed":
        os.kill(old, signal.SIGKILL)
    tune(*((*SUBMIT, "--id", "third") if first == "submit" else ("status",)))
    assert gone(old)
    assert Path(f"{lab.home.store}.version-1").exists()
    states = {job["id"]: job["state"] for job in tune.json("status")}
    assert (states["going"], states["next"]) == ("RUNNING", "QUEUED")
    assert not gone(runner)
    assert supervisor(lab, "going") == runner
    assert controller(lab) in lab.controllers()
    (lab.home.path / "go").touch()
    for id in states:
        tune("wait", id)
        assert lab.job(id).attempt == 1
        assert (lab.home.jobs / id / "1" / "work" / "ran").read_text() == "once\n"
        assert [(point.step, point.value) for point in lab.points(id)] == [(k, 10.5 - k) for k in range(1, STEPS + 1)]


def test_what_the_release_before_started_can_be_cancelled(upgraded, tune):
    """A job that the old runner supervises, and one that the old controller had queued, end when they are cancelled."""
    runner = supervisor(upgraded, "going")
    assert tune("cancel", "going", "next").stdout == "going CANCELLED\nnext CANCELLED\n"
    assert gone(runner)
    assert upgraded.processes("going") == []


def test_a_controller_of_this_release_is_left_alone(lab, tune):
    """Neither one that is at work, nor one of a later release, nor one that has the lock and has not said what it is."""
    lab.submit("a", "sleep 300", steps=1)
    lab.wait("a", state="RUNNING")
    first = controller(lab)
    assert not client.retire_older(lab.home)
    lab.home.lock.write_text("")
    assert not client.retire_older(lab.home)
    lab.home.lock.write_text(f"{client.RELEASE + 1}\n")
    assert not client.retire_older(lab.home)
    assert lab.controllers() == [first]
    tune("cancel", "a")


def test_secrets_of_queued_jobs_go_to_the_next_controller(lab, monkeypatch):
    """Values that only a controller's memory holds, of as many jobs as no one message takes, are handed to the release that replaces it."""
    older = client.RELEASE - 1
    with monkeypatch.context() as before:
        before.setattr(client, "BOOT", client.BOOT.replace(f"release {client.RELEASE}", f"release {older}"))
        lab.submit("going", "while [ ! -e ../../../../go ]; do sleep 0.02; done; " + lab.training(1), steps=1)
    lab.wait("going", state="RUNNING")
    first = controller(lab)
    waiting = [f"waits-{number}" for number in range(5000)]
    client.wake(lab.home, {id: {"CANARY": "x" * 40} for id in waiting})
    lab.submit("next", '[ "$CANARY" = of-next ] || exit 1; ' + lab.training(1), steps=1, secrets={"CANARY": "of-next"})
    lab.home.lock.write_text(f"{older}\n")
    handed = client.retire_older(lab.home)
    until(lambda: gone(first))  # it lets go of its lock before it has ended
    assert set(handed) == {*waiting, "next"}
    client.wake(lab.home, handed)
    (lab.home.path / "go").touch()
    assert lab.wait("next").state == "SUCCEEDED", lab.job("next")
