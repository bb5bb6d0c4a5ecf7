"""`tune completion`: TAB in bash, zsh and fish, by argcomplete. The shell starts `tune` with the line so far; names of jobs, targets,
settings, trainers and recipes are looked up then, and nothing is started or connected to.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import argcomplete
from argcomplete.completers import FilesCompleter, SuppressCompleter
from argcomplete.shell_integration import shellcode

from orchestrator.cli import DONE
from orchestrator.client.errors import TunesmithError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Names = Mapping[str, str]
    """Name -> what it is, which zsh and fish show beside it."""

NEWEST = 200
"""Jobs that are offered."""
PROGRAMS = ["tune", "tunesmith"]


def completion(args: argparse.Namespace) -> int:
    """The script of a shell."""
    print(shellcode(PROGRAMS, shell=args.shell))
    return DONE


def complete() -> None:
    """Answer the shell that asks, and end the process."""
    from orchestrator.cli.parser import parser  # noqa: PLC0415  # it imports nothing, but every command's module imports this room

    top = parser()
    for action in _actions(top):
        if make := _completer(action):
            action.completer = make  # type: ignore[attr-defined]  # where argcomplete looks for it
    argcomplete.autocomplete(top, always_complete_options=False)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
        else:
            yield action


def _completer(action: argparse.Action) -> Callable[..., Iterable[str]] | None:
    """What completes an argument, by what the help calls it; None for choices and for what only its user knows."""
    kind = action.metavar if isinstance(action.metavar, str) else ""
    if kind.startswith("RECIPE") and action.option_strings == []:
        return FilesCompleter(("yaml", "yml"))
    if action.dest == "name" and not action.option_strings:
        return _named(_library)
    if action.dest == "names":
        return _named(_targets)
    first = kind.partition("|")[0]
    found = {
        **dict.fromkeys(("JOB", "JOB[:OUTCOME]"), _named(_jobs)),
        "TARGET": _listed(_targets),
        "TRAINER": _named(_trainers),
        "all": _listed(_trainers),
        "A,B": _listed(_trainers),
        "SETTING": _named(_settings),
        "ENGINE": _named(_engines),
        "PATH=VALUE": _settings_and_values,
        "SETTING=A,B": _settings_and_values,
        "SETTING=LOW..HIGH[:log]": _settings_and_values,
    }
    if first in ("FILE", "DIR", "A", "B", "FOLDER"):
        return FilesCompleter()
    return found.get(kind) or found.get(first) or (SuppressCompleter() if kind else None)


def _named(names: Callable[[], Names]) -> Callable[..., Names]:
    """A completer of one name. A store or clusters.yaml that cannot be read has none: an error would spoil the line."""

    def completer(**_: object) -> Names:
        try:
            return names()
        except (TunesmithError, OSError):
            return {}

    return completer


def _listed(names: Callable[[], Names]) -> Callable[..., list[str]]:
    """A completer of `A,B`."""

    def completer(prefix: str, **_: object) -> list[str]:
        before, comma, _last = prefix.rpartition(",")
        return [f"{before}{comma}{name}" for name in _named(names)() if name not in before.split(",")]

    return completer


def _jobs() -> Names:
    """The newest, with their state, and `latest`; no controller is started to know better."""
    from orchestrator.client.session import session  # noqa: PLC0415  # each list imports its own

    with session() as here:
        jobs = here.store.jobs()[:NEWEST]
    latest = {"latest": f"{jobs[0].id}, {jobs[0].state}"} if jobs else {}
    return {**latest, **{job.id: f"{job.name}, {job.state}" for job in jobs}}


def _targets() -> Names:
    from orchestrator.client.targets import layout  # noqa: PLC0415

    known = layout()
    groups = {name: f"group: {', '.join(members)}" for name, members in known.groups.items()}
    return {**{name: each.kind for name, each in known.candidates.items()}, **groups}


def _trainers() -> Names:
    from backends.registry import BACKENDS  # noqa: PLC0415

    return {**{name: each.package for name, each in BACKENDS.items()}, "all": "side by side"}


def _engines() -> Names:
    from orchestrator.exporting.engines import ENGINES  # noqa: PLC0415

    return dict.fromkeys(ENGINES, "task file")


def _settings() -> Names:
    from backends.recipe.flat import leaves  # noqa: PLC0415

    return dict.fromkeys(leaves(), "setting")


def _settings_and_values(prefix: str, **_: object) -> list[str]:
    """`optim.lr=`, and behind the sign the values of a setting that has a few."""
    from backends.recipe.docs import about  # noqa: PLC0415
    from backends.recipe.flat import leaves  # noqa: PLC0415

    name, sign, _value = prefix.partition("=")
    if not sign:
        return [f"{leaf}=" for leaf in leaves()]
    return [f"{name}={value}" for value in _choices(about(name)["type"])] if name in leaves() else []


def _choices(kind: str) -> Iterator[str]:
    """Values of a type in words: `a|b or null`."""
    for part in kind.split(" or "):
        yield from ("true", "false") if part == "boolean" else part.split("|") if "|" in part else ["null"] * (part == "null")


def _library() -> Names:
    from orchestrator.client.library import recipe_names  # noqa: PLC0415

    return dict.fromkeys(recipe_names(), "recipe")
