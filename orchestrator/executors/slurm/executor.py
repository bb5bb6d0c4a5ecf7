"""Implements `base.Executor` over Slurm. What is true of an attempt stands in its files; Slurm says what is not there yet or any more."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.agent.allocation import rank_job
from orchestrator.background import BackgroundCalls
from orchestrator.executors.base import Ask, AttemptRequest, Capacity, ExecutorContext, Handle, Status, Watched
from orchestrator.executors.slurm.attempt import AGAIN, INSIST, SlurmAttempt
from orchestrator.executors.slurm.login import PACE, LoginNode, NotQueued
from orchestrator.executors.slurm.section import Site
from orchestrator.executors.slurm.sending import Key, Sending
from orchestrator.monitoring.poll import Observed, observe
from orchestrator.staging.request import GRACE
from orchestrator.targets.connect import connect
from orchestrator.targets.inventory import owner
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Placement
from orchestrator.transports.base import Conflict, HostRefused, TransportError, Watch

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

FULL = 60.0
"""Seconds in which nothing is sent after the site let no more of ours into the queue."""


class SlurmExecutor:
    """See `base.Executor`."""

    def __init__(self, context: ExecutorContext) -> None:
        self.home = context.home
        self.calls = BackgroundCalls(context.news)
        self.owner = owner(context.home)
        self.clusters: dict[Hashable, LoginNode] = {}
        self._known: dict[Key, SlurmAttempt] = {}
        self._sending = Sending(self.calls)
        self._unwanted: dict[int, list[Key]] = defaultdict(list)
        """Cluster -> what it is to cancel by the next call."""

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterable[Ask]]) -> Capacity:
        """See `base.Executor.capacity`: Slurm has a queue of its own, so there is room for all, up to `queued` of the target."""
        held: dict[int, int] = defaultdict(int)
        for each in present:
            if each.handle.candidate:
                held[id(self._cluster(each.handle.candidate))] += 1
        granted, busy = {}, {}
        for ask in sorted((ask for lane in waiting for ask in self._some(lane, held)), key=lambda ask: ask.order):
            for candidate in ask.candidates:
                cluster = self._cluster(candidate)
                if time.monotonic() < cluster.full:
                    busy[candidate.nodes[0].name] = cluster.why_full
                elif held[id(cluster)] < Site.of(candidate).queued:
                    held[id(cluster)] += 1
                    granted[ask.job] = Placement(candidate.name, {})
                    break
        return Capacity(granted, busy)

    def _some(self, lane: Iterable[Ask], held: dict[int, int]) -> Iterable[Ask]:
        """Of a lane no more than there is room for, and one."""
        for count, ask in enumerate(lane, 1):
            yield ask
            room = max(Site.of(each).queued - held[id(self._cluster(each))] for each in ask.candidates)
            if count > room:
                return

    def submit(self, request: AttemptRequest) -> Handle:
        """See `base.Executor.submit`. What is to be brought and made comes first, in the background.

        Points of a sweep that ask for the same are collected until the next `poll`.
        """
        handle = request.handle
        if handle.candidate is None:
            handle = replace(handle, candidate=next(each for each in request.candidates if each.name == handle.placement.target))
        known = self._attempt(handle)
        if handle.key not in self._sending:
            known.over, known.hosts = False, request.plan.hosts
            self._sending.add(replace(request, handle=handle), known.cluster)
        return handle

    def poll(self, watched: Sequence[Watched], patience: float = 0.0) -> list[Status]:
        """See `base.Executor.poll`."""
        self._forget({each.handle.key for each in watched})
        self._sending.send()
        self._look(watched)
        saying = self._sending.saying
        told = [Status(*key, "submitting", reason=saying.pop(key)) for key in list(saying)]
        for name, answer in self.calls.take(patience).items():
            match name:
                case ("submit", *_):
                    for key, each in self._sending.arrived(name, answer):
                        told += self._submitted(self._known[key], each)
                case ("queue", int(cluster)):
                    self._heard(cluster, answer)
                case ("files", int(cluster)):
                    self._read(cluster, answer)
                case ("ended", int()):
                    self._settled(answer)
                case ("cancel", int(cluster)):
                    self._take_out(next(each for each in self.clusters.values() if id(each) == cluster))
                case _:  # an order: what it did shows when we look
                    pass
        over = {(status.job, status.attempt) for status in told if status.phase != "submitting"}
        for key, known in self._known.items():
            if known.news and not known.over and key not in over and not self._busy(known) and (status := known.status()):
                known.news = False
                known.parts = {rank: replace(each, chunks=(), log=b"") for rank, each in known.parts.items()}  # told once
                told.append(status)
                self._see_to(known, status)
        return told

    def _see_to(self, known: SlurmAttempt, status: Status) -> None:
        """What nobody waits for any more is taken from Slurm; what may live on beside it, on a node that Slurm lost, is told to end."""
        if known.unwanted:
            self._withdraw(known)
        if any(each and each.seen.phase == "lost" for each in status.ranks):
            for rank in known.ranks:
                self._order(known, rank, "stop")

    def _busy(self, known: SlurmAttempt) -> bool:
        """More is heard of it before anything is told: it is being queued, or bytes that would be told now are being read again."""
        reading = known.untold and self.calls.away(("files", id(known.cluster)))
        return reading or known.handle.key in self._sending

    def cancel(self, handle: Handle) -> None:
        """See `base.Executor.cancel`: what runs is asked to end in order, what waits is taken out of the queue at once."""
        if handle.candidate is None and handle.key not in self._known:
            return
        known = self._attempt(handle)
        now = time.monotonic()
        first, known.cancelled = known.cancelled is None, known.cancelled or now
        running = [rank for rank in known.ranks if rank in known.parts and known.parts[rank].seen.phase in ("running", "lost")]
        if known.exited or (known.job and known.job.phase == "ended"):
            return
        for rank in running:
            self._order(known, rank, "stop")
        if not running or now - known.cancelled > INSIST:
            self._withdraw(known)
        if first:
            known.cluster.hurry()

    def _withdraw(self, known: SlurmAttempt) -> None:
        """Have Slurm cancel it, and again while that shows no effect."""
        now = time.monotonic()
        if now >= known.insist:
            known.insist = now + AGAIN
            self._unwanted[id(known.cluster)].append(known.handle.key)
            self._take_out(known.cluster)

    def _take_out(self, cluster: LoginNode) -> None:
        """Have Slurm cancel what is to be, all that came while it was being told of the last by one call."""
        if (keys := self._unwanted.get(id(cluster))) and self.calls.send(("cancel", id(cluster)), cluster.cancel, keys):
            del self._unwanted[id(cluster)]

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:
        """See `base.Executor.find`."""
        for candidate in candidates:
            cluster = self._cluster(candidate)
            number = str(cluster.slurm("find", job=job, attempt=attempt, name=cluster.name(job, attempt))["number"])
            if number:
                cluster.heard(cluster.rows(), time.monotonic())
                known = SlurmAttempt(Handle(job, attempt, Placement(candidate.name, {}), (), "slurm", candidate), cluster, number)
                known.place(known.job.granted if known.job else ())
                return known.handle
        return None

    def close(self) -> None:
        """See `base.Executor.close`."""
        self.calls.close()
        for cluster in self.clusters.values():
            cluster.transport.close()

    # Asking

    def _cluster(self, candidate: Candidate) -> LoginNode:
        node, site = candidate.nodes[0], Site.of(candidate)
        key = node.key, node.ssh, site.programs, tuple(sorted(node.env.items()))
        if key not in self.clusters:
            transport = connect(self.home, node)
            self.clusters[key] = LoginNode.of(self.home, candidate, transport, self.owner)
        self.clusters[key].pace = min(self.clusters[key].pace, site.pace)
        return self.clusters[key]

    def _attempt(self, handle: Handle) -> SlurmAttempt:
        known = self._known.get(handle.key)
        if known is None:
            if handle.candidate is None:
                raise LookupError(f"{handle.job}: nobody says which login node it has")
            known = self._known[handle.key] = SlurmAttempt(handle, self._cluster(handle.candidate), handle.placement.ref)
        if handle.placement.devices or not known.handle.placement.devices:
            known.handle = handle
        known.number = known.number or handle.placement.ref
        return known

    def _look(self, watched: Sequence[Watched]) -> None:
        """Have files and queue of every login node looked at, where it is time, each in one call."""
        groups: dict[int, list[tuple[SlurmAttempt, Watched]]] = defaultdict(list)
        for each in watched:
            known = self._attempt(each.handle)
            if each.handle.key not in self._sending:
                groups[id(known.cluster)].append((known, each))
        now = time.monotonic()
        for place, group in groups.items():
            cluster = group[0][0].cluster
            if cluster.files_due <= now and not self.calls.away(("files", place)):
                cluster.files_due = now + (PACE if cluster.node.remote else 0.0)
                wanted = [(known, rank, each.watch(rank)) for known, each in group for rank in known.ranks]
                self.calls.send(("files", place), self._observe, cluster, wanted, here=not cluster.node.remote)
            open_ones = [known for known, _ in group if not known.exited]
            if open_ones and cluster.due <= now and not self.calls.away(("queue", place)):
                cluster.asked()
                self.calls.send(("queue", place), lambda cluster=cluster: (time.monotonic(), cluster.rows()))
            lost = [known for known in open_ones if known.gone is not None and not known.told and known.looked > known.gone]
            if lost and not self.calls.away(("ended", place)):
                self.calls.send(("ended", place), self._ended, cluster, lost)

    def _observe(
        self, cluster: LoginNode, wanted: Sequence[tuple[SlurmAttempt, int, Watch]]
    ) -> tuple[float, list[tuple[Key, int, Observed]]]:
        """In another thread: what the files of attempts say."""
        sent = time.monotonic()
        watches = [replace(watch, job=rank_job(watch.job, rank)) for _, rank, watch in wanted]
        found = observe(cluster.transport, watches) if watches else []
        return sent, [(known.handle.key, rank, each) for (known, rank, _), each in zip(wanted, found, strict=True)]

    def _ended(self, cluster: LoginNode, lost: Sequence[SlurmAttempt]) -> tuple[list[Key], Json]:
        """In another thread: how jobs ended that left no word, or of which Slurm knows nothing."""
        attempts = [[*known.handle.key, known.name] for known in lost]
        return [known.handle.key for known in lost], cluster.slurm("ended", attempts=attempts)

    def _order(self, known: SlurmAttempt, rank: int, what: str) -> None:
        job, attempt = known.handle.key
        call = getattr(known.cluster.transport, what)
        self.calls.send((what, job, attempt, rank), call, rank_job(job, rank), attempt, GRACE, here=not known.cluster.node.remote)

    # Hearing

    def _submitted(self, known: SlurmAttempt, answer: str | Exception) -> list[Status]:
        """What became of an attempt that was to be queued."""
        key, cluster = known.handle.key, known.cluster
        cluster.hurry()
        match answer:
            case str():
                known.number, known.begun, known.news = answer, time.monotonic(), True
                known.insist = 0.0  # it could not be cancelled before
                return []
            case NotQueued() as error if error.never:
                known.over = True
                return [Status(*key, "refused", reason=str(error))]
            case NotQueued() as error:
                cluster.full, cluster.why_full, known.over = time.monotonic() + FULL, str(error), True
                return [Status(*key, "withdrawn", reason=str(error))]
            case HostRefused() | ValueError() | Conflict() as error:
                known.over = True
                return [Status(*key, "refused", reason=str(error))]
            case TransportError() as error:
                cluster.silence(str(error))
                return [Status(*key, "unreachable", reason=str(error))]
            case error:  # one attempt's trouble is not the others': its kind and words are all that can be told
                known.over = True
                return [Status(*key, "refused", reason=f"{type(error).__name__}: {error}")]

    def _of(self, place: int) -> Iterable[SlurmAttempt]:
        return [known for known in self._known.values() if id(known.cluster) == place]

    def _heard(self, place: int, answer: tuple[float, list[list[str]]] | Exception) -> None:
        """Take in an answer of squeue."""
        [cluster] = [each for each in self.clusters.values() if id(each) == place]
        if isinstance(answer, Exception):
            cluster.silence(str(answer))
        else:
            cluster.heard(answer[1], answer[0])
        for known in self._of(place):
            known.queued()

    def _read(self, place: int, answer: tuple[float, list[tuple[Key, int, Observed]]] | Exception) -> None:
        """Take in what files say."""
        cut = str(answer) if isinstance(answer, Exception) else ""
        for known in self._of(place):
            known.news = known.news or known.cluster.cut != cut
        for known in self._of(place):
            known.cluster.cut = cut
        if not isinstance(answer, Exception):
            for key, rank, observed in answer[1]:
                if key in self._known:
                    self._known[key].read(rank, observed, answer[0])

    def _settled(self, answer: tuple[list[Key], Json] | Exception) -> None:
        """Take in how jobs ended; asked again where nobody answered."""
        if isinstance(answer, Exception):
            return
        for key, (out, requeued, hosts) in zip(answer[0], answer[1]["outs"], strict=True):
            if known := self._known.get(key):
                state = answer[1]["states"].get(known.name, ("", ""))
                known.ended(state, str(out), requeued=bool(requeued), hosts=int(hosts))

    def _forget(self, present: set[Key]) -> None:
        """What has ended is not known any more."""
        self._known = {key: known for key, known in self._known.items() if key in present or key in self._sending}
