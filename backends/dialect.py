"""What a dialect is: how a trainer's config is recognised and read, beside the rows of the trainer's table turned around."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from inspect import CO_VARARGS
from typing import Literal, NamedTuple

from backends.command_line import DEVICES, HOSTS, Launcher
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.native_config import NativeConfig
from backends.upstream.known_keys import KnownKeys

Beside = Callable[[str], str | None]
"""Text of a file that the config names, relative to it; None when it cannot be had."""


NO_TRAINING = (
    "this is not a training config",
    "this script has no command",
    "this is a config of none",
    "this is a recipe already",
)
"""How a refusal begins where nothing is missing: the file is no config of a run that trains."""


IsFolder = Callable[[str], bool]
"""Whether a folder of this name is there, relative to the config or to where the trainer is started."""


class Refused(Exception):
    """No recipe can be made of this config; the text says why."""


class Unfit(Exception):
    """A native value without counterpart in the recipe. It is reported as not modelled."""

    def __init__(self, why: str, carry: Flat | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.carry = carry or {}
        """What is set all the same: leaves, or `native.<trainer>.<key>` so that the trainer itself loses nothing."""


class ImportRow(NamedTuple):
    """Import's own row: native keys that together say some leaves, where the trainer's table has another spelling."""

    keys: tuple[str, ...]
    """`section.*` stands for all that is written below a section, as one nested mapping, of which only what `make` looks at is
    this row's."""
    make: Callable[..., Flat]
    """(*values of keys, *values of also) -> leaf -> value, and `native.<trainer>.<key>` -> value for what is set verbatim
    besides, `idle(key, why)`, `unmodelled(key, why)` and `note(text)`. A value is the trainer's default where the key is not written, ABSENT where there is none. A
    parameter called `_` or `_name` is not read, so that its key is no leaf's. Raises `Unfit`."""
    why: str = ""
    also: tuple[str, ...] = ()
    """Keys of other rows that this one looks at."""

    @property
    def unread(self) -> frozenset[str]:
        """Keys whose values `make` takes no notice of, by the names of its parameters (the linter holds that an unread one begins
        with an underscore).
        """
        code = self.make.__code__
        named = code.co_varnames[: code.co_argcount]
        rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if code.co_flags & CO_VARARGS else "_"
        names = (*named, *(rest for _ in range(len(self.keys) - len(named))))
        return frozenset(key for key, name in zip(self.keys, names, strict=False) if name.startswith("_"))


IDLE, UNMODELLED, NOTE = "idle:", "unmodelled:", "note:"
"""Begin what `idle`, `unmodelled` and `note` make."""


def idle(key: str, why: str) -> Flat:
    """A key of a row that has no effect beside what the others say; part of what `ImportRow.make` returns."""
    return {f"{IDLE}{key}": why}


def unmodelled(key: str, why: str) -> Flat:
    """A key of a row that the recipe does not say, while it says the others; part of what `ImportRow.make` returns."""
    return {f"{UNMODELLED}{key}": why}


def note(text: str) -> Flat:
    """What a reader should know beside the keys; part of what `ImportRow.make` returns."""
    return {f"{NOTE}{text}": ""}


LONGEST = 131_072
"""Tokens of a row, where a trainer does not cut and the longest row of the model is not known."""

ROWS = "./rows.jsonl"
"""Stands in data.train for rows that a recipe cannot name. No such file is there, so nothing runs before the user names one."""

MODEL = "./model"
"""Stands in model.id for a model that a recipe cannot name, in the same way."""

REWARDS = ["./rewards.py:reward"]
"""Stand in method.grpo.rewards for functions in a trainer's own code, in the same way."""

Fate = Literal["job", "kept", "unmodelled"]


class Rule(NamedTuple):
    """What becomes of keys that no row reads, by a pattern with `*`."""

    pattern: str
    fate: Fate
    """`job`: tune decides it for each job. `kept`: set verbatim for this trainer, without meaning for another. `unmodelled`: reported."""
    why: str
    """`job`, `kept`: the reason. `unmodelled`: what the key does."""
    carried: bool = False
    """Of `unmodelled`: also set verbatim, so that the trainer itself loses nothing."""
    values: tuple[Value, ...] = ()
    """The rule speaks of these values alone; none: of all."""


@dataclass(frozen=True)
class Dialect:
    """A trainer's configs in the wild."""

    name: str
    """Of the backend."""
    sure: Callable[[Flat], str]
    """What in a config says that it is this trainer's, for people; empty when nothing does for sure."""
    resolve: Callable[[NativeConfig, Beside], NativeConfig]
    """Interpolations, base files and comments into keys. Raises `Unreadable`, `Refused`."""
    shape: Callable[[Flat], Variant]
    """Which rows of the table a config speaks to. Raises `Refused`."""
    reads: Callable[[Variant], tuple[ImportRow, ...]]
    rules: tuple[Rule, ...]
    default: Callable[[Flat, str], Value]
    """(config, key) -> what the trainer takes when the key is not written; ABSENT when it has no default."""
    launcher: Launcher | None = None
    """How scripts start it; None: its commands are not looked for."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Key that names the model's weights -> the key that says the model. A folder that is there holds its owner's weights, whatever
    it is called."""

    newer: Mapping[str, str] = field(default_factory=dict)
    """Pattern of keys that a later release has and the one that tune runs has not -> that release, and what they do."""
    releases: Mapping[str, Flat] = field(default_factory=dict)
    """Other releases whose configs are known, `0.15` -> key -> its default there, where it is another than that of the pinned one."""
    release: str = ""
    """Of which of these it is; empty: of the pinned one."""

    program: Callable[[str], NativeConfig | None] | None = None
    """Of a trainer that is called by programs: the keys that a text of one says, read and never run; None when it is none."""
    form: Callable[[Flat], Dialect] | None = None
    """Of a trainer with several forms of configs: the one that these keys are of. None: there is one form."""
    known_keys: KnownKeys | None = None
    """Of a form whose keys are not those of the trainer's own config."""
    own_key: Callable[[str], str] = str
    """A key of this form -> its name in the trainer's own config, for what is set verbatim; empty: it has none."""

    def of_release(self, release: str) -> Dialect:
        """The same for another release's configs.

        Raises:
            Refused: nothing is known of that release.
        """
        near = ".".join(release.split(".")[:2])
        if near not in self.releases:
            known = ", ".join(self.releases) or "none"
            raise Refused(f"nothing is known of {self.name} {release} beside the release that tune runs: known are {known}")
        table, usual = self.releases[near], self.default
        return replace(self, release=near, default=lambda keys, key: table[key] if key in table else usual(keys, key))

    def later(self, key: str) -> str:
        """Of a key that the pinned release has not: which one has it, and what it does there; empty where none is known to."""
        return next((why for pattern, why in self.newer.items() if fnmatchcase(key, pattern)), "")

    def rule(self, key: str, value: Value = ABSENT) -> Rule | None:
        """The first rule that speaks of a key, or of this value of it."""
        for rule in self.rules:
            if fnmatchcase(key, rule.pattern) and (not rule.values or value in rule.values):
                return rule
        return None


def machine(on: str) -> ImportRow:
    """How many devices and hosts a command line says, for all dialects.

    Args:
        on: what is counted for one device where nothing says how many, for the note.
    """

    def make(devices: Value, hosts: Value) -> Flat:
        out: Flat = {}
        for key, leaf, count in ((DEVICES, "resources.devices", devices), (HOSTS, "resources.hosts", hosts)):
            if isinstance(count, int):
                out[leaf] = count
            elif count is not ABSENT:
                out |= unmodelled(key, f"{count} is set outside of this file: name {leaf}") | note(
                    f"{on} is counted for one device: {count} is not known here"
                )
        return (
            out if out or devices is not ABSENT else note(f"no key and no command says how many devices: {on} is counted for one")
        )

    return ImportRow((DEVICES, HOSTS), make, "of the command line")


def counted(devices: Value, hosts: Value) -> int:
    """Devices over all hosts; 1 where nobody says, which `machine` notes."""
    return (devices if isinstance(devices, int) else 1) * (hosts if isinstance(hosts, int) else 1)


def one(key: str, leaf: str, why: str = "") -> ImportRow:
    """A key that means what the leaf means."""
    return ImportRow((key,), lambda value: {} if value is ABSENT else {leaf: value}, why)


def choice(key: str, leaf: str, words: Mapping[Value, Value], why: str = "") -> ImportRow:
    """A key with another vocabulary; a word that is not in it is unfit."""

    def make(value: Value) -> Flat:
        if value is ABSENT:
            return {}
        if not isinstance(value, str | bool | int | None) or value not in words:
            raise Unfit(f"{leaf} has no word for {value!r}")
        return {leaf: words[value]}

    return ImportRow((key,), make, why)


def number(value: object) -> float:
    """A number, also one in quotes, as trainers take it.

    Raises:
        Unfit: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unfit(f"should be a number, got {value!r}")
    try:
        return float(value)
    except ValueError:
        raise Unfit(f"should be a number, got {value!r}") from None


def whole(value: object) -> int:
    """A whole number, also one in quotes or with a point.

    Raises:
        Unfit: it is none.
    """
    found = number(value)
    if not abs(found) < 2**53 or found != int(found):
        raise Unfit(f"should be a whole number, got {value!r}")
    return int(found)


def text(value: object) -> str:
    """A word.

    Raises:
        Unfit: it is none.
    """
    if not isinstance(value, str) or not value:
        raise Unfit(f"should be text, got {value!r}")
    return value


def section(keys: Iterable[str], name: str) -> list[str]:
    """Those that stand below a section."""
    return [key for key in keys if key.startswith(f"{name}.")]
