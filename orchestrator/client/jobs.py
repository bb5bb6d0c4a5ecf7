"""Jobs: found by name or filter, followed, waited for, cancelled, tried again. Nothing here imports the trainers."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.errors import Ambiguous, InvalidRequest, JobFailed, NotFound, TimedOut, did_you_mean
from orchestrator.client.progress import Say, quiet
from orchestrator.client.session import Session, session
from orchestrator.home import Home
from orchestrator.store.lanes import SWEEP

if TYPE_CHECKING:
    from orchestrator.store import Event, Job, Store

STAGE_OF = "after"
"""Label of a stage's job: the id of the job that it follows; `orchestrator.jobs.following` gives it."""
PACE = 0.1
"""Seconds between looks at the store: one small query."""
STATES = ("QUEUED", "PREPARING", "STARTING", "RUNNING", "READY", "STOPPING", "KEPT", "SUCCEEDED", "FAILED", "CANCELLED", "LOST")


class JobFilter(NamedTuple):
    """Which jobs: those that pass every kind of filter given."""

    states: Collection[str] = ()
    """Any of them; `ACTIVE` stands for all that have not ended."""
    names: Collection[str] = ()
    """Of the recipe; any of them. `*`, `?` and `[abc]` stand for other characters."""
    targets: Collection[str] = ()
    """Where they run or wait; any of them."""
    labels: Mapping[str, str] = {}
    """As given to submit; all of them."""
    limit: int | None = None
    """The newest so many of them."""

    def passes(self, job: Job) -> bool:
        """Whether a job is one of those meant, but for the limit."""
        return (
            (not self.states or job.state in self.states or ("ACTIVE" in self.states and not job.ended))
            and (not self.names or named(job, self.names))
            and (not self.targets or not set(self.targets).isdisjoint(job.target.split(",")))
            and self.labels.items() <= job.labels.items()
        )


class Update(NamedTuple):
    """What is new of a job that is followed."""

    job: Job
    lines: tuple[str, ...] = ()
    """What the building of its environment said since the last one."""


def named(job: Job, patterns: Iterable[str]) -> bool:
    """Whether a job's name is one of these, in which `*`, `?` and `[abc]` stand for others."""
    return any(fnmatchcase(job.name, pattern) for pattern in patterns)


def find(store: Store, names: Iterable[str]) -> list[Job]:
    """Jobs that these names mean, each one job: an id, the beginning of one, a recipe's name, or `latest`.

    Raises:
        NotFound: a name means none.
        Ambiguous: a name means several.
    """
    out = []
    for name in names:
        found = _without_stages(store.find(name))
        if not found:
            raise NotFound(name, "no such job; `tune status` lists them")
        if len(found) > 1:
            some = ", ".join(job.id for job in found[:5]) + ", ..." * (len(found) > 5)
            raise Ambiguous(name, f"matches {len(found)} jobs: {some}")
        out.append(found[0])
    return list({job.id: job for job in out}.values())


def find_all(store: Store, names: Iterable[str]) -> list[Job]:
    """As `find`, and a sweep's id means all its jobs, in their order.

    Raises:
        NotFound: a name means none.
        Ambiguous: a name means several that are no sweep.
    """
    out, names = [], list(names)
    exact = store.by_id(name for name in names if name != "latest")  # at once: there may be thousands
    for name in names:
        if name in exact:
            out.append(exact[name])
            continue
        sweep = [job for job in store.find(name) if job.labels.get(SWEEP) == name and STAGE_OF not in job.labels]
        out += sweep[::-1] or find(store, [name])
    return list({job.id: job for job in out}.values())


def _without_stages(found: list[Job]) -> list[Job]:
    """Of jobs that a name may mean, those that are not stages of another of them."""
    ids = {job.id for job in found}
    return [job for job in found if job.labels.get(STAGE_OF) not in ids or job.labels[STAGE_OF] == job.id]


def stages_of(store: Store, ids: Collection[str]) -> list[Job]:
    """Jobs of the stages that follow these, as far as they have begun; the oldest first."""
    wanted = set(ids)
    return [job for job in store.jobs(newest_first=False) if job.labels.get(STAGE_OF) in wanted and job.id not in wanted]


def find_attempt(store: Store, name: str, attempt: int | None) -> tuple[Job, int]:
    """A job, and which of its attempts: the latest unless given.

    Raises:
        NotFound: there is no such job, or attempt.
    """
    [job] = find(store, [name])
    number = attempt or job.attempt
    if not 1 <= number <= job.attempt:
        raise NotFound(str(number), f"{job.id} has only {job.attempt} attempt{'s' * (job.attempt > 1)}", argument="attempt")
    return job, number


def followers(id: str) -> list[Job]:
    """Jobs of the stages that follow one, or another stage of the same training; the oldest first."""
    with session() as here:
        job = here.store.job(id)
        return stages_of(here.store, [job.labels.get(STAGE_OF, id)]) if job else []


def get(name: str) -> Job:
    """One job as it is now.

    Raises:
        NotFound: there is no such job.
        Ambiguous: the name means several.
    """
    with session() as here:
        here.keep_alive()
        return find(here.store, [name])[0]


def select(names: Iterable[str] = (), wanted: JobFilter | None = None) -> list[Job]:
    """The jobs that are named, or all, as far as they pass a filter; the newest first.

    Raises:
        NotFound: a name means none, or nothing was submitted yet.
        Ambiguous: a name means several.
    """
    wanted, names = wanted or JobFilter(), list(names)
    with session() as here:
        here.keep_alive()
        found = find_all(here.store, names) if names else _all_that_may_pass(here.store, wanted)
    return list(islice(filter(wanted.passes, found), wanted.limit))


def latest(number: int) -> tuple[list[Job], dict[str, int]]:
    """The newest jobs and the newest at work, so many of each, newest first, and how many jobs there are in each state."""
    with session() as here:
        here.keep_alive()
        return here.store.latest(number)


def _all_that_may_pass(store: Store, wanted: JobFilter) -> list[Job]:
    """Jobs by the parts of a filter that the store knows, newest first: of thousands no more is read than is shown."""
    states = wanted.states if wanted.states and "ACTIVE" not in wanted.states else None
    name = next(iter(wanted.names)) if len(wanted.names) == 1 else "*"
    plain = None if set(name) & set("*?[") else name
    rest = wanted._replace(states=() if states else wanted.states, names=() if plain else wanted.names, limit=None)
    return store.jobs(states=states, name=plain, limit=wanted.limit if rest == JobFilter() else None)


def stale(found: Sequence[Job]) -> str:
    """How old what is shown of jobs is, and why; empty where it is not old: see `Session.stale`."""
    if all(job.ended for job in found):
        return ""
    with session() as here:
        return here.stale(found, time.time())


def nothing_matches(wanted: JobFilter) -> str:
    """Why no job passes a filter, in words: what it names that no job has, beside what they have. Empty where each part is met by one."""
    with session() as here:
        known = here.store.jobs()
    if not known:
        return "nothing was submitted yet"
    targets, names = {name for job in known for name in job.target.split(",")}, {job.name for job in known}
    for asked, has, what in ((wanted.targets, targets, "on a target"), (wanted.names, names, "with a name")):
        strange = [word for word in asked if not any(fnmatchcase(each, word) for each in has)]
        if strange:
            more = ", ..." if len(has) > 5 else ""
            return f"no job is {what} such as {strange[0]!r}; there are jobs of {', '.join(sorted(has)[:5])}{more}"
    return ""


def select_any(wanted: JobFilter) -> list[Job]:
    """As `select` of all jobs; none where nothing was submitted yet.

    Raises:
        InvalidRequest: there is no such state.
    """
    for state in wanted.states:
        if state not in (*STATES, "ACTIVE"):
            rule = f"is no state; known: ACTIVE, {', '.join(STATES)}"
            raise InvalidRequest(state, rule, argument="state", hint=did_you_mean(state.upper(), STATES))
    return select(wanted=wanted) if Home.find().exists() else []


def events(ids: Iterable[str]) -> list[Event]:
    """What happened to jobs, job by job, in order."""
    with session() as here:
        return [event for id in ids for event in here.store.events(id)]


def wait(names: Iterable[str], timeout: float | None = None, *, check: bool = False, say: Say = quiet) -> list[Job]:
    """Wait until jobs end, and the stages that follow them; a server is waited for until it is READY.

    Args:
        names: of the jobs, or of sweeps.
        timeout: seconds; None waits for as long as it takes.
        check: a job that did not succeed is an error.
        say: is told when the store is away, and that this waits for it.

    Raises:
        TimedOut: some have not ended by then.
        JobFailed: with `check`, one did not end as SUCCEEDED.
    """
    until = None if timeout is None else time.monotonic() + timeout
    with session(say=say) as here:
        found = until_ended(here, [job.id for job in find_all(here.store, names)], until, ready=True)
        while all(map(_settled, found)):
            more = here.patiently(stages_of, here.store, [job.id for job in found], until=until)
            late = [job.id for job in more if job.id not in {each.id for each in found}]
            if not late:
                break
            found += until_ended(here, late, until, ready=True)
    if timeout is not None and not all(map(_settled, found)):
        error = TimedOut(f"not ended after {timeout:g} s")
        error.jobs = found
        raise error
    if check:
        _check_succeeded(found)
    return found


def _settled(job: Job) -> bool:
    """Whether there is nothing more to wait for."""
    return job.ended is not None or job.state == "READY"


def _check_succeeded(found: Sequence[Job]) -> None:
    """All of these jobs must have trained.

    Raises:
        JobFailed: one ended otherwise than SUCCEEDED, or has not ended.
    """
    if failed := [job for job in found if job.state not in ("SUCCEEDED", "READY")]:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        why = ": ".join(filter(None, (first.reason, first.detail)))
        rule = f"is {first.state}{more}" + (f": {why}" if why else "")
        error = JobFailed(first.id, rule, hint=f"tune logs {first.id}")
        error.jobs = failed
        raise error


def until_ended(here: Session, ids: Sequence[str], until: float | None, *, ready: bool = False) -> list[Job]:
    """The jobs, when all have ended or the time (monotonic) has come; with `ready` a server that answers is waited for no longer."""
    looked, left, many = 0.0, list(reversed(ids)), 1
    while left and (until is None or time.monotonic() <= until):
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            here.patiently(here.keep_alive, until=until)
        some = left[: -many - 1 : -1]
        known = here.patiently(here.store.by_id, some, until=until)
        over = list(takewhile(lambda id: id not in known or known[id].ended or (ready and _settled(known[id])), some))  # noqa: B023 - used here
        del left[len(left) - len(over) :]
        # all have to end, and there may be thousands: one that has not is looked at alone, those that have by more and more at once
        many = 2 * many if len(over) == len(some) else 1
        if many == 1:
            time.sleep(PACE / 2)
    found = here.patiently(here.store.by_id, ids, until=until)
    return [found[id] for id in ids if id in found]


def follow(name: str, say: Say = quiet) -> Iterator[Update]:
    """A job whenever something is new of it, until it has ended; leaving early does nothing to the job.

    Args:
        name: of the job.
        say: as for `wait`.

    Raises:
        NotFound: there is no such job.
    """
    with session(say=say) as here:
        [job] = find(here.store, [name])
        shown: Job | None = None
        looked, offset = 0.0, 0
        while True:
            lines, offset = _environment_lines(here, job, offset)
            if lines or job != shown:
                yield Update(job, lines)
                shown = job
            if job.ended:
                return
            if time.monotonic() - looked > 2:
                looked = time.monotonic()
                here.patiently(here.keep_alive)
            time.sleep(PACE)
            [job] = here.patiently(find, here.store, [job.id])


def _environment_lines(here: Session, job: Job, offset: int) -> tuple[tuple[str, ...], int]:
    """What the building of an environment, which takes minutes the first time, says from an offset of the log on."""
    if job.phase_step != "environment":
        return (), offset
    try:
        with here.home.log_of(job.id, job.attempt).open("rb") as file:
            file.seek(offset)
            data = file.read(1 << 16)
    except FileNotFoundError:
        return (), offset
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.decode("utf-8", "replace").splitlines()
    return tuple(line for line in lines if line.strip() and not line.startswith("=== tune:")), offset + len(whole)
