"""What `native.command` may say, and how its placeholders are filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from backends.bundle import LOCKS
from backends.mapping.rows import Value
from backends.recipe.problems import RULES

PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([a-z_]+(?:\.[a-z_]+)*)\}")
OURS = re.compile(r"env|cache|inputs|data|out|checkpoint|adapter|.*\.json|tune_.*")
"""Names in the job's folder that are taken."""


def _inside(path: str) -> str:
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("should be a path inside the job's folder, without . and ..")
    return path


def _brought(path: str) -> str:
    if OURS.fullmatch(own_name(path)) or own_name(path) in ("", ".", ".."):
        raise ValueError(f"{own_name(path) or path!r} is a name of ours in the job's folder")
    return path


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groupindex
    except (re.error, RecursionError) as error:
        raise ValueError(f"should be a regular expression: {error}") from None
    if "loss" not in groups:
        raise ValueError("should have a group (?P<loss>...), and (?P<step>...) unless each line is the next step")
    return text


def _trainer(name: str) -> str:
    known = sorted({lock.partition("-")[0] for lock in LOCKS})
    if name not in known:
        raise ValueError(f"should be a trainer whose environment is locked: {', '.join(known)}")
    return name


Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Inside = Annotated[Text, AfterValidator(_inside)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Keys(BaseModel):
    """As a section of a recipe: no other keys than its own, each of its kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Metrics(_Keys):
    """Where the command reports its steps: exit code 0 alone does not say that it has trained."""

    file: Inside | None = None
    """JSON lines, one object a step."""
    pattern: Annotated[Text, AfterValidator(_pattern)] | None = None
    """Of its output's lines, with named groups."""
    names: dict[Text, Text] = Field(default_factory=dict)
    """Our name of a metric -> the command's: `{lr: learning_rate}`."""
    first: Literal[0, 1] = 1
    """How it numbers its first step."""

    @model_validator(mode="after")
    def one(self) -> Metrics:
        """Either a file or a pattern."""
        if (self.file is None) == (self.pattern is None):
            raise ValueError("should have either file or pattern")
        return self


class Command(_Keys):
    """A command line as a trainer."""

    argv: Annotated[list[Text], Field(min_length=1)]
    """The program and its arguments, with placeholders."""
    metrics: Metrics
    inputs: list[Annotated[Text, AfterValidator(_brought)]] = Field(default_factory=list)
    """Files and folders of the user's, linked into the job's folder by their own names."""
    environment: Annotated[str, AfterValidator(_trainer)] | None = None
    """Whose environment `{python}` is; null: none is made."""
    files: list[Inside] = Field(default_factory=list)
    """What must be there at the end; `*` stands for any text."""
    env: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables, with placeholders."""

    @property
    def used(self) -> frozenset[str]:
        """Names of all placeholders."""
        words = (*self.argv, *self.env.values())
        return frozenset(found for word in words for found in PLACEHOLDER.findall(word) if found)

    @property
    def needs_environment(self) -> bool:
        """Some step runs a trainer's Python."""
        return not self.used.isdisjoint({"python", "model", "data"})


def read(given: Mapping[str, Value] | None, leaves: tuple[str, ...]) -> tuple[Command | None, tuple[str, ...]]:
    """The command, and what is wrong with it; None when it cannot even be read."""
    if given is None:
        return None, ("native.command is required: argv, the command line to run, and metrics",)
    try:
        command = Command.model_validate(given)
    except ValidationError as error:
        return None, tuple(_fault(each) for each in error.errors(include_url=False))
    known = {*leaves, "model", "data", "python"}
    faults = [f"{{{name}}} is no placeholder; write {{{{{name}}}}} for the text itself" for name in sorted(command.used - known)]
    if command.needs_environment and not command.environment:
        faults.append("native.command.environment is required: {python}, {model} and {data} need a trainer's environment")
    return command, tuple(faults)


def _fault(error: Value) -> str:
    where = ".".join(["native.command", *map(str, error["loc"])])
    if error["type"] == "extra_forbidden":
        keys = Metrics.model_fields if error["loc"][0] == "metrics" else Command.model_fields
        return f"{where} is not a key; known: {', '.join(keys)}"
    make = RULES.get(error["type"])
    return f"{where} {make(error.get('ctx', {})) if make else error['msg'].removeprefix('Value error, ')}"


def filled(word: str, value: Callable[[str], str]) -> str:
    """A word with its placeholders filled in, once: what comes in is not looked at again."""
    return PLACEHOLDER.sub(lambda found: value(found[1]) if found[1] else found[0][0], word)


def as_text(value: object) -> str:
    """A value as a word: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def own_name(path: str) -> str:
    """The last part of a path."""
    return path.rstrip("/").rpartition("/")[2]
