"""How scripts start MaxText: `python -m MODULE FILE key=value`."""

from __future__ import annotations

import re

from backends.command_line import ODD, OUTSIDE, PAIR, Arguments, CommandLine, Launcher, pairs


def parse(found: CommandLine) -> Arguments:
    """A `.yml`, then key=value. An argument that is neither stands for keys that the script takes from elsewhere, or is a mistake."""
    config = next((word for word in found.words if word.endswith(".yml") and "=" not in word), "")
    sets = pairs(found.words)
    odd = [word for word in found.words if word and word != config and not PAIR.match(word)]
    more = {f"{OUTSIDE if '$' in word else ODD}{word}": "" for word in odd}
    return Arguments(config, sets, {"launch:module": found.module, "launch:overrides": sorted(sets), **more})


def module(name: str) -> str:
    """A program's name as `python -m` takes it; a file of the package is its module."""
    plain = re.sub(r"[\"']", "", name)
    return re.sub(r"^.*?(maxtext/)", r"\1", plain.removesuffix(".py")).replace("/", ".") if "/" in plain else plain


LAUNCHER = Launcher(
    r"python[\d.]*\s+(?:-u\s+)?(?:-m\s+)?([\w./${}\"']{0,200}(?:maxtext|MaxText)[./][\w./\"']{0,200}train\w{0,50}(?:\.py)?)[\"']?\s+(.*)",
    r"python[\d.]* (?:-u )?-m ",
    parse,
    module=module,
    base_key="base_config",
)
