"""axolotl's lists of data sets as the data section of a recipe. Part of import_keys.py."""

from __future__ import annotations

from collections.abc import Callable

from backends.dialect import ROWS, Unfit, text
from backends.mapping.data import input_path
from backends.mapping.rows import Flat, Value, Variant
from backends.recipe.paths import FILES, HUB, is_file, is_foreign
from backends.recording import plain
from backends.trainers.axolotl.import_forms import PAIRS, Form, of_pairs, of_rows, renewed

_NATIVE = "native.axolotl."
TRAIN, EVAL = "data.train", "data.eval"


def section(variant: Variant) -> str:
    """Where a config of this shape names its rows."""
    return "pretraining_dataset" if variant.kind == "pretrain" else "datasets"


def data(variant: Variant) -> Callable[..., Flat]:
    """The data section of one or several data sets."""
    at = section(variant)

    def make(bare: Value, listed: Value) -> Flat:
        found = _items(listed)
        if not found and isinstance(bare, str):
            found = [{"path": bare, "type": "pretrain"}]
        if not found:
            raise Unfit("no data set is named: see to data.train", _stand_in([], variant))
        own = _verbatim(found, variant)
        try:
            forms = [_form(each, f"{at}.{n}.", variant) for n, each in enumerate(found)]
            rows = _sources(found)
            if any(form.leaves() != forms[0].leaves() for form in forms):
                raise Unfit("the data sets have rows of several formats, and a recipe has one")
        except Unfit as unfit:
            raise Unfit(f"{unfit.why}: see to data.train and data.format", _stand_in(found, variant) | own) from None
        exact = all(_is_exact(each, form, variant) for each, form in zip(found, forms, strict=True))
        return {**forms[0].leaves(), **rows, **({} if exact else own)}

    return make


def _items(sets: Value) -> list[Flat]:
    """The list that numbered keys come from."""
    return [value for value in sets.values() if isinstance(value, dict)] if isinstance(sets, dict) else []


def _form(each: Flat, at: str, variant: Variant) -> Form:
    if variant.kind == "grpo":
        return Form("prompts", {})
    return of_pairs(each, at, variant) if variant.kind in (*PAIRS, "kto") else of_rows(each, at)


def _stand_in(found: list[Flat], variant: Variant) -> Flat:
    """What is written for rows that a recipe cannot say."""
    forms = {"pretrain": "text", "kto": "rated", "grpo": "prompts", **dict.fromkeys(PAIRS, "preference")}
    try:
        rows = _sources(found) if found else {TRAIN: ROWS}
    except Unfit:
        rows = {TRAIN: ROWS}
    return {"data.format": forms.get(variant.kind, "completion"), **rows}


def _verbatim(found: list[Flat], variant: Variant) -> Flat:
    """The list as it stands for axolotl itself, with the user's files where a job has them; nothing where one of them is no file
    that comes along. Rows to pre-train on are streamed, in place of those that axolotl is given by us.
    """
    many = len(found) > 1
    sets = [_placed(each, TRAIN, f"-{n}" if many else "", variant) for n, each in enumerate(found)]
    if None in sets:
        return {}
    if variant.kind == "pretrain":
        return {f"{_NATIVE}~datasets": None, f"{_NATIVE}pretraining_dataset": sets}
    return {f"{_NATIVE}datasets": sets}


def _placed(each: Flat, leaf: str, number: str, variant: Variant) -> Flat | None:
    """A data set as axolotl finds it in a job."""
    own = renewed(plain(each))
    try:
        name = _path(own)
    except Unfit:
        return own if _is_hub(own) else None
    if not is_file(name):
        return own
    path = input_path(leaf, name, number)
    form = next((word for end, word in ((".parquet", "parquet"), (".txt", "text")) if path.endswith(end)), "json")
    kind = {} if variant.kind in (*PAIRS, "kto") else {"ds_type": form}  # the schema of pairs has none: the file's name says it
    rest = {key: value for key, value in own.items() if key not in ("data_files", "ds_type")}
    return {**rest, "path": path, **kind, "split": each.get("split") or "train"}


def _is_hub(each: Flat) -> bool:
    """No file of the user's, which has another place in a job. A word alone is a data set without owner."""
    path, files = str(each.get("path")), each.get("data_files")
    named = (HUB.fullmatch(path) and not is_file(path) and not is_foreign(path)) or (
        path.isalnum() and path.islower() and not files
    )
    return bool(named) and path not in ("json", "csv", "parquet", "text", "arrow")


def _sources(found: list[Flat]) -> Flat:
    if len(found) == 1:
        split = found[0].get("split")
        return {TRAIN: _path(found[0]), **({"data.train_split": text(split)} if split else {})}
    return {TRAIN: [{"path": _path(each), "split": str(each.get("split") or "train"), "weight": 1.0} for each in found]}


def _path(each: Flat) -> str:
    """The hub id or the file.

    Raises:
        Unfit: it is neither, or a part of what the hub has.
    """
    path, files = str(each.get("path")), each.get("data_files")
    first = files[0] if isinstance(files, list) and len(files) == 1 else files
    if first and HUB.fullmatch(path) and not is_file(path):
        raise Unfit(f"{first} is one of the files of {path}, and a recipe takes all of them")
    if first and not isinstance(first, str):
        raise Unfit("several files under one name: a recipe names each in a list")
    name = text(first or each.get("path"))
    if is_foreign(name) or (is_file(name) and not name.endswith(FILES) and each.get("ds_type") not in (None, "json")):
        raise Unfit(f"{name} is no file that recipes take: {', '.join(FILES)}")
    if is_file(name) or HUB.fullmatch(name):
        return name
    if "/" not in name:
        raise Unfit(f"{name} is a data set without owner, which a recipe cannot tell from a file")
    raise Unfit(f"{name} is neither a file that recipes take nor a data set of the hub")


def _is_exact(each: Flat, form: Form, variant: Variant) -> bool:
    """data.py writes the same again."""
    fields = {"path", "type", "split", "field_messages", "field", "roles_to_train", "ds_type"}
    return form.exact and variant.kind != "grpo" and set(each) <= fields


def evaluated(variant: Variant) -> Callable[..., Flat]:
    """One set of rows for evaluation, of the same format as those for training; others stay axolotl's own."""

    def make(listed: Value, trained: Value) -> Flat:
        found, train = _items(listed), _items(trained)
        if not found:
            return {}
        many = len(found) > 1
        sets = [_placed(each, EVAL, f"-{n}" if many else "", variant) for n, each in enumerate(found)]
        own = (
            {}
            if any(each is None or str(each["path"]).startswith("inputs/") for each in sets)
            else {f"{_NATIVE}test_datasets": sets}
        )
        if many:
            raise Unfit("several sets of rows for evaluation, of which a recipe names one", own)
        try:
            form, path = _form(found[0], "test_datasets.0.", variant), _path(found[0])
            if not train or form.leaves() != _form(train[0], "test_datasets.0.", variant).leaves():
                raise Unfit("rows for evaluation of another format than those for training")
        except Unfit as unfit:
            raise Unfit(unfit.why, own) from None
        split = {"data.eval_split": text(found[0].get("split") or "train")}
        if is_file(path):
            return {EVAL: path, **split, **({} if form.exact else {f"{_NATIVE}test_datasets": sets})}
        return {EVAL: path, **split, **({} if _is_exact(found[0], form, variant) else {f"{_NATIVE}test_datasets": sets})}

    return make
