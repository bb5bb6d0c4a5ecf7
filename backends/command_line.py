"""A trainer's command line as scripts have it: what starts the trainer, and what its arguments say of its config."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
    before: tuple[str, ...] = ()
    """What stands before the trainer on its line: variables, and a launcher with its options."""
    notes: tuple[str, ...] = ()
    """What the reader should know of how it was read."""


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


def over(keys: Flat, sets: Flat) -> tuple[Flat, Flat]:
    """What a config keeps beside the keys set over it: nothing below a section that became a value."""
    return {key: value for key, value in keys.items() if not any(key.startswith(f"{each}.") for each in sets)}, sets


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
    merged: Callable[[Flat, Flat], tuple[Flat, Flat]] = over
    """(the config's keys, keys set) -> the config's keys that stay, keys set: a value takes the place of what stands below it."""
    base_key: str = ""
    """A key that holds the config's name instead of its contents, where the trainer's dialect resolves it."""


def pairs(words: tuple[str, ...] | list[str]) -> dict[str, str]:
    """The arguments `key=value`."""
    return dict(word.split("=", 1) for word in words if PAIR.match(word))


_COUNTS = {
    "num_processes": "processes",
    "nproc_per_node": "devices",
    "nproc": "devices",
    "num_gpus": "devices",
    "num_gpus_per_node": "devices",
    "gpus_per_node": "devices",
    "nnodes": "hosts",
    "num_machines": "hosts",
    "num_nodes": "hosts",
}
"""Option of torchrun, accelerate or DeepSpeed's launcher -> what it counts; underscores and dashes mean the same."""
COUNTS = frozenset(_COUNTS)
DEVICES, HOSTS = "launch:devices", "launch:hosts"
"""Keys for what a command line says of its machine. A text is a count that the script takes from elsewhere."""


def machine(words: Sequence[str]) -> Flat:
    """Devices of a host, and hosts, by the options of whatever launcher is before a trainer. accelerate counts the processes of all
    hosts; without a launcher the variable CUDA_VISIBLE_DEVICES lists devices.
    """
    found: dict[str, str] = {}
    for name, value in options(tuple(words))[0].items():
        found.setdefault(_COUNTS.get(name.replace("-", "_"), ""), value)
    visible = next((word.partition("=")[2] for word in words if word.startswith("CUDA_VISIBLE_DEVICES=")), "")
    hosts = found.get("hosts", "1").rpartition(":")[2]  # torchrun's MIN:MAX
    out: Flat = {}
    if devices := found.get("devices"):
        out[DEVICES] = _count(devices)
    elif processes := found.get("processes"):
        whole = processes.isdigit() and hosts.isdigit() and int(hosts) > 0 and int(processes) % int(hosts) == 0
        out[DEVICES] = int(processes) // int(hosts) if whole else processes
    elif visible:
        out[DEVICES] = len(visible.split(",")) if "$" not in visible else visible
    if "hosts" in found and hosts != "1":
        out[HOSTS] = _count(hosts)
    return out


def _count(word: str) -> int | str:
    return int(word) if word.isdigit() and int(word) > 0 else word


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
