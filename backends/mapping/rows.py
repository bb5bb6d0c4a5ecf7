"""A row translates between leaves of the recipe and keys of a trainer. A trainer is a table of rows, usable in both directions.

Configs are flat on both sides: dotted names, lists are values. A native name is a key of the trainer's main config, or
`file:key` for a key of another file of the plan (`data.json:max_length`); `launch:key` holds what becomes a command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from backends.recipe.flat import Flat as Flat  # noqa: PLC0414  # exported again: whoever writes rows needs it
from backends.recipe.flat import Value as Value  # noqa: PLC0414  # as above
from backends.recipe.flat import defaults, leaves
from backends.records import dataclass, field
from backends.report import Kind, Line, Status

Values = Sequence[Value]
"""One value for each name of a row's side."""

ABSENT: Value = type("Absent", (), {"__repr__": lambda _: "ABSENT"})()
"""A native key that is not written for this value."""


class Variant(NamedTuple):
    """What chooses a backend's rows. Nothing else does."""

    kind: str = "sft"
    adapter: str = "none"
    native: bool = False
    """data.rendering is native: the trainer reads the files itself."""

    @property
    def lora(self) -> bool:
        """Some adapter is trained instead of the weights."""
        return self.adapter != "none"


@dataclass(frozen=True)
class Context:
    """What rows may know besides the values that they translate: facts of the target and the model."""

    accelerator: str = "cpu"
    devices: int = 1
    """Accelerators of the job, over all hosts."""
    hosts: int = 1
    slices: int = 1
    """TPU slices of the job, each with as many of the hosts."""
    tensor: int = 1
    """Accelerators that share each matrix product."""
    model: Mapping[str, Value] = field(default_factory=dict)
    """Each trainer's names for the model, when it is in the model table."""
    tokens: bool = False
    """The recipe adds tokens to the model."""
    parameters: int | None = None
    """Of the model; None where only the host can count them."""
    tied: bool = False
    """The model's input and output embeddings are one matrix; False too where only the host knows."""
    linear: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Target of LoRA -> inputs and outputs of its layer; empty where only the host knows."""
    memory_gib: float | None = None
    """Memory of one device, when it is known."""
    steps: int | None = None
    """Optimizer steps, when the recipe alone fixes them."""
    rank: int = 1
    """Of the adapter."""
    evaluates: bool = False
    """The recipe has rows for evaluation."""
    variant: Variant = field(default_factory=Variant)


class Unsupported(Exception):
    """A value that the trainer cannot honour."""

    def __init__(
        self,
        leaf: str,
        why: str,
        *,
        kind: Kind = "never",
        see: str = "",
        fallback: Mapping[str, Value] | None = None,
        overridden_by: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{leaf}: {why}")
        self.leaf, self.why, self.kind, self.see = leaf, why, kind, see
        self.fallback = dict(fallback or {})
        """What is written when the user accepts the loss: no trainer default ever decides."""
        self.overridden_by = frozenset(overridden_by)
        """Native keys that, all set by the user, give the trainer what the leaf cannot: then nothing is lost."""


@dataclass(frozen=True)
class Row:
    """Leaves, native keys, and how the values of the ones become those of the others."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to: Callable[..., Values]
    """(*our values, context) -> their values; raises `Unsupported`."""
    back: Callable[..., Values]
    """(*their values, context) -> our values."""
    status: Status = "same"
    why: str = ""
    see: str = ""
    """Upstream source, where a quirk of the trainer decides."""
    optional: tuple[str, ...] = ()
    """Of `ours`, names that may be missing; they are handed over as ABSENT."""
    absent: tuple[str, ...] = ()
    """Of `theirs`, names that are not written for every value."""

    @cached_property
    def needed(self) -> frozenset[str]:
        """Of `ours`, names without which the row is left out."""
        return frozenset(self.ours).difference(self.optional)

    @cached_property
    def defaulted(self) -> tuple[Line, ...]:
        """The report's lines when no key is written, for leaves that the recipe leaves at our default."""
        return tuple(self.lines({}, frozenset()))

    def lines(self, values: Flat, written: frozenset[str]) -> list[Line]:
        """The report's lines of a row that translates.

        Args:
            values: native keys and the values written.
            written: leaves that the user wrote; the others' lines say `defaulted`.
        """
        told, why, see = self.status, self.why, self.see
        unwritten: Status = told if told == "approximated" else "defaulted"
        return [Line(name, told if name in written else unwritten, values, why, "", see) for name in self.ours]


def same(ours: str, theirs: str) -> Row:
    """The trainer means the same by another name."""
    return Row((ours,), (theirs,), lambda v, _: (v,), lambda v, _: (v,))


def default_for_null(ours: str, theirs: str, default: Callable[[Context], Value], why: str = "") -> Row:
    """A leaf whose null leaves the choice to us: the context decides, and the choice is written out."""

    def back(value: Value, context: Context) -> Values:
        return (None if value == default(context) else value,)

    return Row((ours,), (theirs,), lambda v, context: (default(context) if v is None else v,), back, "same", why)


def choice(
    ours: str,
    theirs: str,
    pairs: Mapping[Value, Value],
    *,
    otherwise: Mapping[Value, tuple[Kind, str]] | None = None,
    fallback: Value = ABSENT,
    why: str = "",
    see: str = "",
) -> Row:
    """A choice that the trainer spells otherwise.

    Args:
        ours: our leaf.
        theirs: native key.
        pairs: our choice -> the native one; no two of ours share a native one.
        otherwise: our choices that the trainer does not have: kind of loss and reason.
        fallback: native choice to write when such a loss is accepted.
        why: the reason, for the report.
        see: upstream source.
    """
    back = {native: own for own, native in pairs.items()}
    if len(back) != len(pairs):
        raise ValueError(f"{theirs}: two of our choices share a native one")
    refused = dict(otherwise or {})

    def to(value: Value, _: Context) -> Values:
        if value in refused:
            kind, reason = refused[value]
            raise Unsupported(ours, reason, kind=kind, see=see, fallback={theirs: fallback})
        return (pairs[value],)

    return Row((ours,), (theirs,), to, lambda v, _: (back[v],), "converted" if why else "same", why, see)


def couple(
    ours: Sequence[str],
    theirs: Sequence[str],
    to: Callable[..., Values],
    back: Callable[..., Values],
    *,
    why: str = "",
    see: str = "",
    status: Status = "converted",
    absent: Sequence[str] = (),
) -> Row:
    """Values that translate only together, or into another unit."""
    return Row(tuple(ours), tuple(theirs), to, back, status, why, see, (), tuple(absent))


def const(theirs: str, value: Value, why: str, see: str = "") -> Row:
    """A native key that carries meaning and has no leaf: written out, so that no default decides. `value` may be a function
    of the context.
    """
    make = value if callable(value) else lambda _: value
    return Row((), (theirs,), lambda context: (make(context),), lambda _v, _s: (), "converted", why, see)


def cannot(
    ours: str,
    why: str,
    *,
    supported: Values = (),
    kind: Kind = "never",
    see: str = "",
    fallback: Mapping[str, Value] | None = None,
) -> Row:
    """A leaf that the trainer does not have.

    Args:
        ours: our leaf.
        why: the reason, for the report.
        supported: values that are honoured all the same; none: the leaf's default alone.
        kind: of the loss.
        see: upstream source.
        fallback: native keys to write when the loss is accepted.
    """

    def to(value: Value, _: Context) -> Values:
        if value not in (supported or (defaults()[ours],)):
            raise Unsupported(ours, why, kind=kind, see=see, fallback=fallback)
        return ()

    return Row((ours,), (), to, _not_reversed)


def handled_by_us(ours: str, why: str) -> Row:
    """A leaf that is honoured by us, or has no effect in this variant of recipe: no key is written, nothing is lost."""
    return Row((ours,), (), lambda _v, _s: (), _not_reversed, "same", why)


def _not_reversed(_: Context) -> Values:
    """`Row.back` of a row without native keys: `reverse` leaves such rows out."""
    return ()


def everywhere(leaf: str, *keys: str) -> Row:
    """One value in several places of the plan."""
    return couple((leaf,), keys, lambda v, _: (v,) * len(keys), lambda *values: (values[0],), status="same")


def idle(section: str, why: str) -> tuple[Row, ...]:
    """Leaves of a section that has no effect in this variant of recipe; the parser refuses them there."""
    return tuple(handled_by_us(leaf, why) for leaf in leaves(section))


def variant_of(flat: Flat) -> Variant:
    """What of a recipe chooses the rows."""
    return Variant(flat["method.kind"], flat["method.adapter"], flat["data.rendering"] == "native")
