"""YAML text into plain values, with the line of every path, and every complaint at once.

The dialect is YAML 1.2's core schema where 1.1 surprises people: `3e-4` is a number, `no` and `on` are words, `12:30` is text.
A key given twice is an error, as is a document that is not a mapping.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from backends.recipe.flat import Value
from backends.records import dataclass, field

MOST_NODES = 20_000
"""A recipe has about 100 nodes. Aliases that unfold to more than this are an attack or a mistake."""
DEEPEST = 50

PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))


@dataclass(frozen=True)
class Problem:
    """One thing wrong with what the user wrote."""

    path: str
    """Dotted name of the leaf, "" for the document."""
    rule: str
    """What should be, without a full stop."""
    value: object = None
    """What is there; `...` where nothing is."""
    line: int | None = None
    """From 1; None where no line is to blame, as with `--set`."""
    hint: str = ""
    file: str = ""


@dataclass(frozen=True)
class Source:
    """A YAML document as plain values that know their lines."""

    values: dict[str, Value]
    lines: dict[str, int]
    """Dotted path -> line from 1. Items of a list are numbered: `data.columns`, `secrets.0`."""
    problems: tuple[Problem, ...] = ()
    name: str = field(default="<recipe>")

    def line(self, path: str) -> int | None:
        """Line of a path, or of the nearest section above it that is written."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path)


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the C loader has no type
    """The safe loader with the core schema's scalars."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def read(text: str, name: str = "<recipe>") -> Source:
    """Values, lines and complaints of a YAML document.

    Args:
        text: the document.
        name: how errors call it, usually the file's name.
    """
    try:
        if line := too_deep(text, _Loader):
            return Source({}, {}, (Problem("", f"should be at most {DEEPEST} levels deep", ..., line, "", name),), name)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        hint = "indent with spaces" if "\\t" in reason else ""
        return Source({}, {}, (Problem("", f"should be YAML: {reason}", ..., mark.line + 1 if mark else None, hint, name),), name)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return Source({}, {}, (Problem("", f"should be YAML: {error}".splitlines()[0], ..., None, "", name),), name)
    if not isinstance(node, yaml.MappingNode):
        return Source({}, {}, (Problem("", "should be a mapping of sections", ..., 1, "", name),), name)
    walk = _Walk(name)
    values = walk.value(node, "", 0)
    return Source(values if isinstance(values, dict) else {}, walk.lines, tuple(walk.problems), name)


def too_deep(text: str, loader: type[yaml.SafeLoader]) -> int:
    """The line (from 1) in which a document gets too deep, or 0. The composer of libyaml calls itself at each level, and so many
    end the process.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                return event.start_mark.line + 1 if event.start_mark else 1
    except yaml.MarkedYAMLError as error:
        # libyaml, as PyYAML 6.0.4 has it, has a limit of its own, and reads ahead of the events that it gives out
        if "nesting depth" not in str(error.problem):
            raise
        return error.problem_mark.line + 1 if error.problem_mark else 1
    return 0


class _Walk:
    """Builds values from nodes, noting lines and complaints."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.count = 0
        self.scalars = _Loader("")

    def wrong(self, path: str, rule: str, node: yaml.Node, value: object = ...) -> None:
        self.problems.append(Problem(path, rule, value, node.start_mark.line + 1, "", self.name))

    def value(self, node: yaml.Node, path: str, depth: int) -> Value:
        self.count += 1
        if self.count > MOST_NODES or depth > DEEPEST:
            if self.count <= MOST_NODES + 1 or depth == DEEPEST + 1:
                self.wrong(path, f"should be smaller: at most {MOST_NODES} values, {DEEPEST} levels deep", node)
            self.count += MOST_NODES
            return None
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag not in PLAIN:
            self.wrong(path, f"should be a plain value, not one tagged {node.tag}", node)
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}.{n}" if path else str(n), depth + 1) for n, item in enumerate(node.value)]
        return self.scalar(node, path)

    def scalar(self, node: yaml.Node, path: str) -> Value:
        try:
            if node.tag.endswith(":float"):  # the 1.1 constructor handles sexagesimals; Python's float is the core schema
                return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", node.value.replace("_", "").lower()))
            if node.tag.endswith(":int"):
                return int(node.value.replace("_", ""), 0)
            return self.scalars.construct_object(node)
        except (ValueError, yaml.YAMLError, OverflowError):
            self.wrong(path, f"should be a value of its type {node.tag.rpartition(':')[2]}", node, node.value)
            return None

    def mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Value]:
        out: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key, item in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                    found = self.value(source, path, depth + 1)
                    merged = {**(found if isinstance(found, dict) else {}), **merged}
                continue
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            here = f"{path}.{name}" if path else str(name)
            if name is None:
                self.wrong(path, "should have words as keys", key)
            elif name in out:
                self.wrong(here, f"already set on line {self.lines.get(here)}", key)
            else:
                self.lines[here] = key.start_mark.line + 1
                out[name] = self.value(item, here, depth + 1)
        return {**merged, **out}
