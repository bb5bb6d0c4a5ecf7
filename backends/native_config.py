"""A trainer's config as people write it: text into flat keys that know their lines, as the trainer's own loader would read it.

All four load YAML 1.1 by PyYAML (`yes` and `on` are true, of a key given twice the last counts), but read `3e-4` as a number,
in the loader (OmegaConf, jsonargparse) or when they check the type (pydantic). Recipes are another dialect: `source.read`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from backends.mapping.rows import Flat, Value
from backends.recipe.secrets import is_secret
from backends.recipe.yaml_source import DEEPEST, too_deep

LARGEST = 200_000
"""Characters of a file. The largest that comes with a trainer (MaxText's base.yml) has 92,000; this many take about a second to read."""
MOST_NODES = 30_000
"""Values, aliases unfolded."""


class Unreadable(Exception):
    """The file is no config that a trainer could read: mend it, or name another."""

    def __init__(self, rule: str, *, line: int | None = None, key: str = "", hint: str = "") -> None:
        super().__init__(rule)
        self.rule, self.line, self.key, self.hint = rule, line, key, hint


@dataclass(frozen=True)
class NativeConfig:
    """A native config, flat."""

    keys: Flat
    """Dotted name -> value; lists are values, and so is an empty section. `launch:name` stands for a word of the command line."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Key -> line from 1, for keys that stand in the file."""
    notes: tuple[str, ...] = ()
    """What the reader should know of how it was read."""
    text: str = ""
    """As written: comments say what no key does."""

    def line(self, key: str) -> int | None:
        """Line of a key, or of the nearest section above it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key)

    def but(self, keys: Flat, *notes: str) -> NativeConfig:
        """The same file with other keys."""
        return replace(self, keys=keys, notes=(*self.notes, *notes))


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TrainerLoader(_Base):  # type: ignore[misc]  # the C loader has no type
    """PyYAML's safe loader; a date stays text, a number may have an exponent without a point."""


_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+")
_TrainerLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in _Base.yaml_implicit_resolvers.items()
}
_TrainerLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def read(text: str) -> NativeConfig:
    """The keys of a YAML document.

    Raises:
        Unreadable: it is no YAML, or no mapping, or larger than any config.
    """
    if len(text) > LARGEST:
        raise Unreadable(f"should have at most {LARGEST:,} characters, it has {len(text):,}", hint="is it a config?")
    try:
        if line := too_deep(text, _TrainerLoader):
            raise Unreadable(f"should be at most {DEEPEST} levels deep", line=line)
        node = yaml.compose(text, Loader=_TrainerLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        message = " ".join(filter(None, (error.context, error.problem)))
        hint = "indent with spaces" if mark and "\t" in "".join(text.splitlines()[mark.line : mark.line + 1]) else ""
        raise Unreadable(f"should be YAML: {message}", line=mark.line + 1 if mark else None, hint=hint) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Unreadable(f"should be YAML: {error}".splitlines()[0]) from None
    if not isinstance(node, yaml.MappingNode):
        raise Unreadable("should be a mapping of keys" + ("" if node else ", there is none"), line=1)
    walk = _FlatWalk()
    keys = flat(walk.mapping(node, "", 0))
    for key in keys:
        above = next((key[:n] for n, letter in enumerate(key) if letter == "." and key[:n] in keys), "")
        if above:
            raise Unreadable(f"stands beside {above}, which is a value", key=key, line=walk.lines.get(key))
    return NativeConfig(keys, walk.lines, tuple(walk.notes), text)


def flat(values: Mapping[str, Value], above: str = "") -> Flat:
    """Nested mappings as dotted names."""
    out: Flat = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{above}{key}.")
        else:
            out[f"{above}{key}"] = value
    return out


class _FlatWalk:
    """Builds values from nodes, noting lines and oddities."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.notes: list[str] = []
        self.count = 0
        self.scalars = _TrainerLoader("")

    def value(self, node: yaml.Node, path: str, depth: int) -> Value:
        self.count += 1
        if self.count > MOST_NODES or depth > DEEPEST:
            rule = f"should be smaller: at most {MOST_NODES:,} values, {DEEPEST} levels deep"
            raise Unreadable(rule, line=node.start_mark.line + 1, key=path)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}.{n}", depth + 1) for n, item in enumerate(node.value)]
        return self.scalar(node, path)

    def scalar(self, node: yaml.Node, path: str) -> Value:
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.endswith((":binary", ":value")):
            raise _not_plain(node, path)
        try:
            found = float(node.value.replace("_", "")) if _FLOAT.fullmatch(node.value) and _is_float(node) else self.made(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            raise _not_plain(node, path) from None
        if isinstance(found, int) and abs(found) > 2**63:
            raise _not_plain(node, path)
        return found

    def made(self, node: yaml.Node) -> Value:
        found = self.scalars.construct_object(node)
        if isinstance(found, float) and not math.isfinite(found):
            return str(found)
        return found if isinstance(found, str | int | float | bool | None) else node.value

    def mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Value]:
        out: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key, item in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                    found = self.value(source, path, depth + 1)
                    merged = {**(found if isinstance(found, dict) else {}), **merged}
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise Unreadable("should have words as keys", line=key.start_mark.line + 1, key=path)
            here = f"{path}.{key.value}" if path else key.value
            line = key.start_mark.line + 1
            if key.value in out:
                self.notes.append(f"{here} is given twice, in lines {self.lines.get(here)} and {line}: the last counts")
            self.lines[here] = line
            out[key.value] = self.value(item, here, depth + 1)
        return {**merged, **out}


def _not_plain(node: yaml.Node, path: str) -> Unreadable:
    shown = "***" if is_secret(path, node.value) else repr(node.value[:60])
    return Unreadable(f"should be a plain value, got {shown}", line=node.start_mark.line + 1, key=path)


def _is_float(node: yaml.Node) -> bool:
    return bool(node.tag.endswith(":float"))
