"""The loop: has the executors tell of the jobs' attempts, asks `lifecycle` what to do, does it, writes down what happened.

Started on demand by whoever submits, one at a time (a lock in the state folder), ends when there is nothing to do. It holds
no truth of its own: the store and what the executors know again are enough to go on after it was killed anywhere. The store is
used by one thread; what waits for a host is done in the background by the executors.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from backends.log_signs import Ended
from backends.metrics import Point
from orchestrator.executors.base import ExecutorContext, Status, Watched
from orchestrator.executors.registry import Executors, keeps_limits
from orchestrator.home import Home
from orchestrator.jobs.abandoned import Abandoned, abandoned, see_to
from orchestrator.jobs.attempt import ActiveAttempt, facts, news_of, notes_text, served, watched
from orchestrator.jobs.attempt_history import anew, beginning, outcome, tried
from orchestrator.jobs.following import begin_next
from orchestrator.jobs.halving import outdone
from orchestrator.jobs.lifecycle import ABANDONED, ALIVE, ENDED, Become, reconcile
from orchestrator.jobs.queue import Queue
from orchestrator.jobs.retry import Again, again, elsewhere
from orchestrator.jobs.secret_values import NoValue, secret_values
from orchestrator.jobs.start_failures import StartFailures
from orchestrator.jobs.taken_over import ITS_OWN, TakenOver
from orchestrator.jobs.unwell import note_silence, note_stuck
from orchestrator.monitoring.drift import drifted
from orchestrator.monitoring.metrics import points, row_counts, summed, thin
from orchestrator.monitoring.poll import Observed
from orchestrator.staging.fingerprints import WAY_OUT, changed
from orchestrator.store import Active, Changes, JobStart, Store
from orchestrator.transports.base import AttemptStatus


@dataclass
class Controller:
    """All jobs of one state folder."""

    home: Home
    store: Store
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Job -> values, as heard from whoever submitted it; in memory only."""
    nudge: Callable[[], None] = lambda: None
    """Called, in another thread, when there is something to look at."""
    left: dict[tuple[str, int], Abandoned] = field(default_factory=dict)
    """Attempts that were given up, to be stopped when their hosts are seen again."""
    cases: dict[str, ActiveAttempt] = field(default_factory=dict)
    failures: StartFailures = field(default_factory=StartFailures)
    started: float = float("-inf")
    """When a queued job was given devices last, by the monotonic clock."""

    def __post_init__(self) -> None:
        """The executors are opened when the first attempt needs them."""
        self.executors = Executors(ExecutorContext(self.home, self.nudge))
        self.queue = Queue(self.store, keeps_limits)
        self.taken_over = TakenOver(self.store, lambda: Executors(ExecutorContext(self.home, self.nudge)))

    def close(self) -> None:
        """Let go of the hosts; their jobs go on."""
        self.executors.close()
        self.taken_over.close()

    def case(self, active: Active) -> ActiveAttempt:
        """What is needed of a job, read once for each attempt."""
        job = active.job
        known = self.cases.get(job.id)
        if known is None or (known.attempt, known.fence) != (job.attempt, active.fence):
            known = self.cases[job.id] = ActiveAttempt.of(active, self.queue.request(job.id))
        return known

    def look(self, *, start: bool = True, patience: float = 0.0) -> int:
        """One pass over everything that is not ended.

        Args:
            start: also start queued jobs.
            patience: seconds to wait for hosts that are being asked; what comes later is heeded by the next look.

        Returns:
            How many jobs work, and how many lanes wait, and whether an executor has something to give back; 0 when all have ended.
        """
        for id in self.store.end_unstarted("CANCELLED", "cancelled", "before it started", time.time()):
            self.secrets.pop(id, None)
            self.failures.forget(id)
        working = self.store.working()
        present = {each.job.id for each in working}
        self.cases = {id: case for id, case in self.cases.items() if id in present}
        at_work = self._watched(working)
        if self._heed(self._poll(at_work, patience), working):
            at_work = self._watched(working := self.store.working())
        lanes = self.queue.lanes()
        if start and lanes and (begun := self._admit(working, self._own(at_work), lanes)):
            at_work += self._watched(begun)  # always all of them: what is not watched is forgotten
            self._heed(self._poll(at_work, patience), (*working, *begun))
        if start:
            self.taken_over.look()
        return len(working) + len(lanes) + bool(self.executors.holds())

    def _watched(self, working: Iterable[Active]) -> list[tuple[Active, Watched]]:
        """Attempts of these jobs that were submitted."""
        out = []
        for each in working:
            if each.job.state in ALIVE and (handle := (case := self.case(each)).handle(each.job.id)):
                out.append((each, watched(each.job, case, handle, self.home)))
        return out

    def _own(self, at_work: Iterable[tuple[Active, Watched]]) -> list[Watched]:
        """Those of our own jobs, and those that were given up and may still be there."""
        return [watch for each, watch in at_work if not each.guest] + [each.watched for each in self.left.values()]

    def _poll(self, at_work: Sequence[tuple[Active, Watched]], patience: float) -> list[Status]:
        """What is heard of attempts, and of those of other controllers that we follow."""
        return self.executors.poll(self._own(at_work), patience) + self.taken_over.poll(at_work, patience)

    # What is heard

    def _heed(self, statuses: Sequence[Status], jobs: Iterable[Active]) -> bool:
        """Act on what was heard: each job once, those whose user waits for no host first. Was there anything?"""
        present = {each.job.id: each for each in jobs}
        heard: dict[str, Status | None] = {id: None for id, each in present.items() if each.job.want and id in self.cases}
        for status in statuses:
            if known := self.left.get((status.job, status.attempt)):
                remaining = see_to(self.store, self.executors, self.left.pop(known.handle.key), status)
                self.left |= {each.handle.key: each for each in remaining}
            elif (case := self.cases.get(status.job)) and status.job in present and case.attempt == status.attempt:
                heard[status.job] = status
        for id, news in heard.items():
            try:
                self._take_in(present[id], self.cases[id], news)
            except Exception:  # one job's trouble is not the others'; the log has the trace, and the next look tries again
                traceback.print_exc()
                self.cases.pop(id, None)  # what was read and not recorded is read again
        return bool(statuses)

    def _take_in(self, each: Active, case: ActiveAttempt, status: Status | None) -> None:
        """What an executor said of an attempt; None where only the user has something to say."""
        job, now = each.job, time.time()
        if status and status.phase == "submitting":
            self.store.change(job.id, expect=["STARTING"], attempt=job.attempt, now=now, phase_step=status.reason)
        elif status and status.phase == "withdrawn":
            self._take_back(each, status)
        elif status and status.phase == "refused":
            self._become(each, Become("FAILED", "cannot_start", status.reason))
        else:
            if status:
                case.status = status
                self._read(each, case, status)
            if case.status is None:  # it is on its way, or nothing was heard of it yet
                if job.want and job.state in ALIVE and (handle := case.handle(job.id)):
                    self.taken_over.of(each, self.executors).cancel(handle)
            elif job.want == "abandon" or (status and (status.observed or status.phase == "pending")):
                self._follow(each, case, case.status)
            if case.unkept:
                self._keep(each, case)

    def _read(self, each: Active, case: ActiveAttempt, status: Status) -> None:
        """Keep what is new in a status."""
        job = each.job
        if status.placement:
            case.place(status.placement)
        for rank, observed in enumerate(status.ranks):
            if observed and observed.log:
                case.mirrors[rank].append(observed.log)
        if status.ranks and (first := status.ranks[0]):
            self._record(each, case, first)
        if status.phase == "pending":
            case.news = time.monotonic()  # suspended, it makes no step, and hangs no more than one that has not begun
        if status.phase == "pending" and (job.phase_step, job.detail) != ("pending", status.reason):
            news: Changes = {"phase_step": "pending", "detail": status.reason}
            self.store.change(job.id, expect=list(ALIVE), attempt=job.attempt, now=time.time(), **news)
        note_silence(self.store, job, case, status)

    def _keep(self, each: Active, case: ActiveAttempt, found: Sequence[Point] = ()) -> None:
        """Write down what is new of an attempt, and points of it."""
        self.store.record(each.job.id, each.job.attempt, found, time.time(), case.record.as_dict())
        case.unkept = False

    def _follow(self, each: Active, case: ActiveAttempt, status: Status) -> None:
        """Decide, by what all hosts of a job said last."""
        job, speaker = each.job, status.observed
        if job.state not in ALIVE:
            return
        answering = bool(status.ranks) and None not in status.ranks
        steps, news = case.steps(job), Changes()
        if speaker:
            news = news_of(job, speaker.seen, steps, reachable=answering, ready=served(speaker.summary or {}))
        if why := case.hanging(status, time.monotonic()):
            self._condemn(each, case, "hang", why)
        actions = reconcile(facts(each.job, case, status, steps))
        if news and not any(isinstance(action, Become) for action in actions):  # else it is written with that
            self.store.change(job.id, expect=None, attempt=job.attempt, now=time.time(), **news)
        for action in actions:
            if isinstance(action, Become):
                several = action.detail and len(status.ranks) > 1 and answering
                detail = f"{case.nodes()[status.speaker]}: {action.detail}" if several else action.detail
                self._end(each, case, replace(action, detail=detail), status, steps, news)
            elif action.what == "submit":
                self._submit([] if each.guest else [each])
            elif handle := case.handle(job.id):
                self.taken_over.of(each, self.executors).cancel(handle)

    def _record(self, each: Active, case: ActiveAttempt, observed: Observed) -> None:
        """New bytes into points."""
        if observed.manifest and case.manifest is None:
            case.manifest = summed(observed.manifest)
            self.store.change(each.job.id, expect=None, attempt=each.job.attempt, now=time.time(), rows=row_counts(case.manifest))
        if observed.resolved and not case.compared:
            case.compared = True
            if news := drifted(case.plan, observed.resolved):
                self._condemn(each, case, "drift", news)
        if observed.chunks or observed.seen.log_size > case.size:
            case.news, case.size = time.monotonic(), observed.seen.log_size
        if observed.chunks:
            every = points(case.backend, case.plan, case.record.cursor, observed.chunks, case.manifest)
            found = thin(every, case.plan.reading["every"], case.steps(each.job))
            fault = case.fault(every, found, each.job) or outdone(self.store, each.job, case, found)
            case.record.condemned = case.record.condemned or fault  # in one transaction with the points that show it
            self._keep(each, case, found)

    def _condemn(self, each: Active, case: ActiveAttempt, reason: str, detail: str) -> None:
        """Note why an attempt is to be stopped, before it is: it will have failed for that."""
        if not case.record.condemned:
            if reason == "hang":
                note_stuck(self.store, each.job, detail)
            case.record.condemned = (reason, detail)
            self._keep(each, case)

    def _end(self, each: Active, case: ActiveAttempt, new: Become, status: Status, steps: int | None, news: Changes) -> None:
        """Write a new state down; of an attempt that did not succeed also what it was and what it left. Perhaps there is another."""
        job, now, speaker = each.job, time.time(), status.observed
        seen = speaker.seen if speaker else AttemptStatus(job.id, job.attempt, "unknown")
        first = status.ranks[0] if status.ranks else None
        if new.state == "SUCCEEDED":
            new = replace(new, detail=new.detail or notes_text(case, first.summary if first else None))
            begin_next(self.store, self.secrets, job, case.request, case.record.placement)
        if new.state not in ENDED or new.state == "SUCCEEDED":
            self._become(each, new, seen, case, news)
            return
        tail = speaker.tail.decode("utf-8", "replace") if speaker else ""
        ended = Ended(job.backend, new.reason, seen.rc, seen.signal, tail, seen.evidence)
        case.record.outcome = outcome(ended, first.index if first else "", len(case.nodes()), case.silent(), seen.step)
        case.unkept = True
        if new.state != "CANCELLED" and job.want in ("", "release"):  # who does not want it any more gets no other attempt
            before = tried(self.store, job.id, job.attempt, case.record)
            choice = elsewhere(new.reason, before, case.request.usable(case.plan.hosts)) or again(case.rules, before, steps)
            if isinstance(choice, Again):
                self._keep(each, case)
                last, positions = (new.state, new.reason, new.detail), beginning(choice, now).as_dict()
                why = f"{choice.why}; {ITS_OWN}" if each.guest else choice.why
                self.store.new_attempt(job.id, [job.state], now, ended=last, why=why, positions=positions)
                return
        self._become(each, new, seen, case, news)
        if new.reason == ABANDONED and (left := abandoned(self.store, job.id, job.attempt)):
            self.left[left.handle.key] = left

    def _become(
        self,
        each: Active,
        new: Become,
        seen: AttemptStatus | None = None,
        case: ActiveAttempt | None = None,
        news: Changes | None = None,
    ) -> None:
        """Write a new state down, if the job still is where we saw it, and in one transaction what else is new."""
        job, now = each.job, time.time()
        fields: Changes = {**(news or {}), "state": new.state, "reason": new.reason, "detail": new.detail}
        self.failures.forget(job.id)
        if new.state == "RUNNING":
            fields["started"] = seen.step_started if seen and seen.step_started else now
        if new.state in ENDED:
            fields["ended"] = seen.ended if seen and seen.ended else now
            self.secrets.pop(job.id, None)
        record = case.record.as_dict() if case and case.unkept else None
        if self.store.change(job.id, expect=[job.state], attempt=job.attempt, now=now, positions=record, **fields) and case:
            case.unkept = False

    # Starting

    def _admit(self, working: Sequence[Active], present: Sequence[Watched], lanes: Sequence[str]) -> list[Active]:
        """Submit queued jobs for which there is room; those begun."""
        capacity = self.executors.capacity(present, self.queue.heads(lanes, working))
        self.queue.explain(lanes, capacity.busy)
        granted = self.queue.within_limits(capacity.granted)
        starts = []
        for id, placement in granted.items():
            case = self.case(self.queue.seen[id])
            case.record.placement, case.status = placement, None
            starts.append(JobStart(id, case.attempt, placement.target, case.record.as_dict()))
        begun = []
        for id in self.store.begin(starts, time.time()) if starts else ():  # at once, since each transaction waits for the disk
            each = self.queue.seen[id]
            begun.append(each._replace(job=each.job._replace(state="STARTING", target=granted[id].target, detail="")))
            self.started = time.monotonic()
        self._submit(begun)
        return begun

    def _submit(self, begun: Sequence[Active]) -> None:
        """Give attempts to their executors. A second time does nothing there."""
        for each in begun:
            job, case = each.job, self.case(each)
            try:
                values = secret_values(job.id, case.plan.secrets, self.secrets.get(job.id, {}), self.home)
            except NoValue as error:
                self._become(each, Become("FAILED", "missing_secret", str(error)))
                continue
            if news := changed(case.request.inputs):
                self._become(each, Become("FAILED", "input_changed", f"{news}; {WAY_OUT}"))
            elif handle := case.handle(job.id):
                case.status = None
                case.place(self.executors.submit(case.asked(handle, values)).placement)
                if case.unkept:
                    self._keep(each, case)

    def _take_back(self, each: Active, status: Status) -> None:
        """It could not begin: the job waits again. Where some hosts had begun, the attempt is over, and the next has another number."""
        job, now, record = each.job, time.time(), self.case(each).record
        if job.want:
            self._become(each, Become("CANCELLED", "cancelled", "before it started"))
            return
        until = now + self.failures.pause(job.id, record.placement, ill=status.ill)
        if status.started:
            positions = {**(anew(record) or {}), "not_before": until}
            self.store.new_attempt(job.id, ("STARTING",), now, why=status.reason, positions=positions)
        else:
            news: Changes = {"state": "QUEUED", "detail": status.reason, "not_before": until}
            self.store.change(job.id, expect=["STARTING"], attempt=job.attempt, now=now, **news)
