"""axolotl's lists of data sets as the data section of a recipe. Part of import_keys.py."""

from __future__ import annotations

from collections.abc import Callable

from backends.dialect import ROWS, Unfit, text
from backends.mapping.rows import Flat, Value, Variant
from backends.recipe.flat import nest
from backends.recipe.paths import HUB, is_file

_NATIVE = "native.axolotl."

_FIELDS = (
    "path",
    "type",
    "type.*",
    "split",
    "data_files",
    "data_files.*",
    "ds_type",
    "field",
    "text_column",
    "field_messages",
    "field_chosen",
    "field_rejected",
    "roles_to_train*",
)


def keys(section: str) -> tuple[str, ...]:
    """Keys of each data set in a list that leaves say."""
    return (section, *(f"{section}.*.{field}" for field in _FIELDS))


def data(variant: Variant) -> Callable[..., Flat]:
    """The data section of one or several data sets."""

    def make(bare: Value, *values: Value) -> Flat:
        *_, sets, texts = values
        found = _items(texts if variant.kind == "pretrain" else sets)
        if not found and isinstance(bare, str):
            found = [{"path": bare, "type": "pretrain"}]
        if not found:
            raise Unfit("no data set is named: see to data.train", _stand_in([], variant))
        own = _verbatim(found, variant) if _is_hub(found) else {}
        try:
            forms, rows = [_form(each, variant) for each in found], _sources(found)
            if any(form != forms[0] for form in forms):
                raise Unfit("the data sets have rows of several formats, and a recipe has one")
        except Unfit as unfit:
            raise Unfit(f"{unfit.why}: see to data.train and data.format", _stand_in(found, variant) | own) from None
        return {**forms[0], **rows, **({} if all(map(_is_exact, found)) else own)}

    return make


def _items(sets: Value) -> list[Flat]:
    """Numbered keys as the list they come from."""
    if not isinstance(sets, dict):
        return []
    nested = nest(sets)
    return [value for value in nested.values() if isinstance(value, dict)]


def _stand_in(found: list[Flat], variant: Variant) -> Flat:
    """What is written for rows that a recipe cannot say."""
    pairs = dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "reward"), "preference")
    forms = {"pretrain": "text", "kto": "rated", "grpo": "prompts", **pairs}
    try:
        rows = _sources(found) if found else {"data.train": ROWS}
    except Unfit:
        rows = {"data.train": ROWS}
    return {"data.format": forms.get(variant.kind, "completion"), **rows}


def _verbatim(found: list[Flat], variant: Variant) -> Flat:
    """The list as it is. Rows to pre-train on are streamed, in place of those that axolotl is given by us."""
    if variant.kind == "pretrain":
        return {f"{_NATIVE}~datasets": None, f"{_NATIVE}pretraining_dataset": found}
    return {f"{_NATIVE}datasets": found}


def _is_hub(found: list[Flat]) -> bool:
    """None is a file of the user's, which has another place in a job. A word alone is a data set without owner."""
    paths = [str(each.get("path")) for each in found]
    return all(HUB.fullmatch(path) or (path.isalnum() and path.islower()) for path in paths)


def _sources(found: list[Flat]) -> Flat:
    if len(found) == 1:
        split = found[0].get("split")
        return {"data.train": _path(found[0]), **({"data.train_split": text(split)} if split else {})}
    return {"data.train": [{"path": _path(each), "split": str(each.get("split") or "train"), "weight": 1.0} for each in found]}


def _path(each: Flat) -> str:
    """The hub id or the file."""
    files = each.get("data_files")
    first = files[0] if isinstance(files, list) and len(files) == 1 else files
    name = text(first if isinstance(first, str) and not HUB.fullmatch(str(each.get("path"))) else each.get("path"))
    if is_file(name) or HUB.fullmatch(name):
        return name
    if "/" not in name:
        raise Unfit(f"{name} is a data set without owner, which a recipe cannot tell from a file")
    raise Unfit(f"{name} is neither a file that recipes take nor a data set of the hub")


def _form(each: Flat, variant: Variant) -> Flat:
    """Format and columns."""
    kind = each.get("type")
    if variant.kind in ("dpo", "ipo", "orpo", "simpo", "reward"):
        return {
            "data.format": "preference",
            **_columns({"chosen": each.get("field_chosen"), "rejected": each.get("field_rejected")}),
        }
    if variant.kind in ("kto", "grpo"):
        return {"data.format": "rated" if variant.kind == "kto" else "prompts"}
    if isinstance(kind, dict):
        return _own_prompt(kind)
    word = str(kind).partition(":")[0]
    if word in ("completion", "pretrain"):
        return {"data.format": "text", **_columns({"text": each.get("field") or each.get("text_column")})}
    if word == "chat_template":
        roles = each.get("roles_to_train")
        said = {"data.loss_roles": roles} if isinstance(roles, list) and roles != ["assistant"] else {}
        return {"data.format": "chat", **_columns({"messages": each.get("field_messages")}), **said}
    if word == "alpaca":
        return {"data.format": "instruct"}
    raise Unfit(f"{kind!r} rows have no format in a recipe")


def _own_prompt(kind: Flat) -> Flat:
    """Columns of the user's own, with a text around them."""
    named = {"prompt": kind.get("field_instruction"), "completion": kind.get("field_output")}
    if kind.get("format") not in (None, "{instruction}"):
        columns = {
            "instruction": kind.get("field_instruction"),
            "input": kind.get("field_input"),
            "output": kind.get("field_output"),
        }
        return {"data.format": "instruct", "data.template": text(kind["format"]), **_columns(columns)}
    return {"data.format": "completion", **_columns(named)}


def _columns(named: Flat) -> Flat:
    return {f"data.columns.{ours}": theirs for ours, theirs in named.items() if isinstance(theirs, str) and theirs != ours}


def _is_exact(each: Flat) -> bool:
    """backends/axolotl_data.py writes the same again."""
    return set(each) <= {"path", "type", "split", "field_messages", "field", "roles_to_train"} and each.get("type") in (
        "alpaca",
        "chat_template",
        "completion",
    )
