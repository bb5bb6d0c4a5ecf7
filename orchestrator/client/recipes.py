"""A recipe out of a file, a mapping, or another recipe with other values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.recipe.flat import leaves
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.recipe.schema import Recipe
from backends.records import replace
from backends.registry import BACKENDS, names
from orchestrator.client.errors import InvalidRecipe, InvalidRequest, NotFound, did_you_mean
from orchestrator.render.plan import problem_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backends.recipe.yaml_source import Problem

Sets = Mapping[str, Any] | Iterable[str]
"""Leaves to replace: a mapping of dotted names to values, or `path=value` with YAML values."""


def load(source: str | os.PathLike[str] | Mapping[str, Any] | Recipe, sets: Sets = ()) -> Recipe:
    """A recipe, checked whole.

    Args:
        source: a file; or its content as a mapping; or a recipe, to change some of its values.
        sets: leaves to replace.

    Raises:
        NotFound: there is no such file.
        InvalidRecipe: rules are broken; all of them are named.
    """
    texts = as_texts(sets)
    if isinstance(source, Recipe):
        text, name, before = source.source
        return _parsed(text, name, source.base, [*before, *texts])
    if isinstance(source, Mapping):
        return _parsed(_as_yaml(source), "<recipe>", str(Path.cwd()), texts, lines=False)
    path = Path(source)
    text = _read(path)
    try:
        return _parsed(text, str(path), str(path.parent.absolute()), texts)
    except InvalidRecipe:
        if note := _native_config_note(path, text):
            raise note from None
        raise


def load_text(text: str, name: str = "recipe.yaml", base: str | os.PathLike[str] = ".") -> Recipe:
    """A recipe out of its text, checked whole.

    Args:
        text: YAML.
        name: of the text in errors.
        base: folder to which its paths are relative.

    Raises:
        InvalidRecipe: rules are broken; all of them are named, with their lines.
    """
    return _parsed(text, name, str(Path(base).absolute()), [])


def as_texts(sets: Sets) -> list[str]:
    """`path=value` each; values are written as JSON, which is YAML."""
    if isinstance(sets, Mapping):
        return [f"{path}={json.dumps(value, ensure_ascii=False, default=_plain)}" for path, value in sets.items()]
    return list(sets)


def check_accepted(recipe: Recipe, accept: Iterable[str]) -> None:
    """Leaves that a user accepts must be leaves.

    Raises:
        NotFound: one is not.
    """
    known = (*leaves(), *_dotted("native", recipe.native), *_dotted("release", recipe.release))
    for leaf in accept:
        if leaf not in known:
            raise NotFound(leaf, "is not a setting of the recipe", argument="accept", hint=did_you_mean(leaf, known))


def _read(path: Path) -> str:
    if path.is_dir() or not path.exists():
        beside = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        library = "`tune recipes` lists those that come along; `tune init` writes one" if not beside else ""
        rule = "is a folder" if path.is_dir() else "no such file"
        raise NotFound(str(path), rule, hint=did_you_mean(str(path), beside) or library)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(str(path), f"should be UTF-8 text, byte {error.start} is not") from None


def _parsed(text: str, name: str, base: str, sets: Sequence[str], *, lines: bool = True) -> Recipe:
    """`lines`: the text is one that a user wrote, so that errors may name its lines."""
    try:
        return parse(text, name=name, base=base, sets=sets, trainers=_trainers(text, sets))
    except RecipeError as error:
        problems = error.problems if lines else [replace(each, line=None) for each in error.problems]
        raise invalid(problems) from None


def invalid(problems: Sequence[Problem]) -> InvalidRecipe:
    """All that is wrong with a recipe or with clusters.yaml, as one error."""
    error = InvalidRecipe(problem_text(problems))
    error.problems = tuple(problems)
    return error


def _native_config_note(path: Path, text: str) -> InvalidRequest | None:
    """What is said of a trainer's own config in the place of a recipe; None for anything else."""
    from backends.dialect import Refused  # noqa: PLC0415
    from backends.importing import shell  # noqa: PLC0415  # only once a recipe is wrong
    from backends.importing.recognise import program, recognise  # noqa: PLC0415
    from backends.native_config import Unreadable, read  # noqa: PLC0415

    way_out = f"tune import {path} -o recipe.yaml"
    if shell.is_script(text):
        found = shell.command(text)
        rule = f"is no recipe but a script that runs {found.trainer} (line {found.line})" if found else ""
        return InvalidRequest(str(path), rule, hint=way_out) if found else None
    try:
        if called := program(text):
            return InvalidRequest(str(path), f"is no recipe but a program with {called[0].name}'s calls", hint=way_out)
        config = read(text)
        if any(key.partition(".")[0] in ("version", "method", "native") for key in config.keys):
            return None
        dialect, because = recognise(config)
    except (Refused, Unreadable):
        return None
    return InvalidRequest(str(path), f"is no recipe but a config of {dialect.name} ({because})", hint=way_out)


def _trainers(text: str, sets: Iterable[str]) -> Iterable[str]:
    """Names that `native` may hold. Other packages are only asked where the word occurs: that takes time."""
    return names() if "native" in text or any(each.startswith("native") for each in sets) else BACKENDS


def _as_yaml(values: Mapping[str, Any]) -> str:
    """JSON is YAML, and knows every value that a recipe may hold."""
    return json.dumps(dict(values), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """A path becomes its text, a tuple's kin a list."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise InvalidRequest(repr(value), "is no value of a recipe: text, number, true, false, null, list or mapping")


def _dotted(above: str, values: Mapping[str, Any]) -> Iterable[str]:
    """Names below `native`, of sections too."""
    for key, value in values.items():
        yield f"{above}.{key}"
        if isinstance(value, dict):
            yield from _dotted(f"{above}.{key}", value)
