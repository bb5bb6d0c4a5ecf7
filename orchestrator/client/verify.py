"""Evidence that a recipe is the same training in every trainer, level by level."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.compile import context_of
from backends.registry import find
from orchestrator.client.errors import InvalidRequest, Unreachable
from orchestrator.client.evidence import keep
from orchestrator.client.progress import Say, quiet
from orchestrator.client.race import able, allowed_for, run_all, short
from orchestrator.client.recipes import check_accepted
from orchestrator.client.session import session
from orchestrator.client.submit import new_id
from orchestrator.client.targets import places, target
from orchestrator.executors.attempt_files import reached
from orchestrator.monitoring.drift import RESOLVED
from orchestrator.render.verify import tally
from orchestrator.transports.base import TransportError
from orchestrator.verification import (
    EXPECTED,
    FOUND,
    LEVELS,
    Curve,
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
    truth,
    with_truth,
    witness_file,
    witnessed,
)

if TYPE_CHECKING:
    from backends.backend import Backend
    from backends.mapping.rows import Context, Flat
    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.target import Target
    from orchestrator.client.session import Session
    from orchestrator.transports.base import Transport

LARGEST = 1 << 26
"""Bytes of a file of the job's that are read: a header, an index or a manifest is far smaller."""


class Verification(NamedTuple):
    """What was found."""

    id: str
    """With which the ids of its jobs begin."""
    recipe: str
    target: str
    steps: int
    """Of each job; 0: nothing was run."""
    verdicts: Sequence[Verdict]
    refused: Mapping[str, str]
    """Trainer -> why it was left out."""
    losses: Mapping[str, Curve]
    """Trainer -> loss by optimizer step."""
    finished: bool
    """False: Ctrl-C cut it short."""

    @property
    def passed(self) -> bool:
        """No verdict is `failed`, and every job was let finish."""
        return self.finished and all(each.outcome != "failed" for each in self.verdicts)

    def document(self) -> dict[str, object]:
        """The document of `tune verify --json`: scripts rely on it."""
        from orchestrator.render.verify import document  # noqa: PLC0415

        facts = {"id": self.id, "recipe": self.recipe, "target": self.target, "steps": self.steps}
        return {**facts, **document(self.verdicts, self.losses, self.refused)}

    def html(self) -> str:
        """The report as one page that needs nothing from elsewhere."""
        from orchestrator.render.verify import page  # noqa: PLC0415

        return page(self.recipe, self.verdicts, self.losses, self.refused)


def verify(
    recipe: Recipe,
    *,
    to: str = "all",
    on: str = "local",
    accept: Sequence[str] = (),
    level: int = 6,
    steps: int = 30,
    tolerance: float | None = None,
    say: Say = quiet,
) -> Verification:
    """Collect evidence that the trainers train the same.

    Args:
        recipe: what to train.
        to: trainers as `A,B`, or `all` that can express the recipe.
        on: the one target.
        accept: leaves that may be lost, by name.
        level: only levels up to this one, from 1 to 6; 1 runs nothing.
        steps: optimizer steps of each trainer's job.
        tolerance: on losses, in nats; None: as measured for the recipe's precision.
        say: is told which job runs now.

    Raises:
        InvalidRequest: a figure is out of its range.
        NotExpressible: no trainer asked can honour the recipe.
        Unreachable: what the jobs left cannot be read.
        NotFound, Ambiguous, MissingSecret: as `submit`.
    """
    if level not in LEVELS:
        raise InvalidRequest(str(level), f"should be from {min(LEVELS)} to {max(LEVELS)}", argument="level")
    check_accepted(recipe, accept)
    cut, where = short(recipe, steps), target(on)
    allowed = allowed_for(cut, tolerance)
    plans, refused = able(recipe, where, to, accept)
    found = [_returns(name, decided, recipe, where) for name, decided in plans.items()]
    runs: list[Run] = []
    finished, id = True, new_id(f"{cut.name}-verify")
    if level > 1:
        able_now, unable = able(cut, where, to, accept)
        found += [
            Verdict(number, (name,), "not possible", f"with {steps} steps: {unable[name]}")
            for name in plans
            if name in unable
            for number in range(2, level + 1)
        ]
        asked = {name: each for name, each in able_now.items() if name in plans}
        if level >= 3:
            asked = {name: watched(name, each, cut, where) for name, each in asked.items()}
        if level >= 6:
            asked = told_truth(asked, cut, where)
        runs, finished = run_all(id, asked, places(on, ask=True, say=say), say, labels={"verify": id})
        try:
            found += [each for each in measured(runs, cut, where, allowed) if each.level <= level]
        except TransportError as error:
            raise Unreachable(f"what the jobs left cannot be read: {error}") from None
    losses = {run.trainer: curve(run.points, "loss") for run in runs}
    out = Verification(id, recipe.name, on, steps if runs else 0, found, refused, losses, finished)
    keep(id, "verify", tally(found), out.document(), say)
    return out


def _returns(name: str, decided: Plan, recipe: Recipe, where: Target) -> Verdict:
    return round_trip(_fitted(name, recipe), decided, *_facts(recipe, where))


def _fitted(name: str, recipe: Recipe) -> Backend:
    each = find(name)
    return each.fit(recipe) if each.fit else each


def _facts(recipe: Recipe, where: Target) -> tuple[Flat, Context]:
    """The recipe's leaves, and what rows may know of it."""
    flat = recipe.flat()
    return flat, context_of(flat, where)


def watched(name: str, decided: Plan, recipe: Recipe, where: Target) -> Plan:
    """The plan with a witness of its rows, where there can be one."""
    return witnessed(_fitted(name, recipe), decided, *_facts(recipe, where))


def told_truth(plans: Mapping[str, Plan], recipe: Recipe, where: Target) -> dict[str, Plan]:
    """The plans, the first that can with a step that trains the same in plain PyTorch; where each has a truth of its own, each that can."""
    facts, out, first = _facts(recipe, where), dict(plans), True
    for name, decided in plans.items():
        if first or _own_truth(recipe):
            out[name] = with_truth(_fitted(name, recipe), decided, *facts)
            first = out[name] is decided
    return out


def _own_truth(recipe: Recipe) -> bool:
    """Each trainer rounds a base to 4 bits in its own way, and each run of grpo has its own answers."""
    return recipe.method.adapter == "qlora" or recipe.method.kind == "grpo"


class _Remains(NamedTuple):
    """What a job left of itself, as far as a level looks at it. Empty where there is no such file."""

    resolved: str
    expected: str
    seen: list[str]
    """By process: one a device, or (MaxText) one for all devices of a host."""
    evidence: Evidence
    truth: str = ""


def measured(runs: Sequence[Run], recipe: Recipe, where: Target, tolerance: Tolerance | None) -> list[Verdict]:
    """Levels 2 to 6. A job that has not trained fails level 4, and is compared with none."""
    flat, context = _facts(recipe, where)
    with session() as here:
        remains = [_remains(here, run, adapter=recipe.method.adapter != "none") for run in runs]
    pairs = list(zip(runs, remains, strict=True))
    found = [accepted(_fitted(run.trainer, recipe), run, each.resolved, flat, context) for run, each in pairs]
    found += [tokens(run, flat, each.expected, each.seen) for run, each in pairs]
    found += [
        Verdict(4, (run.trainer,), "failed", f"{run.job.id} is {run.job.state}: {run.job.detail}") for run in runs if not run.ok
    ]
    evidence = [each.evidence for run, each in pairs if run.ok]
    found += [counts(each, evidence[0], flat) for each in evidence]
    trained = [run for run in runs if run.ok]
    found += _drawn(trained) if recipe.method.kind == "grpo" else parity(trained, tolerance)
    shared = "" if _own_truth(recipe) else next((each.truth for each in remains if each.truth), "")
    return found + [truth(run, flat, context, each.truth or shared, tolerance) for run, each in pairs if run.ok]


def _drawn(runs: Sequence[Run]) -> list[Verdict]:
    """Losses over answers that each run drew for itself are compared with none but its own."""
    names = tuple(run.trainer for run in runs)
    why = "each run learns from answers of its own; level 6 has what it learned from them"
    return [Verdict(5, names, "not possible", why)] if len(names) > 1 else []


def _remains(here: Session, run: Run, *, adapter: bool) -> _Remains:
    """Read from the hosts where it ran; the first has what concerns all."""
    with reached(here.home, here.store, run.job.id, run.job.attempt) as hosts:
        ways = [transport for _, transport, _ in hosts]
        if not ways:
            return _Remains("", "", [], Evidence(run, None, None))
        devices = run.plan.devices
        seen = [
            _text(way, run, witness_file(host * devices + one), known_as)
            for host, (_, way, known_as) in enumerate(hosts)
            for one in range(devices)
        ]
        resolved, expected, told = (_text(ways[0], run, name) for name in (RESOLVED, EXPECTED, FOUND))
        return _Remains(resolved, expected, [text for text in seen if text], _evidence(ways[0], run, adapter=adapter), told)


def _text(transport: Transport, run: Run, path: str, known_as: str = "") -> str:
    """A file of a job's work folder; empty when there is none."""
    return transport.read(known_as or run.job.id, run.job.attempt, f"work/{path}", 0, LARGEST).decode("utf-8", "replace")


def _evidence(transport: Transport, run: Run, *, adapter: bool) -> Evidence:
    stem = "adapter/adapter_model" if adapter else "checkpoint/model"
    config = _document(transport, run, "checkpoint/config.json")
    index = _document(transport, run, f"{stem}.safetensors.index.json").get("weight_map", {})
    files = sorted({f"{stem.partition('/')[0]}/{file}" for file in index.values()}) or [f"{stem}.safetensors"]
    headers = [header for file in files if (header := _header(transport, run, file))]
    per_step = _document(transport, run, "data/manifest.json").get("tokens_per_step")
    tied = bool(config.get("tie_word_embeddings"))
    return Evidence(run, parameters(headers, tied=tied), tuple(per_step) if per_step else None)


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
