"""A simulated lab, and the controller's own decisions over it: hosts that are cut, rebooted, cloned, purged, filled.

What decides is the real thing: `reconcile`, `merge_ranks`, `believed`, `again`, `elsewhere`, `admit`. What is simulated is the world, and the
hand that carries decisions out. One tick is a second.
"""

import random
from dataclasses import dataclass, field

from orchestrator.agent.attempts import FOLDER_GONE
from orchestrator.executors.admission import admit
from orchestrator.executors.base import Ask
from orchestrator.executors.host_identity import believed
from orchestrator.executors.phases import merge_ranks
from orchestrator.jobs.lifecycle import ALIVE, ENDED, Become, Facts, reconcile
from orchestrator.jobs.retry import Again, Rules, Tried, again, elsewhere
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import AttemptStatus

DECISIONS = {"reconcile": reconcile, "merge_ranks": merge_ranks, "believed": believed, "again": again, "admit": admit}
HEALED, PATIENCE = 60, 400
"""Ticks after which no fault comes any more, and after which every job has to have ended."""


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Run:
    """One part of an attempt on one machine."""

    boot: str
    left: int
    """Ticks until it has trained."""
    folder: bool = True
    supervisor: bool = True
    alive: bool = True
    stopping: bool = False
    rc: int | None = None
    why: str = ""
    fails: bool = False
    """It will end with exit code 1."""
    keep: int = 0
    """Ticks for which its supervisor then holds the devices."""
    holds: int | None = None
    """How many of them are left, once it has failed."""

    def tick(self):
        if self.holds is not None and self.supervisor:
            self.holds -= 1
            self.supervisor = self.holds > 0 and not self.stopping
        if not self.alive:
            return
        self.left -= 1
        if self.stopping or self.left <= 0:
            self.alive = False
            if self.supervisor and self.folder:  # else nobody writes how it ended
                self.end()

    def end(self):
        """Its supervisor writes how it ended; of one that failed it may hold the devices."""
        if self.fails and self.keep and not self.stopping:
            self.holds = self.keep
            return
        self.rc, self.why = (None, "stopped") if self.stopping else (int(self.fails), "")
        self.supervisor = False


@dataclass
class Machine:
    """A computer; addresses lead to it."""

    name: str
    boot: str = "boot0"
    state: str = ""
    cut: bool = False
    full: bool = False
    runs: dict = field(default_factory=dict)

    @property
    def host(self):
        return f"{self.name} {self.boot} {self.state}"

    def tick(self):
        for run in self.runs.values():
            run.tick()

    def status(self, job, attempt):
        """As `agent.attempts.status` says it."""
        run, found = self.runs.get((job, attempt)), {"job": job, "attempt": attempt, "host": self.host}
        if run is None or (not run.folder and not run.alive):
            return AttemptStatus(**found, phase="unknown")
        if not run.folder:
            return AttemptStatus(**found, phase="lost", why=FOLDER_GONE, orphans=1)
        if run.rc is not None or run.why:
            return AttemptStatus(**found, phase="exited", step="train", rc=run.rc, why=run.why, ended=1.0)
        if run.holds is not None and not run.supervisor:
            return AttemptStatus(**found, phase="exited", step="train", rc=1, ended=1.0)
        if run.supervisor:
            failed = {"rc": 1, "kept_until": 1.0} if run.holds is not None else {}
            phase = "stopping" if run.stopping else "kept" if failed else "running"
            return AttemptStatus(**found, phase=phase, step="train", **failed)
        why = "supervisor died" if run.boot == self.boot else "host rebooted"
        return AttemptStatus(**found, phase="lost", step="train", why=why, orphans=int(run.alive))

    def start(self, job, attempt, left, fails, keep):
        """Once, as `agent.runner.start`; whether it could."""
        run = self.runs.get((job, attempt))
        if self.full:
            return False
        if run is None or not (run.folder or run.alive):
            self.state = self.state or f"state-{random.random()}"
            self.runs[job, attempt] = Run(self.boot, left, fails=fails, keep=keep)
        return True


@dataclass
class SimulatedJob:
    """As the store keeps it."""

    id: str
    hosts: int
    length: int
    state: str = "QUEUED"
    fails: bool = False
    keep: int = 0
    want: str = ""
    released: bool = False
    attempt: int = 1
    placement: Placement | None = None
    tried: list = field(default_factory=list)
    reason: str = ""


class World:
    """One schedule: the same seed gives the same."""

    def __init__(self, seed, decisions=DECISIONS):
        self.chance, self.decide = random.Random(seed), decisions
        self.machines = [Machine(f"m{number}") for number in range(3)]
        self.clone = Machine("clone", boot="other")
        self.address = {f"n{number}": machine for number, machine in enumerate(self.machines)}
        self.candidate = Candidate.of("lab", "ssh", [Node(name, 2) for name in self.address])
        self.rules, self.closed = Rules.of({"lost": 9}), {}
        sizes = [(self.chance.choice((1, 1, 2)), self.chance.randrange(4, 20)) for _ in range(4)]
        self.jobs = [SimulatedJob(f"j{number}", *size) for number, size in enumerate(sizes)]
        for job in self.jobs:
            job.fails, job.keep = self.chance.random() < 0.3, self.chance.choice((0, 5, 30))
        self.now, self.undo = 0, []

    def run(self):
        """All ticks until every job has ended; what ended how."""
        while not all(job.state in ENDED for job in self.jobs):
            self.now += 1
            if self.now > PATIENCE:
                raise Violation(f"not ended: {[(job.id, job.state, job.want) for job in self.jobs]}")
            for _, call in [each for each in self.undo if each[0] <= self.now or self.now >= HEALED]:
                call()
            self.undo = [each for each in self.undo if each[0] > self.now and self.now < HEALED]
            if self.now < HEALED and self.chance.random() < 0.15:
                self.fault()
            for machine in (*self.machines, self.clone):
                machine.tick()
            if self.chance.random() < 0.8:  # else the controller was killed, and the next one is not there yet
                self.look()
            self.check()
        return [job.state for job in self.jobs]

    # what goes wrong

    def fault(self):
        machine, job = self.chance.choice(self.machines), self.chance.choice(self.jobs)
        later = self.now + self.chance.randrange(1, 25)
        runs = [run for each in self.machines for run in each.runs.values() if run.alive]
        match self.chance.choice(("cut", "reboot", "clone", "purge", "purge all", "supervisor", "full", "cancel", "release")):
            case "cut":
                machine.cut = True
                self.undo.append((later, lambda: setattr(machine, "cut", False)))
            case "reboot":
                machine.boot += "'"
                for run in machine.runs.values():
                    run.alive = run.supervisor = False
            case "clone":
                name = next(name for name, each in self.address.items() if each is machine or each is self.clone)
                own = self.machines[int(name[1:])]
                self.address[name] = self.clone
                self.undo.append((later, lambda: self.address.update({name: own})))
            case "purge" if runs:
                self.chance.choice(runs).folder = False
            case "purge all":
                machine.state = ""
                for run in machine.runs.values():
                    run.folder = False
            case "supervisor" if runs:
                self.chance.choice(runs).supervisor = False
            case "full":
                machine.full = True
                self.undo.append((later, lambda: setattr(machine, "full", False)))
            case "cancel" if job.state not in ENDED:
                job.want = job.want or "cancel"
            case "release":
                job.released = job.state == "KEPT"

    # the controller

    def look(self):
        for job in self.jobs:
            if job.state in ALIVE:
                self.follow(job)
            elif job.state == "QUEUED" and job.want:
                job.state = "CANCELLED"
        lanes = [self.ask(job, number) for number, job in enumerate(self.jobs) if job.state == "QUEUED"]
        held = [job.placement.devices for job in self.jobs if job.state in ALIVE]
        closed = [name for name, until in self.closed.items() if until > self.now]
        for id, placement in self.decide["admit"](held, [iter(lanes)], {}, closed).items():
            job = next(job for job in self.jobs if job.id == id)
            job.state, job.placement = "STARTING", placement
            self.submit(job)

    def ask(self, job, number):
        return Ask(job.id, job.attempt, "", (0, number), job.hosts, 1, (self.candidate,))

    def reach(self, name):
        machine = self.address[name]
        return None if machine.cut else machine

    def submit(self, job):
        begun, ill = [], []
        for name in job.placement.devices:
            machine = self.reach(name)
            if machine and not machine.start(job.id, job.attempt, job.length, job.fails, job.keep):
                ill.append(name)
            elif machine:
                begun.append(name)
                job.placement.machines[name] = machine.host  # as it said before it was told to start, if the answer is lost
        for name in ill:
            self.closed[name] = self.now + 5
        if ill:
            self.stop(job, begun)
            if not begun:
                job.state, job.placement = "QUEUED", None

    def stop(self, job, names):
        for name in names:
            machine = self.reach(name)
            run = machine and machine.runs.get((job.id, job.attempt))
            if run and run.folder and run.supervisor:
                run.stopping = True
            elif run and run.alive:  # reaped
                run.alive = run.supervisor = False

    def follow(self, job):
        ranks = []
        for name in job.placement.devices:
            machine = self.reach(name)
            seen = machine.status(job.id, job.attempt) if machine else None
            if seen:
                seen, _ = self.decide["believed"](seen, job.placement.machines.get(name, ""))
            if seen and seen.phase != "unknown" and seen.why != FOLDER_GONE:
                job.placement.machines.setdefault(name, seen.host)
            ranks.append(seen)
        phase, speaker = self.decide["merge_ranks"](ranks)
        said = ranks[speaker] or AttemptStatus(job.id, job.attempt, "unknown")
        silent = [name for name, seen in zip(job.placement.devices, ranks, strict=True) if seen is None]
        if phase == "unreachable" and self.now > PATIENCE // 2:
            job.want = "abandon"  # its user has waited for long
        known = [seen for seen in ranks if seen]
        orphans, phases = sum(seen.orphans for seen in known), [seen.phase for seen in known]
        more = {"step": said.step, "rc": said.rc, "why": said.why, "orphans": orphans, "phases": phases, "silent": silent}
        more |= {"kept_until": "later" if said.kept_until else "", "released": job.released}
        for action in self.decide["reconcile"](Facts(job.state, job.want, phase, **more)):
            if isinstance(action, Become):
                self.become(job, action)
            elif action.what == "submit":
                self.submit(job)
            else:
                names = [name for name, seen in zip(job.placement.devices, ranks, strict=True) if seen]
                self.stop(job, names)

    def become(self, job, new):
        if new.state in ENDED and new.state not in ("SUCCEEDED", "CANCELLED"):
            kind = "lost" if new.state == "LOST" else "unknown"
            job.tried.append(Tried(job.attempt, kind, (), tuple(job.placement.devices)))
            choice = elsewhere(new.reason, job.tried, list(self.address)) or self.decide["again"](self.rules, job.tried, None)
            if isinstance(choice, Again):
                job.state, job.attempt, job.placement = "QUEUED", job.attempt + 1, None
                return
        job.state, job.reason = new.state, new.reason

    # the promises

    def check(self):
        for job in self.jobs:
            living = {
                attempt
                for machine in (*self.machines, self.clone)
                for (id, attempt), run in machine.runs.items()
                if id == job.id and run.alive
            }
            if len(living) > 1:
                raise Violation(f"{self.now}: {job.id} runs twice, as attempts {living}")
            runs = [m.runs.get((job.id, job.attempt)) for m in (*self.machines, self.clone)]
            trained = sum(bool(run and run.rc == 0) for run in runs)
            if job.state == "SUCCEEDED" and trained < job.hosts:
                raise Violation(f"{self.now}: {job.id} SUCCEEDED, and has not trained")
            if job.state in ENDED and living and job.reason != "abandoned":
                raise Violation(f"{self.now}: {job.id} is {job.state}, and goes on")
            if job.state == "FAILED" and not job.fails:
                raise Violation(f"{self.now}: {job.id} FAILED, and did not fail")
            if job.state == "FAILED" and any(run and run.holds and run.supervisor and run.folder for run in runs):
                raise Violation(f"{self.now}: {job.id} FAILED, and holds its devices")
            if job.state == "KEPT" and not any(run and run.fails for run in runs):
                raise Violation(f"{self.now}: {job.id} is KEPT, and did not fail")
