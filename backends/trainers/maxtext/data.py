"""What MaxText trains on: the data step's rows, or what its own Hugging Face loader reads. Part of backend.py."""

from __future__ import annotations

from collections.abc import Mapping

from backends.mapping.batch import batch_per_device
from backends.mapping.data import COLUMNS as NAMES
from backends.mapping.data import DATA, shared_data, sources, unchecked
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import (
    ABSENT,
    Context,
    Flat,
    Row,
    Unsupported,
    Value,
    Values,
    Variant,
    cannot,
    const,
    couple,
    handled_by_us,
    same,
)
from backends.recipe.paths import is_hub
from backends.trainers.maxtext.method import PREFERS, SEE, TUNIX, WHOLE, adapts

JOB = "maxtext.json"
"""The spec of the prepare and train steps."""
_LOADER = SEE + "input_pipeline/hf_data_processing.py"
_INSTRUCTIONS = SEE + "input_pipeline/instruction_data_processing.py"
SHARED = "use data.rendering: shared"
COLUMNS = (("prompt", "completion"), ("question", "answer"))
"""Two columns that its loader takes: lists of messages, or texts that it makes the two messages of a chat."""
_KEYS = ("hf_path", "hf_train_files", "train_data_columns")


_READS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sft": {"chat": ("messages",), "completion": ("prompt", "completion")},
    "pretrain": {"text": ("text",)},
    "distill": {"text": ("text",), "chat": ("messages",), "completion": ("prompt", "completion")},
    **{kind: {"preference": ("prompt", "chosen", "rejected")} for kind in PREFERS},
}
_OTHERS = {"rated": ("prompt", "completion", "label"), "prompts": ("prompt",), "instruct": ("instruction",)}


def forms(kind: str) -> Mapping[str, tuple[str, ...]]:
    """The formats that its loader reads for a kind, and the columns of each. For a kind that MaxText has not, all: what is in the
    way is the kind.
    """
    return _READS.get(kind, {name: columns for each in _READS.values() for name, columns in each.items()} | _OTHERS)


def _files(variant: Variant) -> Row:
    """Where the rows are and which columns they have."""
    wanted = forms(variant.kind)
    switches = ("use_sft", "add_eos") if variant.kind == "distill" else ()
    ours = ("data.train", "data.format", *(f"data.columns.{c}" for c in NAMES), *(("data.add_eos",) if switches else ()))

    def to(name: Value, given: str, *rest: Value) -> Values:
        first = sources("data.train", name, "")[0]
        source = str(first.get("hub", first.get("name")))
        builder = "parquet" if source.endswith(".parquet") else "text" if source.endswith(".txt") else "json"
        columns = dict(zip(NAMES, rest, strict=False))
        keys: Flat = {
            "hf_path": source if is_hub(source) else builder,
            "hf_train_files": "" if is_hub(source) else first["path"],
            "train_data_columns": [columns[c] for c in wanted.get(given, ())],
            f"{LAUNCH}:data": [name, given, *rest[:-1]],
        }
        if given not in wanted:
            why = f"MaxText's loader reads {' and '.join(wanted)} rows here, {given} rows only as lists of messages; {SHARED}"
            raise Unsupported("data.format", why, see=_INSTRUCTIONS)
        keys |= dict(zip(switches, (True, ABSENT) if given != "text" else (False, rest[-2]), strict=False))
        _refuse(name, given, keys)
        if switches and given != "text" and rest[-2]:
            raise Unsupported("data.add_eos", _NO_END, see=_LOADER, fallback=keys)
        return tuple(keys.values())

    return couple(
        ours,
        (*_KEYS, f"{LAUNCH}:data", *switches),
        to,
        lambda *values: tuple(values[len(_KEYS)]),
        why="chats are lists of messages, in columns prompt and completion too" if "completion" in wanted else "",
        see=_LOADER,
        absent=switches[1:],
    )


_NO_END = f"MaxText adds no end token to chats and pairs; {SHARED}"


def _refuse(name: Value, given: str, keys: Flat) -> None:
    """What its loader cannot read. Columns of other names are taken where the user sets them: with images it reads those."""
    named, see = keys["train_data_columns"], SEE + "input_pipeline/data_processing_utils.py"
    if isinstance(name, list):
        raise Unsupported("data.train", f"MaxText's loader reads one data set; {SHARED}", see=_LOADER, fallback=keys)
    if given == "chat" and named != ["messages"]:
        why = f"MaxText wants the column to be called messages; {SHARED}"
        raise Unsupported("data.columns.messages", why, see=see, fallback=keys, overridden_by=("train_data_columns",))
    if given == "completion" and tuple(named) not in COLUMNS:
        why = f"MaxText wants the columns to be called {' or '.join(map(' and '.join, COLUMNS))}; {SHARED}"
        raise Unsupported("data.columns.prompt", why, see=see, fallback=keys, overridden_by=("train_data_columns",))


def _eval() -> Row:
    """Evaluation by its own loader, which the user must want as it is."""

    def to(wish: Value, _: Context) -> Values:
        if wish is not None:
            why = f"MaxText's loader begins a second evaluation where the first one ended; {SHARED}"
            raise Unsupported("data.eval", why, see=_LOADER, fallback={"hf_eval_files": ""}, overridden_by=("hf_eval_split",))
        return ("",)

    return couple(("data.eval",), ("hf_eval_files",), to, lambda *_: (None,), status="same")


def _steps(epochs: int | None, steps: int | None, _: Context) -> Values:
    if steps is None:
        raise Unsupported(
            "train.epochs",
            f"MaxText counts steps only, and ends with 0 when the rows run out; give train.steps, or {SHARED}",
            see=SEE + "configs/base.yml",
            fallback={"num_epoch": epochs, f"{JOB}:steps": 1},
        )
    return min(steps, 1000), steps


def _ends(variant: Variant) -> tuple[Row, ...]:
    if variant.kind == "distill":  # with the format
        return ()
    if variant.kind == "pretrain":
        return (same("data.add_eos", "add_eos"),)
    return (cannot("data.add_eos", _NO_END, supported=(False,), see=_LOADER),)


def native(variant: Variant) -> tuple[Row, ...]:
    """The data section, read by MaxText itself."""
    sft = variant.kind not in ("pretrain", *PREFERS)
    return (
        _files(variant),
        same("data.train_split", "train_split"),
        _eval(),
        handled_by_us("data.eval_split", "no evaluation"),
        cannot("data.eval_share", f"MaxText's loader holds no rows out; {SHARED}", see=_LOADER),
        cannot("data.template", "MaxText uses the tokenizer's chat template", see=_INSTRUCTIONS),
        cannot("data.loss_roles", "in MaxText's chats the assistant carries loss", see=_INSTRUCTIONS),
        cannot("data.system", f"MaxText takes a system text from the rows; {SHARED}", see=_INSTRUCTIONS),
        couple(
            ("data.rendering",),
            (),
            lambda *_: (),
            lambda _: ("native",),
            status="approximated",
            why="MaxText's own tokens: what follows a prompt up to the answer's first word may carry loss",
            see=_INSTRUCTIONS,
        ),
        same("data.max_length", "max_target_length"),
        same("data.pack", "packing")
        if variant.kind not in PREFERS
        else cannot("data.pack", "MaxText packs no pairs", see=_LOADER),
        couple(
            ("data.train_on_prompt",),
            ("sft_train_on_completion_only",),
            lambda v, _: (not v,),
            lambda v, _: (not v,),
        )
        if sft
        else handled_by_us("data.train_on_prompt", "of no effect here"),
        *_ends(variant),
        cannot("data.drop_empty", "MaxText keeps rows without loss tokens, in silence", see=_LOADER),
        *unchecked(_LOADER),
        couple(
            ("data.shuffle",),
            ("enable_data_shuffling",),
            lambda v, _: (v,),
            lambda v, _: (v,),
            status="approximated",
            why="MaxText shuffles within a buffer that moves over the rows",
            see=_LOADER,
        ),
        couple(
            ("train.epochs", "train.steps"),
            ("num_epoch", f"{JOB}:steps"),
            _steps,
            lambda _epochs, steps, _: (None, steps),
            why="the rows are repeated, as often as there are steps or 1000 times at most",
            see=SEE + "configs/base.yml",
        ),
        const("tokenize_train_data", True, "by MaxText"),
    )


def shared() -> tuple[Row, ...]:
    """Rows of the data step, in place of what the loader would read."""
    return (
        *shared_data(),
        const("hf_path", "json", "not read: the loader is ours, shims/tune_maxtext_rows.py"),
        const("packing", False, "the data step packs"),
        const("enable_data_shuffling", False, "the order is in the data step's file"),
        const("num_epoch", 1, "epochs are unrolled in the data step's order"),
        const("sft_train_on_completion_only", True, "labels come from the data step"),
        const(f"{JOB}:steps", None, "the data step fixes the number of steps"),
    )


_PLAIN = "per_device_batch_size x gradient_accumulation_steps x devices = train.batch.global"
_PARTS = "MaxText's LoRA cannot accumulate with google-tunix 0.1.7: there a step's loss is taken part by part"
_MEANS = "Tunix would take the mean of its micro-batches' means: a step's loss is taken part by part"


def batch(variant: Variant) -> Row:
    """Sequences per device, and the parts of a step: accumulated by MaxText's own loop, or by tune where Tunix trains."""
    keys = ("per_device_batch_size", "gradient_accumulation_steps", f"{JOB}:parts", "eval_per_device_batch_size")
    also = () if variant.native else (f"{DATA}:batch",)
    row = batch_per_device("one", "times")
    why = _PARTS if adapts(variant) else _MEANS if variant.kind in WHOLE else _PLAIN

    def to(total: int, micro: int | None, context: Context) -> Values:
        one, times = row.to(total, micro, context)
        parted = (one * times, 1, times, one) if why != _PLAIN else (one, times, 1, one)
        return *parted, *(total for _ in also)

    def back(size: int, times: int, parts: int, *rest: Value) -> Values:
        return size * times * rest[-1].devices, size // parts

    return couple(
        ("train.batch.global", "train.batch.micro"),
        (*keys, *also),
        to,
        back,
        why=why,
        see="" if why == _PLAIN else TUNIX + "peft_trainer.py",
    )
