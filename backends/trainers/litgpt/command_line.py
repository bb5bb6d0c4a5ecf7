"""How scripts start LitGPT: `litgpt COMMAND [MODEL] --key value`."""

from __future__ import annotations

from backends.command_line import Arguments, CommandLine, Launcher, options


def parse(found: CommandLine) -> Arguments:
    """A model, then --key value."""
    named, plain = options(found.words)
    config = named.pop("config", "")
    first = {"model_name" if found.module == "pretrain" else "checkpoint_dir": plain[0]} if plain else {}
    return Arguments(config, {**first, **named}, {"launch:command": found.module})


LAUNCHER = Launcher(r"\blitgpt\s+(finetune\w*|pretrain)\s+(.*)", "litgpt ", parse)
