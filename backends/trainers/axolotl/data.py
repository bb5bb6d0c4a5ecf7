"""axolotl's keys for the data: rows of the data step, or (data.rendering: native) axolotl's own `datasets`."""

from __future__ import annotations

from backends.hf.names import TRAINER
from backends.mapping.data import COLUMNS, shared_data, sources, unchecked
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value, Values, Variant, cannot, const, couple, same
from backends.trainers.axolotl.method import SEE
from backends.trainers.axolotl.release import RELEASE

DOCS = RELEASE.source("docs/dataset-formats/")
SHARED = [{"path": "data", "type": "tunesmith"}]
"""What axolotl must be told of data sets that it does not load itself."""


def shared() -> tuple[Row, ...]:
    """Rows of the data step, handed over as they are."""
    why = "axolotl gets the data step's rows from tune_axolotl.py, and wants the key"
    return (
        *shared_data("sequence_len"),
        const("datasets", SHARED, why),
        const("test_datasets", lambda context: SHARED if context.evaluates else ABSENT, why),
        const(f"{TRAINER}:rows", "data", "made by the data step"),
        const(f"{TRAINER}:shuffle", False, "the order is in the data step's file"),
        const("excess_length_strategy", "raise", "nothing is left out in silence; rows are cut already"),
        const("sample_packing", False, "rows are packed already"),
        const("pad_to_sequence_len", False, "rows are padded to the longest of their micro-batch"),
        const("num_epochs", 1, "epochs are unrolled in the data step's order, which fixes the number of steps"),
    )


_FIXED: dict[str, tuple[Flat, dict[str, str]]] = {
    "orpo": ({}, {name: name for name in ("prompt", "chosen", "rejected")}),
    "reward": ({"type": "bradley_terry.chat_template"}, {"prompt": "input", "chosen": "chosen", "rejected": "rejected"}),
    "grpo": ({}, {"prompt": "prompt"}),
}
"""Kinds whose rows have names of columns that no key of axolotl's changes: what it is told of them, our column -> its own. Without a type
it takes rows as they are (utils/data/rl.py), and orpo has no other type for texts (prompt_strategies/orpo)."""


def _type(form: str, columns: Flat, roles: list[str], kind: str) -> Flat:
    """What axolotl is told of the rows of a format."""
    if kind in _FIXED:
        return _FIXED[kind][0]
    if form == "instruct":
        return {"type": "alpaca"}
    if form == "text":
        return {"type": "completion", "field": columns["text"]}
    if form == "chat":
        return {"type": "chat_template", "field_messages": columns["messages"], "roles_to_train": roles, "train_on_eos": "turn"}
    if form == "completion":
        names = {"field_instruction": columns["prompt"], "field_output": columns["completion"]}
        return {"type": {**names, "format": "{instruction}", "no_input_format": "{instruction}"}}
    fields = ("prompt", "chosen", "rejected") if form == "preference" else ("prompt", "completion")
    label = {} if form == "preference" else {"field_label": columns["label"]}
    return {
        "type": {
            **{f"field_{name}": columns[name] for name in fields},
            **label,
            **{f"{name}_format": f"{{{name}}}" for name in fields},
        }
    }


def _data_set(source: Flat, about: Flat, rows: str) -> Flat:
    if "hub" in source:
        return {"path": source["hub"], "split": source["split"], **about}
    form = next((word for end, word in ((".parquet", "parquet"), (".txt", "text")) if source["path"].endswith(end)), "json")
    # the schema of preference rows has no ds_type and drops it; the loader goes by the file's name then
    kind = {} if rows in {"preference", "rated"} else {"ds_type": form}
    return {"path": source["path"], **kind, "split": "train", **about}


def _renamed(kind: str, columns: Flat) -> Value:
    """Columns that tune_axolotl.py gives the names that axolotl's types have for them: all of them where one is called otherwise."""
    named = {columns[ours]: theirs for ours, theirs in _FIXED[kind][1].items()} if kind in _FIXED else {}
    return named if any(ours != theirs for ours, theirs in named.items()) else ABSENT


def _own(variant: Variant) -> Row:
    """All that says what the rows are, in axolotl's list of data sets."""
    columns = tuple(f"data.columns.{name}" for name in COLUMNS)
    ours = ("data.train", "data.train_split", "data.eval", "data.eval_split", "data.format", *columns, "data.loss_roles")

    def to(*wish: Value) -> Values:
        *values, _ = wish
        train, part, other, split, form, *named, roles = values
        columns = dict(zip(COLUMNS, named, strict=True))
        about = _type(form, columns, roles, variant.kind)
        sets = [_data_set(each, about, form) for each in sources("data.train", train, part)]
        tests = [_data_set(each, about, form) for each in sources("data.eval", other, split)]
        renamed = _renamed(variant.kind, columns)
        written = {"datasets": sets, "test_datasets": tests or ABSENT, f"{TRAINER}:columns": renamed, f"{LAUNCH}:data": values}
        if loss := _refused(train, form, columns):
            raise Unsupported(loss[0], loss[1], see=DOCS, fallback=written)
        return tuple(written.values())

    return couple(
        ours,
        ("datasets", "test_datasets", f"{TRAINER}:columns", f"{LAUNCH}:data"),
        to,
        lambda _sets, _tests, _columns, values, _: tuple(values),
        absent=("test_datasets", f"{TRAINER}:columns"),
        why="axolotl's own data sets, read by their format",
        see=DOCS,
    )


def _refused(train: Value, form: str, columns: Flat) -> tuple[str, str] | None:
    """(leaf, why) of what axolotl's data sets cannot be told."""
    if isinstance(train, list) and any(each["weight"] != 1 for each in train):
        return "data.train", "axolotl's data sets have no weights; use data.rendering: shared"
    if form == "instruct":
        odd = next((name for name in ("instruction", "input", "output") if columns[name] != name), None)
        return (f"data.columns.{odd}", f"axolotl's alpaca wants the column to be called {odd}") if odd else None
    return None


_KTO_ORDER = (
    "once, by train.seed: TRL pairs each prompt with its neighbour's answer, and takes the rows in one order in all epochs"
)


def native(variant: Variant) -> tuple[Row, ...]:
    """axolotl reads the files itself."""

    def only(leaf: str, value: Value, why: str) -> Row:
        return cannot(leaf, why, supported=(value,), see=DOCS)

    return (
        _own(variant),
        couple(
            ("data.eval_share",),
            ("val_set_size",),
            lambda share, _: (share or 0.0,),
            lambda share, _: (share or None,),
            status="approximated",
            why="as many rows, but not those that the data step draws",
            see=DOCS,
        ),
        couple(("data.template",), (), _template, lambda _: (None,), status="same", why="alpaca, or the model's chat template"),
        cannot("data.system", "not translated to axolotl's data sets yet", kind="todo", see=DOCS),
        couple(
            ("data.rendering",),
            (f"{TRAINER}:rows",),
            lambda *_: (None,),
            lambda *_: ("native",),
            status="approximated",
            why=_READ.get(variant.kind, "axolotl's own templates, truncation and order"),
            see=DOCS,
        ),
        _length(variant),
        const("excess_length_strategy", "truncate", "axolotl would leave longer rows out in silence", DOCS),
        _pack(variant),
        same("data.train_on_prompt", "train_on_inputs"),
        only("data.add_eos", True, "axolotl always ends a row with the end token"),
        only("data.drop_empty", False, "axolotl keeps rows without loss tokens, in silence"),
        *unchecked(DOCS),
        couple(
            ("data.shuffle",),
            ("shuffle_merged_datasets", f"{TRAINER}:shuffle"),
            lambda value, _: (value, value and variant.kind != "kto"),
            lambda value, *_: (value,),
            status="approximated",
            why=_KTO_ORDER if variant.kind == "kto" else "by train.seed, in another order than that of data.rendering: shared",
        ),
        const("dataset_prepared_path", "prepared", "in the job's folder: axolotl's cache does not look at what is in a file"),
        const("chat_template", "tokenizer_default", "the model's own"),
        couple(
            ("train.epochs", "train.steps"),
            ("num_epochs", "max_steps"),
            lambda epochs, steps, _: (epochs or steps, steps or ABSENT),
            lambda epochs, steps, _: (epochs, None) if steps is ABSENT else (None, steps),
            absent=("max_steps",),
            why="axolotl wants epochs in any case; max_steps ends the run",
        ),
    )


def _template(template: str | None, _: Context) -> Values:
    if template is not None:
        raise Unsupported(
            "data.template", "templates are not translated to axolotl's data sets yet; use data.rendering: shared", kind="todo"
        )
    return ()


_READ = {
    "orpo": "texts as they are: axolotl's own truncation and order",
    "reward": "each pair goes through the model's chat template; axolotl's own truncation and order",
    "grpo": "prompts as they are, in axolotl's own order",
}


def _length(variant: Variant) -> Row:
    """data.max_length."""
    if variant.kind != "grpo":
        return same("data.max_length", "sequence_len")
    return couple(
        ("data.max_length",),
        ("sequence_len",),
        lambda v, _: (v,),
        lambda v, _: (v,),
        status="approximated",
        why="axolotl cuts no prompts and leaves none out, however long they are",
        see=SEE + "utils/data/rl.py",
    )


def _pack(variant: Variant) -> Row:
    if variant.kind not in ("sft", "pretrain"):
        return cannot("data.pack", "axolotl refuses sample_packing with rl", see=SEE + "utils/schemas/validation.py")
    keys = ("sample_packing", "pad_to_sequence_len", "eval_sample_packing")
    return couple(("data.pack",), keys, lambda v, _: (v, v, False), lambda v, *_: (v,), status="same")
