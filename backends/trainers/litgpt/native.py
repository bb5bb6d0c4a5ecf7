"""LitGPT's own data path (`data.rendering: native`): its JSON data module, one instruction and one answer a row."""

from __future__ import annotations

from backends.mapping.batch import batch_global
from backends.mapping.data import COLUMNS, input_path, unchecked
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import Context, Row, Unsupported, Value, Values, Variant, cannot, const, couple, handled_by_us, same
from backends.recipe.paths import is_hub
from backends.records import replace
from backends.trainers.litgpt.release import RELEASE

_SEE = RELEASE.source("litgpt/")
FINETUNE, JSON = _SEE + "finetune/full.py", _SEE + "data/json_data.py"
ALPACA = "data.init_args.prompt_style"


def batch() -> Row:
    """LitGPT's own accumulation averages the means of the micro-batches, so that their size changes the result."""
    row = batch_global("train.global_batch_size", "train.micro_batch_size")

    def to(total: int, micro: int | None, context: Context) -> Values:
        crossed = row.to(total, micro, context)
        if total != crossed[1] * context.devices:
            raise Unsupported(
                "train.batch.micro",
                "LitGPT averages the means of micro-batches instead of all tokens; "
                "leave train.batch.micro unset, or use data.rendering: shared",
                see=FINETUNE,
                fallback=dict(zip(row.theirs, crossed, strict=True)),
                overridden_by=("train.micro_batch_size",),
            )
        return crossed

    return replace(row, to=to)


def _files() -> Row:
    """One file, or a folder with a file for training and one for evaluation."""
    keys = ("class_path", "init_args.json_path", "init_args.val_split_fraction")

    def to(name: Value, other: str | None, _: Context) -> Values:
        if isinstance(name, list):
            raise Unsupported("data.train", "LitGPT's JSON data reads one file; use data.rendering: shared", see=JSON)
        for leaf, each in (("data.train", name), ("data.eval", other)):
            if each and is_hub(each):
                why = "LitGPT's JSON data reads local files; use data.rendering: shared"
                raise Unsupported(leaf, why, see=JSON, overridden_by=("data.class_path",))
            if each and not each.endswith((".json", ".jsonl")):
                raise Unsupported(leaf, "LitGPT's JSON data reads .json and .jsonl; use data.rendering: shared", see=JSON)
        return "litgpt.data.JSON", "inputs" if other else input_path("data.train", name), None if other else 0.0, name, other

    return couple(
        ("data.train", "data.eval"),
        (*(f"data.{key}" for key in keys), f"{LAUNCH}:train", f"{LAUNCH}:eval"),
        to,
        lambda *v: (v[3], v[4]),
        why="the file is linked into the job's folder",
        see=JSON,
    )


def rows(variant: Variant) -> tuple[Row, ...]:
    """The data section and the run's length, in the schema's order."""

    def only(leaf: str, value: Value, why: str) -> Row:
        return cannot(leaf, why, supported=(value,), see=JSON)

    return (
        _files(),
        handled_by_us("data.train_split", "local files have no splits"),
        handled_by_us("data.eval_split", "local files have no splits"),
        only("data.eval_share", None, "LitGPT's JSON data draws other rows than the data step; use data.rendering: shared"),
        only("data.format", "instruct", "LitGPT's JSON data reads instruct rows only; use data.rendering: shared"),
        *(
            only(f"data.columns.{c}", c, f"LitGPT's JSON data wants the column to be called {c}")
            for c in ("instruction", "input", "output")
        ),
        *(handled_by_us(f"data.columns.{c}", "not for instruct rows") for c in COLUMNS[3:]),
        couple(("data.template",), (ALPACA,), _style, lambda v, _: (None if v == "alpaca" else v,)),
        handled_by_us("data.loss_roles", "not for instruct rows"),
        only("data.system", None, "LitGPT's JSON data takes a system text from each row only"),
        _rendering(variant),
        same("data.max_length", "train.max_seq_length"),
        only("data.pack", False, "LitGPT pads every sample; it has no packing"),
        couple(("data.train_on_prompt",), ("data.init_args.mask_prompt",), lambda v, _: (not v,), lambda v, _: (not v,)),
        only("data.add_eos", True, "LitGPT always ends a sample with the end-of-sequence token"),
        only("data.drop_empty", False, "LitGPT keeps rows without loss tokens, in silence"),
        *unchecked(JSON),
        only("data.shuffle", True, "LitGPT's JSON data always shuffles"),
        const("data.init_args.ignore_index", -100, "labels without loss"),
        const("data.init_args.num_workers", 0, "no loader processes"),
        couple(
            ("train.epochs", "train.steps"),
            ("train.epochs", "train.max_steps"),
            lambda epochs, steps, _: (epochs or steps, steps),
            lambda epochs, steps, _: (None if steps else epochs, steps),
            why="LitGPT wants epochs in any case; train.max_steps ends the run",
        ),
    )


def _rendering(variant: Variant) -> Row:
    def to(_: str, context: Context) -> Values:
        if context.tied and not variant.lora:
            why = "LitGPT's full fine-tuning trains this model's tied embeddings as two matrices; data.rendering: shared keeps them one"
            raise Unsupported("data.rendering", why, see=FINETUNE)
        if context.devices > 1 and variant.lora:
            why = "LitGPT's LoRA waits for ever when it generates its sample on several devices; data.rendering: shared has none"
            raise Unsupported("data.rendering", why, see=_SEE + "finetune/lora.py")
        return ()

    why = "LitGPT reads the file itself"
    return couple(("data.rendering",), (), to, lambda _: ("native",), why=why, status="approximated", see=JSON)


def _style(template: str | None, _: Context) -> Values:
    if template not in (None, "alpaca"):
        why = "only alpaca is translated to LitGPT's prompt styles; use data.rendering: shared"
        raise Unsupported("data.template", why, kind="todo", fallback={ALPACA: "alpaca"})
    return ("alpaca",)
