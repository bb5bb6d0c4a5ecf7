"""The contract of a transport: start an attempt, look at attempts, stop one, read a file of one.

A transport never decides what a state means for a job; it reports what durable files on the host say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Phase = Literal["unknown", "running", "stopping", "exited", "lost"]

HEAD = 256
"""Bytes of a file's beginning by which a rewrite is told from an append."""


class TransportError(Exception):
    """The host could not be asked. It says nothing about the job."""


class Conflict(Exception):
    """The same attempt was started before with other contents."""


@dataclass(frozen=True)
class Request:
    """One attempt of one job, complete: everything the runner needs to run it without asking anybody."""

    job: str
    attempt: int
    steps: tuple[Mapping[str, Any], ...]
    """In order: `{"name": str, "argv": [str, ...], "made": str}`; with a file `made` in place the step is left out."""
    files: Mapping[str, str]
    """Path relative to the work folder -> text."""
    links: Mapping[str, str]
    """Path relative to the work folder -> what it points to on the host (absolute, or relative to the state folder)."""
    env: Mapping[str, str] = field(default_factory=dict)
    grace: float = 10.0
    """Seconds between asking processes to end and killing them."""
    notify: str = ""
    """A Unix datagram socket that gets the job's id whenever its files change; may be absent or dead."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Into the environment of the steps, by standard input; never written anywhere."""


@dataclass(frozen=True)
class Watch:
    """What to look at in one attempt."""

    job: str
    attempt: int
    promised: tuple[str, ...] = ()
    """Patterns relative to the work folder (`checkpoint/*.safetensors`): which exist and are not empty?"""
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Files to read on: path relative to the work folder -> (byte offset reached, `Chunk.head` given with it).
    Where the file is shorter than the offset or its head differs, it was rewritten and is sent from 0."""
    patterns: tuple[str, ...] = ()
    """Patterns of further files to read: those not in `files` yet are sent from 0."""


@dataclass(frozen=True)
class Chunk:
    """New bytes of a file."""

    path: str
    offset: int
    """Where `data` begins."""
    data: bytes
    head: str
    """sha256 of the first `min(HEAD, offset + len(data))` bytes of the file now. The next `Watch` gives it back; the
    host compares it over `min(HEAD, offset)` bytes, so an append is an append and a rewrite is noticed."""


@dataclass(frozen=True)
class Seen:
    """What the host says of one attempt."""

    job: str
    attempt: int
    phase: Phase
    step: str = ""
    """Name of the step that runs, or ran last."""
    step_started: float | None = None
    """Seconds since the epoch, by the host's clock."""
    rc: int | None = None
    signal: int | None = None
    why: str = ""
    """`stopped`, `killed after grace`, `could not start: ...`, `host rebooted`, `supervisor died`."""
    orphans: int = 0
    """Processes that a dead supervisor left behind."""
    log_size: int = 0
    ended: float | None = None
    """Seconds since the epoch, by the host's clock, when exited."""
    chunks: tuple[Chunk, ...] = ()
    exist: tuple[str, ...] = ()
    """Those of `Watch.promised` that exist and are not empty. Read after the phase."""


class Transport(Protocol):
    """One machine, or several behind one address."""

    def start(self, request: Request) -> Seen:
        """Start an attempt; a second call with the same contents starts nothing and answers what is.

        Raises:
            Conflict: this attempt exists with other contents.
            TransportError: the host could not be asked, or has no room.
        """
        ...

    def poll(self, watches: Sequence[Watch]) -> list[Seen]:
        """Look at many attempts at once, in one round trip. The phase is read before the files: `exited` and no more
        bytes means that there will be none.
        """
        ...

    def stop(self, job: str, attempt: int, grace: float) -> None:
        """Ask for the end of an attempt's whole process tree: TERM, then KILL after `grace` seconds. Returns at once."""
        ...

    def reap(self, job: str, attempt: int) -> int:
        """Kill what a dead supervisor left behind; how many processes."""
        ...

    def read(self, job: str, attempt: int, path: str, offset: int, limit: int) -> bytes:
        """Bytes of a file of the attempt (`log`, or `work/...`); empty when it does not exist."""
        ...
