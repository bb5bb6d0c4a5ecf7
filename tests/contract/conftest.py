"""Hosts for the contract suite: a transport, the state folder behind it, and words to start and await attempts.

The same host twice: this machine by `Local`, and one with its own processes and files by `Ssh`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.transports.base import AttemptStatus, Request, Transport, Watch
from orchestrator.transports.local import Local
from orchestrator.transports.ssh.transport import Ssh
from tests.hosts.lab import PYTHON, Node, hosts, network  # noqa: F401
from tests.hosts.ray import ray  # noqa: F401

Argv = list[str]


@dataclass
class Host:
    """A machine as the contract sees it. Attempts are number 1 unless said."""

    transport: Transport
    home: Path
    """The state folder, as seen from here."""
    node: Node | None = None
    """None is this machine."""
    heard: list[float] = field(default_factory=list)
    """When news came."""

    @property
    def root(self) -> Path:
        """The file system, as seen from here."""
        return self.node.root if self.node else Path("/")

    @property
    def inner(self) -> Path:
        """The state folder, as seen from there."""
        return Path("/") / self.home.relative_to(self.root)

    @property
    def python(self) -> str:
        return PYTHON if self.node else sys.executable

    def command(self, *argv: str) -> str:
        """Run a program there; what it prints."""
        if self.node:
            return self.node.run(*argv)
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def kill(self, pid: int) -> None:
        """End a process at once."""
        self.command("kill", "-9", str(pid))

    def another(self) -> Transport:
        """A second way to the same host, as the same controller has it after it was started anew."""
        if self.node:
            return Ssh(self.node.host(folder=str(self.inner), via=self.transport.host.via), self.transport.owner)
        return Local(self.home)

    @staticmethod
    def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait for something to hold; what it answered. The limit is for hangs: a loaded machine may take its time."""
        end = time.monotonic() + seconds
        while not (answer := true()):
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.01)
        return answer

    def living(self, pid: int) -> bool:
        """Does a process run? A zombie does not."""
        try:
            return (self.root / f"proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def close(self) -> None:
        """End whatever still runs."""
        for folder in self.home.glob("jobs/*/[0-9]*"):
            watch = Watch(folder.parent.name, int(folder.name))
            self.transport.stop(watch.job, watch.attempt, 0.0)
            self.until(lambda watch=watch: self.transport.poll([watch])[0].phase not in ("running", "stopping"))
            self.transport.reap(watch.job, watch.attempt)
        self.transport.close()

    def folder(self, job: str, attempt: int = 1) -> Path:
        return self.home / "jobs" / job / str(attempt)

    def written(self, job: str, name: str) -> Any:
        return json.loads((self.folder(job) / name).read_text())

    def request(self, job: str, *argvs: Argv, **rest: Any) -> Request:
        steps = tuple({"name": f"s{index}", "argv": argv} for index, argv in enumerate(argvs, 1))
        return Request(**{"job": job, "attempt": 1, "steps": steps, "files": {}, "links": {}, "grace": 5.0, **rest})

    def start(self, job: str, *argvs: Argv, **rest: Any) -> AttemptStatus:
        return self.transport.start(self.request(job, *argvs, **rest))

    def look(self, job: str, **rest: Any) -> AttemptStatus:
        return self.transport.poll([Watch(job, 1, **rest)])[0]

    def end(self, job: str) -> AttemptStatus:
        """Await the end."""
        return self.until(lambda: (seen := self.look(job)).phase not in ("running", "stopping") and seen)

    def run(self, job: str, *argvs: Argv, **rest: Any) -> AttemptStatus:
        self.start(job, *argvs, **rest)
        return self.end(job)

    def log(self, job: str) -> str:
        return self.transport.read(job, 1, "log", 0, 1 << 20).decode()

    def file(self, job: str, name: str) -> str:
        return self.transport.read(job, 1, f"work/{name}", 0, 1 << 20).decode()


def local(home: Path) -> Host:
    """This machine."""
    return Host(Local(home), home)


def remote(node: Node, folder: str, **settings: Any) -> Host:
    """A host of the lab, with a state folder of a name in the user's home."""
    heard: list[float] = []
    transport = Ssh(node.host(folder=f"~/{folder}", **settings), "the suite", lambda: heard.append(time.time()))
    return Host(transport, node.home / folder, node, heard)


@pytest.fixture(params=["local", "ssh", pytest.param("program", marks=pytest.mark.thorough)])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """One machine of each kind, also through the ssh program; whatever still runs at the end of a test is ended."""
    if request.param == "local":
        host = local(tmp_path / "home")
    else:
        via = "ssh" if request.param == "program" else "auto"
        host = remote(request.getfixturevalue("hosts")[0], f"home of {tmp_path.name}", via=via)
    yield host
    host.close()


@pytest.fixture
def far(hosts: list[Node], tmp_path: Path) -> Iterator[Host]:  # noqa: F811
    """One machine that is reached by SSH."""
    host = remote(hosts[0], tmp_path.name)
    yield host
    hosts[0].right()
    host.close()


@pytest.fixture(params=["local", "ssh"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A machine of each kind, with the state folder on a disk of 1 MB."""
    if request.param == "ssh":
        node = request.getfixturevalue("hosts")[1]
        node.small("1m")
        host = remote(node, "home")
        yield host
        host.close()
        return
    if os.geteuid() != 0:
        pytest.skip("a disk of our own needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], stderr=subprocess.DEVNULL):
        pytest.skip("this root may not mount")
    host = local(disk)
    try:
        yield host
        host.close()
    finally:
        subprocess.call(["umount", "-l", str(disk)])
