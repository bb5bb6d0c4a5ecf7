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
from tests.waiting import until


def request(job: str, script: str = "true") -> Request:
    """One attempt of one shell step."""
    return Request(job, 1, ({"name": "train", "argv": ["sh", "-c", script]},), {}, {})


def children() -> list[int]:
    """Of this process."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Local]:
    """This machine, let go of afterwards."""
    made = Local(tmp_path)
    yield made
    made.close()


def test_who_only_looks_has_no_starter(here: Local) -> None:
    """Commands that read what an attempt left start no process."""
    before = children()
    here.poll([Watch("a", 1)])
    here.leases()
    assert children() == before


def test_many_starts_have_one_starter(here: Local) -> None:
    """Attempts do not descend from us, and what started them ends with its last user."""
    before = set(children())
    for number in range(3):
        assert here.start(request(f"job{number}", "sleep 30")).phase == "running"
    [starter] = set(children()) - before
    until(lambda: not Path(f"/proc/{starter}/task/{starter}/children").read_text())
    here.close()
    assert not set(children()) - before
    for number in range(3):
        assert here.poll([Watch(f"job{number}", 1)])[0].phase == "running"
        here.stop(f"job{number}", 1, 0.0)


def test_a_killed_starter_is_replaced(here: Local) -> None:
    """The next start has another; an attempt of the old one goes on."""
    before = set(children())
    here.start(request("first", "sleep 30"))
    [starter] = set(children()) - before
    os.kill(starter, signal.SIGKILL)
    os.waitid(os.P_PID, starter, os.WEXITED | os.WNOWAIT)
    assert here.start(request("second")).phase in ("running", "exited")
    assert here.poll([Watch("first", 1)])[0].phase == "running"
    here.stop("first", 1, 0.0)


def test_an_answer_that_is_lost_says_so(here: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starter that dies with a request in its hands tells nothing of the attempt; the next start has another one."""
    dying = "import socket; socket.recv_fds(socket.socket(fileno=0), 1, 1)"
    with monkeypatch.context() as patch:
        patch.setattr(local, "STARTER", (sys.executable, "-c", dying))
        with pytest.raises(TransportError, match="this machine: the starter has gone"):
            here.start(request("first"))
    here._starter._living[0].wait()
    assert here.start(request("first")).phase in ("running", "exited")
