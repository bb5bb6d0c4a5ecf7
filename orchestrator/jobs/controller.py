"""The loop: looks at the jobs' hosts, asks `decisions` what to do, does it, writes down what happened.

Started on demand by whoever submits, one at a time (a lock in the state folder), ends when there is nothing to do. It holds
no truth of its own: the store and the hosts' files are enough to go on after it was killed anywhere. The store is used by
one thread; what waits for a host is an errand.
"""

from __future__ import annotations

import os
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backends.checkpoints import resumed
from backends.log_signs import Ended
from backends.registry import reader
from orchestrator.background import BackgroundCalls
from orchestrator.executors.hosts import HostPool, begun_nothing
from orchestrator.home import Home, read_secrets
from orchestrator.jobs.abandoned import Leftover, due, left_of, settle
from orchestrator.jobs.admission import Offer, Queued, admit
from orchestrator.jobs.attempt import ActiveAttempt, Mirror, facts, watch
from orchestrator.jobs.attempt_history import beginning, outcome, tried
from orchestrator.jobs.lifecycle import ABANDONED, ALIVE, ENDED, Become, merge_ranks, reconcile
from orchestrator.jobs.retry import Again, Rules, again, astray, hangs
from orchestrator.monitoring.drift import drifted
from orchestrator.monitoring.metrics import points, rows_note, summed
from orchestrator.monitoring.poll import Observed
from orchestrator.staging.request import GRACE
from orchestrator.store import Active, Changes, Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.transports.base import AttemptStatus, Refused, TransportError, Watch

PAGE = 8
"""Jobs of a lane that are read at once."""
TELLING = 5.0
"""Seconds after which jobs that came meanwhile are told why they wait, too: it takes time by their number."""


@dataclass
class Controller:
    """All jobs of one state folder."""

    home: Home
    store: Store
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Job -> values, as heard from whoever submitted it; in memory only."""
    nudge: Callable[[], None] = lambda: None
    """Called, in another thread, when there is something to look at."""
    left: list[Leftover] = field(default_factory=list)
    """Attempts that were given up, to be stopped when their hosts are seen again."""
    cases: dict[str, ActiveAttempt] = field(default_factory=dict)
    waiting: dict[tuple[str, int], Queued] = field(default_factory=dict)
    """Job and attempt -> what it asks for, of the first that wait in each lane."""
    told: dict[str, str] = field(default_factory=dict)
    """Lane -> why its jobs wait, where others have what they wait for."""
    telling: float = 0.0
    """When to say so again, by the monotonic clock."""
    started: float = float("-inf")
    """When a queued job was given devices last, by the monotonic clock."""

    def __post_init__(self) -> None:
        """The ways to all machines begin here."""
        self.errands = BackgroundCalls(self.nudge)
        self.machines = HostPool(self.home, self.errands, self.nudge)

    def close(self) -> None:
        """Let go of the hosts; their jobs go on."""
        self.errands.close()
        self.machines.close()

    def case(self, active: Active) -> ActiveAttempt:
        """What is needed of a job, read once for each attempt."""
        job = active.job
        known = self.cases.get(job.id)
        if known is None or known.attempt != job.attempt:
            request, backend = JobRequest.unpacked(self.store.request(job.id)), reader(job.backend)
            record, plan = AttemptRecord.from_dict(active.positions), request.plan
            if record.resume:
                plan = resumed(plan, record.resume.step, job.steps or plan.promise.steps, backend.resume, backend.config)
            known = self.cases[job.id] = ActiveAttempt(plan, request, backend, record, job.attempt)
        return known

    def look(self, *, start: bool = True, patience: float = 0.0) -> int:
        """One pass over everything that is not ended.

        Args:
            start: also start queued jobs.
            patience: seconds to wait for other hosts that are being asked; what comes later is heeded by the next look.

        Returns:
            How many jobs work, and how many lanes wait; 0 when all have ended.
        """
        working = self.store.working()
        present = {each.job.id: each for each in working}
        self.cases = {id: case for id, case in self.cases.items() if id in present}
        self._ask([each for each in working if each.job.state in ALIVE])
        if self._heed(present, patience):
            working = self.store.working()
        self._tell(present)
        if unwanted := [each.job.id for each in working if each.job.state == "QUEUED"]:
            self.store.end_unstarted("CANCELLED", "cancelled", "before it started", time.time())
            working = [each for each in working if each.job.state != "QUEUED"]
            for id in unwanted:
                self.secrets.pop(id, None)
        lanes = self.store.lanes()
        if start and lanes:
            begun = self._admit(working, lanes)
            self._heed({each.job.id: each for each in begun}, patience)
        return len(working) + len(lanes)

    def _tell(self, present: Mapping[str, Active]) -> None:
        """Show what is being brought to the hosts of jobs that start."""
        for (id, attempt), text in list(self.machines.telling.items()):
            del self.machines.telling[id, attempt]
            if id in present:
                self.store.change(id, expect=["STARTING"], attempt=attempt, now=time.time(), phase_step=text)

    # Asking, and what comes back

    def _ask(self, alive: Sequence[Active]) -> None:
        """Have every machine looked at that has jobs of ours, if it is time, each in one call."""
        groups: dict[str, list[Watch]] = defaultdict(list)
        resting = self.machines.resting()
        for each in alive:
            case = self.case(each)
            for rank, (host, _) in enumerate(case.hosts()):
                if host.name in resting:
                    continue
                self.machines.meet(host)
                if host.remote and rank not in case.mirrors:
                    case.mirrors[rank] = Mirror.of(self.home.mirror(each.job.id, case.attempt, rank))
                groups[host.name].append(watch(each.job, case, rank))
        for left in self.left:
            if left.host.name not in resting:
                self.machines.meet(left.host)
                groups[left.host.name].append(left.watch)
        for machine, watches in groups.items():
            self.machines.look(machine, watches)

    def _heed(self, present: Mapping[str, Active], patience: float) -> bool:
        """Act on what came back; was there anything?"""
        back = self.errands.take(patience)
        # in order, each once; those that wait for no host first
        touched = dict.fromkeys(id for id, each in present.items() if each.job.want == "abandon" and id in self.cases)
        for name, answer in back.items():
            match name:
                case ("look", str(machine)):
                    touched |= dict.fromkeys(self._looked(machine, answer, present))
                case ("start", str(id), int(attempt)) if id in present and present[id].job.attempt == attempt:
                    self._started(present[id], self.case(present[id]), answer)
                case ("leases", str(machine)):
                    self.machines.told(machine, answer)
                case _:  # an order: what it did shows when the host is looked at
                    pass
        for id in touched:
            try:
                self._follow(present[id], self.cases[id])
            except Exception:  # one job's trouble is not the others'; the log has the trace, and the next look tries again
                traceback.print_exc()
                self.cases.pop(id, None)  # what was read and not recorded is read again
        return bool(back)

    def _looked(self, machine: str, answer: list[Observed] | Exception, present: Mapping[str, Active]) -> list[str]:
        """Take in what a machine said; the jobs that it is about."""
        if isinstance(answer, Exception):
            return self._silent(machine, answer, present)
        asked, out = self.machines.heard(machine), []
        for observed in answer:
            id = observed.seen.job
            if left := next((left for left in self.left if left.is_of(machine, observed.seen)), None):
                self._left(left, observed.seen)
                continue
            case = self.cases.get(id)
            if case is None or id not in present or case.attempt != observed.seen.attempt or machine not in case.machines():
                continue
            if observed.seen.phase == "unknown" and asked < case.begun:
                continue  # it was not there yet when the host was asked
            rank = case.machines().index(machine)
            if rank == 0:
                self._record(present[id], case, observed)
            if observed.log:
                case.mirrors[rank].append(observed.log)
            case.latest[machine] = observed
            out.append(id)
        return out

    def _silent(self, machine: str, error: Exception, present: Mapping[str, Active]) -> list[str]:
        """A machine could not be asked. It says nothing about its jobs, but that we do not know."""
        if not isinstance(error, TransportError):
            traceback.print_exception(error)
        self.machines.silence(machine)
        out = []
        for id, each in present.items():
            case = self.cases.get(id)
            if case is None or each.job.state not in ALIVE or machine not in case.machines():
                continue
            case.latest[machine] = None
            if each.job.reachable:
                self.store.change(id, expect=None, now=time.time(), reachable=False, detail=str(error), event=True)
            if any(case.latest.values()):
                out.append(id)
        return out  # those of which all hosts are silent are left as they are, unless somebody abandons them: see `_heed`

    def _left(self, left: Leftover, seen: AttemptStatus) -> None:
        """See to it that what was given up ends, now that its host speaks of it."""
        match due(seen):
            case "":
                settle(self.store, left, seen, time.time())
                self.left.remove(left)
            case "stop":
                self.machines.order(left.host.name, "stop", left.job, left.attempt, GRACE)
            case "reap":
                self.machines.order(left.host.name, "reap", left.job, left.attempt)

    def _follow(self, each: Active, case: ActiveAttempt) -> None:
        """Decide, by what all hosts of a job said last."""
        job, machines = each.job, case.machines()
        if job.state not in ALIVE or self.errands.away(("start", job.id, job.attempt)):
            return
        if any(machine not in case.latest for machine in machines):
            return  # one was not heard of yet: the next look knows more
        latest = [case.latest[machine] for machine in machines]
        phase, rank = merge_ranks([observed.seen if observed else None for observed in latest])
        speaker = latest[rank]
        steps = case.manifest["steps"] if case.manifest else job.steps
        if speaker:
            self._note(each, speaker.seen, steps, reachable=all(latest))
        training = phase == "running" and speaker and speaker.seen.step == "train"
        if training and (why := hangs(Rules.of(case.plan.retry), time.monotonic(), case.news)):
            self._condemn(each, case, "hang", why)
        for action in reconcile(facts(each.job, case, phase, speaker, steps)):
            if isinstance(action, Become):
                told = (
                    f"{machines[rank]}: {action.detail}" if action.detail and len(machines) > 1 and all(latest) else action.detail
                )
                self._end(each, case, replace(action, detail=told), speaker, steps)
            elif action.what == "start":
                self._start([each])
            else:
                grace = (GRACE,) if action.what == "stop" else ()
                for machine in filter(case.latest.get, machines):
                    self.machines.order(machine, action.what, job.id, job.attempt, *grace)

    def _note(self, each: Active, seen: AttemptStatus, steps: int | None, *, reachable: bool) -> None:
        """Keep what changed beside the state."""
        job = each.job
        news: dict[str, Any] = {}
        if seen.step and seen.step != job.phase_step:
            news["phase_step"] = seen.step
        if steps != job.steps:
            news["steps"] = steps
        if reachable and not job.reachable:
            news |= {"reachable": True, "detail": ""}
        if news:
            self.store.change(job.id, expect=None, attempt=job.attempt, now=time.time(), **news)

    def _record(self, each: Active, case: ActiveAttempt, observed: Observed) -> None:
        """New bytes into points."""
        if observed.manifest:
            case.manifest = summed(observed.manifest)
        if observed.resolved and not case.compared:
            case.compared = True
            if news := drifted(case.plan, observed.resolved):
                self._condemn(each, case, "drift", news)
        if observed.chunks or observed.seen.log_size > case.size:
            case.news, case.size = time.monotonic(), observed.seen.log_size
        if observed.chunks:
            found = points(case.backend, case.plan, case.record.cursor, observed.chunks, case.manifest)
            self.store.record(each.job.id, each.job.attempt, found, time.time(), case.record.as_dict())
            steps = each.job.steps or case.plan.promise.steps
            newest, last = [point[:3] for point in found], each.job.step or 0
            if case.record.resume and steps and (why := astray(case.plan.reading, steps, newest, last)):
                self._condemn(each, case, "resume_astray", why)

    def _condemn(self, each: Active, case: ActiveAttempt, reason: str, detail: str) -> None:
        """Note why an attempt is to be stopped, before it is: it will have failed for that."""
        if not case.record.condemned:
            case.record.condemned = (reason, detail)
            self.store.record(each.job.id, each.job.attempt, (), time.time(), case.record.as_dict())

    def _end(self, each: Active, case: ActiveAttempt, new: Become, speaker: Observed | None, steps: int | None) -> None:
        """Write a new state down; of an attempt that did not succeed also what it was and what it left. Perhaps there is another."""
        job, seen, now = (
            each.job,
            speaker.seen if speaker else AttemptStatus(each.job.id, each.job.attempt, "unknown"),
            time.time(),
        )
        if new.state == "SUCCEEDED" and not new.detail:
            new = replace(new, detail=rows_note(case.manifest))
        if new.state not in ENDED or new.state == "SUCCEEDED":
            self._become(each, new, seen)
            return
        first = case.latest[case.machines()[0]]
        tail = speaker.tail.decode("utf-8", "replace") if speaker else ""
        ended = Ended(job.backend, new.reason, seen.rc, seen.signal, tail, seen.evidence)
        case.record.outcome = outcome(ended, first.index if first else "", len(case.machines()), case.silent())
        self.store.record(job.id, job.attempt, (), now, case.record.as_dict())
        if new.state != "CANCELLED":
            choice = again(Rules.of(case.plan.retry), tried(self.store, job.id, job.attempt), steps)
            if isinstance(choice, Again):
                last, positions = (new.state, new.reason, new.detail), beginning(choice, now).as_dict()
                self.store.new_attempt(job.id, [job.state], now, ended=last, why=choice.why, positions=positions)
                return
        self._become(each, new, seen)
        if new.reason == ABANDONED:
            self.left += left_of(self.store, job.id, job.attempt)

    def _become(self, each: Active, new: Become, seen: AttemptStatus | None = None) -> None:
        """Write a new state down, if the job still is where we saw it."""
        job, now = each.job, time.time()
        fields: dict[str, Any] = {"state": new.state, "reason": new.reason, "detail": new.detail}
        if new.state == "RUNNING":
            fields["started"] = seen.step_started if seen and seen.step_started else now
        if new.state in ENDED:
            fields["ended"] = seen.ended if seen and seen.ended else now
            self.secrets.pop(job.id, None)
        self.store.change(job.id, expect=[job.state], attempt=job.attempt, now=now, **fields)

    # Starting

    def _admit(self, working: Sequence[Active], lanes: Sequence[str]) -> list[Active]:
        """Start queued jobs for which there are devices; those begun."""
        seen: dict[str, Active] = {}
        placements = (self.case(each).record.placement for each in working)
        held = [placement.devices for placement in placements if placement]
        closed = self.machines.down() | {left.host.name for left in self.left}  # where an attempt that was given up may work
        known, self.waiting = self.waiting, {}
        grants = admit(held, [self._queued(lane, known, seen) for lane in lanes], self.machines.taken(), closed)
        self._explain(lanes)
        begun = []
        for id, grant in grants.items():
            each, case = seen[id], self.case(seen[id])
            case.record.placement = grant
            case.latest.clear()
            self.store.record(id, each.job.attempt, (), time.time(), case.record.as_dict())
            news: Changes = {"state": "STARTING", "target": grant.target, "detail": ""}
            if self.store.change(id, expect=["QUEUED"], attempt=each.job.attempt, now=time.time(), **news):
                begun.append(each._replace(job=each.job._replace(state="STARTING", target=grant.target)))
                self.started = time.monotonic()
        self._start(begun)
        return begun

    def _explain(self, lanes: Sequence[str]) -> None:
        """Note with jobs that wait who else has devices where they may run, each time that this changes."""
        others = self.machines.others()
        if not others and not self.told:
            return
        offers = {queued.lane: queued.offers for queued in self.waiting.values()}
        said = {
            lane: "; ".join(f"{name}: {others[name]}" for offer in where for name, _ in offer.nodes if name in others)
            for lane, where in offers.items()
        }
        if again := time.monotonic() >= self.telling:  # jobs that were submitted meanwhile
            self.telling = time.monotonic() + TELLING
        for lane in lanes:
            text, old = said.get(lane, ""), self.told.get(lane, "")
            if text != old or (again and text):
                self.store.explain(lane, text, time.time())
        self.told = {lane: text for lane, text in said.items() if text}

    def _queued(self, lane: str, known: Mapping[tuple[str, int], Queued], seen: dict[str, Active]) -> Iterator[Queued]:
        """Jobs that wait in a lane, by their order, read as they are taken.

        Args:
            lane: which.
            known: what was read of jobs before.
            seen: gets what the store says of each.
        """
        skip, now = 0, time.time()
        while page := self.store.waiting(lane, now, skip=skip, limit=PAGE):
            for each in page:
                key = each.job.id, each.job.attempt
                seen[each.job.id] = each
                self.waiting[key] = queued = known.get(key) or self._asks(each, lane)
                yield queued
            skip += len(page)

    def _asks(self, each: Active, lane: str) -> Queued:
        """What a job that waits asks for."""
        request, resume = JobRequest.unpacked(self.store.request(each.job.id)), AttemptRecord.from_dict(each.positions).resume
        offers = _offers(request, resume.node if resume else None)
        return Queued(each.job.id, lane, (-each.job.priority, each.key), request.plan.hosts, request.plan.devices, offers)

    def _start(self, begun: Sequence[Active]) -> None:
        """Give attempts to their hosts. A second time does nothing there."""
        for each in begun:
            job, case = each.job, self.case(each)
            values = self._secrets(each, case)
            if values is not None:
                self.machines.start(
                    job.id, job.attempt, case.plan, case.hosts(), values, case.record.resume, alone=len(begun) == 1
                )

    def _secrets(self, each: Active, case: ActiveAttempt) -> dict[str, str] | None:
        """Values of the job's secrets; None when one has none, which ends the attempt."""
        job = each.job
        try:
            values, missing = _values(case.plan.secrets, self.secrets.get(job.id, {}), self.home)
            detail = (
                f"no value for {', '.join(missing)}: export it and `tune retry {job.id}`, or write it into {self.home.secrets}"
            )
        except PermissionError as error:
            values, missing, detail = {}, ["?"], str(error)
        if missing:
            self._become(each, Become("FAILED", "missing_secret", detail))
            return None
        return values

    def _started(self, each: Active, case: ActiveAttempt, answers: list[AttemptStatus | Exception] | Exception) -> None:
        """What the hosts answered to a start: all began; or none shall have."""
        if isinstance(answers, Exception):
            answers = [answers] * len(case.machines())
        case.begun = time.monotonic()
        wrong: dict[str, Exception] = {}
        begun: list[str] = []
        placement = case.record.placement
        for machine, answer in zip(case.machines(), answers, strict=True):
            if isinstance(answer, AttemptStatus):
                begun.append(machine)
                self.machines.began(machine)
                if answer.phase == "running":  # what has ended already is looked at whole
                    case.latest[machine] = Observed(answer, ())
            else:
                wrong[machine] = answer
                self.machines.trouble(machine, answer, placement.devices[machine] if placement else ())
        if not wrong:
            self._follow(each, case)
        elif all(begun_nothing(answer) for answer in wrong.values()):
            self._take_back(each, begun, "; ".join(f"{machine}: {answer}" for machine, answer in wrong.items()))
        elif refused := [
            answer for answer in wrong.values() if not isinstance(answer, TransportError) or isinstance(answer, Refused)
        ]:
            self._stop(each, begun)
            self._become(each, Become("FAILED", "cannot_start", str(refused[0])))
        else:  # the answer was lost: what the host did shows when it is looked at
            error = next(iter(wrong.values()))
            self.store.change(each.job.id, expect=None, now=time.time(), reachable=False, detail=str(error), event=True)

    def _take_back(self, each: Active, begun: Sequence[str], why: str) -> None:
        """Not all hosts could begin: the job waits again. Where some began, their attempt is over, and the next has another number."""
        job, now = each.job, time.time()
        self._stop(each, begun)
        if job.want:
            self._become(each, Become("CANCELLED", "cancelled", "before it started"))
        elif begun:
            self.store.new_attempt(job.id, ("STARTING",), now)
        else:
            self.store.change(job.id, expect=["STARTING"], attempt=job.attempt, now=now, state="QUEUED", detail=why)

    def _stop(self, each: Active, begun: Sequence[str]) -> None:
        for machine in begun:
            self.machines.order(machine, "stop", each.job.id, each.job.attempt, GRACE)


def _offers(request: JobRequest, only: str | None) -> tuple[Offer, ...]:
    """Where a job may run: on one node only where it goes on from a checkpoint that lies there."""
    found = (
        Offer(each.name, tuple((node.name, node.devices) for node in each.nodes if only in (None, node.name)))
        for each in request.candidates
    )
    return tuple(offer for offer in found if offer.nodes)


def _values(names: Sequence[str], heard: Mapping[str, str], home: Home) -> tuple[dict[str, str], list[str]]:
    """Values for names: from whoever submitted, from the secrets file, from our own environment; and the names without any."""
    kept = read_secrets(home.secrets) if names else {}
    values = {name: heard.get(name) or kept.get(name) or os.environ.get(name, "") for name in names}
    return {n: v for n, v in values.items() if v}, [n for n, v in values.items() if not v]
