"""All dialects by name, and whose config a text is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from backends.backend import Backend, ReadOnly
from backends.bundle import SHIMS
from backends.command_line import OUTSIDE, over
from backends.dialect import Beside, Dialect, IsFolder, Refused
from backends.importing import shell
from backends.mapping.rows import Flat
from backends.native_config import NativeConfig, Unreadable, read
from backends.recipe.paths import is_path
from backends.registry import dialects, importer
from backends.releases import is_release
from backends.upstream.known_keys import KnownKeys


def opened(
    text: str, wanted: str, beside: Beside, sets: Sequence[str], line: int = 0, is_folder: IsFolder = lambda _: False
) -> tuple[Dialect, NativeConfig, str]:
    """Whose config a text is, its keys, and why it is theirs.

    Args:
        text: YAML, or a shell script with a trainer's command.
        wanted: the trainer, where the user names it, and maybe a release of it: `axolotl@0.15`.
        beside: texts of files that the config names.
        sets: `key=value` of the trainer's own command line, over the file.
        line: where in a script the command stands, from 1; 0: the first.
        is_folder: whether a folder is there.

    Raises:
        Unreadable: it is no text that a trainer could read.
        Refused: it is nobody's, another one's, or tune's own.
    """
    wanted, _, release = wanted.partition("@")
    if line or shell.is_script(text):
        found = shell.command(text, line)
        if found is None:
            others = ", ".join(str(each.line) for each in shell.commands(text))
            where = f" in line {line}: those are in {others}" if line and others else ""
            raise Refused(f"this script has no command of a trainer's that trains{where}")
        wild, dialect, because = shell.wild(found, beside), dialects()[found.trainer], f"the command in line {found.line}"
    elif called := program(text):
        if wanted not in ("", called[0].name):
            raise Refused(f"this is no config of {wanted}: it is a program with {called[0].name}'s calls")
        dialect, wild, because = *called, "the calls of a program, which are read and not run"
    else:
        wild = read(text)
        dialect, because = recognise(wild, wanted)
    dialect = dialect.form(wild.keys) if dialect.form else dialect
    dialect = dialect.of_release(release) if release else dialect
    wild = _overridden(wild, sets, dialect.launcher.merged if dialect.launcher else over)
    wild = dialect.resolve(_with_folders(wild, dialect, is_folder), beside)
    _refuse_own(wild)
    return dialect, wild, because


def runner(dialect: Dialect) -> Backend | ReadOnly:
    """The trainer of a config; in the release that was named, where tune runs that."""
    backend = importer(dialect.name)
    others = () if isinstance(backend, ReadOnly) else backend.releases
    return next((each for each in others if dialect.release and is_release(each, dialect.release)), backend)


def program(text: str) -> tuple[Dialect, NativeConfig] | None:
    """Whose calls a program has, and what they say; None where it has none.

    Raises:
        Unreadable: it is no program, while it looks like one.
    """
    for dialect in dialects().values():
        if dialect.program and (found := dialect.program(text)):
            return dialect, found
    return None


def recognise(config: NativeConfig, wanted: str = "") -> tuple[Dialect, str]:
    """Whose config it is, and why.

    Args:
        config: the file.
        wanted: the trainer that the user named; empty: any.

    Raises:
        Refused: nobody's, or not that of the trainer named.
    """
    if {"version", "model.id", "optim.lr"} <= config.keys.keys():
        raise Refused("this is a recipe already: tune translate shows what each trainer makes of it")
    signs = {name: sign for name, dialect in dialects().items() if (sign := dialect.sure(config.keys))}
    shares = {name: _share(name, config.keys) for name in dialects()}
    counts = ", ".join(f"{known} of {len(config.keys)} keys are {name}'s" for name, known in shares.items())
    if wanted:
        others = [name for name in signs if name != wanted]
        if wanted not in signs and (others or not shares[wanted]):
            found = f"it is {others[0]}'s: {signs[others[0]]}" if others else counts
            raise Refused(f"this is no config of {wanted}: {found}")
        return dialects()[wanted], signs.get(wanted, counts)
    if signs:
        name = max(signs, key=lambda each: shares[each])
        return dialects()[name], signs[name]
    best = max(shares, key=lambda each: shares[each])
    if shares[best] * 2 <= len(config.keys) or list(shares.values()).count(shares[best]) > 1:
        raise Refused(f"this is a config of none of {', '.join(dialects())}: {counts}")
    return dialects()[best], counts


def _share(trainer: str, keys: Flat) -> int:
    """How many of the keys a trainer knows."""
    known = importer(trainer).known_keys
    return sum(not is_unknown(known, key, keys) for key in keys)


def is_unknown(known: KnownKeys, key: str, keys: Flat) -> bool:
    """Whether a trainer knows nothing of a key, in a config with these. What stands in a list is the list's own affair."""
    return known.is_unknown(re.sub(r"\.\d+(\..*)?$", "", key), written=(), verbatim=keys)


def _refuse_own(config: NativeConfig) -> None:
    """A config that tune wrote says only half of its recipe: the rest is in the specs beside it."""
    own = (key for key, value in config.keys.items() if isinstance(value, str) and _names_shim(value))
    if key := next(own, ""):
        raise Refused(f"tune wrote this itself ({key}): take the recipe that it is from")


def _names_shim(value: str) -> bool:
    """`tune_xyz.Rows`: a name in one of the modules that plans carry."""
    module, dot, _ = value.partition(".")
    return bool(dot) and f"{module}.py" in SHIMS


def _with_folders(config: NativeConfig, dialect: Dialect, is_folder: IsFolder) -> NativeConfig:
    """A model whose folder is there by its path, so that no name of the hub's is taken for it."""
    keys, notes = dict(config.keys), list[str]()
    for key, says in dialect.folders.items():
        name = keys.get(key)
        if isinstance(name, str) and name and is_folder(name):
            keys[says] = name if is_path(name) else f"./{name}"
            notes.append(f"{key} = {name}: the weights in that folder, which is there")
    return config.but(keys, *notes)


def _overridden(config: NativeConfig, sets: Sequence[str], merged: Callable[[Flat, Flat], tuple[Flat, Flat]]) -> NativeConfig:
    """The file's keys under those of the command line, as the trainer itself merges them; `~key` takes one away."""
    keys = dict(config.keys)
    for each in sets:
        key, equals, value = each.partition("=")
        if each.startswith("~"):
            keys = _without(keys, each[1:])
        elif not equals or not key:
            raise Unreadable(f"should be key=value or ~key, got {each!r}")
        else:
            kept, said = merged(keys, {key: read(f"value: {value}").keys.get("value", value)})
            for name in (*said, f"{OUTSIDE}{key}"):
                kept = _without(kept, name)
            keys = {**kept, **said}
            config = replace(config, notes=tuple(note for note in config.notes if f" {key}=VALUE" not in note))
    return config.but(keys)


def _without(keys: Flat, name: str) -> Flat:
    """The keys but one, and but what stands below it; of a section that becomes a value nothing stays."""
    above = tuple(name[: n.start()] for n in re.finditer(r"\.", name))
    return {k: v for k, v in keys.items() if k != name and k not in above and not k.startswith(f"{name}.")}
