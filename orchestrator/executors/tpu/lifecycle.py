"""What to do about the slices of one target: ask for one, wait, hand it to a job, give it back. Pure: the executor asks the API
before, and does what is decided.

A slice that we asked for costs money, and quota even when nothing runs on it: a request that was suspended or failed counts until it is
deleted. So each of ours is either in use, wanted by a job that waits, idle for a while that the user chose, or deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from orchestrator.executors.tpu.slices import GONE, SliceView

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
Key = tuple[str, int]
"""Job and attempt."""
FIRST_WAIT, LONGEST_WAIT = 60.0, 1800.0
"""Seconds until a zone without capacity is tried again: at first, and at most."""
UNSEEN = 120.0
"""Seconds in which a request that was sent need not be in the list yet."""
MISSING = 2
"""Whole lists in a row without a slice, after which it is gone."""


@dataclass(frozen=True)
class SliceRules:
    """Of a target."""

    places: tuple[tuple[str, str], ...]
    """(zone, type), the preferred first."""
    most: int = 1
    """Slices at once."""
    idle: float = 0.0
    """Seconds for which one is kept that no job wants."""
    ours: bool = True
    """Slices are asked for and given back by us; else the user's own is used, and left as it is."""
    prefix: str = "tune"
    """Names of our requests begin so."""


@dataclass(frozen=True)
class Attempt:
    """An attempt of this target that has not ended."""

    key: Key
    slice: str = ""
    """That it has; empty while it waits for one."""


@dataclass(frozen=True)
class Memory:
    """What is remembered between two decisions. Lost with the controller; then slices are idle a little longer."""

    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Place -> how often in a row it had nothing."""
    until: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Place -> when it is tried again."""
    words: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Place -> the API's words for it."""
    idle: Mapping[str, float] = field(default_factory=dict)
    """Slice -> since when nobody wants it."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """Slice of an attempt -> whole lists in a row in which it was not."""
    sent: Mapping[str, tuple[float, tuple[str, str]]] = field(default_factory=dict)
    """Request that was sent and is in no list yet -> when, and for which place."""
    failed: frozenset[str] = frozenset()
    """Requests whose failure was counted."""


@dataclass(frozen=True)
class Create:
    """Ask for a slice."""

    name: str
    zone: str
    type: str


@dataclass(frozen=True)
class Decision:
    """What is to be done, and told."""

    memory: Memory
    create: tuple[Create, ...] = ()
    delete: tuple[SliceView, ...] = ()
    granted: Mapping[Key, SliceView] = field(default_factory=dict)
    waits: Mapping[Key, str] = field(default_factory=dict)
    """Attempt -> for what it waits."""
    lost: Mapping[Key, str] = field(default_factory=dict)
    """Attempt -> how its slice went."""


def decide(rules: SliceRules, attempts: Sequence[Attempt], views: Sequence[SliceView], memory: Memory, now: float) -> Decision:
    """What follows from a whole list of the target's slices.

    Args:
        rules: of the target.
        attempts: that have not ended, by their order.
        views: all slices of the target, whole.
        memory: what the last decision left.
        now: seconds since the epoch.
    """
    known = {view.name: view for view in views}
    held = {each.slice for each in attempts if each.slice}
    memory = _remembered(memory, known, held, now)
    lost = {each.key: why for each in attempts if each.slice and (why := _end(each.slice, known, memory))}
    waiting = [each for each in attempts if not each.slice]
    free = [view for view in views if view.state == "ready" and view.name not in held]
    granted = {each.key: view for each, view in zip(waiting, free, strict=False)}
    unserved = waiting[len(granted) :]
    idle = free[len(granted) :]
    coming = [view for view in views if view.state in ("waiting", "provisioning") and view.name not in held]
    if not rules.ours:
        return Decision(memory, granted=granted, waits={each.key: _state(views) for each in unserved}, lost=lost)
    surplus = sorted(coming, key=lambda view: view.created)[len(unserved) :]
    expired = [view for view in idle if now - memory.idle.get(view.name, now) >= rules.idle]
    gone = [view for view in views if view.state in GONE]
    living = sum(view.state not in (*GONE, "ending") for view in views) + len(memory.sent)
    lacking = min(len(unserved) - len(coming) - len(memory.sent), rules.most - living)
    memory, create = _asked(rules, memory, lacking, now)
    words = _waiting_words(rules, [view for view in coming if view not in surplus], memory, now)
    return Decision(memory, create, (*gone, *expired, *surplus), granted, {each.key: words for each in unserved}, lost)


def refused(memory: Memory, request: Create, words: str, now: float) -> Memory:
    """After a request that the API did not take: the place is tried again later, and later each time."""
    return _backed_off(replace(memory, sent=_without(memory.sent, request.name)), (request.zone, request.type), words, now)


def _remembered(memory: Memory, known: Mapping[str, SliceView], held: set[str], now: float) -> Memory:
    """The memory with what a new list says."""
    sent = {name: each for name, each in memory.sent.items() if name not in known and now - each[0] < UNSEEN}
    free = [view.name for view in known.values() if view.state == "ready" and view.name not in held]
    idle = {name: memory.idle.get(name, now) for name in free}
    missing = {name: memory.missing.get(name, 0) + 1 for name in held if name not in known}
    memory = replace(memory, sent=sent, idle=idle, missing=missing, failed=memory.failed & known.keys())
    for view in known.values():
        place = (view.zone, view.type)
        if view.state == "ready":
            memory = replace(memory, failures=_without(memory.failures, place), until=_without(memory.until, place))
        elif view.state == "failed" and view.name not in memory.failed:
            memory = _backed_off(memory, place, view.words, now)
            memory = replace(memory, failed=memory.failed | {view.name})
    return memory


def _backed_off(memory: Memory, place: tuple[str, str], words: str, now: float) -> Memory:
    failures = memory.failures.get(place, 0) + 1
    until = now + min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 30))
    return replace(
        memory,
        failures={**memory.failures, place: failures},
        until={**memory.until, place: until},
        words={**memory.words, place: words},
    )


def _end(name: str, known: Mapping[str, SliceView], memory: Memory) -> str:
    """Why an attempt on a slice has ended with it; empty while it may go on. Silence of the hosts alone never says so."""
    if name in known:
        return known[name].words if known[name].state in GONE else ""
    return "the Cloud TPU API has no such slice any more" if memory.missing.get(name, 0) >= MISSING else ""


def _asked(rules: SliceRules, memory: Memory, lacking: int, now: float) -> tuple[Memory, tuple[Create, ...]]:
    """Requests for as many slices as are lacking, in the first place that is not known to have none; and the memory of them."""
    place = next((each for each in rules.places if memory.until.get(each, 0.0) <= now), None)
    if lacking <= 0 or place is None:
        return memory, ()
    names = [f"{rules.prefix}-{int(now):x}" + (f"-{number}" if number else "") for number in range(lacking)]
    names = [name for name in names if name not in memory.sent]
    memory = replace(memory, sent={**memory.sent, **dict.fromkeys(names, (now, place))})
    return memory, tuple(Create(name, *place) for name in names)


def _waiting_words(rules: SliceRules, coming: Sequence[SliceView], memory: Memory, now: float) -> str:
    """For what an attempt waits, in the API's words."""
    if coming:
        first = coming[0]
        return f"{first.type} in {first.zone}: {first.words} ({first.name})"
    if memory.sent:
        name, (_, (zone, kind)) = next(iter(memory.sent.items()))
        return f"{kind} in {zone}: {name} is asked for"
    resting = {place: until for place in rules.places if (until := memory.until.get(place, 0.0)) > now}
    if len(resting) == len(rules.places):
        place = min(resting, key=lambda each: resting[each])
        minutes = (resting[place] - now) / 60
        each = "; ".join(f"{kind} in {zone}: {memory.words.get((zone, kind), 'no capacity')}" for zone, kind in rules.places)
        return f"{each}. Tried again in {max(1, round(minutes))} minutes"
    return "waits for a slice"


def _state(views: Sequence[SliceView]) -> str:
    """Why the user's own slice cannot be used now."""
    if not views:
        return "the Cloud TPU API has no such slice"
    return f"{views[0].name}: {views[0].words}" if views[0].state != "ready" else f"{views[0].name} is in use"


def _without(values: Mapping[_Key, _Value], gone: object) -> dict[_Key, _Value]:
    return {key: value for key, value in values.items() if key != gone}
