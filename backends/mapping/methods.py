"""The section method: kinds, and the leaves that have no effect in a kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

from backends.mapping.launch import LAUNCH
from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value, Values, cannot, couple, handled_by_us, idle
from backends.recipe.leaves import beta_for_null
from backends.recipe.paths import is_hub
from backends.report import Kind as Lack


def preference_idle() -> tuple[Row, ...]:
    """method.preference, for other kinds."""
    return idle("method.preference", "not learning from preferences")


def grpo_idle() -> tuple[Row, ...]:
    """method.grpo, for other kinds."""
    return idle("method.grpo", "no answers of its own are scored")


def distill_idle() -> tuple[Row, ...]:
    """method.distill, for other kinds."""
    return idle("method.distill", "no teacher")


def teacher(name: str | None, see: str) -> tuple[Flat, str]:
    """What tune_model.py is told of method.distill.teacher (teacher.json), and the folder that it makes ready.

    Args:
        name: of the leaf, a Hugging Face id or a folder.
        see: the trainer's source.

    Raises:
        Unsupported: there is none.
    """
    if name is None:
        raise Unsupported("method.distill.teacher", "distillation needs a teacher: a model with the same token ids", see=see)
    folder = f"cache/models/{name.replace('/', '--')}@main" if is_hub(name) else "inputs/teacher"
    start: Flat = {"init": "pretrained", "revision": "main"} if is_hub(name) else {"init": "folder"}
    return {"id": name, "folder": folder, **start}, folder


def no_qat(kind: Lack, why: str, see: str = "") -> tuple[Row, ...]:
    """method.qat, of a trainer that has none for this shape."""
    return (
        cannot("method.qat.scheme", why, kind=kind, see=see),
        handled_by_us("method.qat.group", "only with a scheme"),
    )


def beta(kind: str, value: float | None) -> float:
    """method.preference.beta, with what null means."""
    return beta_for_null(kind) if value is None else value


def preferring(*matter: Row) -> tuple[Row, ...]:
    """method.preference for a kind that learns from preferences: rows of what matters to it; the other leaves have no effect."""
    table = {row.ours[0]: row for row in matter}
    return tuple(table.get(row.ours[0], row) for row in preference_idle())


def lora_scale(*alphas: str, whole: str = "", see: str = "") -> Row:
    """method.lora.alpha and rank_stabilized, for a trainer that scales by alpha / rank: alpha / sqrt(rank) is alpha x sqrt(rank) over
    the rank.

    Args:
        alphas: its keys of alpha.
        whole: its name, where its alpha is a whole number.
        see: upstream's word on that.
    """
    asked = f"{LAUNCH}:alpha"

    def to(alpha: float, stabilized: bool, context: Context) -> Values:
        scaled = alpha * math.sqrt(context.rank) if stabilized else alpha
        if whole and scaled != int(scaled):
            leaf = "method.lora.rank_stabilized" if stabilized and alpha == int(alpha) else "method.lora.alpha"
            said = f"{alpha:g} x sqrt({context.rank})" if stabilized else f"{alpha}"
            why = f"lora_alpha is a whole number in {whole}, {said} is none"
            raise Unsupported(leaf, why, see=see, fallback=dict.fromkeys(alphas, round(scaled)))
        return (*(int(scaled) if whole else scaled for _ in alphas), alpha if stabilized else ABSENT)

    def back(*values: Value) -> Values:
        said = values[-2]
        return (float(values[0]), False) if said is ABSENT else (said, True)

    return couple(
        ("method.lora.alpha", "method.lora.rank_stabilized"),
        (*alphas, asked),
        to,
        back,
        status="same",
        absent=(asked,),
        why="with rank_stabilized it is alpha x sqrt(rank), since the trainer divides by the rank",
    )


def lora_idle() -> tuple[Row, ...]:
    """The LoRA leaves of a recipe that trains all weights."""
    return idle("method.lora", "no adapter: all weights are trained")


def kinds(*has: str, lacks: Mapping[str, tuple[Lack, str, str]], why: str = "") -> Row:
    """method.kind, where the rest of the table says what each kind becomes.

    Args:
        has: kinds that this trainer has.
        lacks: the other kinds: what is in the way, the reason, upstream's word on it.
        why: the reason, for the report.
    """

    def to(kind: str, _: Context) -> Values:
        if kind not in has:
            lack, reason, see = lacks[kind]
            raise Unsupported("method.kind", reason, kind=lack, see=see, fallback={f"{LAUNCH}:kind": "sft"})
        return (kind,)

    return couple(("method.kind",), (f"{LAUNCH}:kind",), to, lambda kind, _: (kind,), status="same", why=why)
