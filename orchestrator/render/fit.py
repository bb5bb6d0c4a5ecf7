"""What a training takes of a device, as a person and as a script read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.memory.estimate import GIB
from orchestrator.render.text import clean, duration, number, table

if TYPE_CHECKING:
    from backends.memory.ahead import Compiled
    from backends.memory.training import Remedy
    from backends.memory.verdict import Fit

MEANT = {
    "weights": "the model, and adapters",
    "gradients": "of what is trained, at the fullest moment",
    "optimizer": "its state",
    "activations": "what the backward pass needs of the layers",
    "logits": "the loss over the vocabulary, and its gradient",
    "gathered": "fetched from other devices, or on its way to them",
    "workspace": "the device's own libraries, which torch does not count",
}
"""Part -> what it is."""


def fit_text(found: Fit) -> str:
    """The parts, the verdict, time and cost, each with what it is told from; what would help where it does not fit."""
    return "\n".join([_head(found), "", *_memory(found), "", *_time(found), *_help(found)]).rstrip()


def _head(found: Fit) -> str:
    training = found.training
    if training is None:
        return f"{found.trainer} on {found.target}"
    shared = "" if training.devices == 1 else f", {training.devices} devices ({training.strategy})"
    how = [training.adapter if training.rank else "all weights", training.precision]
    how += ["activations recomputed"] * training.recomputes + ["compiled"] * training.compiled
    micro = f"{training.rows} x {training.length:,} tokens a micro-batch"
    return f"{found.trainer} on {found.target}{shared}: {', '.join(how)}, {micro}"


def _memory(found: Fit) -> Iterator[str]:
    if found.compiled:
        yield _compiled(found.compiled, found)
    if found.parts is None:
        yield "" if found.compiled else f"memory: not estimated; {found.unknown}"
        return
    rows = [(name, f"{size / GIB:.2f}", MEANT[name]) for name, size in found.parts._asdict().items() if size]
    rows.append(("in all", f"{found.parts.total / GIB:.2f}", "by arithmetic" if found.compiled else ""))
    yield table(("MEMORY OF A DEVICE", "GiB", ""), rows, right=("GiB",))
    if found.compiled:
        return
    if found.memory_gib is None:
        yield f"nothing is known of the memory of {found.target}: `memory_gib` in clusters.yaml, or --set resources.memory_gib=N"
    else:
        yield f"{'fits into' if found.fits else 'does not fit into'} {found.memory_gib:g} GiB"
    if found.smaller:
        yield smaller_text(found)


def _compiled(told: Compiled, found: Fit) -> str:
    """The compiler's figures, or its own words."""
    if told.over:
        return f"does not fit into {found.memory_gib:g} GiB, the compiler says: {clean(told.over)}"
    parts = {
        "weights, optimizer, rows": told.arguments,
        "all else": told.temporary,
        "results": told.outputs,
        "the program": told.code,
    }
    sizes = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size >= 0.005 * GIB)
    return f"fits into {found.memory_gib:g} GiB: {told.total / GIB:.2f} GiB of a device by the compiler ({sizes})"


def smaller_text(found: Fit) -> str:
    """What a job comes to that halves its micro-batches where memory runs out."""
    return (
        f"its first micro-batch does not fit into {found.memory_gib or 0:g} GiB, one of {found.smaller} does: "
        f"retry.oom.micro comes to that, and train.batch.micro={found.smaller} begins with it"
    )


def _time(found: Fit) -> Iterator[str]:
    if found.steps is None:
        yield "steps: counted on the host, from the rows"
    else:
        yield f"steps: {found.steps:,}; tokens: {found.tokens or 0:,} at most"
    if found.hours is not None and found.pace is not None:
        about = "" if found.pace.measured else "about "
        yield f"time: {about}{duration(found.hours * 3600)}, {found.pace.why} ({number(found.pace.tokens_per_second)} tokens/s)"
    else:
        yield f"time: not told; no run like it was made on {found.target} yet; `tune race` makes one"
    if found.cost is not None:
        yield f"cost: {found.cost:,.2f}, at {found.price:g} a device and hour"
    elif found.price is not None:
        yield f"cost: {found.price:g} a device and hour"


def _help(found: Fit) -> Iterator[str]:
    if found.fits is not False or found.memory_gib is None:
        return
    room = found.memory_gib * GIB
    yield ""
    if found.remedies:
        rows = [_remedy(each, room) for each in found.remedies]
        yield table(("WHAT WOULD HELP", "GiB", ""), rows, right=("GiB",))
    if found.devices:
        yield f"or {found.devices} such devices that share it (fsdp), with a row each and activations recomputed"
    elif not any(each.total <= room for each in found.remedies):
        yield "nothing here makes it fit: a smaller model, shorter rows, or devices with more memory"


def _remedy(each: Remedy, room: float) -> tuple[str, str, str]:
    notes = ["fits"] * (each.total <= room) + ["another training"] * (not each.same)
    return ("+ " if len(each.sets) > 1 else "") + each.sets[-1], f"{each.total / GIB:.2f}", ", ".join(notes)


def fit_json(found: Fit) -> dict[str, object]:
    """The document of `--json`; null for what cannot be told."""
    return {
        "trainer": found.trainer,
        "target": found.target,
        "fits": found.fits,
        "memory_gib": found.memory_gib,
        "needs_gib": found.parts and round(found.parts.total / GIB, 3),
        "parts_gib": found.parts and {name: round(size / GIB, 3) for name, size in found.parts._asdict().items()},
        "compiler_gib": found.compiled and (None if found.compiled.over else round(found.compiled.total / GIB, 3)),
        "compiler_says": (found.compiled and found.compiled.over) or None,
        "unknown": found.unknown or None,
        "steps": found.steps,
        "tokens": found.tokens,
        "tokens_per_second": found.pace and found.pace.tokens_per_second,
        "told_from": found.pace and found.pace.why,
        "measured": found.pace and found.pace.measured,
        "hours": found.hours,
        "cost": found.cost,
        "remedies": [{"set": list(e.sets), "needs_gib": round(e.total / GIB, 3), "same": e.same} for e in found.remedies],
        "devices": found.devices,
        "smaller_micro": found.smaller,
    }
