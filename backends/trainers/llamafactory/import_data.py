"""LLaMA-Factory's data sets as the data section of a recipe. Part of import_keys.py.

A config names data sets; `dataset_info.json` says where each is, how its rows are written, and what its columns and tags are called
(data/parser.py at the pinned tag; data/converter.py says what becomes of them).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import NamedTuple

from backends.dialect import ROWS, ImportRow, Unfit, idle, note, text, unmodelled, whole
from backends.hf.import_arguments import NOTHING
from backends.mapping.rows import Flat, Value, Variant
from backends.recipe.paths import FILES, HUB, is_file, is_foreign

INFO = "dataset_info.json"
"""Beside the rows."""


def names(value: Value) -> list[str]:
    """Data sets of `dataset` or `eval_dataset`, which are written with commas."""
    if isinstance(value, str):
        return [part for each in value.split(",") if (part := each.strip())]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def section(name: str) -> str:
    """What a data set is called below `dataset_info`: a name without points, which part keys."""
    return re.sub(r"[^\w-]", "_", name)


def data(variant: Variant) -> tuple[ImportRow, ...]:
    """What it is trained on."""
    return (
        ImportRow(
            ("dataset", "eval_dataset", "dataset_dir", "dataset_info.*"),
            lambda *values: _rows(variant, *values),
            f"what {INFO} says of the data sets",
        ),
        ImportRow(("cutoff_len", "packing", "neat_packing"), lambda *values: _length(variant, *values)),
        ImportRow(("train_on_prompt",), lambda on: {"data.train_on_prompt": True} if on is True else {}),
        ImportRow(("template",), lambda word: _template(variant, word), "how messages become text"),
        ImportRow(("default_system",), lambda word: {"data.system": text(word)} if word not in NOTHING else {}),
        ImportRow(("val_size",), _split_off),
        ImportRow(("disable_shuffling",), lambda on: {"data.shuffle": False} if on is True else {}),
    )


class _Form(NamedTuple):
    """What the rows of a data set are."""

    leaves: Flat
    lost: dict[str, str]
    """Key of its entry, or empty for the data set as a whole -> what a recipe does not say."""


def _rows(variant: Variant, trained: Value, evaluated: Value, folder: Value, info: Value) -> Flat:
    wanted = names(trained)
    if not wanted:
        raise Unfit("no data set is named", {"data.train": ROWS, "data.format": _usual(variant)})
    entries = [_entry(each, folder, info) for each in (*wanted, *names(evaluated)[:1])]
    missing = [name for name, entry in zip(wanted, entries, strict=False) if entry is None]
    if missing:
        why = f"{', '.join(missing)} is in no {INFO} that is here: put the folder of dataset_dir beside the config"
        raise Unfit(why, {"data.train": ROWS, **_usual_leaves(variant)})
    forms = [_form(variant, entry or {}) for entry in entries]
    try:
        paths = [_path(entry or {}, folder) for entry in entries]
    except Unfit as unfit:
        raise Unfit(unfit.why, {"data.train": ROWS, **forms[0].leaves}) from None
    found = {**forms[0].leaves, **_sources(paths[: len(wanted)])}
    if not any(is_file(path) for path, _ in paths):
        found |= idle("dataset_dir", f"where {INFO} lies")
    found |= _lost(wanted, entries, forms)
    return found | _evaluation(names(evaluated), paths[len(wanted) :], forms[len(wanted) :], forms[0])


def _entry(name: str, folder: Value, info: Value) -> Mapping[str, Value] | None:
    """What `dataset_info.json` says of a data set; without that file the name is one of the hub's."""
    if folder == "ONLINE":
        return {"hf_hub_url": name}
    found = info.get(section(name)) if isinstance(info, dict) and section(name) in info else None
    return found if isinstance(found, dict) else None


def _lost(wanted: list[str], entries: list[Mapping[str, Value] | None], forms: list[_Form]) -> Flat:
    """What a recipe does not say of data sets, at the keys that say it."""
    out: Flat = {}
    whole_sets = list[str]()
    for name, entry, form in zip(wanted, entries, forms, strict=False):
        for key, why in form.lost.items():
            if key and key.partition(".")[0] in (entry or {}):
                out |= unmodelled(f"dataset_info.{section(name)}.{key}", why)
            else:
                whole_sets.append(f"{name}: {why}")
    if others := [name for name, form in zip(wanted, forms, strict=False) if form.leaves != forms[0].leaves]:
        whole_sets.append(f"{', '.join(others)}: rows of another form than {wanted[0]}, and a recipe has one")
    return out | (unmodelled("dataset", "; ".join(whole_sets)) if whole_sets else {})


def _sources(paths: list[tuple[str, str]]) -> Flat:
    if len(paths) > 1:
        return {"data.train": [{"path": path, "split": split, "weight": 1.0} for path, split in paths]}
    ((path, split),) = paths
    return {"data.train": path, **({} if is_file(path) else {"data.train_split": split})}


def _evaluation(wanted: list[str], paths: list[tuple[str, str]], forms: list[_Form], trained: _Form) -> Flat:
    """One set of rows of the same form."""
    if not wanted:
        return {}
    if not paths or forms[0].leaves != trained.leaves:
        return unmodelled("eval_dataset", "rows of another form than those for training")
    ((path, split),) = paths
    more = (
        unmodelled("eval_dataset", "several sets of rows for evaluation, of which a recipe names one") if len(wanted) > 1 else {}
    )
    return {"data.eval": path, **({} if is_file(path) else {"data.eval_split": split}), **more}


def _path(entry: Mapping[str, Value], folder: Value) -> tuple[str, str]:
    """The hub id or the file, and the split.

    Raises:
        Unfit: a recipe takes neither.
    """
    split = str(entry.get("split") or "train") if "split" in entry else "train"
    if "hf_hub_url" in entry:
        name = text(entry.get("hf_hub_url"))
    elif "file_name" in entry and not any(key in entry for key in ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")):
        name = posixpath.join(text(folder), text(entry.get("file_name")))
        if not name.endswith(FILES):
            raise Unfit(f"{name} is no file that recipes take: {', '.join(FILES)}")
    else:
        raise Unfit("rows of another hub, of a script or of a cloud: download them, and name the file in data.train")
    if is_foreign(name) or not (is_file(name) or HUB.fullmatch(name)):
        raise Unfit(f"{name} is neither a file that recipes take nor a data set of the hub")
    return name, split


_TAGS = {
    "role_tag": ("from", "role"),
    "content_tag": ("value", "content"),
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "system_tag": ("system",),
}
"""Words of messages that recipes read, the first is LLaMA-Factory's default."""
_MEDIA = ("images", "videos", "audios")


def _form(variant: Variant, entry: Mapping[str, Value]) -> _Form:
    """The format and the columns of a data set. Columns that are not named are absent as soon as one is (DatasetAttr.join)."""
    named = entry.get("columns") if "columns" in entry else None
    columns = named if isinstance(named, dict) else {}
    if media := [each for each in _MEDIA if each in columns]:
        return _Form(_usual_leaves(variant), {f"columns.{each}": "recipes have text alone" for each in media})
    formatting = entry.get("formatting") if "formatting" in entry else "alpaca"
    if formatting == "alpaca":
        form = _alpaca(variant, columns, named is None)
    elif formatting in ("sharegpt", "openai"):
        form = _chats(variant, columns, named is None, entry)
    else:
        form = _Form(_usual_leaves(variant), {"formatting": f"rows of a form of one's own: {formatting}"})
    if formatting == "openai":
        form.lost["formatting"] = "openai writes `detailed thinking off` into each system text"
    pairs, ranked = _usual(variant) == "preference", (entry.get("ranking") if "ranking" in entry else False) is True
    if pairs != ranked:
        form.lost["ranking"] = (
            "pairs without ranking: true are dropped" if pairs else "pairs, of which this stage reads no answer"
        )
    return form


def _word(columns: Mapping[str, Value], name: str, default: str) -> str:
    found = columns.get(name) if name in columns else None
    return str(found) if found else default


def _alpaca(variant: Variant, columns: Mapping[str, Value], unnamed: bool) -> _Form:
    """Columns for what is asked and for the answer; the second is joined to the first by a newline, as template: chat does it."""
    ask = _word(columns, "prompt", "instruction" if unnamed else "")
    more = _word(columns, "query", "input" if unnamed else "")
    answer = _word(columns, "response", "output" if unnamed else "")
    joined = {"columns.query": f"the column {more} is joined to {ask}"} if more else {}
    if variant.kind == "pretrain":
        return _Form({"data.format": "text", "data.columns.text": ask or "text"}, joined)
    lost = _system(columns)
    if "history" in columns:
        lost["columns.history"] = "earlier turns in a column of their own"
    if variant.kind != "sft":
        leaves, lacks = _answers(variant, columns, "prompt", ask, answer)
        return _Form({"data.format": _usual(variant), "data.template": "chat", **leaves}, lost | joined | lacks)
    said = {"instruction": ask, "input": more, "output": answer}
    leaves = {f"data.columns.{name}": column for name, column in said.items() if column}
    lost |= {} if answer else {"": "rows without an answer"}
    return _Form({"data.format": "instruct", "data.template": "chat", **leaves}, lost)


def _answers(variant: Variant, columns: Mapping[str, Value], asks: str, ask: str, answer: str) -> tuple[Flat, dict[str, str]]:
    """Columns of pairs, or of one answer with a verdict; `asks`: the recipe's column for what is asked."""
    if variant.kind == "kto":
        said = {asks: ask, **({"completion": answer} if asks == "prompt" else {}), "label": _word(columns, "kto_tag", "")}
        lacks = {} if said["label"] else {"": "rows without a verdict: kto_tag names its column"}
    else:
        said = {asks: ask, **{name: _word(columns, name, "") for name in ("chosen", "rejected")}}
        lacks = {} if said["chosen"] and said["rejected"] else {"": "rows without a better and a worse answer"}
    return {f"data.columns.{name}": column for name, column in said.items() if column}, lacks


def _system(columns: Mapping[str, Value]) -> dict[str, str]:
    """A recipe reads a system text and tools from the columns of these names alone."""
    names = {each: _word(columns, each, "") for each in ("system", "tools")}
    return {
        f"columns.{each}": f"stands in the column {name}: call it {each}"
        for each, name in names.items()
        if name not in ("", each)
    }


def _chats(variant: Variant, columns: Mapping[str, Value], unnamed: bool, entry: Mapping[str, Value]) -> _Form:
    """A column with messages, whose words are tags."""
    tags = entry.get("tags") if "tags" in entry else {}
    lost = _foreign_tags(tags if isinstance(tags, dict) else {}) | _system(columns)
    messages = _word(columns, "messages", "conversations" if unnamed else "")
    if not messages:
        return _Form(_usual_leaves(variant), {"columns": "no column with messages is named"})
    if variant.kind in ("sft", "pretrain"):
        plain = {"formatting": "chats of which all is learnt as plain text"} if variant.kind == "pretrain" else {}
        return _Form({"data.format": "chat", "data.columns.messages": messages}, lost | plain)
    leaves, lacks = _answers(variant, columns, "completion" if variant.kind == "kto" else "prompt", messages, "")
    return _Form({"data.format": _usual(variant), **leaves}, lost | lacks)


def _foreign_tags(tags: Mapping[str, Value]) -> dict[str, str]:
    """Words of messages that recipes do not read."""
    odd = {tag: tags.get(tag) for tag in _TAGS if tag in tags}
    return {
        f"tags.{tag}": f"messages with a word of their own, {word}"
        for tag, word in odd.items()
        if word not in (*_TAGS[tag], None)
    }


def _usual(variant: Variant) -> str:
    forms = {"kto": "rated", "sft": "instruct", "pretrain": "text"}
    return forms.get(variant.kind, "preference")


def _usual_leaves(variant: Variant) -> Flat:
    """Where nothing says what the rows are."""
    return {"data.format": _usual(variant), **({} if variant.kind == "pretrain" else {"data.template": "chat"})}


def _length(variant: Variant, longest: Value, packs: Value, neatly: Value) -> Flat:
    """Rows that are packed are one token shorter (DataArguments.__post_init__); a corpus is packed unless it is denied."""
    joined = packs is True or neatly is True
    found: Flat = {"data.max_length": whole(longest) - joined}
    if joined or (packs in NOTHING and variant.kind == "pretrain"):
        found["data.pack"] = True
    if neatly is True:
        found |= unmodelled("neat_packing", "rows in one sequence do not see each other; those of a recipe do")
    if variant.kind == "pretrain" and not joined and packs in NOTHING:
        return found | note("LLaMA-Factory cuts a corpus into pieces of cutoff_len; a recipe joins whole rows up to it")
    return found | note(
        "of a row longer than cutoff_len LLaMA-Factory cuts the end of prompt and answer; a recipe cuts the row's end"
    )


_SHIPPED = {"llama3": "llama-3", "gemma": "gemma", "qwen3_nothink": "chatml"}
"""Its template -> the one that recipes come with and that writes the same text."""


def _template(variant: Variant, word: Value) -> Flat:
    """`chatml` takes the place of the tokenizer's own template there too; of others only the text is LLaMA-Factory's (template.py)."""
    if word in NOTHING:
        return {}
    if variant.kind == "pretrain":
        return idle("template", "a corpus is plain text")
    name = text(word)
    if name == "chatml":
        return {"data.chat_template": "chatml"}
    near = f" (data.chat_template: {_SHIPPED[name]} writes the same for text)" if name in _SHIPPED else ""
    why = f"LLaMA-Factory's own text for {name}; the recipe takes the tokenizer's own template: see that it is the same{near}"
    raise Unfit(why)


def _split_off(size: Value) -> Flat:
    if size in (*NOTHING, 0):
        return {}
    if isinstance(size, float) and 0 < size < 1:
        return {"data.eval_share": size}
    raise Unfit("so many rows are for evaluation; a recipe holds out a share of them")
