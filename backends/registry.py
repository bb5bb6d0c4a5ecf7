"""All backends by name. One line each; packages of others join by the entry-point group `tunesmith.backends`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, cast

from backends.lazy import Lazy, attribute
from backends.records import replace

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from backends.backend import Backend, JobKind, ReadOnly
    from backends.dialect import Dialect

BACKENDS: Mapping[str, Backend] = Lazy(
    lambda: {
        "litgpt": "trainers.litgpt.backend:LITGPT",
        "torchtune": "trainers.torchtune.backend:TORCHTUNE",
        "axolotl": "trainers.axolotl.backend:AXOLOTL",
        "maxtext": "trainers.maxtext.backend:MAXTEXT",
        "trl": "trainers.trl.backend:TRL",
        "unsloth": "trainers.unsloth.backend:UNSLOTH",
    },
    lambda place: cast("Backend", attribute(place)),
)
"""Ours, the preferred first: without `--to` the first that can express a recipe runs it. A trainer is imported when it is asked for."""

READ_ONLY: Mapping[str, ReadOnly] = Lazy(
    lambda: {"llamafactory": "trainers.llamafactory.trainer:LLAMAFACTORY"},
    lambda place: cast("ReadOnly", attribute(place)),
)
"""Trainers whose configs are imported and that no job is run with."""

COMMAND = "command"
"""The user's own command, which no recipe becomes unless it names it."""

GROUP = "tunesmith.backends"


class Unloadable(Exception):
    """A backend of another package that is no backend: mend or remove that package."""


@cache
def others() -> dict[str, EntryPoint]:
    """Backends of other packages, not yet loaded. No other package takes the name of one of ours."""
    from importlib.metadata import entry_points  # noqa: PLC0415  # 20 ms, and few have any

    from backends.stages.registry import STAGES  # noqa: PLC0415  # plans of most recipes have none

    return {each.name: each for each in entry_points(group=GROUP) if each.name not in (*BACKENDS, *READ_ONLY, *STAGES, COMMAND)}


def names() -> tuple[str, ...]:
    """All that `--to` takes."""
    return (*BACKENDS, COMMAND, *others())


def find(name: str) -> Backend:
    """A backend by name.

    Raises:
        KeyError: nobody has one of that name.
        Unloadable: the package that says so does not keep its word.
    """
    if name in BACKENDS:
        return BACKENDS[name]
    if name == COMMAND:
        from backends.trainers.command.backend import COMMAND as command  # noqa: N811, PLC0415  # few recipes are one

        return command
    return _load(others()[name])


def importer(name: str) -> Backend | ReadOnly:
    """A trainer whose configs can be imported, by name; raises as `find` does."""
    return READ_ONLY[name] if name in READ_ONLY else find(name)


def _load(entry: EntryPoint) -> Backend:
    package = entry.dist.name if entry.dist else entry.value
    try:
        found = entry.load()
    except Exception as error:  # the code of others: whatever it raises, ours goes on
        raise Unloadable(
            f"trainer {entry.name} of package {package} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    from backends.backend import Backend  # noqa: PLC0415  # few have any

    if not isinstance(found, Backend) or found.name != entry.name:
        raise Unloadable(f"trainer {entry.name} of package {package}: {entry.value} should be a Backend named {entry.name}")
    return found


@cache
def dialects() -> dict[str, Dialect]:
    """Trainers whose configs can be imported, ours first. A package that does not keep its word is left out; `find` says why."""
    found: dict[str, Dialect] = {}
    for name in (*names(), *READ_ONLY):
        with suppress(Unloadable):
            if load := importer(name).dialect:
                found[name] = load()
    return found


def reader(name: str) -> JobKind:
    """The trainer or stage of a job that was submitted. One that is gone since reads nothing, and calls no job trained."""
    from backends.stages.registry import STAGES  # noqa: PLC0415  # plans of most recipes have none

    if stage := STAGES.get(name):
        return stage
    try:
        return find(name)
    except (KeyError, Unloadable) as error:
        why = str(error) if isinstance(error, Unloadable) else f"no trainer {name} is installed any more"
        return replace(find(COMMAND), name=name, read=lambda *_: [], judge=lambda _: ("no_backend", why))
