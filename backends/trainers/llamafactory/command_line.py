"""How scripts start LLaMA-Factory: `llamafactory-cli train FILE key=value`, or `src/train.py` below torchrun or accelerate."""

from __future__ import annotations

from backends.command_line import DEVICES, HOSTS, Arguments, CommandLine, Launcher, options, pairs
from backends.recipe.flat import Flat

_VARIABLES = {"NPROC_PER_NODE": DEVICES, "NNODES": HOSTS}
"""Variable that `llamafactory-cli train` hands on to torchrun (launcher.py) -> what it counts."""
_ENDINGS = (".yaml", ".yml", ".json")


def parse(found: CommandLine) -> Arguments:
    """A file, then key=value; or all keys as --key value."""
    named, plain = options(found.words)
    config = next((word for word in plain if word.endswith(_ENDINGS)), "")
    machine: Flat = {} if found.module == "train" else {"launch:command": found.module}
    for word in found.before:
        name, _, count = word.partition("=")
        if name in _VARIABLES and count not in ("", "1"):
            machine[_VARIABLES[name]] = int(count) if count.isdigit() else count
    return Arguments(config, {**named, **pairs(plain)}, machine)


LAUNCHER = Launcher(
    r"(?:\b(?:llamafactory-cli|lmf)\s+|\bsrc/(?=train))(train|sft|dpo|rm)(?:_bash)?(?:\.py)?\b(?=.*(?:\.ya?ml|\.json|--stage))\s*(.*)",
    r"(?:[A-Z_]+=\S+ +)*(?:(?:llamafactory-cli|lmf) (?:train|sft|dpo|rm) |(?:deepspeed|torchrun|accelerate|python3?) .*\bsrc/train)",
    parse,
)
