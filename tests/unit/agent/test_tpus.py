"""Who has the TPU chips of a host, and when libtpu's lock file is a dead one's: real processes, real locks, files for chips."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from orchestrator.agent import leases, tpus

HOLDS = "import sys, fcntl, time; f = open(sys.argv[1], 'r+'); {}; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def chips(tmp_path, monkeypatch):
    """Four chips, and a place for the lock file."""
    for number in range(4):
        (tmp_path / f"accel{number}").touch()
    (tmp_path / "vfio").mkdir()
    (tmp_path / "vfio" / "vfio").touch()
    (tmp_path / "accelerometer").touch()
    monkeypatch.setattr(tpus, "DEVICES", str(tmp_path))
    monkeypatch.setattr(tpus, "LOCK", str(tmp_path / "libtpu_lockfile"))
    return tmp_path


@pytest.fixture
def process():
    """Starts a process that has a file open, and perhaps locked, until the test ends."""
    started = []

    def start(path, lock="pass"):
        each = subprocess.Popen([sys.executable, "-c", HOLDS.format(lock), str(path)], stdout=subprocess.PIPE)
        started.append(each)
        assert each.stdout.readline() == b"up\n"
        return each

    yield start
    for each in started:
        each.kill()
        each.wait()
        each.stdout.close()


def test_chips_are_told_from_other_files(chips):
    """Of either kind of driver, in the order of their numbers."""
    assert [path.rpartition("/")[2] for path in tpus.chips()] == ["accel0", "accel1", "accel2", "accel3"]
    for number in (10, 2):
        (chips / "vfio" / str(number)).touch()
    assert [path.rpartition("/")[2] for path in tpus.chips()] == ["accel0", "accel1", "accel2", "2", "accel3", "10"]


def test_a_process_that_has_a_chip_has_all(chips, process):
    """It is named, and every device counts as busy until it has ended; the lock file stays as long."""
    (chips / "libtpu_lockfile").touch()
    holder = process(chips / "accel2")
    found = leases.held_elsewhere(str(chips / "home"))
    assert sorted(found) == [0, 1, 2, 3]
    assert f"pid {holder.pid} of" in leases.describe_holder(found[0])
    tpus.clear_stale_lock()
    assert (chips / "libtpu_lockfile").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert leases.held_elsewhere(str(chips / "home")) == {}
    tpus.clear_stale_lock()
    assert not (chips / "libtpu_lockfile").exists()


@pytest.mark.parametrize("lock", ["fcntl.lockf(f, fcntl.LOCK_EX)", "fcntl.flock(f, fcntl.LOCK_EX)"])
def test_a_lock_counts_while_its_process_lives(chips, process, lock):
    """Whichever kind of lock, and though the chip itself is not seen to be open: a process of another user shows no files."""
    path = chips / "libtpu_lockfile"
    path.touch()
    holder = process(path, lock)
    assert f"pid {holder.pid} of" in tpus.tpu_holder()
    tpus.clear_stale_lock()
    assert path.exists()
    holder.kill()
    holder.wait()
    assert tpus.tpu_holder() == ""


def test_a_lock_of_another_user_that_is_dead_is_told(chips, monkeypatch):
    """What may not be removed is named with the way out, before a trainer fails for it."""
    (chips / "libtpu_lockfile").touch()

    def refused(path):
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(PermissionError, match=r"sudo rm .*libtpu_lockfile"):
        tpus.clear_stale_lock()


def test_a_host_without_chips(tmp_path, monkeypatch):
    """Costs no look at processes, and is never busy."""
    monkeypatch.setattr(tpus, "DEVICES", str(tmp_path / "none"))
    monkeypatch.setattr(tpus, "LOCK", str(tmp_path / "lock"))
    assert tpus.chips() == []
    assert leases.held_elsewhere(str(tmp_path)) == {}
    assert tpus.tpu_holder() == ""
    with open(tpus.LOCK, "w") as file:  # noqa: PTH123  # as the agent has it
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f"pid {os.getpid()} of" in tpus.tpu_holder()
