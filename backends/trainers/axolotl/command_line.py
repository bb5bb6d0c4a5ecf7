"""How scripts start axolotl: `axolotl train FILE --key value`."""

from __future__ import annotations

from backends.command_line import Arguments, CommandLine, Launcher, options


def parse(found: CommandLine) -> Arguments:
    """A file, then --key value with dashes."""
    named, plain = options(found.words)
    sets = {key.replace("-", "_"): value for key, value in named.items() if key != "launcher"}
    return Arguments(plain[0] if plain else "", sets, {})


LAUNCHER = Launcher(r"(?:\baxolotl\s+|-m\s+axolotl\.cli\.)(train)\s+(.*)", "axolotl train ", parse)
