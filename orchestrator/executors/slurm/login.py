"""One login node: how it is reached, how often Slurm is asked there, and what an attempt needs before it can be queued."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from backends.plan import HEAD, PORT, RANK, Environment, File, Plan, Step
from orchestrator import agent
from orchestrator.agent.blobs import address
from orchestrator.agent.provision import address as environment_address
from orchestrator.agent.provision import ready
from orchestrator.executors.base import AttemptRequest
from orchestrator.executors.slurm.script import limits, script
from orchestrator.executors.slurm.section import Site
from orchestrator.executors.slurm.states import QueueJob, by_name
from orchestrator.executors.slurm.turns import Turns
from orchestrator.home import Home
from orchestrator.monitoring.poll import last_words
from orchestrator.staging.inputs import stage
from orchestrator.staging.request import AGENT, HostPaths, local_paths, request
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from orchestrator.transports import codec
from orchestrator.transports.base import HostFacts, Transport, TransportError, Watch

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

PACE = 1.0
"""Seconds between two looks at the files of attempts behind another login node. Slurm is not asked for that."""
SOON = 0.5
"""Seconds after an act of ours when Slurm is asked the second time; then twice as long each time, up to the target's `pace`."""
SILENCE = 120.0
"""Seconds between two questions to a Slurm that does not answer, at most."""
SCRIPT = ".tune/job.sbatch"
"""Where an attempt has its script, relative to its work folder."""
LOGIN = "_login_"
"""How the name begins of what is made on the login node for a job; no job's id begins so."""
Limits = Mapping[str, "str | float"]
"""What a script asks for: see `script.limits`."""
READY = {"name": "ready", "argv": ["true"], "made": ""}
"""The last step of an attempt always runs: those before it are left out where what they make is there."""


class NotQueued(Exception):
    """An attempt is not in Slurm's queue."""

    def __init__(self, reason: str, *, never: bool) -> None:
        """`never`: it can never be, as it is; else not now."""
        super().__init__(reason)
        self.never = never


Made = tuple[Environment, tuple[Step, ...], "NotQueued | None"]
"""What was made on the login node, and why that went wrong."""


@dataclass
class LoginNode:
    """Times are of the monotonic clock. Its methods that wait are called in other threads."""

    home: Home
    node: Node
    """The login node."""
    programs: str
    transport: Transport
    tag: str
    """With what the names of all our jobs in the queue end."""
    pace: float = 15.0
    jobs: dict[str, QueueJob] = field(default_factory=dict)
    """By name, as the last squeue had them."""
    answered: float = float("-inf")
    """When the question was sent that was answered last."""
    trouble: str = ""
    """Why Slurm does not answer; empty while it does."""
    cut: str = ""
    """Why the login node does not answer; empty while it does."""
    full: float = float("-inf")
    """Until when nothing more is sent, since the site lets no more of ours into the queue."""
    why_full: str = ""
    due: float = 0.0
    """When Slurm is to be asked again."""
    files_due: float = 0.0
    _wait: float = SOON
    _facts: HostFacts | None = None
    turns: Turns = field(default_factory=Turns)
    """Who goes into the queue next."""
    _within: set[tuple[tuple[str, str | float], ...]] = field(default_factory=set)
    """What was found within the limits of its partition."""
    _bringing: Lock = field(default_factory=Lock)
    """Several attempts may be queued at once."""
    _largest: int | None = None
    _agent: str = ""
    """Our programs there, relative to the state folder."""

    @classmethod
    def of(cls, home: Home, candidate: Candidate, transport: Transport, owner: str) -> LoginNode:
        """The login node of a target."""
        site = Site.of(candidate)
        tag = "." + sha256(owner.encode()).hexdigest()[:6]
        return cls(home, candidate.nodes[0], site.programs, transport, tag, site.pace)

    def name(self, job: str, attempt: int) -> str:
        """The name of an attempt's job in the queue. It is chosen by us, so it can be looked for before anything is sent."""
        return f"{job}.{attempt}{self.tag}"

    # When to ask

    def hurry(self) -> None:
        """We did something: what becomes of it is asked for at once, and soon again."""
        self.due, self._wait = 0.0, SOON

    def asked(self) -> None:
        """Slurm is being asked."""
        self.due = time.monotonic() + self._wait
        self._wait = min(self.pace, 2 * self._wait)

    def silence(self, reason: str) -> None:
        """It did not answer: the next questions are farther and farther apart."""
        self.trouble = reason
        self._wait = min(SILENCE, 2 * self._wait)
        self.due = time.monotonic() + self._wait

    def heard(self, rows: Sequence[Sequence[str]], sent: float) -> None:
        """Take in an answer of squeue."""
        self.jobs = by_name(rows)
        self.answered, self.trouble = sent, ""

    # Asking, in other threads

    def slurm(self, do: str, **about: object) -> Json:
        """Have Slurm's commands run on the login node: see `agent.slurm`.

        Raises:
            TransportError: the login node does not answer, or Slurm does not.
            NotQueued: Slurm says no.
        """
        answer = self.transport.slurm({"do": do, "programs": self.programs, "env": dict(self.node.env), **about})
        if "no" in answer:
            text = f"Slurm: {answer['no']}"
            if answer["why"] == "silent":
                raise TransportError(text)
            raise NotQueued(text, never=answer["why"] == "never")
        return answer

    def rows(self) -> list[list[str]]:
        """All our jobs, as squeue says."""
        rows = self.slurm("queue", tag=self.tag)["jobs"]
        with codec.checked(self.node.name):
            return [[str(each) for each in row] for row in rows if len(row) == 7]

    def cancel(self, attempts: Sequence[tuple[str, int]]) -> None:
        """End jobs, wherever they are."""
        self.slurm("cancel", attempts=[[*each, self.name(*each)] for each in attempts])

    def largest(self) -> int:
        """How many tasks an array may have there; asked once."""
        if self._largest is None:
            self._largest = int(self.slurm("largest")["largest"])
        return self._largest

    def queue(self, asked: AttemptRequest, turn: int, say: Callable[[str], None]) -> str:
        """Bring everything, make on the login node what is made there, and put the attempt into the queue; Slurm's number.

        Args:
            asked: the attempt.
            turn: its number in the row of `turns`.
            say: hears what takes long.

        Raises:
            NotQueued, TransportError: as `slurm`.
            ValueError: something cannot be brought or made.
        """

        def slow(text: str) -> None:
            self.turns.takes_long(turn)
            say(text)

        try:
            about = self.ready(asked, slow)
            with self.turns.mine(turn):
                return self.submit(asked, about)
        finally:
            self.turns.end(turn)

    def submit(self, asked: AttemptRequest, about: Json) -> str:
        """Put an attempt that is `ready` into the queue as a job of its own; Slurm's number."""
        wanted = limits(asked.plan, self.site(asked))
        missing = {} if self.is_within(wanted) else wanted
        number = str(self.slurm("submit", **about, secrets=dict(asked.secrets), limits=missing)["number"])
        self.found_within(wanted)
        return number

    @staticmethod
    def site(asked: AttemptRequest) -> Site:
        """What the target of an attempt says."""
        return Site.of(next(each for each in asked.candidates if each.name == asked.handle.placement.target))

    def is_within(self, wanted: Limits) -> bool:
        """Was this found to be within the limits of its partition?"""
        return tuple(wanted.items()) in self._within

    def found_within(self, wanted: Limits) -> None:
        """It was."""
        self._within.add(tuple(wanted.items()))

    def ready(self, asked: AttemptRequest, say: Callable[[str], None], made: list[Made] | None = None) -> Json:
        """What an attempt's job is made of, once all is there that it needs.

        Args:
            asked: the attempt.
            say: hears what takes long.
            made: what was made for others a moment ago, or could not be, to which this adds.
        """
        job, attempt = asked.handle.key
        site = self.site(asked)
        text = script(asked.plan, site)
        plan = replace(asked.plan, files=(*asked.plan.files, File(SCRIPT, text)))
        paths = self._paths(plan, say)
        if site.prepare == "login":
            self._prepare(asked, plan, paths, say, [] if made is None else made)
        document = json.dumps(self._document(asked, plan, paths, site), sort_keys=True)
        about = {"job": job, "attempt": attempt, "name": self.name(job, attempt), "script": text, "document": document}
        return {**about, "agent": self.brought()}

    def _paths(self, plan: Plan, say: Callable[[str], None]) -> HostPaths:
        if not self.node.remote:
            return local_paths(self.home, plan)
        self._facts = self._facts or self.transport.hello()
        return stage(self.home, self.transport, self._facts, self.node, plan, say)

    def _document(self, asked: AttemptRequest, plan: Plan, paths: HostPaths, site: Site) -> Json:
        """What `agent.allocation` is told."""
        job, attempt = asked.handle.key
        hosts = [(self.node, ())] * plan.hosts
        ranks = []
        for rank in range(min(plan.hosts, 2)):  # those after the first are told the same
            told = request(job, attempt, plan, hosts, rank, paths, {}, resume=asked.resume, granted=False)
            document = codec.document(told)
            del document["secrets"]
            ranks.append(document)
        tokens = {"rank": RANK, "head": HEAD, "port": PORT}
        return {"ranks": ranks, "hosts": plan.hosts, "tokens": tokens, "interface": site.interface}

    def brought(self) -> str:
        """Bring our programs for compute nodes, once; where they are, relative to the state folder there."""
        with self._bringing:
            if self._agent:
                return self._agent
            source = self.home.cache / "agent" / sha256(b"".join(_texts().values())).hexdigest()[:16]
            for name, data in _texts().items():
                path = source / "orchestrator" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists() or path.read_bytes() != data:
                    path.write_bytes(data)
            named = address(str(source))
            self.transport.put({named: source})
            self._agent = f"blobs/{named}"
            return self._agent

    def _prepare(self, asked: AttemptRequest, plan: Plan, paths: HostPaths, say: Callable[[str], None], made: list[Made]) -> None:
        """Make the environment, and what else a step keeps in the cache (the model), on the login node: compute nodes often reach
        no network. What was made for others is not again.

        Raises:
            NotQueued: that went wrong.
        """
        steps = tuple(step for step in plan.steps if step.made.startswith("cache/"))
        if not (steps or plan.environment.lock) or self._made(plan, [step.made for step in steps]):
            return
        known = next((each for each in made if each[:2] == (plan.environment, steps)), None)
        if known is None:
            try:
                self._make(asked, replace(plan, steps=steps), paths, say)
            except NotQueued as error:
                known = (plan.environment, steps, error)
            made.append(known or (plan.environment, steps, None))
        if known and known[2]:
            raise known[2]

    def _make(self, asked: AttemptRequest, plan: Plan, paths: HostPaths, say: Callable[[str], None]) -> None:
        """Run steps on the login node. It is an attempt of its own there, which outlives us."""
        job, attempt = f"{LOGIN}{asked.handle.job}", asked.handle.attempt
        needed = request(job, attempt, plan, [(self.node, ())], 0, paths, asked.secrets)
        needed = replace(needed, steps=(*needed.steps, READY), notify="")
        seen, wait = self.transport.start(needed), 0.2
        while seen.phase in ("running", "stopping"):
            say(f"on the login node: {seen.step or 'starting'}")
            time.sleep(wait)
            wait = min(2.0, wait * 1.5)
            [seen] = self.transport.poll([Watch(job, attempt, failed=("reason.json",), tail=8192)])
        if seen.phase != "exited" or seen.rc != 0:
            said = json.loads(seen.whole.get("reason.json", b"{}") or b"{}").get("detail") or last_words(seen.tail) or seen.why
            raise NotQueued(f"on the login node, step {seen.step or 'none'}: {said}", never=seen.phase == "exited")

    def _made(self, plan: Plan, made: Sequence[str]) -> bool:
        """Is all there, as far as can be seen from here?"""
        if self.node.remote:
            return False
        environment = plan.environment
        there = not environment.lock or ready(environment_address(self.home.envs, environment))
        return there and all((self.home.path / path).exists() for path in made)


def _texts() -> dict[str, bytes]:
    """Our programs for hosts, by their path in the package."""
    modules = sorted(AGENT.glob("*.py"))
    return {"__init__.py": b"", **{f"{Path(agent.__name__.split('.')[-1])}/{path.name}": path.read_bytes() for path in modules}}
