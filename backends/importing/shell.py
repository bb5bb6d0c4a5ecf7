"""Command lines in a shell script: the one that trains, as the words that it gives to its trainer.

Nothing is run and nothing is looked up: variables that the script sets to plain text are filled in, others stay as they are.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from backends.command_line import OUTSIDE, CommandLine, Launcher, machine
from backends.dialect import Beside
from backends.mapping.rows import Flat, Value
from backends.native_config import NativeConfig, Unreadable, read
from backends.registry import dialects

_SET = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(\"[^\"`]*\"|'[^']*'|[^\s\"'`;&|]*)\s*(?:#.*)?$")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^{}]*))?\}|\$(\w+)")


_BEGINS = r"#!.*\b(?:ba|z|da)?sh\b|set -[eux]+|export \w+="


def is_script(text: str) -> bool:
    """A shell script rather than YAML, by its first line or by a trainer's command at the beginning of a line."""
    begins = "|".join((_BEGINS, *(launcher.begins for launcher in _launchers().values())))
    return bool(re.search(f"^(?:{begins})", text[:20_000], re.MULTILINE))


def _launchers() -> dict[str, Launcher]:
    return {name: dialect.launcher for name, dialect in dialects().items() if dialect.launcher}


def command(text: str, line: int = 0) -> CommandLine | None:
    """The first command of a trainer's that is not a comment, and where others of that trainer's stand.

    Args:
        text: of a script.
        line: of the command that is wanted, from 1; 0: any.
    """
    found = commands(text)
    chosen = next((each for each in found if line in (0, each.line)), None)
    return chosen and chosen._replace(others=tuple(e.line for e in found if e.trainer == chosen.trainer and e is not chosen))


def commands(text: str) -> list[CommandLine]:
    """All commands of trainers' in a script."""
    known: dict[str, str] = {}
    loops: dict[str, list[str]] = {}
    lines, found, end = text.splitlines(), list[CommandLine](), 0
    for number, line in enumerate(lines):
        if number < end or line.lstrip().startswith("#"):
            continue
        if loop := _LOOP.match(line):
            loops[loop[1]] = _words(_filled(loop[2], known))
            known |= {loop[1]: loops[loop[1]][0]} if loops[loop[1]] and "$" not in loops[loop[1]][0] else {}
        if said := _SET.match(line):
            value = _filled(said[2].strip("\"'"), known)
            known |= {} if "$" in value else {said[1]: value}
            continue
        joined = _joined(lines, number)
        end = number + len(joined)
        whole = " ".join(joined)[:50_000]
        if made := _parsed(whole, known, number + 1):
            found.append(made._replace(notes=tuple(_looped(whole, loops))))
    return found


_LOOP = re.compile(r"^\s*for\s+([A-Za-z_]\w*)\s+in\s+([^;]*?)\s*(?:;\s*do\b.*)?$")


def _looped(line: str, loops: dict[str, list[str]]) -> Iterator[str]:
    """A note for each loop that a command stands in and takes a value from."""
    for found in _VARIABLE.finditer(line):
        name = found[1] or found[3]
        if len(loops.get(name, ())) > 1:
            yield f"a loop runs this for {name} = {', '.join(loops[name])[:200]}: read with the first; give KEY=VALUE for another"


def _joined(lines: list[str], first: int) -> list[str]:
    """A line with those that a backslash at its end adds."""
    parts = []
    for line in lines[first : first + 300]:
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            break
    return parts


def _parsed(line: str, known: dict[str, str], number: int) -> CommandLine | None:
    filled = _filled(line.replace("\\$", "$").replace('\\"', '"'), known)  # a command inside quotes
    for trainer, launcher in _launchers().items():
        if found := re.search(launcher.pattern, filled):
            before = tuple(_words(re.split(r"&&|\|\||;", filled[: found.start()])[-1]))
            return CommandLine(trainer, launcher.module(found[1]), tuple(_words(found[2])), number, before=before)
    return None


def _filled(text: str, known: dict[str, str]) -> str:
    """With the variables that are known; a default may hold another one."""
    for _ in range(3):
        text = _VARIABLE.sub(lambda m: known.get(m[1] or m[3], m[2] if m[2] is not None else m[0]), text)[:100_000]
    return text


def _words(text: str) -> list[str]:
    """As a shell would part them, up to a pipe or the next command; an open quote is closed."""
    for attempt in (text, text + '"', text + "'"):
        try:
            words = shlex.split(attempt, comments=True)
        except ValueError:
            continue
        ends = [n for n, word in enumerate(words) if word in ("|", "||", "&&", "&", ";", ">", ">>", "2>&1")]
        return [word.rstrip(";") for word in words[: ends[0] if ends else None]]
    return text.split()


def wild(found: CommandLine, beside: Beside) -> NativeConfig:
    """The config that a command line names, under what it sets.

    Raises:
        Unreadable: the config is not there.
    """
    launcher = _launchers()[found.trainer]
    config, sets, more = launcher.parse(found)
    keys: Flat = {launcher.base_key: config} if launcher.base_key and config else {}
    lines: dict[str, int] = dict.fromkeys(keys, found.line)
    text = ""
    if config and not launcher.base_key:
        text = next(filter(None, map(beside, launcher.files(config))), "")
        if not text:
            raise Unreadable(f"names {config}, which is not there", line=found.line, hint=launcher.way_out(config))
        below = read(text)
        keys, lines = dict(below.keys), dict(below.lines)
    more = {**machine((*found.before, *found.words)), **more}
    taken = [key[1:] for key in sets if key.startswith("~")]
    said = {_place(key, value): _value(value) for key, value in sets.items() if not key.startswith("~")}
    keys = {key: value for key, value in keys.items() if not any(f"{key}.".startswith(f"{each}.") for each in taken)}
    keys, said = launcher.merged(keys, said)
    note = f"the command in line {found.line}: {found.trainer} {found.module}".rstrip()
    also = f"the script's other commands are left out: --line {', --line '.join(map(str, found.others))}"
    notes = (note, *((also,) if found.others else ()), *found.notes)
    return NativeConfig({**keys, **said, **more}, {**lines, **dict.fromkeys({**said, **more}, found.line)}, notes, text)


def _value(text: str) -> Value:
    """As YAML reads it."""
    try:
        return read(f"value: {text}").keys.get("value", text)
    except Unreadable:
        return text


def _place(key: str, value: str) -> str:
    return f"{OUTSIDE}{key}" if _VARIABLE.search(value) and "://" not in value else key
