"""What keeps a call from being done: what is wrong, which argument brought it, the rule it breaks, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backends.recipe.yaml_source import Problem
    from backends.report import Report
    from orchestrator.store import Job


def as_keyword(argument: str, what: str) -> str:
    """An argument as Python writes it: `to='litgtp'`."""
    return f"{argument}={what!r}" if what else argument


class TunesmithError(Exception):
    """The base of all errors that a caller can do something about.

    Attributes:
        what: the thing itself: a path, a job, a leaf, the value of an argument.
        rule: what it should be, or what is the matter with it.
        argument: the argument that brought it, as the functions of `tunesmith` call it; empty where none did.
        hint: the way out; empty where there is none to name.
    """

    def __init__(self, what: str, rule: str = "", *, argument: str = "", hint: str = "") -> None:
        super().__init__(what, rule)
        self.what, self.rule, self.argument, self.hint = what, rule, argument, hint

    def text(self, spell: Callable[[str, str], str] = as_keyword) -> str:
        """The whole message.

        Args:
            spell: writes an argument and its value; the command line writes `--to litgtp`.
        """
        subject = spell(self.argument, self.what) if self.argument else self.what
        body = ": ".join(filter(None, (subject, self.rule)))
        return f"{body}\n\nhint: {self.hint}" if self.hint else body

    def __str__(self) -> str:
        return self.text()


class InvalidRequest(TunesmithError):
    """An argument, a recipe or clusters.yaml is wrong. Nothing was started."""


class InvalidRecipe(InvalidRequest):
    """A recipe or clusters.yaml breaks rules; `problems` has them all, each with file, line, path, rule, value and hint."""

    problems: Sequence[Problem] = ()


class NotFound(InvalidRequest):
    """There is no such file, job, target, trainer or leaf."""


class Ambiguous(InvalidRequest):
    """A name means several things where one is wanted."""


class AlreadyExists(InvalidRequest):
    """Something else is in the place: a file, or a job of this id. Nothing was changed."""


class MissingSecret(InvalidRequest):
    """A secret that the job needs has no value. Nothing was started."""


class NotExpressible(TunesmithError):
    """The trainer cannot honour a leaf of the recipe; `reports` has each trainer's whole report by name, where one was asked."""

    reports: Mapping[str, Report] = {}


class ActionFailed(TunesmithError):
    """What was asked for was tried and did not succeed, or cannot be done with this job."""


class JobFailed(ActionFailed):
    """Jobs ended otherwise than SUCCEEDED; `jobs` has them as they ended."""

    jobs: Sequence[Job] = ()


class Unreachable(TunesmithError):
    """A host, the network or the store does not answer. It says nothing about a job."""


class TimedOut(Unreachable):
    """The time given was over first; `jobs` has the jobs as they are. They go on."""

    jobs: Sequence[Job] = ()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or nothing: a hint."""
    import difflib  # noqa: PLC0415  # only once something is wrong

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else ""
