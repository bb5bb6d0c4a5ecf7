"""Files to and from a host in pieces, several pieces under way at once. Interrupted anywhere, the next call goes on there.

Small files share a message: many of them cost what one big file of their size does, and no round trip each.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.agent.blobs import executable, measure, within
from orchestrator.agent.files import relative
from orchestrator.transports.base import Answer, Told, TransportError, ignore_progress

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

Way = Callable[["Json", bytes], Callable[[], Answer]]
"""Sends a request and its body; what it returns waits for the answer."""
Piece = tuple[str, int, int]
"""Name, offset, length."""
SIZE = 8 << 20
"""Bytes of a message."""
AHEAD = 4
"""Messages under way at once: the line is busy while answers come back."""


def put(way: Way, blobs: Mapping[str, Path], told: Told = ignore_progress) -> None:
    """See `Transport.put`."""
    if not blobs:
        return
    try:
        _put(way, blobs, told)
    except ValueError:
        _put(way, blobs, told)  # what an earlier call had left was no good, and is gone now


def _put(way: Way, blobs: Mapping[str, Path], told: Told) -> None:
    there = way({"op": "have", "addresses": list(blobs)}, b"")()[0]
    sizes = {address: _measured(source) for address, source in blobs.items() if address not in there["whole"]}
    parts = {address: _rest(files, there["parts"].get(address, {})) for address, files in sizes.items()}
    total = sum(sum(files.values()) for files in sizes.values())
    done = total - sum(length for pieces in parts.values() for _, _, length in pieces)
    requests = ((request, body) for address in parts for request, body in _parcels(address, blobs[address], parts[address]))
    for request, _ in _flow(way, _weighed(requests, total)):
        done += sum(length for _, _, length in request["pieces"])
        told(done, total)


def _measured(source: Path) -> dict[str, int]:
    """Bytes of each file; ValueError when there is none, or something else than files and folders."""
    try:
        files = measure(str(source))
    except OSError as error:
        raise ValueError(str(error)) from None
    if not files:
        raise ValueError(f"{source}: there is nothing to send")
    return files


def _rest(files: Mapping[str, int], there: Mapping[str, int]) -> list[Piece]:
    """What is still to be sent; a file of which more is there than it has is sent again. Empty files are pieces too."""
    reached = {name: there.get(name, 0) for name in files}
    offsets = {name: at if at <= files[name] else 0 for name, at in reached.items()}
    return [(name, at, files[name] - at) for name, at in offsets.items() if at < files[name] or name not in there]


def _parcels(address: str, source: Path, pieces: Sequence[Piece]) -> Iterator[tuple[Json, bytes]]:
    """Messages that bring a blob; the last has it checked."""
    *others, last = list(_grouped(pieces)) or [[]]
    for group in (*others, last):
        body = b"".join(_bytes(within(str(source), name), at, length) for name, at, length in group)
        yield {"op": "grow", "address": address, "pieces": group, **(_seal(source) if group is last else {"seal": False})}, body


def _seal(source: Path) -> Json:
    """What the last message of a blob says besides; `bytes` are to be summed there, which takes its time."""
    sizes = measure(str(source))
    marked = [name for name in sizes if executable(within(str(source), name))]
    return {"seal": True, "executable": marked, "bytes": sum(sizes.values())}


def _grouped(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces cut and put together so that each message has at most SIZE bytes."""
    group: list[Piece] = []
    room = SIZE
    for name, offset, length in pieces:
        at, end = offset, offset + length
        while True:
            step = min(room, end - at)
            group.append((name, at, step))
            at, room = at + step, room - step
            if room == 0 or len(group) == 1000:
                yield group
                group, room = [], SIZE
            if at >= end:
                break
    if group:
        yield group


def _bytes(path: str, offset: int, length: int) -> bytes:
    with Path(path).open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), length, offset)
        while len(data) < length:
            more = os.pread(file.fileno(), length - len(data), offset + len(data))
            if not more:
                raise ValueError(f"{path} became shorter while it was sent")
            data += more
        return data


def _weighed(requests: Iterable[tuple[Json, bytes]], weight: int) -> Iterator[tuple[Json, bytes]]:
    """Each request says what all of them are part of, in bytes: the way may be another for much."""
    return (({**request, "weight": weight}, body) for request, body in requests)


def _flow(way: Way, requests: Iterable[tuple[Json, bytes]]) -> Iterator[tuple[Json, Answer]]:
    """Requests with their answers, in order, some of them under way at any time."""
    waiting: deque[tuple[Json, Callable[[], Answer]]] = deque()
    for request, body in requests:
        if len(waiting) == AHEAD:
            first, answer = waiting.popleft()
            yield first, answer()
        waiting.append((request, way(request, body)))
    while waiting:
        first, answer = waiting.popleft()
        yield first, answer()


def fetch(way: Way, attempt: Json, names: Sequence[str], into: Path, told: Told = ignore_progress) -> list[Path]:
    """See `Transport.fetch`; `attempt` says `job` and `attempt`."""
    listed = way({"op": "listing", **attempt, "names": list(names)}, b"")()[0].get("files")
    files = {name: Arriving(into / name, size, changed, runs) for name, size, changed, runs in _asked_for(listed, names)}
    missing = {name: file for name, file in files.items() if not file.here()}
    total = sum(file.size for file in files.values())
    reached = {name: file.begin() for name, file in missing.items()}
    done = total - sum(file.size - reached[name] for name, file in missing.items())
    pieces = [(name, reached[name], file.size - reached[name]) for name, file in missing.items()]
    requests = (({"op": "take", **attempt, "pieces": group}, b"") for group in _grouped(pieces))
    for request, (answer, body) in _flow(way, _weighed(requests, total)):
        for name, data in _opened(request["pieces"], answer.get("lengths"), body):
            missing[name].add(data)
        done += len(body)
        told(done, total)
    return [file.path for file in files.values()]


def _asked_for(listed: Any, names: Sequence[str]) -> Iterator[tuple[str, int, int, bool]]:
    """Files that a host lists: name, bytes, time of change in ns, executable. Each is one that was asked for, or lies below one.

    Raises:
        TransportError: the host names another file, which would come to lie where it has no business, or answers nonsense.
    """
    entries: list[Any] = listed if isinstance(listed, list) else [None]
    for entry in entries:
        kinds = [type(each) for each in entry] if isinstance(entry, list | tuple) else []
        if kinds != [str, int, int, bool] or not (0 <= entry[1] < 1 << 60 and abs(entry[2]) < 1 << 63):
            raise TransportError("the host's list of files is not understood")
        name = entry[0]
        try:
            relative(name)
        except ValueError as error:
            raise TransportError(f"the host names a file {error}") from None
        if not any(_is_asked(name, asked) for asked in names):
            raise TransportError(f"the host names a file that was not asked for: {name!r}; nothing was written")
        yield name, entry[1], entry[2], entry[3]


def _is_asked(name: str, asked: str) -> bool:
    """Is it what was asked for, below it, or a file that fits a name with a `*`, which stands for no `/`?"""
    if name == asked or name.startswith(f"{asked}/"):
        return True
    theirs, ours = name.split("/"), asked.split("/")
    return "*" in asked and len(theirs) == len(ours) and all(map(fnmatchcase, theirs, ours))


def _opened(pieces: Sequence[Piece], lengths: Any, body: bytes) -> Iterator[tuple[str, bytes]]:
    if not isinstance(lengths, list) or len(lengths) != len(pieces):
        raise TransportError("the host's answer about files is not understood")
    at = 0
    for (name, _, wanted), length in zip(pieces, lengths, strict=True):
        if length != wanted:
            raise TransportError(f"{name} became shorter while it was fetched: fetch again")
        yield name, body[at : at + length]
        at += length


class Arriving:
    """A file on its way to us. What is here of it carries the time of change of its original: of another it is not gone on with."""

    def __init__(self, path: Path, size: int, changed: int, runs: bool) -> None:
        self.path, self.size, self.changed, self.runs = path, size, changed, runs
        self.part = path.with_name(f"{path.name}.{changed:x}.part")

    def here(self) -> bool:
        """Is it here already?"""
        with suppress(OSError):
            facts = self.path.stat()
            return facts.st_size == self.size and facts.st_mtime_ns == self.changed
        return False

    def begin(self) -> int:
        """Make room for it; how many bytes of it are here."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.part.open("ab") as file:
            if file.tell() <= self.size:
                return file.tell()
            file.truncate(0)
            return 0

    def add(self, data: bytes) -> None:
        """Take the next bytes; when it is whole, it gets its name."""
        with self.part.open("ab") as file:
            file.write(data)
            whole = file.tell() >= self.size
        if whole:
            self.part.chmod(0o700 if self.runs else 0o600)
            os.utime(self.part, ns=(self.changed, self.changed))
            self.part.replace(self.path)
