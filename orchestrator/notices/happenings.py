"""Which happenings are worth a notice, of what kind, and in which words: pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from orchestrator.jobs.lifecycle import ALIVE, ENDED
from orchestrator.render.text import clean, duration
from orchestrator.store.notices import Happened, NewNotice
from orchestrator.targets.closed import FORGOTTEN, Closed

Kind = Literal["start", "end", "gate", "stuck", "host"]
"""A job begins to train, or a server is READY; a job has ended for good; a result is outside its gate; an attempt that makes no
step and no line for `retry.hang_minutes`, as soon as that is seen; a host does not answer, or cannot take jobs."""
DEFAULT: tuple[Kind, ...] = ("end", "gate", "stuck", "host")
"""What a service is told of unless it says otherwise."""
Tone = Literal["info", "success", "warning", "failure"]
"""As Apprise colours messages; each is worse than the one before."""

SILENT = 60.0
"""Seconds that a host may be silent, or closed, before it is told: a network's hiccup is no news."""
AGAIN = 3600.0
"""Seconds for which a host is not told again."""
LONGEST = 400
"""Characters of a line."""


def notices(happened: Happened, wanted: Mapping[str, frozenset[Kind]]) -> list[NewNotice]:
    """What each service is told of something that happened to a job: nothing, or one line.

    Args:
        happened: an event, with the job as it is now.
        wanted: service -> kinds that it is told of.
    """
    kinds = kinds_of(happened)
    if not kinds:
        return []
    event = happened.event
    due = event.time + (SILENT if "host" in kinds else 0.0)
    line, tone = f"[{happened.number}] {_words(happened, kinds)}", _tone(happened, kinds)
    kind = "host" if "host" in kinds else "job"
    return [
        NewNotice(service, str(happened.number), happened.number, kind, tone, harmless(line), due)
        for service, theirs in wanted.items()
        if not kinds.isdisjoint(theirs)
    ]


def kinds_of(happened: Happened) -> frozenset[Kind]:
    """A failed gate is an end, too, and one notice all the same. An attempt that another one follows is no end."""
    event = happened.event
    kinds: set[Kind] = set()
    if event.state in ("RUNNING", "READY") and event.old not in ("RUNNING", "READY"):
        kinds.add("start")
    if event.state == "KEPT" and event.old != event.state:
        kinds.add("end")  # told now: its devices wait for somebody
    if event.state in ENDED and event.old not in (event.state, "KEPT"):
        kinds |= {"end"} if not happened.again else set()
        kinds |= {"gate"} if event.reason == "gate" else set()
    if event.old == event.state and event.state in ALIVE:
        kinds |= {"stuck"} if event.reason == "hang" else {"host"} if not event.reason else set()
    return frozenset(kinds)


def _words(happened: Happened, kinds: frozenset[Kind]) -> str:
    event, job = happened.event, happened.job
    name = event.job if event.attempt == 1 else f"{event.job} (attempt {event.attempt})"
    if "host" in kinds:
        return f"{name}: its host does not answer: {event.detail or 'no reason given'}; the job may go on there"
    if "stuck" in kinds:
        return f"{name} is stuck: {event.detail}; it is being stopped"
    if "start" in kinds:
        return f"{name} {event.state} on {job.target}{f': {event.detail}' if event.detail else ''}"
    reason = f" ({event.reason})" if event.reason else ""
    detail = f": {event.detail}" if event.detail else ""
    took = f", {duration(job.ended - job.started)} on {job.target}" if job.ended and job.started and not happened.again else ""
    steps = f", {job.step} of {job.steps} steps" if job.step and job.steps and not happened.again else ""
    follows = "; another attempt follows" if happened.again else ""
    return f"{name} {event.state}{reason}{steps}{took}{detail}{follows}"


def _tone(happened: Happened, kinds: frozenset[Kind]) -> Tone:
    state = happened.event.state
    if kinds & {"host", "stuck"} or state == "CANCELLED" or happened.again:
        return "warning"
    return "success" if state == "SUCCEEDED" else "failure" if state in ENDED or state == "KEPT" else "info"


class ClosedHost(NamedTuple):
    """A machine on which nothing is started, as long as we have watched."""

    since: float
    """Seconds since the epoch."""
    until: float
    """Of its last `Closed`."""
    reason: str


def watched(before: Mapping[str, ClosedHost], closed: Mapping[str, Closed], now: float) -> dict[str, ClosedHost]:
    """The machines that are closed now. One that is being tried again is not open yet: that takes a while without a new closing."""
    found = {name: each for name, each in before.items() if each.until + FORGOTTEN > now}
    for name, each in closed.items():
        found[name] = ClosedHost(found[name].since if name in found else now, each.until, each.reason)
    return found


def host_notices(
    hosts: Mapping[str, ClosedHost],
    told: Mapping[str, float],
    wanted: Mapping[str, frozenset[Kind]],
    now: float,
    silent: Collection[str] = (),
) -> list[NewNotice]:
    """What is told of machines that have been closed for long.

    Args:
        hosts: as `watched` gave them.
        told: machine -> when it was told last, seconds since the epoch.
        wanted: service -> kinds that it is told of.
        now: seconds since the epoch.
        silent: what is known of jobs at work on hosts that do not answer, `HOST, HOST: reason`: these are told with the job.
    """
    with_jobs = {name for each in silent for name in each.partition(": ")[0].split(", ")}
    long = [name for name, each in hosts.items() if now - each.since >= SILENT and name not in with_jobs]
    ill = [name for name in long if now - told.get(name, float("-inf")) >= AGAIN]
    return [
        NewNotice(service, f"host {name} {now:.0f}", 0, "host", "warning", harmless(_ill(name, hosts[name].reason)), now)
        for name in ill
        for service, theirs in wanted.items()
        if "host" in theirs
    ]


def _ill(name: str, reason: str) -> str:
    return f"host {name}: nothing is started there for now: {reason.removeprefix(f'{name}: ')}"


def harmless(text: str) -> str:
    """One line, without controls, that mentions nobody: chats take `@all`, `@here` and `<!channel>` of a log's line for a call."""
    line = clean(text)
    line = re.sub(r"@(?=\w)|<(?=[!@#])", lambda found: f"{found[0]}\u200b", line)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def message(lines: Sequence[str], tones: Sequence[str]) -> tuple[str, str, str]:
    """Title, body and tone of what is told at once."""
    worst = max(tones, key=get_args(Tone).index)
    title = f"tune: {lines[0]}" if len(lines) == 1 else f"tune: {len(lines)} notices"
    return (title if len(title) <= 80 else f"{title[:77]}..."), "\n".join(lines), worst
