"""The loop: looks at the jobs' hosts, asks `decisions` what to do, does it, writes down what happened.

Started on demand by whoever submits, one at a time (a lock in the state folder), ends when there is nothing to do. It holds
no truth of its own: the store and the hosts' files are enough to go on after it was killed anywhere.
"""

from __future__ import annotations

import json
import os
import socket
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from backends.base import Backend, Ending
from backends.registry import reader
from orchestrator.decisions import ALIVE, ENDED, Become, Facts, Queued, admit, decide
from orchestrator.handover import GRACE, request, unpacked
from orchestrator.home import Home, read_secrets
from orchestrator.metrics import Reading, points, summed
from orchestrator.service import near, only_one
from orchestrator.store import Active, Store, open_store
from orchestrator.transports.base import Conflict, Request, Seen, Transport, TransportError, Watch
from orchestrator.transports.local import Local

PACE = 0.5
"""Seconds between looks at running jobs for news of their metrics; starts and ends are announced by the runner at once."""
PATIENCE = 5.0
"""Seconds to stay without anything to do."""
MANIFEST = "data/manifest.json"
REASON = "reason.json"


@dataclass
class Case:
    """One job in the controller's hands: its request, and what was read of it. Can be dropped and loaded again at any time."""

    plan: dict[str, Any]
    target: dict[str, Any]
    backend: Backend
    reading: Reading
    attempt: int
    manifest: dict[str, Any] | None = None
    said: tuple[str, str] | None = None


class Size(NamedTuple):
    """What is kept of a job that waits: thousands may."""

    devices: int
    """That it needs."""
    capacity: int
    """Of its target."""


@dataclass
class Controller:
    """All jobs of one state folder."""

    home: Home
    store: Store
    transports: dict[str, Transport] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Job -> values, as heard from whoever submitted it; in memory only."""
    cases: dict[str, Case] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)

    def transport(self, _target: Mapping[str, Any]) -> Transport:
        """The way to a target; only this machine in this version."""
        return self.transports.setdefault("local", Local(self.home.path))

    def case(self, active: Active) -> Case:
        """What is needed of a job, read once for each attempt."""
        job = active.job
        known = self.cases.get(job.id)
        if known is None or known.attempt != job.attempt:
            request = unpacked(self.store.request(job.id))
            known = Case(request["plan"], request["target"], reader(job.backend), Reading.load(active.positions), job.attempt)
            self.cases[job.id] = known
        return known

    def size(self, id: str) -> Size:
        """What a job takes, and of how much."""
        if id not in self.sizes:
            request = unpacked(self.store.request(id))
            self.sizes[id] = Size(int(request["plan"]["devices"]), int(request["target"]["devices"]))
        return self.sizes[id]

    def look(self, *, start: bool = True) -> int:
        """One pass over everything that is not ended.

        Args:
            start: also start queued jobs.

        Returns:
            How many jobs are not ended afterwards.
        """
        active = self.store.active()
        present = {each.job.id for each in active}
        self.cases = {id: case for id, case in self.cases.items() if id in present}
        self.sizes = {id: size for id, size in self.sizes.items() if id in present}
        groups = defaultdict(list)
        for each in active:
            if each.job.state in ALIVE:
                groups[each.job.target].append(each)
        for group in groups.values():
            self._tend(group)
        if groups:
            active = self.store.active()
        for each in active:
            if each.job.state == "QUEUED" and each.job.want == "cancel":
                self._become(each, Become("CANCELLED", "cancelled", "before it started"))
        if start and any(each.job.state == "QUEUED" for each in active):
            self._admit(active)
        return len(active)

    def _tend(self, group: Sequence[Active]) -> None:
        """Look at one target's jobs in one round trip, and act."""
        cases = [self.case(each) for each in group]
        transport = self.transport(cases[0].target)
        try:
            seen = transport.poll([_watch(each, case) for each, case in zip(group, cases, strict=True)])
        except TransportError as error:
            for each in group:
                if each.job.reachable:
                    self.store.change(each.job.id, expect=None, now=time.time(), reachable=False, detail=str(error), event=True)
            return
        for each, case, now in zip(group, cases, seen, strict=True):
            try:
                self._follow(transport, each, case, now)
            except Exception:  # one job's trouble is not the others'; the log has the trace, and the next look tries again
                traceback.print_exc()
                self.cases.pop(each.job.id, None)  # what was read and not recorded is read again

    def _follow(self, transport: Transport, each: Active, case: Case, seen: Seen) -> None:
        """Take in what was seen of one job, until there is no more, and decide."""
        while True:
            self._record(transport, each, case, seen)
            if seen.phase not in ("exited", "lost") or not seen.chunks:
                break
            [seen] = transport.poll([_watch(each, case)])
        job = each.job
        steps = case.manifest["steps"] if case.manifest else job.steps
        self._note(each, seen, steps)
        for action in decide(self._facts(transport, each, case, seen, steps)):
            if isinstance(action, Become):
                self._become(each, action, seen)
            elif action.what == "start":
                self._start([each])
            elif action.what == "stop":
                transport.stop(job.id, job.attempt, GRACE)
            else:
                transport.reap(job.id, job.attempt)

    def _note(self, each: Active, seen: Seen, steps: int | None) -> None:
        """Keep what changed beside the state."""
        job = each.job
        news: dict[str, Any] = {}
        if seen.step and seen.step != job.phase_step:
            news["phase_step"] = seen.step
        if steps != job.steps:
            news["steps"] = steps
        if not job.reachable:
            news |= {"reachable": True, "detail": ""}
        if news:
            self.store.change(job.id, expect=None, attempt=job.attempt, now=time.time(), **news)

    def _record(self, transport: Transport, each: Active, case: Case, seen: Seen) -> None:
        """New bytes into points."""
        job = each.job
        if case.manifest is None and MANIFEST in seen.exist:
            manifest = _json(transport.read(job.id, job.attempt, f"work/{MANIFEST}", 0, 256 << 20))
            case.manifest = summed(manifest) if manifest else None
        if REASON in seen.exist and case.said is None:
            said = _json(transport.read(job.id, job.attempt, f"work/{REASON}", 0, 1 << 16)) or {}
            case.said = str(said.get("reason", "step_failed")), str(said.get("detail", ""))
        if seen.chunks:
            found = points(case.backend, case.plan, case.reading, seen.chunks, case.manifest)
            self.store.record(job.id, job.attempt, found, time.time(), case.reading.dump())

    def _facts(self, transport: Transport, each: Active, case: Case, seen: Seen, steps: int | None) -> Facts:
        verdict, last = None, ""
        if seen.phase == "exited" and seen.rc == 0:
            missing = [p for p in case.plan["promise"]["files"] if p not in seen.exist]
            verdict = case.backend.judge(Ending(steps, case.reading.progress, missing))
        elif seen.phase == "exited" and seen.rc and not case.said:
            last = _last_words(transport.read(each.job.id, each.job.attempt, "log", max(0, seen.log_size - 8192), 8192))
        return Facts(
            each.job.state,
            each.job.want,
            seen.phase,
            seen.step,
            seen.rc,
            seen.signal,
            seen.why,
            seen.orphans,
            verdict,
            case.said,
            last,
        )

    def _become(self, each: Active, new: Become, seen: Seen | None = None) -> None:
        """Write a new state down, if the job still is where we saw it."""
        job, now = each.job, time.time()
        fields: dict[str, Any] = {"state": new.state, "reason": new.reason, "detail": new.detail}
        if new.state == "RUNNING":
            fields["started"] = seen.step_started if seen and seen.step_started else now
        if new.state in ENDED:
            fields["ended"] = seen.ended if seen and seen.ended else now
            self.secrets.pop(job.id, None)
        self.store.change(job.id, expect=[job.state], attempt=job.attempt, now=now, **fields)

    def _admit(self, active: Sequence[Active]) -> None:
        """Start queued jobs for which there are devices."""
        sizes = {each.job.id: self.size(each.job.id) for each in active}
        capacity = {each.job.target: sizes[each.job.id].capacity for each in active}
        queue = [
            Queued(
                a.job.id, a.job.target, sizes[a.job.id].devices, a.job.state, a.job.want, tuple(a.positions.get("devices", ()))
            )
            for a in active
        ]
        by_id = {each.job.id: each for each in active}
        begun = []
        for id, devices in admit(queue, capacity).items():
            each, case = by_id[id], self.case(by_id[id])
            case.reading.devices = list(devices)
            self.store.record(id, each.job.attempt, (), time.time(), case.reading.dump())
            if self.store.change(id, expect=["QUEUED"], attempt=each.job.attempt, now=time.time(), state="STARTING"):
                begun.append(Active(each.job._replace(state="STARTING"), each.positions))
        self._start(begun)

    def _start(self, begun: Sequence[Active]) -> None:
        """Give attempts to their hosts, several at a time: a start waits for another process. A second time does nothing there."""
        asked = [(each, wanted) for each in begun if (wanted := self._request(each))]
        for each, answer in zip((each for each, _ in asked), _together(self._give, [wanted for _, wanted in asked]), strict=True):
            if isinstance(answer, Exception):
                self._become(each, Become("FAILED", "cannot_start", str(answer)))
            elif answer.phase == "running":
                for action in decide(Facts(each.job.state, each.job.want, answer.phase, answer.step)):
                    if isinstance(action, Become):
                        self._become(each, action, answer)

    def _give(self, wanted: Request) -> Seen | Exception:
        try:
            return self.transport({}).start(wanted)
        except (Conflict, TransportError, ValueError) as error:
            return error

    def _request(self, each: Active) -> Request | None:
        """What the host is told; None when a secret has no value, which ends the attempt."""
        job, case = each.job, self.case(each)
        try:
            values, missing = _secrets(case.plan["secrets"], self.secrets.get(job.id, {}), self.home)
            detail = (
                f"no value for {', '.join(missing)}: export it and `tune retry {job.id}`, or write it into {self.home.secrets}"
            )
        except PermissionError as error:
            values, missing, detail = {}, ["?"], str(error)
        if missing:
            self._become(each, Become("FAILED", "missing_secret", detail))
            return None
        return request(self.home, job.id, job.attempt, case.plan, case.target, case.reading.devices, values)


def _together(call: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """A function's values in order, a few calls at a time."""
    if len(values) < 2:
        return [call(value) for value in values]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 10 ms, for those who start many

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(call, values))


def _watch(each: Active, case: Case) -> Watch:
    more = () if case.manifest else (MANIFEST,)
    return Watch(
        each.job.id,
        each.job.attempt,
        (*case.plan["promise"]["files"], REASON, *more),
        case.reading.offsets(),
        tuple(case.plan["watch"]),
    )


def _json(data: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        value = json.loads(data)
        return value if isinstance(value, dict) else None
    return None


def _last_words(tail: bytes) -> str:
    """The last line that looks like an error, or simply the last."""
    lines = [
        line.strip() for line in tail.decode("utf-8", "replace").splitlines() if line.strip() and not line.startswith("=== tune:")
    ]
    errors = [line for line in lines if line.split(":")[0].rstrip().endswith(("Error", "Exception", "error"))]
    return (errors or lines or [""])[-1][:500]


def _secrets(names: Sequence[str], heard: Mapping[str, str], home: Home) -> tuple[dict[str, str], list[str]]:
    """Values for names: from whoever submitted, from the secrets file, from our own environment; and the names without any."""
    kept = read_secrets(home.secrets) if names else {}
    values = {name: heard.get(name) or kept.get(name) or os.environ.get(name, "") for name in names}
    return {n: v for n, v in values.items() if v}, [n for n, v in values.items() if not v]


def catch_up(home: Home, store: Store) -> None:
    """Take one look ourselves when nobody else does, so that what is shown is true; starts nothing."""
    with only_one(home) as mine:
        if mine:
            Controller(home, store).look(start=False)


def serve(home: Home) -> None:
    """Be the controller until there is nothing to do."""
    secrets: dict[str, dict[str, str]] = {}
    again = True
    while again:
        with only_one(home, patience=1.0) as mine, open_store(home.store) as store:
            if not mine:
                return
            _loop(Controller(home, store, secrets=secrets))
        with open_store(home.store) as store:  # a job that came after our last look and saw us alive
            again = bool(store.active())


def _loop(controller: Controller) -> None:
    place = controller.home.socket
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(near(place))
        place.chmod(0o600)
        busy = time.monotonic()
        while True:
            left = _look_safely(controller)
            if left:
                busy = time.monotonic()
            elif time.monotonic() - busy > PATIENCE:
                break
            if _listen(ear, controller, PACE if left else 1.0):
                busy = time.monotonic()
        place.unlink(missing_ok=True)


def _look_safely(controller: Controller) -> int:
    """One pass. What goes wrong with it is written down and tried again: a full disk or a locked database passes."""
    try:
        return controller.look()
    except Exception:  # the loop must live on; the log has the trace
        traceback.print_exc()
        controller.cases.clear()
        time.sleep(PACE)
        return 1


def _listen(ear: socket.socket, controller: Controller, seconds: float) -> bool:
    """Sleep until somebody says that something changed, at most so many seconds; did somebody?"""
    ear.settimeout(seconds)
    heard = False
    try:
        while True:
            data, heard = ear.recv(1 << 20), True
            with suppress(ValueError, AttributeError):
                controller.secrets.update(json.loads(data).get("secrets", {}))
            ear.settimeout(0.002)  # what comes together is looked at together
    except (TimeoutError, BlockingIOError):
        return heard


def main(folder: str) -> None:
    """What `service` starts."""
    serve(Home(Path(folder)))
