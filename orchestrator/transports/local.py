"""This machine. Starting goes through the runner's command line, as on any host; all else is done in process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import remote, runner
from orchestrator.transports import answers, shipping
from orchestrator.transports.base import HostFacts, Lease, Request, Seen, Told, Watch, nobody
from orchestrator.transports.wire import Answer

# Isolated and without site packages: the runner needs nothing of ours, and starts in a third of the time. Imported, since
# Python keeps the bytecode of a module, but not of a program.
RUN = "import os, sys; sys.path.append(sys.argv.pop(1)); import runner; os._exit(runner.main(sys.argv[1:]))"
RUNNER = (sys.executable, "-I", "-S", "-E", "-c", RUN)


class Local:
    """Attempts on this machine, in folders under `home / "jobs"`. They outlive this process."""

    def __init__(self, home: Path) -> None:
        self.home = os.path.abspath(home)  # noqa: PTH100 (Path.resolve would follow links, Path.absolute keeps `..`)

    def start(self, request: Request) -> Seen:
        """See `Transport.start`. ValueError when the request names a path outside its folder, or no program to run."""
        argv = (*RUNNER, str(Path(runner.__file__).parent), "start", self._folder(request.job, request.attempt))
        wanted = json.dumps(answers.document(request), default=dict).encode()
        done = subprocess.run(argv, input=wanted, capture_output=True, check=False)
        if done.returncode != 0:
            raise answers.refusal(done.returncode, done.stderr.decode(errors="replace").strip())
        return answers.seen(json.loads(done.stdout))

    def poll(self, watches: Sequence[Watch]) -> list[Seen]:
        """See `Transport.poll`. ValueError when a watch names a path outside the work folder."""
        return [answers.seen(runner.look(self._folder(watch.job, watch.attempt), vars(watch))) for watch in watches]

    def stop(self, job: str, attempt: int, grace: float) -> None:
        """See `Transport.stop`. Nothing happens to an attempt that has ended, or never was."""
        runner.stop(self._folder(job, attempt), grace)

    def reap(self, job: str, attempt: int) -> int:
        """See `Transport.reap`. Takes up to a second; 0 where a supervisor lives."""
        return runner.reap(self._folder(job, attempt))

    def read(self, job: str, attempt: int, path: str, offset: int, limit: int) -> bytes:
        """See `Transport.read`. ValueError for any path but `log` and `work/...`."""
        return runner.read(self._folder(job, attempt), path, offset, limit)

    def hello(self) -> HostFacts:
        """See `Transport.hello`."""
        asked = time.time()
        return answers.facts(self._way({"op": "hello"}, b"")()[0], asked)

    def interface(self, to: str) -> str:
        """See `Transport.interface`."""
        return str(self._way({"op": "interface", "to": to}, b"")()[0]["interface"])

    def leases(self) -> list[Lease]:
        """See `Transport.leases`."""
        return answers.leases(self._way({"op": "leases"}, b"")()[0])

    def put(self, blobs: Mapping[str, Path], told: Told = nobody) -> None:
        """See `Transport.put`."""
        shipping.put(self._way, blobs, told)

    def fetch(self, job: str, attempt: int, names: Sequence[str], into: Path, told: Told = nobody) -> list[Path]:
        """See `Transport.fetch`."""
        return shipping.fetch(self._way, {"job": job, "attempt": attempt}, names, into, told)

    def close(self) -> None:
        """Nothing is open."""

    def _way(self, request: Mapping[str, Any], body: bytes) -> Callable[[], Answer]:
        """As over a wire, but done at once."""
        said, data = remote.answer(self.home, {"id": 0, **request}, body)
        return answers.settled(lambda: (said, data), "this machine")

    def _folder(self, job: str, attempt: int) -> str:
        path = f"{self.home}/jobs/{job}/{attempt}"
        if "/" in job or runner.attempt_folder(path) != path:
            raise ValueError(f"{job!r}: a job is named by letters, digits, `.`, `_` and `-`")
        return path
