"""Which jobs' files are being pulled: a lock file each, which the kernel lets go of with its process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.home import Home


@contextmanager
def pulling(home: Home, job: str) -> Iterator[None]:
    """For as long as it is open, the job's files are being pulled; by several at once, if they like."""
    if not home.writable:  # nothing can be taken away there either
        yield
        return
    folder = home.path / "pulling"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / job).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_pulled(home: Home, job: str) -> bool:
    """Does somebody pull it now?"""
    try:
        with (home.path / "pulling" / job).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
