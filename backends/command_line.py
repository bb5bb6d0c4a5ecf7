"""A trainer's command line as scripts have it: what starts the trainer, and what its arguments say of its config."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from backends.recipe.flat import Flat

OUTSIDE = "outside:"
"""Before a key whose value the script takes from elsewhere: its arguments, or the environment."""
ODD = "word:"
"""Before an argument that is no key=value."""
PAIR = re.compile(r"[A-Za-z_][\w.]*=")
"""How an argument `key=value` begins."""


class CommandLine(NamedTuple):
    """One command line of a trainer."""

    trainer: str
    module: str
    """The program's module or command: what the first group of `Launcher.pattern` found."""
    words: tuple[str, ...]
    """Its arguments."""
    line: int
    others: tuple[int, ...] = ()
    """Lines of the script's other commands."""


class Arguments(NamedTuple):
    """What a command line says."""

    config: str
    """The config that it names; empty when it names none."""
    sets: dict[str, str]
    """Keys that it sets over that config -> text."""
    more: Flat
    """What stands on no key of the config, under `launch:`, `OUTSIDE` or `ODD`."""


def _itself(config: str) -> tuple[str, ...]:
    return (config,)


def _beside(_: str) -> str:
    return "import that file, or put it beside the script"


@dataclass(frozen=True)
class Launcher:
    """How scripts start a trainer."""

    pattern: str
    """A regular expression with two groups: the module or command, and the rest of the line."""
    begins: str
    """A regular expression for the beginning of a line that starts it: by such a line a script is told from YAML."""
    parse: Callable[[CommandLine], Arguments]
    files: Callable[[str], tuple[str, ...]] = _itself
    """Names of files that a config may mean, the likeliest first."""
    way_out: Callable[[str], str] = _beside
    """What to do when the config is not there."""
    module: Callable[[str], str] = str
    """The program's name, out of what the first group found."""
    base_key: str = ""
    """A key that holds the config's name instead of its contents, where the trainer's dialect resolves it."""


def pairs(words: tuple[str, ...] | list[str]) -> dict[str, str]:
    """The arguments `key=value`."""
    return dict(word.split("=", 1) for word in words if PAIR.match(word))


def options(words: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """`--name value` and `--name=value`; and the other arguments."""
    found: dict[str, str] = {}
    plain: list[str] = []
    waiting = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else "true"
            waiting = "" if equals else name
        elif waiting:
            found[waiting], waiting = word, ""
        else:
            plain.append(word)
    return found, plain
