"""The process that sends notices: the controller starts it and sees that it lives; it outlives the controller while something waits.

It is a process of its own, so that neither a service that hangs nor a library for a hundred of them takes time of the controller's.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path

from orchestrator.home import Home
from orchestrator.store import Store, StoreError, open_store

BOOT = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
    f"from {__package__}.notifier import serve; serve(sys.argv[2], sys.argv[3])"
)
"""As `daemon.client.BOOT`."""
BETWEEN = 5.0
"""Seconds between two starts, and between two looks whether anybody wants to be told."""

LEFT = 8
"""Tries to take the place of an older one after our controller has gone: as long as it stays, it tells everything itself."""


class Notifier:
    """Belongs to a controller; for its thread."""

    def __init__(self, home: Home, store: Store) -> None:
        self._home, self._store = home, store
        self._pid: int | None = None
        self._next = float("-inf")

    def keep(self) -> None:
        """See that it runs where somebody wants to be told. Takes next to no time."""
        if self._pid is not None:
            try:
                if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                    return
            except ChildProcessError:
                pass
            self._pid = None
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BETWEEN
        try:
            if wanted(self._home):
                self._store.notices.begin()
                self._pid = _spawn(self._home)
            else:
                self._store.notices.end()
        except (OSError, StoreError):  # jobs come first; it is tried again, and the log has the trace
            traceback.print_exc()


def wanted(home: Home) -> bool:
    """Whether there may be somebody to tell: services, or a desktop; and the extra that tells them."""
    if not home.notify.exists() and not (os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")):
        return False
    from importlib.util import find_spec  # noqa: PLC0415  # 5 ms, for those who have notices

    return find_spec("apprise") is not None


def _spawn(home: Home) -> int:
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    root = str(Path(__file__).parents[__name__.count(".")])
    argv = [sys.executable, "-c", BOOT, root, str(home.path), str(os.getpid())]
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    try:
        return os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
    finally:
        os.close(log)
        os.close(null)


def serve(folder: str, controller: str) -> None:
    """Send notices while the controller that started us lives, and afterwards until nothing waits."""
    home = Home(Path(folder))
    logging.getLogger().addHandler(logging.NullHandler())  # what a library logs may hold a URL, which is a secret
    lock = os.open(home.notifying, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    tries = LEFT
    while not _locked(lock):  # the one before us still has something to deliver
        tries = tries - 1 if os.getppid() != int(controller) else LEFT
        if not tries:
            return
        time.sleep(0.25)
    from orchestrator.notices.sender import Sender  # noqa: PLC0415  # pydantic is heavy

    threading.Thread(target=import_module, args=("apprise",), daemon=True).start()  # it is there when something is to be told
    with open_store(home.store, home.owner) as store:
        sender = Sender(home, store)
        while True:
            alone = os.getppid() != int(controller)  # before we look: what happened before it went is told
            try:
                waits = sender.look()
            except Exception:  # a full disk or a locked database passes; the log has the trace
                traceback.print_exc()
                waits = True
                time.sleep(1.0)
            if alone and not waits:
                break
            sender.rest()
    os._exit(0)  # a thread that a service keeps is not waited for


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
