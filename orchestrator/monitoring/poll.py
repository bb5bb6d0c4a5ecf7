"""What is to be known of attempts on one host, asked of it in as few calls as can be. Decides nothing, keeps nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from backends.checkpoints import INDEX
from orchestrator.agent import attempts
from orchestrator.monitoring.drift import RESOLVED
from orchestrator.transports.base import AttemptStatus, Chunk, Transport, Watch

MANIFEST = "data/manifest.json"
"""What the data step made."""
SUMMARY = "summary.json"
"""What a stage says of itself: `backends.stages.stage.SUMMARY`."""
REASON = "reason.json"
"""What a step that failed says of it."""
TAIL = 8192
"""Bytes of the log's end in which an error is looked for."""
FAILED = (REASON, INDEX)
"""What is asked for of an attempt that ended without success."""


@dataclass(frozen=True)
class Observed:
    """One attempt on one host, as far as the watch had not seen it."""

    seen: AttemptStatus
    """Without bytes of files. Exited or lost means: after everything in `chunks` there is no more."""
    chunks: tuple[Chunk, ...]
    log: bytes = field(default=b"", repr=False)
    """New bytes of the log, where the watch asked for them."""
    manifest: dict[str, Any] | None = None
    reason: dict[str, Any] | None = None
    """What the step that failed wrote of why: `reason` and `detail`."""
    summary: dict[str, object] | None = None
    """What a stage says of itself, where the watch asked for it."""
    resolved: str = field(default="", repr=False)
    """What the trainer said of its config as it read it (`drift.RESOLVED`), where the watch asked for it."""
    tail: bytes = field(default=b"", repr=False)
    """The end of the log of an attempt that did not succeed."""
    index: str = ""
    """What that attempt says of its checkpoints (`checkpoints.INDEX`)."""


def observe(transport: Transport, watches: Sequence[Watch]) -> list[Observed]:
    """Look at many attempts: one call to the host, and more only for those that ended and left more than one can bring.

    Raises:
        TransportError: the host could not be asked.
    """
    return [_observed(*_drained(transport, watch, seen)) for watch, seen in zip(watches, transport.poll(watches), strict=True)]


def _drained(transport: Transport, watch: Watch, seen: AttemptStatus) -> tuple[AttemptStatus, list[Chunk], bytes]:
    """What was seen, and of an attempt that ended all the bytes that were new."""
    first, chunks, log = seen, list(seen.chunks), seen.log
    while first.phase in ("exited", "lost") and _cut(seen):
        reached = {chunk.path: (chunk.offset + len(chunk.data), chunk.head) for chunk in seen.chunks}
        at = None if watch.log is None else watch.log + len(seen.log)
        watch = replace(watch, files={**watch.files, **reached}, log=at, promised=(), whole=(), failed=(), tail=0)
        [seen] = transport.poll([watch])
        chunks, log = chunks + list(seen.chunks), log + seen.log
    return first, chunks, log


def _cut(seen: AttemptStatus) -> bool:
    """May there be more than one poll brings?"""
    longest = max(map(len, (seen.log, *(chunk.data for chunk in seen.chunks))))
    return longest >= attempts.CHUNK or len(seen.chunks) >= attempts.MATCHES


def _observed(seen: AttemptStatus, chunks: Sequence[Chunk], log: bytes) -> Observed:
    return Observed(
        replace(seen, chunks=(), log=b"", whole={}, tail=b""),
        tuple(chunks),
        log,
        _json(seen.whole, MANIFEST),
        (_json(seen.whole, REASON) or {}) if REASON in seen.whole else None,
        _json(seen.whole, SUMMARY),
        _text(seen.whole, RESOLVED),
        seen.tail,
        _text(seen.whole, INDEX),
    )


def _text(whole: Mapping[str, bytes], path: str) -> str:
    return whole.get(path, b"").decode("utf-8", "replace")


def _json(whole: Mapping[str, bytes], path: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        value = json.loads(whole.get(path, b"null"))
        return value if isinstance(value, dict) else None
    return None


def last_words(tail: bytes) -> str:
    """The last line that looks like an error, or simply the last; of several processes under torchrun those of the rank that failed first."""
    text = tail.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("=== tune:")]
    if found := _FIRST_TO_FAIL.search(text):
        return _of_rank(found[1], found[2], found[3], lines)[:500]
    return (_errors(lines) or lines or [""])[-1][:500]


_FIRST_TO_FAIL = re.compile(
    r"^Root Cause \(first observed failure\):\s.{0,300}?^\s*rank\s*: (\d+) .{0,100}?^\s*exitcode\s*: (-?\d+) \(pid: \d+\)(?: *\((\w+)\))?",
    re.MULTILINE | re.DOTALL,
)
"""What torchrun says at its end (https://github.com/pytorch/pytorch/blob/v2.9.1/torch/distributed/elastic/multiprocessing/errors/__init__.py)."""


def _of_rank(rank: str, code: str, signal: str | None, lines: Sequence[str]) -> str:
    """What a rank said itself: torch puts `[rankN]:` before the lines of its traceback once the ranks know each other."""
    if int(code) < 0:
        return f"rank {rank} was ended by signal {code[1:]}" + (f" ({signal})" if signal else "")
    mine = [line.partition(":")[2].removeprefix(" ") for line in lines if line.startswith(f"[rank{rank}]:")]
    own = [line for line in mine if line and not line.startswith((" ", "[", "Traceback", "During handling", "The above"))]
    others = [line for line in lines if not line.startswith(("torch.distributed.elastic", "[rank"))]
    return f"rank {rank}: {(own or _errors(others) or [f'exit code {code}'])[-1]}"


def _errors(lines: Sequence[str]) -> list[str]:
    """Lines that look like the last of a traceback."""
    return [line for line in lines if line.split(":")[0].rstrip().endswith(("Error", "Exception", "error"))]
