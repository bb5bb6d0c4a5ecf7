"""This machine. Starting goes through the runner's command line, as on any host; looking calls the runner in process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import runner
from orchestrator.transports.base import Chunk, Conflict, Request, Seen, TransportError, Watch

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
        done = subprocess.run(argv, input=document(request), capture_output=True, check=False)
        if done.returncode != 0:
            raise refusal(done.returncode, done.stderr.decode(errors="replace").strip())
        return seen(json.loads(done.stdout))

    def poll(self, watches: Sequence[Watch]) -> list[Seen]:
        """See `Transport.poll`. ValueError when a watch names a path outside the work folder."""
        return [seen(runner.look(self._folder(watch.job, watch.attempt), vars(watch))) for watch in watches]

    def stop(self, job: str, attempt: int, grace: float) -> None:
        """See `Transport.stop`. Nothing happens to an attempt that has ended, or never was."""
        runner.stop(self._folder(job, attempt), grace)

    def reap(self, job: str, attempt: int) -> int:
        """See `Transport.reap`. Takes up to a second; 0 where a supervisor lives."""
        return runner.reap(self._folder(job, attempt))

    def read(self, job: str, attempt: int, path: str, offset: int, limit: int) -> bytes:
        """See `Transport.read`. ValueError for any path but `log` and `work/...`."""
        return runner.read(self._folder(job, attempt), path, offset, limit)

    def _folder(self, job: str, attempt: int) -> str:
        path = f"{self.home}/jobs/{job}/{attempt}"
        if "/" in job or runner.attempt_folder(path) != path:
            raise ValueError(f"{job!r}: a job is named by letters, digits, `.`, `_` and `-`")
        return path


def document(request: Request) -> bytes:
    """What the runner reads from its standard input."""
    spec = {key: getattr(request, key) for key in ("job", "attempt", "env", "grace", "notify")}
    spec["steps"] = [dict(step) for step in request.steps]
    parts = {"spec": spec, "files": request.files, "links": request.links, "secrets": request.secrets}
    return json.dumps(parts, default=dict).encode()


def seen(answer: Mapping[str, Any]) -> Seen:
    """What the runner says, as a value."""
    chunks = tuple(Chunk(**chunk) for chunk in answer.get("chunks", ()))
    return Seen(**{**answer, "chunks": chunks, "exist": tuple(answer.get("exist", ()))})


def refusal(code: int, said: str) -> Exception:
    """The error that an exit code of the runner stands for."""
    kinds = {2: ValueError, 3: Conflict}
    return kinds.get(code, TransportError)(said or f"the runner ended with code {code}")
