"""One controller a state folder: is there one, and how to reach or start it. Light, since most commands ask."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.home import Home


@contextmanager
def only_one(home: Home) -> Iterator[bool]:
    """Hold the state folder's lock: True when we are the controller now."""
    fd = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def alive(home: Home) -> bool:
    """Is there a controller?"""
    if not home.lock.exists():
        return False
    with only_one(home) as mine:
        return not mine


def wake(home: Home, secrets: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """See that a controller is at work, and tell it to look; hand it secrets' values, which it keeps in memory."""
    if not alive(home):
        _spawn(home)
    message = json.dumps({"secrets": secrets or {}}).encode()
    for _ in range(100 if secrets else 20):
        if _send(home, message):
            return
        time.sleep(0.02)


def _send(home: Home, message: bytes) -> bool:
    import socket  # noqa: PLC0415  # 10 ms, for those who send

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.sendto(message, near(home.socket))
        except OSError:
            return False
    return True


def near(path: Path) -> str:
    """A socket's path has 107 bytes at most; a folder that is open has a short name."""
    if len(os.fsencode(path)) < 107:
        return str(path)
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{fd}/{path.name}"


def _spawn(home: Home) -> None:
    """A controller of its own session, which outlives us and our terminal."""
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    argv = [sys.executable, "-m", "orchestrator.controller", str(home.path)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])),
    }
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    os.posix_spawn(sys.executable, argv, env, file_actions=actions, setsid=True)
    os.close(log)
    os.close(null)
