"""Does a trainer read its config as the plan wrote it? The plan beside what the trainer said when training began. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from backends.mapping.rows import ABSENT, Flat, Value
from backends.plan import WRITTEN_RECIPE, Plan
from backends.registry import reader

RESOLVED = "resolved.json"
"""What every job of our trainers leaves in its work folder as training begins: `{"config": nested native keys with the values
that the trainer resolved, "specs": {file of the plan's: its document}}`. See backends/shims/tune_resolved.py.
"""


class Drift(NamedTuple):
    """A native key that the trainer does not read as the plan wrote it."""

    leaf: str
    """What the plan said by it; of several leaves the first, empty where no leaf says it."""
    key: str
    """Native; of a file that is not the main config with its name: `data.json:seed`."""
    planned: Value
    resolved: Value
    """ABSENT: the trainer has no such key."""
    accepted: bool = False

    def __str__(self) -> str:
        return f"{self.leaf or 'no setting'}: {self.key} is {shown(self.resolved)}, by the plan {shown(self.planned)}"


def drift(plan: Plan, text: str, accepted: Iterable[str] = ()) -> list[Drift]:
    """Where a trainer's resolved config differs from the plan, in the plan's order; those accepted among them.

    Args:
        plan: what was decided.
        text: of resolved.json.
        accepted: leaves, or keys as `Drift.key` has them, whose drift the user accepts.
    """
    said = resolved(text)
    if said is None:
        return [Drift("", RESOLVED, "a JSON document", "not one")]
    taken, leaves, main = frozenset(accepted), _leaves(plan), reader(plan.backend).config
    found = []
    for file, document in _documents(plan, main):
        here = said["config"] if file == main else said["specs"].get(file, ABSENT)
        for key, planned, resolved_ in apart("" if file == main else f"{file}:", document, here):
            leaf = _leaf(key, leaves)
            found.append(Drift(leaf, key, planned, resolved_, not taken.isdisjoint((leaf, key))))
    return found


def drifted(plan: Plan, text: str) -> str:
    """What differs in meaning and was not accepted, in words; empty when nothing does."""
    return "; ".join(str(each) for each in drift(plan, text, plan.accepted) if not each.accepted)


def resolved(text: str) -> Mapping[str, Value] | None:
    """What resolved.json says; None where it is not such a file."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(said, dict) and all(isinstance(said.get(key), dict) for key in ("config", "specs"))
    return said if whole else None


def _documents(plan: Plan, main: str) -> Iterator[tuple[str, Value]]:
    """The main config and the specs of our own steps, parsed."""
    for file in plan.files:
        if file.path.endswith(".json") and file.path != WRITTEN_RECIPE:
            yield file.path, json.loads(file.text)
        elif file.path == main:
            import yaml  # noqa: PLC0415  # heavy, and wanted once a job

            yield main, yaml.safe_load(file.text)


def _leaves(plan: Plan) -> dict[str, str]:
    """Native key -> the first leaf whose line names it."""
    lines = [(key, line.leaf) for line in plan.report.lines for key in line.native]
    return dict(reversed(lines))


def _leaf(key: str, leaves: Mapping[str, str]) -> str:
    """The leaf of a key or of what it lies in."""
    file, name = split(key)
    start = f"{file}:" if file else ""
    while name and f"{start}{name}" not in leaves:
        name = name.rpartition(".")[0]
    return leaves.get(f"{start}{name}", "")


def apart(key: str, planned: Value, found: Value) -> Iterator[tuple[str, Value, Value]]:
    """Keys below this one whose values differ: (key, planned, found). Keys that nobody planned are the trainer's own."""
    if isinstance(planned, dict) and isinstance(found, dict):
        for name, value in planned.items():
            yield from apart(below(key, name), value, found.get(name, ABSENT))
    elif not means(planned, found):
        yield key, planned, found


def below(key: str, name: str) -> str:
    """The dotted name of what lies under a key."""
    return f"{key}{name}" if not key or key.endswith(":") else f"{key}.{name}"


def means(planned: Value, found: Value) -> bool:
    """The same value: numbers by size, null as nothing, mappings in a list by what was planned of them."""
    if planned in (None, ABSENT) or found in (None, ABSENT):
        return planned in (None, ABSENT) and found in (None, ABSENT)
    if isinstance(planned, bool) or isinstance(found, bool):
        return planned is found
    if isinstance(planned, int | float) and isinstance(found, int | float):
        return math.isclose(planned, found, rel_tol=1e-12)
    if isinstance(planned, list | tuple):
        return isinstance(found, list | tuple) and len(planned) == len(found) and all(map(means, planned, found))
    if isinstance(planned, dict):
        return not any(apart("", planned, found))
    return type(planned) is type(found) and bool(planned == found)


def shown(value: Value) -> str:
    """A value as a person reads it."""
    return "not there" if value is ABSENT else repr(value)


def split(key: str) -> tuple[str, str]:
    """The file of a native key, empty for the main config, and the dotted name in it."""
    file, colon, name = key.partition(":")
    return (file, name) if colon else ("", key)


def at(value: Value, name: str) -> Value:
    """What stands under a dotted name; ABSENT where nothing does."""
    for part in name.split(".") if name else ():
        if not isinstance(value, dict) or part not in value:
            return ABSENT
        value = value[part]
    return value


def keys_of(said: Mapping[str, Value], names: Iterable[str]) -> Flat:
    """Native keys of resolved.json by their names in a table of rows."""
    found = {}
    for name in names:
        file, key = split(name)
        found[name] = at(said["specs"].get(file, ABSENT) if file else said["config"], key)
    return {name: value for name, value in found.items() if value is not ABSENT}
