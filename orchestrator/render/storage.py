"""Disk space, for a reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.render.text import size, table, visible

if TYPE_CHECKING:
    from orchestrator.jobs.pruning import Pruning
    from orchestrator.targets.storage import StorageUse

HEADS = {"jobs": "JOBS", "envs": "ENVIRONMENTS", "cache": "CACHE", "blobs": "INPUTS"}


def du_table(found: Sequence[StorageUse], *, width: int | None = None) -> str:
    """One line a machine: bytes of its jobs, environments, cache and inputs, what of it no job uses, and what is free."""
    heads = ("MACHINE", *HEADS.values(), "UNUSED", "FREE")
    rows = []
    for each in found:
        if each.fault:
            rows.append((each.name, *("-" for _ in heads[1:])))
            continue
        kinds, unused = each.by_kind, sum(each.shared[name] for name in each.idle)
        rows.append((each.name, *(size(kinds[kind]) for kind in HEADS), size(unused), size(each.free)))
    return table(heads, rows, width=width, loose=("MACHINE",), right=heads[1:])


def du_json(found: Sequence[StorageUse]) -> dict[str, object]:
    """The same for programs, in bytes, with each job and each shared piece."""
    return {
        "machines": [
            {
                "name": each.name,
                "error": each.fault or None,
                "free": each.free,
                "total": each.by_kind,
                "jobs": [{"job": job, "attempt": number, "bytes": count} for (job, number), count in each.attempts.items()],
                "shared": [{"piece": name, "bytes": count, "used": name not in each.idle} for name, count in each.shared.items()],
            }
            for each in found
        ]
    }


def prune_text(found: Pruning, *, done: bool, width: int | None = None) -> str:
    """Jobs and shared pieces that go, what is kept and why, and the sum."""
    rows = [(each.job.id, each.job.name, each.job.state, size(each.bytes), ", ".join(each.hosts) or "-") for each in found.jobs]
    rows += [(name, "", "unused", size(count), on) for on, pieces in found.shared.items() for name, count in pieces.items()]
    parts = (
        [table(("JOB", "NAME", "STATE", "SIZE", "ON"), rows, width=width, loose=("NAME", "ON", "JOB"), right=("SIZE",))]
        if rows
        else []
    )
    if found.kept:
        parts.append("\n".join(["kept:", *(visible(f"  {id}: {why}") for id, why in found.kept.items())]))
    if found.left:
        parts.append("\n".join(["not removed:", *(visible(f"  {why}") for why in found.left)]))
    what = f"{len(found.jobs)} job{'s' * (len(found.jobs) != 1)}"
    verb = "freed" if done else "would be freed; --yes removes"
    parts.append(f"{what}, {size(found.freed)} {verb}" if rows else "nothing to remove")
    return "\n\n".join(parts)


def prune_json(found: Pruning, *, done: bool) -> dict[str, object]:
    """The same for programs, in bytes."""
    return {
        "removed": done,
        "bytes": found.freed,
        "jobs": [{"id": each.job.id, "bytes": each.bytes, "machines": list(each.hosts)} for each in found.jobs],
        "shared": {on: dict(pieces) for on, pieces in found.shared.items()},
        "kept": dict(found.kept),
        "left": list(found.left),
    }
