"""How scripts start TRL: `trl sft --config FILE --key value`, or the same through accelerate and torchrun."""

from __future__ import annotations

from backends.command_line import Arguments, CommandLine, Launcher, options


def parse(found: CommandLine) -> Arguments:
    """Keys by name; the command is the method."""
    named, _ = options(found.words)
    config = named.pop("config", "")
    return Arguments(config, named, {"launch:command": found.module})


LAUNCHER = Launcher(
    r"(?:\btrl\s+|trl[./]scripts[./])(sft|dpo|kto|reward|grpo|rloo|distillation)(?:\.py)?\b\s*(.*)",
    r"trl (?:sft|dpo|kto|reward|grpo) ",
    parse,
)
