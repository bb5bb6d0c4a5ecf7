"""What is to be known of attempts on one host, asked of it in as few calls as can be. Decides nothing, keeps nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from backends.resuming import INDEX
from orchestrator.drift import RESOLVED
from orchestrator.transports.base import Chunk, Seen, Transport, Watch

MANIFEST = "data/manifest.json"
"""What the data step made."""
REASON = "reason.json"
"""What a step that failed says of it."""
_TAIL = 8192


@dataclass(frozen=True)
class Observed:
    """One attempt on one host, as far as the watch had not seen it."""

    seen: Seen
    """Without bytes of files. Exited or lost means: after everything in `chunks` there is no more."""
    chunks: tuple[Chunk, ...]
    log: bytes = field(default=b"", repr=False)
    """New bytes of the log, where the watch asked for them."""
    manifest: dict[str, Any] | None = None
    said: dict[str, Any] | None = None
    resolved: str = field(default="", repr=False)
    """What the trainer said of its config as it read it (`drift.RESOLVED`), where the watch asked for it."""
    tail: bytes = field(default=b"", repr=False)
    """The end of the log of an attempt that did not succeed."""
    index: str = ""
    """What that attempt says of its checkpoints (`resuming.INDEX`)."""


def observe(transport: Transport, watches: Sequence[Watch]) -> list[Observed]:
    """Look at many attempts: one call to the host, and more only for those that ended or have something new to say.

    Raises:
        TransportError: the host could not be asked.
    """
    return [_whole(transport, watch, seen) for watch, seen in zip(watches, transport.poll(watches), strict=True)]


def _whole(transport: Transport, watch: Watch, seen: Seen) -> Observed:
    chunks, log = list(seen.chunks), seen.log
    while seen.phase in ("exited", "lost") and (seen.chunks or seen.log):
        reached = {chunk.path: (chunk.offset + len(chunk.data), chunk.head) for chunk in seen.chunks}
        at = None if watch.log is None else watch.log + len(seen.log)
        watch = replace(watch, files={**watch.files, **reached}, log=at)
        [seen] = transport.poll([watch])
        chunks, log = chunks + list(seen.chunks), log + seen.log

    def read(path: str, limit: int, offset: int = 0) -> bytes:
        return transport.read(seen.job, seen.attempt, path, offset, limit)

    failed = seen.phase == "lost" or (seen.phase == "exited" and seen.rc != 0)
    return Observed(
        replace(seen, chunks=(), log=b""),
        tuple(chunks),
        log,
        _json(read(f"work/{MANIFEST}", 256 << 20)) if MANIFEST in seen.exist else None,
        (_json(read(f"work/{REASON}", 1 << 16)) or {}) if REASON in seen.exist else None,
        read(f"work/{RESOLVED}", 16 << 20).decode("utf-8", "replace") if RESOLVED in seen.exist else "",
        read("log", _TAIL, max(0, seen.log_size - _TAIL)) if failed else b"",
        read(f"work/{INDEX}", 1 << 20).decode("utf-8", "replace") if failed else "",
    )


def _json(data: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        value = json.loads(data)
        return value if isinstance(value, dict) else None
    return None


def last_words(tail: bytes) -> str:
    """The last line that looks like an error, or simply the last."""
    lines = [
        line.strip() for line in tail.decode("utf-8", "replace").splitlines() if line.strip() and not line.startswith("=== tune:")
    ]
    errors = [line for line in lines if line.split(":")[0].rstrip().endswith(("Error", "Exception", "error"))]
    return (errors or lines or [""])[-1][:500]
