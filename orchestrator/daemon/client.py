"""One controller a state folder: is there one, and how to reach, start or replace it. Light, since most commands ask."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.home import Home

if TYPE_CHECKING:
    from orchestrator.daemon.messages import Secrets

RELEASE = 9
"""Of the controller. Raise it when one that was started before an upgrade can no longer do the work, because files that it still
has to load have moved or the store has new rules: it is replaced then. A controller that names no release is of the first."""
BOOT = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
    f"from {__package__}.loop import main; main(sys.argv[2])  # release {RELEASE}"
)
"""Our own path goes in by hand: in PYTHONPATH it would reach the trainers through the jobs' environment. The current folder goes out:
modules of the user's own lie there, under any name.
"""
BOOTED = rb"import sys; sys\.path.*; from [a-z_.]*orchestrator\.[a-z_.]+ import main; main\(.*\)(?:  # release ([0-9]+))?"
"""What `BOOT` is and was in any release, from a checkout or a wheel; the first release named no number."""
TURN = 3
"""The descriptor by which a new controller holds `Home.turn`: nobody starts a second one while the first still imports."""
GRACE = 5.0
"""Seconds to wait for a controller that is told to end. Wherever it is killed nothing is lost: see `jobs.lifecycle`."""
HAND_OVER = 60.0
"""Seconds for which secrets wait until a controller that was just started listens: a busy machine takes its time."""


@contextmanager
def only_one(home: Home, patience: float = 0.0) -> Iterator[bool]:
    """Hold the state folder's lock: True when we are the controller now.

    Args:
        home: the state folder.
        patience: seconds to try; a process that only asks whether there is a controller holds the lock for a moment.
    """
    home.make()  # with a store in PostgreSQL nothing else has made it yet
    how = os.O_RDWR | os.O_CREAT if home.writable else os.O_RDONLY  # to ask is enough where nothing can be written
    fd = os.open(home.lock, how | os.O_CLOEXEC, 0o600)
    try:
        yield _locked(fd, time.monotonic() + patience)
    finally:
        os.close(fd)


def _locked(fd: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        else:
            return True


def alive(home: Home) -> bool:
    """Whether there is a controller."""
    if not home.lock.exists():
        return False
    with only_one(home) as mine:
        return not mine


def mark(home: Home) -> None:
    """Say in the lock file, as its holder, of which release we are."""
    home.lock.write_text(f"{RELEASE}\n")


def beat(home: Home) -> None:
    """Say in the lock file, as its holder, that all jobs were just looked at."""
    with suppress(OSError):
        os.utime(home.lock)


def looked_at(home: Home) -> float:
    """When a controller looked at all jobs last, in seconds since the epoch; 0 where none ever did."""
    try:
        return home.lock.stat().st_mtime
    except OSError:
        return 0.0


def retire_older(home: Home) -> dict[str, dict[str, str]]:
    """End a controller of an older release, so that one of this release follows its jobs on.

    It may be unable to start anything: an upgrade in place has moved the files that it would load. Its jobs go on without it.

    Returns:
        Values of secrets that it was handed for jobs, for its successor. A release before 8 does not hand them on; jobs of its
        that are still queued say so when it is their turn.
    """
    try:
        if home.lock.read_text() == f"{RELEASE}\n":
            return {}
    except OSError:  # no controller was ever here
        return {}
    if not (older := _controllers(home, RELEASE)):
        return {}
    from orchestrator.daemon.messages import ask  # noqa: PLC0415  # seldom needed

    secrets = ask(home.socket)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in older:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + GRACE
        while alive(home) and time.monotonic() < until:
            time.sleep(0.01)
        if not alive(home):
            break
    return secrets


def _controllers(home: Home, before: int) -> list[int]:
    """Processes of ours that are controllers of this state folder, of a release before the given one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):  # it has gone meanwhile, or is not ours to look at
            _, flag, boot, _, folder = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            ours = re.fullmatch(BOOTED, boot)
            if flag == b"-c" and ours and Path(os.fsdecode(folder)).samefile(home.path) and int(ours[1] or 1) < before:
                found.append(int(entry.name))
    return found


def wake(home: Home, secrets: Secrets | None = None) -> None:
    """Start a controller where there is none, and tell it to look.

    Args:
        home: the state folder.
        secrets: job -> name -> value; the controller keeps them in memory.
    """
    secrets = {**retire_older(home), **(secrets or {})}
    running = alive(home) or not _spawn(home)
    if not running and not secrets:
        return  # a new one looks before it listens
    from orchestrator.daemon.messages import send, written  # noqa: PLC0415  # 10 ms, for those who send

    until = time.monotonic() + (HAND_OVER if secrets else 0.1)
    for message in written(secrets):
        while not send(home.socket, message) and time.monotonic() < until:
            time.sleep(0.01)


def nudge(home: Home) -> None:
    """Tell the controller, if there is one, to look."""
    from orchestrator.daemon.messages import send  # noqa: PLC0415  # 10 ms, for those who send

    send(home.socket, b"{}")


def _spawn(home: Home) -> bool:
    """Start a controller, of its own session, which outlives us and our terminal; False where one is just being started."""
    home.make()
    turn = os.open(home.turn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _locked(turn, 0.0):
        os.close(turn)
        return False
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    argv = [sys.executable, "-c", BOOT, str(Path(__file__).parents[__name__.count(".")]), str(home.path)]
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    actions.append((os.POSIX_SPAWN_DUP2, turn, TURN))
    os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
    for fd in (log, null, turn):
        os.close(fd)
    return True


def end_turn(home: Home) -> None:
    """Say, as a new controller that holds `Home.lock`, that another may be started from now on."""
    with suppress(OSError):  # started by hand
        if os.path.samestat(os.fstat(TURN), home.turn.stat()):
            os.close(TURN)
