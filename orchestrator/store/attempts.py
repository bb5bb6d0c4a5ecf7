"""What the store keeps of an attempt beside its points, as a value.

The keys in the store are those of the first release: `files` and `progress` (the cursor), `placed`, `start`, `not_before`,
`condemned`, `outcome`. What is empty there is None here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from backends.backend import Progress
from backends.checkpoints import SavedCheckpoint
from backends.log_signs import Class
from orchestrator.targets.node import Placement
from orchestrator.transports.base import Chunk


class FileCursor(NamedTuple):
    """How far a file was read."""

    offset: int
    """Bytes."""
    head: str
    """See `Chunk.head`."""
    tail: str
    """Text of an unfinished last line."""


@dataclass
class Cursor:
    """How far the files of an attempt were read; moves on with every look."""

    files: dict[str, FileCursor] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    def offsets(self) -> dict[str, tuple[int, str]]:
        """What the next look at the files starts from."""
        return {path: (file.offset, file.head) for path, file in self.files.items()}

    def lines(self, chunk: Chunk) -> str:
        """Whole new lines of a chunk. A file that begins anew makes everything noted void."""
        tail = self.files[chunk.path].tail if chunk.path in self.files else ""
        if chunk.offset == 0:
            tail, self.progress = "", Progress()
        text = tail + chunk.data.decode("utf-8", "surrogateescape")
        whole, newline, rest = text.rpartition("\n")
        self.files[chunk.path] = FileCursor(chunk.offset + len(chunk.data), chunk.head, rest)
        return whole + newline


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint from which an attempt goes on."""

    attempt: int
    """That left it."""
    step: int
    """Optimizer steps that it has behind it."""
    folder: str
    """Relative to the work folder of that attempt."""
    node: str
    """Where it lies: the new attempt has to run there."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended that did not succeed."""

    kind: Class
    """Of failure."""
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """Complete ones that it left, the oldest first."""
    owed: tuple[str, ...] = ()
    """Nodes that did not answer and still have to be told that it is over."""
    step: str = ""
    """The plan's step that ran last; empty where nobody knows."""


@dataclass
class AttemptRecord:
    """One attempt: where it runs, how far its files were read, how it began and ended. Kept in one transaction with its points."""

    cursor: Cursor = field(default_factory=Cursor)
    placement: Placement | None = None
    """None until it was given devices."""
    resume: ResumePoint | None = None
    """None: it begins from the start."""
    not_before: float = 0.0
    """When it may start, in seconds since the epoch."""
    condemned: tuple[str, str] | None = None
    """Reason and detail for which we stop it: whatever it says in the end, it has failed."""
    outcome: Outcome | None = None
    micro: int | None = None
    """Sequences that a device takes at once (train.batch.micro), where an attempt before ran out of memory with more; None: as the
    recipe says."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AttemptRecord:
        """The record that `as_dict` gave; an empty one of nothing."""
        placed, start, condemned, outcome = (values.get(key) for key in ("placed", "start", "condemned", "outcome"))
        return cls(
            Cursor(
                {path: FileCursor(*reached) for path, reached in values.get("files", {}).items()},
                Progress(**values.get("progress", {})),
            ),
            Placement.from_dict(placed) if placed else None,
            ResumePoint(start["attempt"], start["step"], start["folder"], start["machine"]) if start else None,
            values.get("not_before", 0.0),
            (condemned[0], condemned[1]) if condemned else None,
            _outcome(outcome) if outcome else None,
            values.get("micro"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        resume, outcome = self.resume, self.outcome
        return {
            "files": {path: list(reached) for path, reached in self.cursor.files.items()},
            "progress": dict(vars(self.cursor.progress)),
            "placed": self.placement.as_dict() if self.placement else {},
            "start": {
                "attempt": resume.attempt,
                "step": resume.step,
                "folder": resume.folder,
                "machine": resume.node,
            }
            if resume
            else {},
            "not_before": self.not_before,
            "condemned": list(self.condemned or ()),
            "outcome": {
                "kind": outcome.kind,
                "checkpoints": [list(each) for each in outcome.checkpoints],
                **({"owed": list(outcome.owed)} if outcome.owed else {}),
                **({"step": outcome.step} if outcome.step else {}),
            }
            if outcome
            else {},
            **({"micro": self.micro} if self.micro else {}),
        }


def _outcome(values: Mapping[str, Any]) -> Outcome:
    checkpoints: Sequence[Sequence[Any]] = values.get("checkpoints", ())
    left = tuple(SavedCheckpoint(*each) for each in checkpoints)
    return Outcome(values["kind"], left, tuple(values.get("owed", ())), values.get("step", ""))
