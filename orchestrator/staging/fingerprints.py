"""Whether an input is still what it was when its job was submitted: by size and time of change, and by content where those differ."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from backends.plan import Input
from orchestrator.agent.blobs import address, walk, within
from orchestrator.store.requests import Fingerprint

WAY_OUT = "submit it again, or put the input back and `tune retry`"
"""For a job whose input has changed."""
READ = 64 * 2**20
"""Bytes up to which an input is read when its job is submitted (0.1 s). A larger one is told by size and time of change alone."""


def fingerprint(source: Path) -> Fingerprint:
    """Of a file or folder.

    Raises:
        OSError: it is not there, or holds something else than plain files and folders.
    """
    found = _unread(source)
    return replace(found, content=address(str(source))) if found.bytes <= READ else found


def _unread(source: Path) -> Fingerprint:
    """What can be told without reading a file."""
    stats, total, count = sha256(), 0, 0
    for name in sorted(walk(str(source))):
        fact = os.stat(within(str(source), name))  # noqa: PTH116 (a name in a blob may be no text)
        stats.update(f"{fact.st_size} {fact.st_mtime_ns} {name}\0".encode("utf-8", "surrogateescape"))
        total, count = total + fact.st_size, count + 1
    return Fingerprint(count, total, stats.hexdigest())


def fingerprints(inputs: Iterable[Input]) -> dict[str, Fingerprint]:
    """Source of each input that is there -> what it is now. What is not is told by whoever brings it to a host.

    Raises:
        OSError: see `fingerprint`.
    """
    paths = {each.source: Path(each.source).expanduser() for each in inputs}
    return {source: fingerprint(path) for source, path in paths.items() if path.exists()}


def changed(kept: Mapping[str, Fingerprint]) -> str:
    """What is not any more what it was, in words; empty when all is.

    Args:
        kept: source -> what it was.
    """
    return "; ".join(words for source, was in kept.items() if (words := _change(Path(source).expanduser(), was)))


def _change(path: Path, was: Fingerprint) -> str:
    try:
        now = _unread(path)
        # read only where that can tell: the controller asks before each attempt
        if now.stats == was.stats or (was.content and now.bytes == was.bytes and address(str(path)) == was.content):
            return ""
    except OSError as error:
        return f"{error.filename or path} is not there any more: {error.strerror or error}"
    if now.files != was.files:
        return f"{path} has {now.files} files, it had {was.files}"
    if now.bytes != was.bytes:
        return f"{path} has {now.bytes:,} bytes, it had {was.bytes:,}"
    return f"{path} was written again" + (", and holds something else" if was.content else "")
