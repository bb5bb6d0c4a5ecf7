"""torchtune's data set components as the data section of a recipe. Part of import_keys.py."""

from __future__ import annotations

from backends.dialect import ROWS, Unfit, text
from backends.mapping.rows import ABSENT, Flat, Value
from backends.recipe.paths import is_file

_NATIVE = "native.torchtune."

_SETS: dict[str, tuple[str, dict[str, str]]] = {
    "alpaca_dataset": ("instruct", {"instruction": "instruction", "input": "input", "output": "output"}),
    "alpaca_cleaned_dataset": ("instruct", {"instruction": "instruction", "input": "input", "output": "output"}),
    "instruct_dataset": ("completion", {"input": "prompt", "output": "completion"}),
    "grammar_dataset": ("completion", {"input": "prompt", "output": "completion"}),
    "samsum_dataset": ("completion", {"dialogue": "prompt", "summary": "completion"}),
    "chat_dataset": ("chat", {}),
    "slimorca_dataset": ("chat", {}),
    "text_completion_dataset": ("text", {}),
    "wikitext_dataset": ("text", {}),
    "cnn_dailymail_articles_dataset": ("text", {}),
    "preference_dataset": ("preference", {"chosen": "chosen", "rejected": "rejected"}),
    "hh_rlhf_helpful_dataset": ("preference", {"chosen": "chosen", "rejected": "rejected"}),
    "stack_exchange_paired_dataset": ("preference", {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}),
    "the_cauldron_dataset": ("chat", {}),
    "gsm8k_dataset": ("prompts", {}),
}
"""Last part of a data set component -> our format, and its name for each column -> ours."""

_COLUMNS = {
    "stack_exchange_paired_dataset": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
    "slimorca_dataset": {"messages": "conversations"},
    "the_cauldron_dataset": {"messages": "texts"},
    "cnn_dailymail_articles_dataset": {"text": "article"},
    "wikitext_dataset": {"text": "page"},
    "gsm8k_dataset": {"prompt": "question"},
}
"""Columns that a component reads when no column_map says otherwise, where they have not our names."""

_OF_DEV = {"torchtune.dev.grpo.gsm8k.gsm8k_dataset": "openai/gsm8k"}
"""Component that no release has -> what it reads when nothing is said."""

_FOREIGN = {
    "slimorca_dataset": ("~conversation_column", "~conversation_style"),
    "the_cauldron_dataset": ("~conversation_column", "~conversation_style", "~train_on_input"),
}
"""Chats with a component of their own, and what backends/torchtune_data.py writes for chats that it does not take."""

KEYS = (
    *(f"dataset.{key}" for key in ("_component_", "source", "data_files", "column_map", "column", "train_on_input")),
    *(f"dataset.{key}" for key in ("conversation_column", "conversation_style", "new_system_prompt", "add_eos")),
    "dataset.column_map.*",
    "dataset",
    "datasets",
)


def data(*values: Value) -> Flat:
    """The data section of one data set."""
    own = dict(zip((key.removeprefix("dataset.") for key in KEYS), values, strict=True))
    own["column_map"] = own["column_map.*"]
    for many in ("dataset", "datasets"):
        if own[many] is not ABSENT:
            return _many(own[many])
    return _one(own)


def _one(own: Flat) -> Flat:
    name = str(own["_component_"]).rpartition(".")[2]
    if name not in _SETS:
        why = f"{own['_component_']} is no data set of torchtune's: name your rows in data.train, and their format"
        raise Unfit(why, {"data.train": ROWS, "data.format": "chat"})
    form, columns = _SETS[name]
    return {
        "data.train": source(own),
        "data.format": form,
        **_columns(name, form, columns, own),
        **(
            {"data.train_on_prompt": own["train_on_input"]}
            if isinstance(own["train_on_input"], bool) and form not in ("text", "preference")
            else {}
        ),
        **({"data.system": own["new_system_prompt"]} if own["new_system_prompt"] not in (ABSENT, None) else {}),
        **_odd(name, own),
    }


def _odd(name: str, own: Flat) -> Flat:
    """What a data set has besides: kept for torchtune itself, and told."""
    foreign = _FOREIGN.get(name, ())
    if own["conversation_style"] == "sharegpt" or foreign:
        return {f"{_NATIVE}dataset.{key}": None for key in foreign} | {f"{_NATIVE}dataset._component_": own["_component_"]}
    return {"data.add_eos": False} if own["add_eos"] is False else {}


def source(own: Flat) -> str:
    """The hub id, or the file."""
    name, files = own.get("source", ABSENT), own.get("data_files", ABSENT)
    if files in (ABSENT, None):
        return text(_OF_DEV.get(str(own["_component_"]), ABSENT) if name is ABSENT else name)
    first = files[0] if isinstance(files, list) and len(files) == 1 else files
    path = text(first)
    if name not in ("json", "parquet", "text") or not is_file(path):
        raise Unfit(f"{path} is read as {name}; recipes take .jsonl, .json, .parquet and .txt files")
    return path


def _columns(name: str, form: str, columns: dict[str, str], own: Flat) -> Flat:
    """Columns with other names than ours."""
    found = dict(_COLUMNS.get(name, {}))
    if isinstance(own["column_map"], dict):
        found |= {columns[key]: value for key, value in own["column_map"].items() if key in columns and isinstance(value, str)}
    if form == "chat" and isinstance(own["conversation_column"], str):
        found["messages"] = own["conversation_column"]
    if form == "text" and isinstance(own["column"], str):
        found["text"] = own["column"]
    return {f"data.columns.{ours}": theirs for ours, theirs in found.items() if theirs != ours}


def _many(sets: Value) -> Flat:
    """A list of data sets, joined; they must be of one kind."""
    if not isinstance(sets, list) or not sets or not all(isinstance(each, dict) for each in sets):
        raise Unfit("should be a list of data sets")
    whole_rows = [
        _one({**dict.fromkeys((key.removeprefix("dataset.") for key in KEYS), ABSENT), **_named(each)}) for each in sets
    ]
    first = {leaf: value for leaf, value in whole_rows[0].items() if leaf != "data.train"}
    if any({leaf: value for leaf, value in each.items() if leaf != "data.train"} != first for each in whole_rows):
        raise Unfit("the data sets have rows of several formats; a recipe has one")
    parts = [
        {"path": row["data.train"], "split": str(each.get("split", "train")), "weight": 1.0}
        for row, each in zip(whole_rows, sets, strict=True)
    ]
    return {**first, "data.train": parts}


def _named(each: Flat) -> Flat:
    """A data set of a list without component is that of the recipe for several: alpaca with images."""
    return {"_component_": "torchtune.datasets.multimodal.the_cauldron_dataset", **each} if "_component_" not in each else each
