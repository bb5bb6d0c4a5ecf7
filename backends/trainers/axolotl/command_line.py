"""How scripts start axolotl: `axolotl train FILE --key value`."""

from __future__ import annotations

from backends.command_line import COUNTS, Arguments, CommandLine, Launcher, options


def parse(found: CommandLine) -> Arguments:
    """A file, then --key value with dashes; what follows `--` is the launcher's."""
    words = found.words[: found.words.index("--")] if "--" in found.words else found.words
    named, plain = options(words)
    known = {key.replace("-", "_"): value for key, value in named.items()}
    sets = {key: value for key, value in known.items() if key not in (*COUNTS, "launcher", "config_file")}
    return Arguments(plain[0] if plain else "", sets, {})


LAUNCHER = Launcher(r"(?:\baxolotl\s+|-m\s+axolotl\.cli\.)(train)\s+(.*)", "axolotl train ", parse)
