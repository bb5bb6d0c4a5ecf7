"""New bytes of the trainer's files -> points, and what must be remembered between two looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

from backends.backend import Backend, Progress
from backends.metrics import Point
from orchestrator.transports.base import Chunk


@dataclass
class Reading:
    """How far one attempt's files have been read. Kept as JSON in the same transaction as the points."""

    files: dict[str, list[Any]] = field(default_factory=dict)
    """Path -> [offset reached, head, text of an unfinished last line]."""
    progress: Progress = field(default_factory=Progress)
    placed: dict[str, Any] = field(default_factory=dict)
    """Where the attempt runs: `{"target": name, "devices": {machine: [device, ...]}}`, machines by rank."""
    start: dict[str, Any] = field(default_factory=dict)
    """The checkpoint that it goes on from: `{"attempt", "step", "folder", "machine"}`; empty: from the beginning."""
    not_before: float = 0.0
    """When it may start, in seconds since the epoch."""
    condemned: list[str] = field(default_factory=list)
    """Reason and detail for which it is being stopped by us: whatever it says in the end, it has failed."""
    outcome: dict[str, Any] = field(default_factory=dict)
    """Of an attempt that ended without success: `{"kind": class of failure, "checkpoints": [[step, folder, lacks], ...]}`."""

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> Reading:
        """What was kept; empty at first."""
        known = {name: kept[name] for name in cls.__dataclass_fields__.keys() & kept.keys()}
        return cls(**{**known, "progress": Progress(**kept.get("progress", {}))})

    def dump(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "progress": asdict(self.progress)}

    def offsets(self) -> dict[str, tuple[int, str]]:
        """What the next look at the files starts from."""
        return {path: (offset, head) for path, (offset, head, _) in self.files.items()}

    def lines(self, chunk: Chunk) -> str:
        """Whole new lines of a chunk. A file that begins anew makes everything noted void."""
        _, _, tail = self.files.get(chunk.path, (0, "", ""))
        if chunk.offset == 0:
            tail, self.progress = "", Progress()
        text = tail + chunk.data.decode("utf-8", "surrogateescape")
        whole, newline, rest = text.rpartition("\n")
        self.files[chunk.path] = [chunk.offset + len(chunk.data), chunk.head, rest]
        return whole + newline


def points(
    backend: Backend,
    plan: Mapping[str, Any],
    reading: Reading,
    chunks: Iterable[Chunk],
    manifest: Mapping[str, Any] | None,
) -> list[Point]:
    """Points in the new bytes, in our one schema; `reading` moves on."""
    found: list[Point] = []
    for chunk in chunks:
        for line in reading.lines(chunk).splitlines():  # a file that begins anew gets a new progress with its first line
            try:
                found += backend.read(plan["reading"], reading.progress, line)
            except (
                ValueError,
                KeyError,
                IndexError,
                TypeError,
            ):  # a line that is not what the trainer writes: half of one, or another's
                reading.progress.kept["unreadable"] = reading.progress.kept.get("unreadable", 0) + 1
    return thin(enrich(found, manifest), plan["reading"]["every"])


def summed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The data step's manifest with the tokens up to each step: once an attempt, since every look at its metrics needs them."""
    return {**manifest, "tokens_so_far": list(accumulate(manifest["tokens_per_step"]))}


def enrich(found: Sequence[Point], manifest: Mapping[str, Any] | None) -> list[Point]:
    """Add what the data step knows: tokens so far, and the speed in all tokens where a trainer counts only those with loss."""
    if not manifest:
        return list(found)
    per_step, with_loss = manifest["tokens_per_step"], manifest["loss_tokens_per_step"]
    so_far = manifest["tokens_so_far"]
    out = []
    for point in found:
        if not 0 < point.step <= len(per_step):
            out.append(point)
        elif point.name == "loss_tokens_per_second":
            value = point.value * per_step[point.step - 1] / max(1, with_loss[point.step - 1])
            out.append(point._replace(name="tokens_per_second", value=value))
        elif point.name != "tokens":
            out.append(point)
        if point.name == "loss" and 0 < point.step <= len(per_step):
            out.append(Point(point.step, "tokens", float(so_far[point.step - 1]), ""))
            if manifest.get("epochs"):
                out.append(Point(point.step, "epoch", point.step * manifest["epochs"] / manifest["steps"], ""))
    return out


def thin(found: Sequence[Point], every: int) -> list[Point]:
    """Every n-th step's points, and all evaluations."""
    return [p for p in found if p.step % every == 0 or p.name.startswith("eval")] if every > 1 else list(found)
