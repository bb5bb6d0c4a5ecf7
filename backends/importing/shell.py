"""Command lines in a shell script: the one that trains, as the words that it gives to its trainer.

Nothing is run and nothing is looked up: variables that the script sets to plain text are filled in, others stay as they are.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

from backends.dialect import Beside
from backends.mapping.rows import Flat
from backends.native_config import NativeConfig, Unreadable, read

PROGRAMS = {
    "maxtext": re.compile(
        r"python3?\s+(?:-u\s+)?(?:-m\s+)?([\w./${}\"']{0,200}(?:maxtext|MaxText)[./][\w./\"']{0,200}train\w{0,50}(?:\.py)?)[\"']?\s+(.*)"
    ),
    "torchtune": re.compile(r"\btune\s+run\s+()(.*)"),
    "axolotl": re.compile(r"(?:\baxolotl\s+|-m\s+axolotl\.cli\.)(train)\s+(.*)"),
    "litgpt": re.compile(r"\blitgpt\s+(finetune\w*|pretrain)\s+(.*)"),
}
"""Trainer -> what starts it: the module or command, then its words."""

_SET = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(\"[^\"`]*\"|'[^']*'|[^\s\"'`;&|]*)\s*(?:#.*)?$")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^{}]*))?\}|\$(\w+)")


class Command(NamedTuple):
    """One command line of a trainer."""

    trainer: str
    module: str
    words: tuple[str, ...]
    line: int
    others: tuple[int, ...] = ()
    """Lines of the script's other commands."""


def is_script(text: str) -> bool:
    """A shell script rather than YAML, by its first line or by a trainer's command at the beginning of a line."""
    starts = re.compile(
        r"^(?:#!.*\b(?:ba|z|da)?sh\b|set -[eux]+|export \w+=|python3? (?:-u )?-m |tune run |litgpt |axolotl train )", re.MULTILINE
    )
    return bool(starts.search(text[:20_000]))


def command(text: str, line: int = 0) -> Command | None:
    """The first command of a trainer's that is not a comment, and where others of that trainer's stand.

    Args:
        text: of a script.
        line: of the command that is wanted, from 1; 0: any.
    """
    found = commands(text)
    chosen = next((each for each in found if line in (0, each.line)), None)
    return chosen and chosen._replace(others=tuple(e.line for e in found if e.trainer == chosen.trainer and e is not chosen))


def commands(text: str) -> list[Command]:
    """All commands of trainers' in a script."""
    known: dict[str, str] = {}
    lines, found, end = text.splitlines(), list[Command](), 0
    for number, line in enumerate(lines):
        if number < end or line.lstrip().startswith("#"):
            continue
        if said := _SET.match(line):
            value = _filled(said[2].strip("\"'"), known)
            known |= {} if "$" in value else {said[1]: value}
            continue
        joined = _joined(lines, number)
        end = number + len(joined)
        if made := _parsed(" ".join(joined)[:50_000], known, number + 1):
            found.append(made)
    return found


def _joined(lines: list[str], first: int) -> list[str]:
    """A line with those that a backslash at its end adds."""
    parts = []
    for line in lines[first : first + 300]:
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            break
    return parts


def _parsed(line: str, known: dict[str, str], number: int) -> Command | None:
    filled = _filled(line.replace("\\$", "$").replace('\\"', '"'), known)  # a command inside quotes
    for trainer, pattern in PROGRAMS.items():
        if found := pattern.search(filled):
            return Command(trainer, _module(found[1]), tuple(_words(found[2])), number)
    return None


def _module(name: str) -> str:
    """A program's name as `python -m` takes it; a file of the package is its module."""
    plain = re.sub(r"[\"']", "", name)
    return re.sub(r"^.*?(maxtext/)", r"\1", plain.removesuffix(".py")).replace("/", ".") if "/" in plain else plain


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


def wild(found: Command, beside: Beside) -> NativeConfig:
    """The config that a command line names, under what it sets.

    Raises:
        Unreadable: the config is not there.
    """
    config, sets, more = _PARTED[found.trainer](found)
    keys: Flat = {"base_config": config} if found.trainer == "maxtext" and config else {}
    lines: dict[str, int] = dict.fromkeys(keys, found.line)
    text = ""
    if config and found.trainer != "maxtext":
        text = next(filter(None, map(beside, _names(found.trainer, config))), "")
        if not text:
            raise Unreadable(f"names {config}, which is not there", line=found.line, hint=_way_out(found.trainer, config))
        below = read(text)
        keys, lines = dict(below.keys), dict(below.lines)
    said = {_place(key, value): read(f"value: {value}").keys.get("value", value) for key, value in sets.items()}
    keys = {key: value for key, value in keys.items() if not any(key.startswith(f"{each}.") for each in said)}
    note = f"the command in line {found.line}: {found.trainer} {found.module}".rstrip()
    also = f"the script's other commands are left out: --line {', --line '.join(map(str, found.others))}"
    notes = (note, *((also,) if found.others else ()))
    return NativeConfig({**keys, **said, **more}, {**lines, **dict.fromkeys({**said, **more}, found.line)}, notes, text)


def _names(trainer: str, config: str) -> tuple[str, ...]:
    """Files that a command may mean: torchtune's own configs are named without their ending."""
    own = f"{config}.yaml"
    return (config, own, own.rpartition("/")[2]) if trainer == "torchtune" else (config,)


def _way_out(trainer: str, config: str) -> str:
    if trainer != "torchtune" or config.endswith((".yaml", ".yml")):
        return "import that file, or put it beside the script"
    return f"torchtune comes with it: its own `tune cp {config} {config.rpartition('/')[2]}.yaml` copies it beside the script"


OUTSIDE = "outside:"
"""Before a key whose value the script takes from elsewhere: its arguments, or the environment."""
ODD = "word:"
"""Before a word that is no key=value."""


def _place(key: str, value: str) -> str:
    return f"{OUTSIDE}{key}" if _VARIABLE.search(value) and "://" not in value else key


def _maxtext(found: Command) -> tuple[str, dict[str, str], Flat]:
    """A `.yml`, then key=value. A word that is neither stands for keys that the script takes from elsewhere, or is a mistake."""
    config = next((word for word in found.words if word.endswith(".yml") and "=" not in word), "")
    sets = dict(word.split("=", 1) for word in found.words if re.match(r"[A-Za-z_][\w.]*=", word))
    odd = [word for word in found.words if word and word != config and not re.match(r"[A-Za-z_][\w.]*=", word)]
    more = {f"{OUTSIDE if '$' in word else ODD}{word}": "" for word in odd}
    return config, sets, {"launch:module": found.module, "launch:said": sorted(sets), **more}


def _torchtune(found: Command) -> tuple[str, dict[str, str], Flat]:
    """torchrun's options, a recipe, --config FILE, key=value."""
    options, plain = _options(found.words)
    sets = dict(word.split("=", 1) for word in plain if re.match(r"[A-Za-z_][\w.]*=", word))
    names = {"nproc_per_node": "launch:devices", "nnodes": "launch:hosts"}
    more: Flat = {key: int(options[name]) for name, key in names.items() if options.get(name, "").isdigit()}
    recipe = next((word for word in plain if "=" not in word), "")
    return options.get("config", ""), sets, {**more, **({"launch:recipe": recipe} if recipe else {})}


def _litgpt(found: Command) -> tuple[str, dict[str, str], Flat]:
    """A model, then --key value."""
    options, plain = _options(found.words)
    config = options.pop("config", "")
    first = {"model_name" if found.module == "pretrain" else "checkpoint_dir": plain[0]} if plain else {}
    return config, {**first, **options}, {"launch:command": found.module}


def _axolotl(found: Command) -> tuple[str, dict[str, str], Flat]:
    """A file, then --key value with dashes."""
    options, plain = _options(found.words)
    return (plain[0] if plain else ""), {key.replace("-", "_"): value for key, value in options.items() if key != "launcher"}, {}


_PARTED = {"maxtext": _maxtext, "torchtune": _torchtune, "axolotl": _axolotl, "litgpt": _litgpt}


def _options(words: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """`--name value` and `--name=value`; and the other words."""
    options: dict[str, str] = {}
    plain: list[str] = []
    waiting = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else "true"
            waiting = "" if equals else name
        elif waiting:
            options[waiting], waiting = word, ""
        else:
            plain.append(word)
    return options, plain
