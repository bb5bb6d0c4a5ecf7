"""What a recipe asks of a device's memory, and what would ask for less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from backends.mapping.launch import Sharing, is_small
from backends.memory.estimate import Parts, estimate
from backends.memory.facts import Training, Unknown
from backends.memory.footprint import Footprint
from backends.models import ModelFacts
from backends.recipe.flat import Flat
from backends.records import replace

PAIRS = ("dpo", "ipo", "orpo", "simpo", "kto", "reward")
"""Kinds whose rows are pairs of answers, or (kto) have the row of another prompt beside them."""
REFERENCED = ("dpo", "ipo", "kto")
"""Of these, kinds that have a frozen copy of the start model beside the trained one; an adapter is switched off instead."""
UNTOLD = {
    "grpo": "answers are made while it trains, with caches that nothing here counts",
    "distill": "the teacher's size is known on the host alone",
}
"""Kinds of which nothing is estimated, and why."""


def training_of(
    flat: Flat, model: ModelFacts | None, footprint: Footprint, accelerator: str, memory_gib: float | None = None
) -> Training:
    """The training that a recipe means.

    Args:
        flat: the recipe's leaves.
        model: sizes; None where only the host can tell.
        footprint: of the trainer.
        accelerator: of the target.
        memory_gib: of a device of the target; None: not known.

    Raises:
        Unknown: of such a training nothing is estimated; says why.
    """
    kind, adapter = flat["method.kind"], flat["method.adapter"]
    if model is None:
        raise Unknown(
            f"{flat['model.id']} is not in the table of models (docs/models.md), so its sizes are known on the host alone"
        )
    if kind in UNTOLD:
        raise Unknown(f"method.kind {kind}: {UNTOLD[kind]}")
    if flat["method.qat.scheme"] != "none":
        raise Unknown("method.qat: what the rounded copies take was not measured")
    devices = flat["resources.devices"] * flat["resources.hosts"]
    share = max(1, flat["train.batch.global"] // devices)
    micro = flat["train.batch.micro"] or share
    asked = flat["train.compile"]
    compiled = accelerator == "cuda" and adapter in footprint.compiles if asked is None else asked
    key = ("full" if adapter == "none" else "adapter", flat["train.precision"])
    sharing = Sharing(adapter != "none", is_small(model.parameters, memory_gib), model.tied, accelerator)
    fused = kind in footprint.fused_kinds and key in footprint.fused_layers and accelerator == "cuda" and not compiled
    return Training(
        model=model,
        precision=flat["train.precision"],
        optimizer=flat["optim.name"],
        adapter=adapter,
        rank=0 if adapter == "none" else flat["method.lora.rank"],
        targets=tuple(flat["method.lora.targets"]),
        rows=micro * (2 if kind in PAIRS else 1),
        length=flat["data.max_length"],
        devices=devices,
        strategy=_strategy(flat["resources.strategy"], devices, footprint, sharing),
        tensor=flat["resources.tensor"],
        accumulates=share > micro,
        recomputes=flat["train.activation_checkpointing"],
        offloads=flat["train.offload"],
        compiled=compiled,
        fused=fused,
        eager=flat["train.attention"] == "eager",
        whole=() if adapter == "none" else tuple(flat["method.lora.train_fully"]),
        copies=2 if kind in REFERENCED and adapter == "none" else 1,
        accelerator=accelerator,
    )


def _strategy(word: str, devices: int, footprint: Footprint, sharing: Sharing) -> str:
    if devices == 1:
        return "one"
    return word if word != "auto" else "ddp" if footprint.whole_each(sharing) else "fsdp"


class Remedy(NamedTuple):
    """A change of the recipe, and the memory that the training then takes."""

    sets: tuple[str, ...]
    """`setting=value` each, as `--set` takes it, made together; the last is what the remedy before has not."""
    total: float
    """Bytes of a device."""
    same: bool
    """The trained model is the same but for rounding."""


def remedies(training: Training, footprint: Footprint, room: float) -> list[Remedy]:
    """Changes that take less, each with all before it: first those that leave the result as it is, then the others; up to what fits.

    Args:
        training: that does not fit.
        footprint: of the trainer.
        room: bytes of a device.
    """
    found: list[Remedy] = []
    now, same = training, True
    sets: tuple[str, ...] = ()
    least = _total(training, footprint)
    for words, apply, keeps in _changes(training):
        total = _total(apply(now), footprint)
        if total is None or least is None or total > 0.98 * least:
            continue
        now, same, sets, least = apply(now), same and keeps, (*sets, words), total
        found.append(Remedy(sets, total, same))
        if total <= room:
            break
    return found


def _total(training: Training, footprint: Footprint) -> float | None:
    parts = _parts(training, footprint)
    return parts.total if parts else None


class _Change(NamedTuple):
    words: str
    apply: Callable[[Training], Training]
    keeps: bool


def _changes(training: Training) -> Iterator[_Change]:
    """Changes that may help."""
    pair = 2 if training.rows % 2 == 0 and training.copies == 2 else 1
    if training.rows > pair:
        yield _Change("train.batch.micro=1", lambda each: replace(each, rows=pair, accumulates=True), True)
    if not training.recomputes:
        yield _Change("train.activation_checkpointing=true", lambda each: replace(each, recomputes=True), True)
    if training.recomputes and not training.offloads:
        yield _Change("train.offload=true", lambda each: replace(each, offloads=True), True)
    if training.devices > 1 and training.strategy in ("ddp", "zero1", "zero2"):
        yield _Change("resources.strategy=fsdp", lambda each: replace(each, strategy="fsdp"), True)
    if training.precision != "bf16":
        yield _Change("train.precision=bf16", lambda each: replace(each, precision="bf16"), False)
    if training.optimizer == "adamw":
        yield _Change("optim.name=adamw_8bit", lambda each: replace(each, optimizer="adamw_8bit"), False)
    if training.adapter == "none":
        yield _Change("method.adapter=lora", lambda each: _adapted(each, "lora"), False)
    if training.adapter in ("none", "lora"):
        yield _Change("method.adapter=qlora", lambda each: _adapted(each, "qlora"), False)
    if training.length > 4096:
        yield _Change("data.max_length=4096", lambda each: replace(each, length=4096), False)


def _adapted(training: Training, adapter: str) -> Training:
    return replace(training, adapter=adapter, rank=training.rank or 16, copies=1)


def devices_for(training: Training, footprint: Footprint, room: float, most: int = 4096) -> int | None:
    """How many devices, a power of two, hold the training when they share it (fsdp), with one row each and activations recomputed; None: so many do not, or it
    cannot be told.
    """
    count = max(2, training.devices)
    while count <= most:
        parts = _parts(replace(training, devices=count, strategy="fsdp", rows=1, tensor=1, recomputes=True), footprint)
        if parts is None:
            return None
        if parts.total <= room:
            return count
        count *= 2
    return None


def smaller_that_fits(training: Training, footprint: Footprint, room: float, micros: Sequence[int]) -> int | None:
    """The first of the micro-batches that are tried in turn where memory runs out which fits; None: none does.

    Args:
        training: with the first of them.
        footprint: of the trainer.
        room: bytes of a device.
        micros: of the plan (`retry.oom.micro`), the largest first.
    """
    for micro in micros[1:]:
        total = _total(replace(training, rows=training.rows * micro // micros[0], accumulates=True), footprint)
        if total is not None and total <= room:
            return micro
    return None


def _parts(training: Training, footprint: Footprint) -> Parts | None:
    try:
        return estimate(training, footprint)
    except Unknown:
        return None
