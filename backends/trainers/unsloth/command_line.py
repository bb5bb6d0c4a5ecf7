"""How scripts start Unsloth: `unsloth train -c FILE --key value`."""

from __future__ import annotations

from backends.command_line import Arguments, CommandLine, Launcher, options


def parse(found: CommandLine) -> Arguments:
    """A file, then --key value with dashes."""
    named, plain = options(tuple("--config" if word == "-c" else word for word in found.words))
    config = named.pop("config", plain[0] if plain else "")
    return Arguments(config, {key.replace("-", "_"): value for key, value in named.items()}, {})


LAUNCHER = Launcher(r"\bunsloth\s+(train)\b\s*(.*)", "unsloth train ", parse)
