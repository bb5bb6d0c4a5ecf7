"""One maker at a time of something in a folder that several machines may share, without locks of the file system.

On clusters a home is often shared, and its locks are not: NFS may be mounted with `nolock`, Lustre without `flock`, and others keep
locks to the machine. Links are what all of them have: of several that link a file to one name, one wins. So a turn is a file
`PLACE.turn.N`, linked into place whole; the holder touches it while it works. It ends with its file. Where a holder died, the next
one takes turn N+1: no file is ever taken away from under another, so two cannot both believe that they were first.

    on the same machine     a holder is dead when neither its process nor one that it started with the turn's mark lives
    on another machine      when its file was not touched for `STALE` seconds, by our own clock

Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.agent.files import dump_json, ignore_errors, read_json
from orchestrator.agent.identity import boot, machine
from orchestrator.agent.processes import marked_processes, process_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.agent.files import Json

BEAT = 5.0
"""Seconds between two touches."""
STALE = 60.0
"""Seconds without one, after which a holder on another machine is taken for dead."""
PACE = 0.1
"""Seconds between two looks of one who waits."""
MARK = "TUNE_TURN"
"""In the environment of what a holder starts."""


class Overtaken(Exception):
    """This machine said nothing for so long that another one took the next turn: what is made now is that one's."""


class MakerTurn:
    """Held by this process."""

    def __init__(self, file: Path, number: int, token: str) -> None:
        self.file, self.number, self.token = file, number, token
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._touch, daemon=True)
        self._beat.start()

    @property
    def mark(self) -> dict[str, str]:
        """For the environment of processes that work in this turn: while one lives, the turn is not over."""
        return {MARK: self.token}

    def check(self) -> None:
        """Raise `Overtaken` where this turn is not the last any more."""
        if max(_numbers(self.file.parent, _stem(self.file)), default=0) != self.number:
            raise Overtaken(f"{self.file.name}: another machine took its turn, since this one said nothing for {STALE:.0f} s")

    def end(self) -> None:
        """Let the next one have its turn."""
        self._over.set()
        self._beat.join()
        if self.file.exists():  # own file last: whoever sees an older one alone would wait for a dead holder
            for number in sorted(_numbers(self.file.parent, _stem(self.file))):
                if number <= self.number:
                    ignore_errors(os.unlink, self.file.with_suffix(f".{number}"))

    def _touch(self) -> None:
        while not self._over.wait(BEAT):
            ignore_errors(os.utime, self.file)


@contextmanager
def turn(place: Path, wait: Callable[[str], None]) -> Iterator[MakerTurn]:
    """Have a turn at a place; `wait` hears now and then whom it waits for, and may raise."""
    mine = _take(place, wait)
    try:
        yield mine
    finally:
        mine.end()


def _take(place: Path, wait: Callable[[str], None]) -> MakerTurn:
    seen: dict[int, tuple[int, float]] = {}
    """Number -> time of its last touch, and when we saw that first, by our clock."""
    while True:
        last = max(_numbers(place.parent, f"{place.name}.turn"), default=0)
        file = place.with_name(f"{place.name}.turn.{last}")
        if last == 0 or _is_dead(file, last, seen):
            if made := _link(place, last + 1):
                return made
            continue
        if holder := read_json(str(file)):
            wait(f"process {holder['pid']}" + (f" on {holder['machine']}" if _is_far(holder) else ""))
        elif file.exists():  # of a machine that lost its power: nothing is in it, and it goes stale
            wait("a process unknown")
        else:  # its turn has just ended
            continue
        time.sleep(PACE)


def _link(place: Path, number: int) -> MakerTurn | None:
    """The turn of a number, unless somebody has it."""
    token, file = os.urandom(8).hex(), place.with_name(f"{place.name}.turn.{number}")
    holder = {"machine": machine(), "boot": boot(), "pid": os.getpid(), "start": process_stat("self")[3], "token": token}
    aside = place.with_name(f"{place.name}.{token}")
    aside.write_text(dump_json(holder))
    try:
        os.link(aside, file)
    except OSError as error:
        # NFS may have lost the answer to a link that was made: then the file has two names
        if os.stat(aside).st_nlink != 2:
            if isinstance(error, FileExistsError):  # somebody had it at that moment, and may have ended it since
                return None
            raise
    finally:
        ignore_errors(os.unlink, aside)
    return MakerTurn(file, number, token)


def _is_dead(file: Path, number: int, seen: dict[int, tuple[int, float]]) -> bool:
    holder = read_json(str(file))
    try:
        touched = file.stat().st_mtime_ns
    except OSError:  # its turn ended
        return False
    if holder and not _is_far(holder):
        return not _lives(holder["pid"], holder["start"]) and not marked_processes(f"{MARK}={holder['token']}".encode(), {})
    if seen.get(number, (0, 0.0))[0] != touched:
        seen[number] = touched, time.monotonic()
    return time.monotonic() - seen[number][1] > STALE


def _is_far(holder: Json) -> bool:
    """Is it of another machine, or of this one before it was booted?"""
    return holder.get("boot") != boot()


def _lives(pid: int, start: str) -> bool:
    try:
        state, _, _, began = process_stat(pid)
        return began == start and state not in b"ZX"
    except OSError:
        return False


def _numbers(folder: Path, stem: str) -> list[int]:
    """Of the turns that have not ended."""
    names = [name[len(stem) + 1 :] for name in os.listdir(folder) if name.startswith(stem + ".")]
    return [int(name) for name in names if name.isdigit()]


def _stem(file: Path) -> str:
    return file.name.rpartition(".")[0]
