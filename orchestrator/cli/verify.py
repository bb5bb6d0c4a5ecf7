"""`tune verify`: evidence that a recipe is the same training in every trainer, level by level."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backends.compile import context_of
from backends.registry import find
from orchestrator.cli import DONE, FAILED, INTERRUPTED, TROUBLE, WRONG, Stop
from orchestrator.cli.arguments import places, recipe, target
from orchestrator.cli.race import able, allowed, run_all, short
from orchestrator.home import Home
from orchestrator.monitoring.drift import RESOLVED
from orchestrator.render.verify import document, page, verify_text
from orchestrator.store import open_store
from orchestrator.targets.connect import reached
from orchestrator.transports.base import TransportError
from orchestrator.verification import (
    EXPECTED,
    LEVELS,
    Evidence,
    Run,
    Tolerance,
    Verdict,
    accepted,
    counts,
    curve,
    parameters,
    parity,
    round_trip,
    tokens,
    witness_file,
    witnessed,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from backends.backend import Backend
    from backends.mapping.rows import Context, Flat
    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.target import Target
    from orchestrator.store import Store
    from orchestrator.transports.base import Transport

LARGEST = 1 << 26
"""Bytes of a file of the job's that are read: a header, an index or a manifest is far smaller."""


def verify(said: argparse.Namespace) -> int:
    """Each level: passed, failed, or not possible; 0 when none failed and every job was let finish."""
    if said.level not in LEVELS:
        raise Stop(WRONG, f"--level {said.level}: should be from {min(LEVELS)} to {max(LEVELS)}")
    if said.html and not Path(said.html).absolute().parent.is_dir():
        raise Stop(WRONG, f"--html {said.html}: no such folder")
    whole, wish, where = recipe(said), short(said), target(said)
    tolerance = allowed(said, wish)
    plans, refused = able(said, whole, where)
    found = [_returns(name, decided, whole, where) for name, decided in plans.items()]
    runs: list[Run] = []
    finished = True
    if said.level > 1:
        able_now, unable = able(said, wish, where)
        shortened = {name: each for name, each in able_now.items() if name in plans}
        found += [
            Verdict(level, (name,), "not possible", f"with {said.steps} steps: {unable[name]}")
            for name in plans
            if name in unable
            for level in range(2, said.level + 1)
        ]
        asked = {name: watched(name, each, wish, where) if said.level >= 3 else each for name, each in shortened.items()}
        runs, finished = run_all(f"{wish.name}-verify-{os.urandom(3).hex()}", asked, places(said, ask=True))
        try:
            found += [each for each in measured(runs, wish, where, tolerance) if each.level <= said.level]
        except TransportError as error:
            raise Stop(TROUBLE, f"what the jobs left cannot be read: {error}") from None
    _show(said, whole, found, runs, refused)
    if not finished:
        return INTERRUPTED
    return FAILED if any(each.outcome == "failed" for each in found) else DONE


def _show(said: argparse.Namespace, whole: Recipe, found: list[Verdict], runs: list[Run], refused: Mapping[str, str]) -> None:
    curves = {run.trainer: curve(run.points, "loss") for run in runs}
    if said.html:
        Path(said.html).write_text(page(whole.name, found, curves, refused), "utf-8")
        print(f"wrote {said.html}", file=sys.stderr)
    if said.json:
        facts = {"recipe": whole.name, "target": said.on, "steps": said.steps if runs else 0}
        print(json.dumps({**facts, **document(found, curves, refused)}, indent=1))
    else:
        print(verify_text(whole.name, found, refused, width=shutil.get_terminal_size((120, 40)).columns))


def _returns(trainer: str, decided: Plan, wish: Recipe, where: Target) -> Verdict:
    return round_trip(_fitted(trainer, wish), decided, *_facts(wish, where))


def _fitted(trainer: str, wish: Recipe) -> Backend:
    each = find(trainer)
    return each.fit(wish) if each.fit else each


def _facts(wish: Recipe, where: Target) -> tuple[Flat, Context]:
    """The recipe's leaves, and what rows may know of it."""
    flat = wish.flat()
    return flat, context_of(flat, where)


def watched(trainer: str, decided: Plan, wish: Recipe, where: Target) -> Plan:
    """The plan with a witness of its rows, where there can be one."""
    return witnessed(_fitted(trainer, wish), decided, *_facts(wish, where))


class Left(NamedTuple):
    """What a job left of itself, as far as a level looks at it. Empty where there is no such file."""

    resolved: str
    expected: str
    seen: list[str]
    """By process: one a device, or (MaxText) one for all devices of a host."""
    evidence: Evidence


def measured(runs: list[Run], wish: Recipe, where: Target, tolerance: Tolerance | None) -> list[Verdict]:
    """Levels 2 to 5. A job that has not trained fails level 4, and is compared with none."""
    home, (flat, context) = Home.find(), _facts(wish, where)
    with open_store(home.store) as store:
        left = [_left(home, store, run, adapter=wish.method.adapter != "none") for run in runs]
    pairs = list(zip(runs, left, strict=True))
    found = [accepted(_fitted(run.trainer, wish), run, each.resolved, flat, context) for run, each in pairs]
    found += [tokens(run, flat, each.expected, each.seen) for run, each in pairs]
    found += [
        Verdict(4, (run.trainer,), "failed", f"{run.job.id} is {run.job.state}: {run.job.detail}") for run in runs if not run.ok
    ]
    evidence = [each.evidence for run, each in pairs if run.ok]
    found += [counts(each, evidence[0], flat) for each in evidence]
    return found + parity([run for run in runs if run.ok], tolerance)


def _left(home: Home, store: Store, run: Run, *, adapter: bool) -> Left:
    """Read from the hosts where it ran; the first has what concerns all."""
    with reached(home, store, run.job.id, run.job.attempt) as hosts:
        ways = [transport for _, transport in hosts]
        if not ways:
            return Left("", "", [], Evidence(run, None, None))
        devices = run.plan.devices
        seen = [_text(way, run, witness_file(host * devices + one)) for host, way in enumerate(ways) for one in range(devices)]
        resolved, expected = (_text(ways[0], run, name) for name in (RESOLVED, EXPECTED))
        return Left(resolved, expected, [text for text in seen if text], _evidence(ways[0], run, adapter=adapter))


def _text(transport: Transport, run: Run, path: str) -> str:
    """A file of a job's work folder; empty when there is none."""
    return transport.read(run.job.id, run.job.attempt, f"work/{path}", 0, LARGEST).decode("utf-8", "replace")


def _evidence(transport: Transport, run: Run, *, adapter: bool) -> Evidence:
    place = "adapter/adapter_model" if adapter else "checkpoint/model"
    config = _document(transport, run, "checkpoint/config.json")
    index = _document(transport, run, f"{place}.safetensors.index.json").get("weight_map", {})
    files = sorted({f"{place.partition('/')[0]}/{file}" for file in index.values()}) or [f"{place}.safetensors"]
    headers = [header for file in files if (header := _header(transport, run, file))]
    tokens = _document(transport, run, "data/manifest.json").get("tokens_per_step")
    return Evidence(run, parameters(headers, tied=bool(config.get("tie_word_embeddings"))), tuple(tokens) if tokens else None)


def _document(transport: Transport, run: Run, path: str) -> dict[str, Any]:
    """A JSON file of a job; empty when there is none."""
    with suppress(ValueError):
        return dict(json.loads(_text(transport, run, path)))
    return {}


def _header(transport: Transport, run: Run, path: str) -> bytes:
    """The header of a safetensors file: its first 8 bytes say how long it is (little-endian)."""

    def read(start: int, size: int) -> bytes:
        return transport.read(run.job.id, run.job.attempt, f"work/{path}", start, size)

    return read(8, min(int.from_bytes(read(0, 8), "little"), LARGEST))
