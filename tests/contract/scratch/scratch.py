"""An executor of another package: processes of this machine, two at once, in a queue of its own that lies in a folder."""

import fcntl
import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

from pydantic import BaseModel, ConfigDict
from tunesmith.orchestrator.executors.base import Capacity, ExecutorType, Handle, Status
from tunesmith.orchestrator.monitoring.poll import Observed
from tunesmith.orchestrator.targets.model import Candidate, TargetKind
from tunesmith.orchestrator.targets.node import Node, Placement
from tunesmith.orchestrator.transports.base import AttemptStatus, Chunk

SLOTS = 2
RUN = 'cd "$0" && echo $$ > pid && sh -c "$1" > log 2>&1; echo $? > rc.new && mv rc.new rc'


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: str
    folder: str = ""


class Scratch:
    """A folder an attempt: `plan.json`, then `pid`, `log` and `rc`; `cancelled` where it was."""

    def __init__(self, context):
        self.folder = context.home.path / "scratch"
        self.folder.mkdir(parents=True, exist_ok=True)

    def capacity(self, present, waiting):
        asks = sorted((ask for lane in waiting for ask in lane), key=lambda ask: ask.order)
        return Capacity({ask.job: Placement(ask.candidates[0].name, {}) for ask in asks if ask.hosts == 1})

    def submit(self, request):
        place = self._place(*request.handle.key)
        steps = " && ".join(f"({step.argv[-1]})" for step in request.plan.steps)
        spec = {"steps": steps, "env": dict(request.plan.env), "number": time.time(), "target": request.handle.placement.target}
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "plan.json").exists():
            (place / "plan.new").write_text(json.dumps(spec))
            (place / "plan.new").replace(place / "plan.json")
        self._grant()
        return self._handle(request.handle)

    def poll(self, watched, patience=0.0):
        self._grant()
        return [self._status(each.handle, each.watch(0)) for each in watched]

    def cancel(self, handle):
        place = self._place(*handle.key)
        if place.exists() and not (place / "rc").exists():
            (place / "cancelled").touch()
            if (place / "pid").exists():
                with suppress(ProcessLookupError):
                    os.killpg(int((place / "pid").read_text()), signal.SIGKILL)

    def find(self, job, attempt, candidates):
        plan = self._place(job, attempt) / "plan.json"
        if not plan.exists():
            return None
        target = json.loads(plan.read_text())["target"]
        kind = next(each.kind for each in candidates if each.name == target)
        return self._handle(Handle(job, attempt, Placement(target, {}), kind=kind))

    def close(self):
        pass

    def _place(self, job, attempt):
        return self.folder / job / str(attempt)

    def _handle(self, handle):
        granted = (self._place(*handle.key) / "pid").exists()
        placement = Placement(handle.placement.target, {"scratch": ()} if granted else {}, ref="/".join(map(str, handle.key)))
        return replace(handle, placement=placement, nodes=(Node("scratch"),) if granted else ())

    @contextmanager
    def _locked(self):
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _grant(self):
        with self._locked():
            places = [place for place in self.folder.glob("*/*") if (place / "plan.json").exists()]
            places.sort(key=lambda place: json.loads((place / "plan.json").read_text())["number"])
            working = sum((place / "pid").exists() and not self._over(place) for place in places)
            waiting = [place for place in places if not (place / "pid").exists() and not (place / "cancelled").exists()]
            for place in waiting[: SLOTS - working]:
                spec = json.loads((place / "plan.json").read_text())
                (place / "began").touch()
                argv = ["sh", "-c", RUN, str(place), spec["steps"]]
                subprocess.Popen(argv, env={**os.environ, **spec["env"]}, start_new_session=True, stdin=subprocess.DEVNULL)
                while not (place / "pid").exists() or not (place / "pid").read_text().strip():
                    time.sleep(0.005)

    def _over(self, place):
        return (place / "rc").exists() or (place / "cancelled").exists()

    def _status(self, handle, watch):
        place = self._place(*handle.key)
        seen = AttemptStatus(*handle.key, "unknown")
        if not (place / "plan.json").exists():
            return Status.of(handle, [Observed(seen, ())])
        if not (place / "pid").exists() and not (place / "cancelled").exists():
            return Status(*handle.key, "pending", reason=f"{SLOTS} are running", placement=self._handle(handle).placement)
        seen = replace(seen, phase="running", step="train")
        if (place / "rc").exists():
            seen = replace(seen, phase="exited", rc=int((place / "rc").read_text()), ended=time.time())
        elif (place / "cancelled").exists():
            seen = replace(seen, phase="exited", why="stopped", ended=time.time())
        chunks = tuple(self._chunks(place, watch))
        log = (place / "log").read_bytes() if (place / "log").exists() and watch.log is not None else b""
        exist = tuple(each for each in watch.promised if any(place.glob(each)))
        observed = Observed(replace(seen, exist=exist), chunks, log[watch.log or 0 :])
        return Status.of(handle, [observed], placement=self._handle(handle).placement)

    def _chunks(self, place, watch):
        for pattern in {*watch.patterns, *watch.files}:
            for path in place.glob(pattern):
                name = str(path.relative_to(place))
                offset = watch.files.get(name, (0, ""))[0]
                if data := path.read_bytes()[offset:]:
                    yield Chunk(name, offset, data, "")


def candidate(name, section):
    """Where jobs of a target may run."""
    return Candidate.of(name, section.kind, [Node("scratch", SLOTS)])


SCRATCH = ExecutorType("scratch", Scratch, {"scratch": TargetKind(Section, candidate)})
