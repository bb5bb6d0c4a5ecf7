"""The process that starts attempts on this machine: it comes when needed, and no death of it costs an attempt."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.transports import local
from orchestrator.transports.base import Request, TransportError, Watch
from orchestrator.transports.local import Local
from tests.processes import pids_of
from tests.waiting import until


def request(job: str, script: str = "true") -> Request:
    """One attempt of one shell step."""
    return Request(job, 1, ({"name": "train", "argv": ["sh", "-c", script]},), {}, {})


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, they themselves, and so on."""
    found = [int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()]
    return found + [each for child in found for each in descendants(child)]


def starters(folder: Path) -> list[int]:
    """Those that were begun with this folder for a mark, without the attempts, which are forks of them in sessions of their own."""
    return [pid for pid in pids_of(folder) if os.getsid(pid) == os.getsid(0)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    """This machine, let go of afterwards."""
    monkeypatch.setattr(local, "STARTER", (*local.STARTER, str(tmp_path)))
    made = Local(tmp_path)
    yield made
    made.close()


def test_who_only_looks_has_no_starter(here: Local, tmp_path: Path) -> None:
    """Commands that read what an attempt left start no process."""
    here.poll([Watch("a", 1)])
    here.leases()
    assert not pids_of(tmp_path)


def test_many_starts_have_one_starter(here: Local, tmp_path: Path) -> None:
    """Nothing of it descends from us, whose tree somebody may kill, and what started the attempts ends with its last user."""
    before = set(descendants(os.getpid()))
    for number in range(3):
        assert here.start(request(f"job{number}", "exec sleep 30")).phase == "running"
    [starter] = starters(tmp_path)
    assert set(descendants(os.getpid())) == before
    assert len(descendants(starter)) == 6
    here.close()
    until(lambda: not starters(tmp_path))
    for number in range(3):
        assert here.poll([Watch(f"job{number}", 1)])[0].phase == "running"
        here.stop(f"job{number}", 1, 0.0)


def test_an_attempt_is_all_that_its_start_leaves(here: Local, tmp_path: Path) -> None:
    """One process beside the program: what answered the request is the supervisor, and neither has a way to the starter or to us."""
    here.start(request("job", "exec sleep 30"))
    [starter] = starters(tmp_path)
    supervisor, program = descendants(starter)
    for pid in (supervisor, program):
        open_files = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = [each for each in open_files if each.startswith("socket:")]
        assert len(sockets) == (pid == supervisor), open_files  # its own name
    here.stop("job", 1, 0.0)
    until(lambda: not descendants(starter))  # without a zombie of it


def test_a_killed_starter_is_replaced(here: Local, tmp_path: Path) -> None:
    """The next start has another; an attempt of the old one goes on."""
    here.start(request("first", "exec sleep 30"))
    [starter] = starters(tmp_path)
    os.kill(starter, signal.SIGKILL)
    until(lambda: not starters(tmp_path))
    assert here.start(request("second")).phase in ("running", "exited")
    assert here.poll([Watch("first", 1)])[0].phase == "running"
    here.stop("first", 1, 0.0)


def test_an_answer_that_is_lost_says_so(here: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starter that dies with a request in its hands tells nothing of the attempt; the next start has another one."""
    dying = "import os, socket; os.fork() and os._exit(0); socket.recv_fds(socket.socket(fileno=0), 1, 1)"
    with monkeypatch.context() as patch:
        patch.setattr(local, "STARTER", (sys.executable, "-c", dying))
        with pytest.raises(TransportError, match="this machine: the starter has gone"):
            here.start(request("first"))
    until(lambda: local._hung_up(here._starter._line))
    assert here.start(request("first")).phase in ("running", "exited")
