r"""Any command line as a trainer: what to run stands in the recipe's `native.command`, and its words take what they need of the
recipe by placeholders (`backends/argv.py` has all keys).

    native:
      command:
        argv: ["{python}", train.py, "--model={model}", "--lr={optim.lr}", "--max-steps={train.steps}"]
        inputs: [./train.py]
        environment: axolotl
        metrics: {pattern: 'step (?P<step>\d+) loss (?P<loss>\S+)'}
        files: ["checkpoint/*.safetensors"]

`{model}` is a folder in Hugging Face layout, `{data}` the folder that the data step makes, `{data.train}` the file as the job
finds it or the hub id, `{python}` the environment's interpreter; any other leaf is its value. `{{` and `}}` are braces. No shell
sees the words. What no placeholder takes is lost, unless the recipe leaves it at its default: nothing else could tell the
command of it. Never chosen by itself, only by `--to command`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backends.backend import Backend, Ending, Progress
from backends.backend import judge as judge_all
from backends.bundle import LOCKS
from backends.mapping.complete import in_order
from backends.mapping.data import DATA, input_path, shared_data
from backends.mapping.model import model, tokens, trained_from
from backends.mapping.rows import (
    Context,
    Flat,
    Row,
    Unsupported,
    Value,
    Values,
    Variant,
    cannot,
    couple,
    everywhere,
    handled_by_us,
)
from backends.metrics import Point
from backends.plan import Environment, Input, Plan, Promise, Step
from backends.recipe.flat import defaults, leaves
from backends.recipe.paths import absolute, is_hub
from backends.records import dataclass, replace

if TYPE_CHECKING:
    from backends.recipe.schema import Recipe
    from backends.trainers.command.argv import Command

LINES = "out/lines.jsonl"
"""What `tune_lines.py` found in the output."""

_OURS = {
    "version": "of the recipe's schema",
    "name": "names the job",
    "description": "for people",
    "log.every": "we keep every n-th point of what is read",
    "resources.accelerator": "matched when the job is placed",
    "resources.devices": "kept free for the job, and what it sees of CUDA",
    "resources.hosts": "the command is started on each",
    "resources.memory_gib": "matched when the job is placed",
    "after.serve": "a job of its own, once this one has succeeded",
    "after.push": "a job of its own, once this one has succeeded",
    "after.export": "a job of its own, once this one has succeeded",
    "after.evaluate": "a job of its own, once this one has succeeded",
    "secrets": "into the environment of the steps, by the runner's standard input",
}
"""Leaves that need no placeholder: we see to them."""

_ITS_OWN = {
    "method.kind": "what the command trains is its own affair",
    "data.format": "how the command reads rows is its own affair",
    "data.rendering": "the command reads the file in its own way",
}
"""Leaves that say what is done rather than how much of it."""


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows of a command that takes nothing."""
    return _rows(None, variant, frozenset())


def _rows(command: Command | None, variant: Variant, written: frozenset[str], faults: Sequence[str] = ()) -> tuple[Row, ...]:
    """One row a leaf, in the schema's order, but for the sections that go into a folder as a whole."""
    if faults:  # the one thing to be said
        return in_order((_native(faults), *(handled_by_us(leaf, "") for leaf in leaves() if leaf != "native")))
    used = command.used if command else frozenset()
    needs_model = not used.isdisjoint({"model", "data"})
    whole = (
        *((model(theirs=(), to=lambda *_: (), shared="data" in used), tokens(lora=variant.lora)) if needs_model else ()),
        *(_rendered(native=variant.native) if "data" in used else ()),
        _native(faults),
    )
    read = {leaf for row in whole for leaf in row.ours}
    return in_order((*whole, *(_row(leaf, used, written) for leaf in leaves() if leaf not in read)))


def _rendered(*, native: bool) -> tuple[Row, ...]:
    """What the data step takes."""
    seed = everywhere("train.seed", "train.seed", f"{DATA}:seed")
    batch = everywhere("train.batch.global", "train.batch.global", f"{DATA}:batch")
    why = "{data} is what the data step makes, with data.rendering: shared"
    made = (*shared_data(), batch, seed)
    return tuple(
        cannot("data.rendering", why, kind="todo") if native and row.ours == ("data.rendering",) else row for row in made
    )


def _row(leaf: str, used: frozenset[str], written: frozenset[str]) -> Row:
    """A leaf that a word takes, that we see to, or that reaches nobody."""
    default = defaults()[leaf]
    if leaf in used:
        return couple(
            (leaf,), (leaf,), lambda v, _: (_given(leaf, v),), lambda v, _: (v,), status="same", why="in the command line"
        )
    if leaf.startswith("retry."):
        return handled_by_us(leaf, "read by whoever runs the job")
    if leaf in _OURS:
        return handled_by_us(leaf, _OURS[leaf])
    if leaf in _ITS_OWN:
        return replace(handled_by_us(leaf, _ITS_OWN[leaf]), status="approximated" if leaf in written else "same")

    def to(value: Value, _: Context) -> Values:
        if value != default:
            raise Unsupported(leaf, f"no word of native.command.argv takes {{{leaf}}}: the command would not know", kind="todo")
        return ()

    why = "no word takes it: the command's own default decides"
    return Row((leaf,), (), to, lambda _: (default,), "approximated" if leaf in written else "same", why)


def _given(leaf: str, value: Value) -> Value:
    if value is None:
        raise Unsupported(leaf, f"is null, and a word of native.command takes {{{leaf}}}", kind="todo")
    if leaf in ("data.train", "data.eval") and not isinstance(value, str):
        raise Unsupported(leaf, "several data sets go into a command as {data} only", kind="todo")
    return value


def _native(faults: Sequence[str]) -> Row:
    """The command itself; what is wrong with it cannot be accepted."""

    def to(_wish: Value, _: Context) -> Values:
        if faults:
            raise Unsupported("native", "; ".join(faults), kind="todo")
        return ()

    return Row(("native",), (), to, lambda _: ({},), "same", "the command line itself")


def fit(recipe: Recipe) -> Backend:
    """The backend for what this recipe's `native.command` says."""
    from backends.trainers.command.argv import read as read_command  # noqa: PLC0415  # pydantic is heavy: the controller imports this module and never plans

    command, faults = read_command(recipe.native.get("command"), leaves())
    if command is None or faults:
        return replace(COMMAND, rows=lambda shape: _rows(command, shape, recipe.written, faults), fit=None)
    fitted = Fitted(command, recipe.flat(), recipe.base)
    return replace(
        COMMAND,
        rows=lambda shape: _rows(command, shape, recipe.written),
        steps=fitted.steps,
        finish=fitted.finish,
        fit=None,
        shims=("tune_lines.py",) if command.metrics.pattern else (),
        watch=(command.metrics.file or LINES,),
        locks={name.partition("-")[2]: text for name, text in LOCKS.items() if name.partition("-")[0] == command.environment},
    )


@dataclass(frozen=True)
class Fitted:
    """A command and the recipe that fills it."""

    command: Command
    flat: Flat
    base: str
    """Folder (absolute) to which paths in the recipe are relative."""

    def word(self, text: str, python: str) -> str:
        """A word of the command line, filled in."""
        from backends.trainers.command.argv import as_text, filled  # noqa: PLC0415  # as above

        return filled(text, lambda name: as_text(_value(name, self.flat, python)))

    def steps(self, _launch: Flat, python: str) -> tuple[Step, ...]:
        """The command, below a reader of its output where that has the metrics."""
        argv = tuple(self.word(each, python) for each in self.command.argv)
        ours = python if self.command.needs_environment else "python3"
        pattern = self.command.metrics.pattern
        return (Step("train", ((ours, "tune_lines.py", pattern, LINES) if pattern else ()) + argv),)

    def finish(self, plan: Plan) -> Plan:
        """What only the command says."""
        from backends.trainers.command.argv import own_name  # noqa: PLC0415  # as above

        command = self.command
        python = "env/bin/python" if plan.environment.lock else plan.environment.python
        env = {name: self.word(text, python) for name, text in command.env.items()}
        return replace(
            plan,
            environment=_environment(plan.environment, command),
            inputs=(*plan.inputs, *(Input(own_name(each), absolute(each, self.base)) for each in command.inputs)),
            env=tuple(sorted({**dict(plan.env), **env}.items())),
            promise=Promise(plan.promise.steps if command.used & {"train.steps", "data"} else None, tuple(command.files)),
            reading={**plan.reading, "names": command.metrics.names, "first": command.metrics.first},
        )


def _value(name: str, flat: Flat, python: str) -> Value:
    """What a placeholder stands for, as the job sees it."""
    if name in ("data.train", "data.eval", "method.distill.teacher") and not is_hub(flat[name]):
        return "inputs/teacher" if name == "method.distill.teacher" else input_path(name, flat[name])
    if name == "model":
        return trained_from(flat)
    return {"python": python, "data": "data"}.get(name) or flat[name]


def _environment(environment: Environment, command: Command) -> Environment:
    """The trainer's that is named, under its own name, so that it is made once; none when no step needs it."""
    if not command.needs_environment:
        return replace(environment, python="", lock="")
    return replace(environment, name=command.environment or "") if environment.lock else environment


def steps(_launch: Flat, _python: str) -> tuple[Step, ...]:
    """None: there is no command."""
    return ()


METRIC = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,63}")


def read(reading: Mapping[str, Value], progress: Progress, line: str) -> list[Point]:
    """A JSON object of one step: its metrics by name. Without a `step` each object with a loss is the next one."""
    theirs = reading.get("names", {})
    ours = {native: name for name, native in theirs.items()}
    row = json.loads(line)
    values = {key: value for key, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    counted = values.pop(theirs.get("step", "step"), None)
    has_loss = theirs.get("loss", "loss") in values
    step = progress.last + has_loss if counted is None else int(counted) + 1 - reading.get("first", 1)
    found = [Point(step, ours.get(key, key), float(value), key) for key, value in values.items() if METRIC.fullmatch(key)]
    if step < 1 or not found:
        return []
    if has_loss:
        progress.step(step, float(values[theirs.get("loss", "loss")]))
    return found


def judge(ending: Ending) -> tuple[str, str] | None:
    """As for every trainer, but that a loss may be 0: what it means is the command's own affair."""
    return judge_all(replace(ending, progress=replace(ending.progress, nonzero=True)))


COMMAND = Backend(
    name="command",
    package="a command line",
    requires="",
    config="command.json",
    rows=rows,
    steps=steps,
    shims=(),
    watch=(),
    read=read,
    judge=judge,
    accelerators=("cpu", "cuda", "tpu"),
    fit=fit,
)
