"""Hosts for the contract suite: a transport, the state folder behind it, and words to start and await attempts."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.transports.base import Request, Seen, Transport, Watch
from orchestrator.transports.local import Local

Argv = list[str]


@dataclass
class Host:
    """A machine as the contract sees it. Attempts are number 1 unless said."""

    transport: Transport
    home: Path

    @staticmethod
    def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait for something to hold; what it answered. The limit is for hangs: a loaded machine may take its time."""
        end = time.monotonic() + seconds
        while not (answer := true()):
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.01)
        return answer

    @staticmethod
    def living(pid: int) -> bool:
        """Does a process run? A zombie does not."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def close(self) -> None:
        """End whatever still runs."""
        for folder in self.home.glob("jobs/*/[0-9]*"):
            watch = Watch(folder.parent.name, int(folder.name))
            self.transport.stop(watch.job, watch.attempt, 0.0)
            self.until(lambda watch=watch: self.transport.poll([watch])[0].phase not in ("running", "stopping"))
            self.transport.reap(watch.job, watch.attempt)

    def folder(self, job: str, attempt: int = 1) -> Path:
        return self.home / "jobs" / job / str(attempt)

    def written(self, job: str, name: str) -> Any:
        return json.loads((self.folder(job) / name).read_text())

    def request(self, job: str, *argvs: Argv, **rest: Any) -> Request:
        steps = tuple({"name": f"s{index}", "argv": argv} for index, argv in enumerate(argvs, 1))
        return Request(**{"job": job, "attempt": 1, "steps": steps, "files": {}, "links": {}, "grace": 5.0, **rest})

    def start(self, job: str, *argvs: Argv, **rest: Any) -> Seen:
        return self.transport.start(self.request(job, *argvs, **rest))

    def look(self, job: str, **rest: Any) -> Seen:
        return self.transport.poll([Watch(job, 1, **rest)])[0]

    def end(self, job: str) -> Seen:
        """Await the end."""
        return self.until(lambda: (seen := self.look(job)).phase not in ("running", "stopping") and seen)

    def run(self, job: str, *argvs: Argv, **rest: Any) -> Seen:
        self.start(job, *argvs, **rest)
        return self.end(job)

    def log(self, job: str) -> str:
        return self.transport.read(job, 1, "log", 0, 1 << 20).decode()

    def file(self, job: str, name: str) -> str:
        return self.transport.read(job, 1, f"work/{name}", 0, 1 << 20).decode()


@pytest.fixture(params=["local"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """One machine of each kind; whatever still runs at the end of a test is ended."""
    host = Host({"local": Local}[request.param](tmp_path / "home"), tmp_path / "home")
    yield host
    host.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Host]:
    """This machine, with the state folder on a disk of 1 MB."""
    if os.geteuid() != 0:
        pytest.skip("a disk of our own needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], stderr=subprocess.DEVNULL):
        pytest.skip("this root may not mount")
    host = Host(Local(disk), disk)
    try:
        yield host
        host.close()
    finally:
        subprocess.call(["umount", "-l", str(disk)])
