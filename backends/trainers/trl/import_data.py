"""TRL's data sets as the data section of a recipe. Part of import_keys.py.

No key says what the rows are: TRL looks at their columns (data_utils.py). What the other keys say of them decides here, else chats.
"""

from __future__ import annotations

from collections.abc import Callable

from backends.dialect import ROWS, ImportRow, Unfit, note, text, unmodelled, whole
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.recipe.paths import FILES, HUB, is_file, is_foreign

_NOTHING: tuple[Value, ...] = (ABSENT, None, "", [])


def data(variant: Variant) -> tuple[ImportRow, ...]:
    """What it is trained on."""
    length = () if variant.kind == "grpo" else (ImportRow(("max_length", "max_seq_length"), _length),)
    pack = (ImportRow(("packing",), lambda on: {"data.pack": on is True}),) if variant.kind == "sft" else ()
    return (
        ImportRow(
            ("dataset_name", "dataset_train_split", "dataset_test_split", "datasets", "eval_strategy"),
            _rows,
            "TRL looks at the columns to see what the rows are",
        ),
        ImportRow(("assistant_only_loss", "completion_only_loss", "dataset_text_field"), _form(variant), "what carries loss"),
        *length,
        *pack,
    )


def _rows(name: Value, train: Value, test: Value, mixture: Value, evaluates: Value) -> Flat:
    if isinstance(mixture, list) and mixture:
        return _mixture([each if isinstance(each, dict) else {"path": each} for each in mixture])
    path = _path(text(name), {})
    found: Flat = {"data.train": path}
    if not is_file(path):
        found["data.train_split"] = text(train)
    if evaluates not in (*_NOTHING, "no", False):
        found |= {"data.eval": path, **({} if is_file(path) else {"data.eval_split": text(test)})}
    return found


def _mixture(sets: list[Flat]) -> Flat:
    try:
        paths = [_path(text(each.get("path")), each) for each in sets]
    except Unfit as unfit:
        raise Unfit(f"{unfit.why}: see to data.train", {"data.train": ROWS}) from None
    configurations = [str(each["name"]) for each in sets if each.get("name")]
    more = (
        unmodelled("datasets", f"{', '.join(configurations)}: one of several configurations of a data set")
        if configurations
        else {}
    )
    if len(sets) == 1:
        split = sets[0].get("split")
        return {"data.train": paths[0], **({"data.train_split": split} if split and not is_file(paths[0]) else {}), **more}
    parts = [
        {"path": path, "split": str(each.get("split") or "train"), "weight": 1.0} for path, each in zip(paths, sets, strict=True)
    ]
    return {"data.train": parts, **more}


def _path(name: str, each: Flat) -> str:
    """The hub id or the file: `path: json, data_files: FILE` is how a mixture names one.

    Raises:
        Unfit: a recipe takes neither.
    """
    files = each.get("data_files")
    first = files[0] if isinstance(files, list) and len(files) == 1 else files
    if name in ("json", "parquet", "text") and isinstance(first, str):
        name = first
    elif first:
        raise Unfit(f"{first} is some of the files of {name}, and a recipe takes all of them", {"data.train": ROWS})
    if is_foreign(name) or not (name.endswith(FILES) or is_file(name) or HUB.fullmatch(name)):
        raise Unfit(f"{name} is neither a file that recipes take nor a data set of the hub", {"data.train": ROWS})
    return name


def _form(variant: Variant) -> Callable[..., Flat]:
    """The format. By the method, then by what carries loss."""
    forms = {"kto": "rated", "grpo": "prompts", **dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "reward"), "preference")}

    def make(answers: Value, completions: Value, field: Value) -> Flat:
        if variant.kind in forms:
            return {"data.format": forms[variant.kind]}
        if answers is True:
            return {"data.format": "chat"}
        if completions is True:
            return {"data.format": "completion"}
        if field not in (*_NOTHING, "text"):
            return {"data.format": "text", "data.columns.text": text(field)}
        unsaid = note(
            "no key says what the rows are: chats are taken for granted, of which every token carries loss in TRL; look at data.format"
        )
        return {"data.format": "chat", "data.train_on_prompt": True, **unsaid}

    return make


def _length(longest: Value, older: Value) -> Flat:
    found = longest if older in _NOTHING else older
    if found in _NOTHING:
        raise Unfit("rows are never cut; a recipe always has a length", {"data.max_length": 131_072})
    return {"data.max_length": whole(found)}
