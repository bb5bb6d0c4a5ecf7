"""Attempts that ask for the same go into Slurm's queue together, as tasks of one array: one call of sbatch, whatever their number."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from orchestrator.background import outcome
from orchestrator.executors.slurm.login import LoginNode, Made, NotQueued
from orchestrator.executors.slurm.script import array, limits
from orchestrator.transports.base import Conflict, TransportError

if TYPE_CHECKING:
    from orchestrator.executors.base import AttemptRequest

Outcome = str | Exception
"""Slurm's number of an attempt, or why it is not in the queue."""
LATER = "Slurm: those before it are to be in the queue first"


class Array:
    """Some attempts of a sweep, by the number of their task, from 1."""

    def __init__(self, login: LoginNode, group: Sequence[AttemptRequest], most: int | None) -> None:
        """`most`: how many may run at once; None: all."""
        self.login, self.group, self.most = login, group, most
        self.attempts = [[*each.handle.key, login.name(*each.handle.key)] for each in group]
        sweep = group[0].sweep.sweep if group[0].sweep else group[0].handle.job
        self.name = f"{sweep}.array-{sha256(json.dumps(self.attempts).encode()).hexdigest()[:6]}{login.tag}"
        self.outcomes: dict[int, Outcome] = {}
        """By task."""

    def put(self, say: Callable[[str], None], made: list[Made]) -> None:
        """Bring what each of them needs."""
        for task, each in enumerate(self.group, 1):
            about = outcome(self.login.ready, each, say, made)  # one point's trouble is not the others'
            if not isinstance(about, Exception):
                about = outcome(self.login.slurm, "put", **about, array=self.name, task=task)
            if isinstance(about, Exception):
                self.outcomes[task] = about

    def submit(self, after: str) -> str:
        """Have those that are ready put into the queue, once the tasks of the array `after` have ended; the array's number. Where the site
        takes no more of ours, as many as it does.
        """
        tasks = [task for task in range(1, len(self.group) + 1) if task not in self.outcomes]
        first = self.group[0]
        site, wanted = self.login.site(first), limits(first.plan, self.login.site(first))
        about: dict[str, object] = {"attempts": self.attempts, "array": self.name, "most": self.most, "after": after}
        about |= {"script": array(first.plan, site, len(self.group), self.most), "secrets": dict(first.secrets)}
        number = ""
        while tasks:
            try:
                if not self.login.is_within(wanted) and (trouble := self.login.slurm("limits", limits=wanted)["trouble"]):
                    raise NotQueued(f"Slurm: {trouble}", never=True)
                self.login.found_within(wanted)
                numbers = [str(each) for each in self.login.slurm("array", **about, tasks=tasks)["numbers"]]
                self.outcomes |= dict(zip(tasks, numbers, strict=True))
                number = next((each.partition("_")[0] for each in numbers if each), "")
                break
            except NotQueued as error:
                kept = [] if error.never else tasks[: len(tasks) // 2]
                self.outcomes |= dict.fromkeys(tasks[len(kept) :], error)
                tasks = kept
            except (TransportError, OSError, ValueError, Conflict) as error:
                self.outcomes |= dict.fromkeys(tasks, error)
                break
        return number

    def results(self, error: Exception) -> list[Outcome]:
        """What became of each; `error` of those that were not tried."""
        return [self.outcomes.get(task, error) for task in range(1, len(self.group) + 1)]


def queue_together(login: LoginNode, group: Sequence[AttemptRequest], turn: int, say: Callable[[str], None]) -> list[Outcome]:
    """Put points of a sweep that ask for the same into the queue, as one array, or as several where the site's are smaller. Of a
    sweep with a limit each array waits for the one before.

    Args:
        login: where.
        group: the attempts.
        turn: their number in the row of `turns`.
        say: hears what takes long.
    """

    def slow(text: str) -> None:
        login.turns.takes_long(turn)
        say(text)

    try:
        if (size := login.largest()) < 1:  # the site has no arrays
            return _each_alone(login, group, turn, slow)
        most = group[0].sweep.at_once if group[0].sweep else None
        arrays = [Array(login, group[at : at + size], most) for at in range(0, len(group), size)]
        made: list[Made] = []
        for each in arrays:
            each.put(slow, made)
        with login.turns.mine(turn):
            before = ""
            for each in arrays:
                number = each.submit(before if most else "")
                if most and not number:
                    break
                before = number
        return [outcome for each in arrays for outcome in each.results(NotQueued(LATER, never=False))]
    finally:
        login.turns.end(turn)


def _each_alone(login: LoginNode, group: Sequence[AttemptRequest], turn: int, say: Callable[[str], None]) -> list[Outcome]:
    """The same as jobs of their own; of a sweep with a limit each waits for the one that is so many before it."""
    made: list[Made] = []
    ready = [outcome(login.ready, each, say, made) for each in group]
    ahead: list[str] = [""] * ((group[0].sweep and group[0].sweep.at_once) or 0)
    found: list[Outcome] = []
    with login.turns.mine(turn):
        for each, about in zip(group, ready, strict=True):
            after = ahead[0] if ahead else ""
            answer = about if isinstance(about, Exception) else outcome(login.submit, each, {**about, "after": after})
            if ahead and isinstance(answer, str):
                ahead = [*ahead[1:], answer or after]
            found.append(answer)
    return found
