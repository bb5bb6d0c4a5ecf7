"""What a MaxText config says of its rows: which, how long, and when they are looked at. Part of import_keys.py."""

from __future__ import annotations

import math
from collections.abc import Callable

from backends.command_line import DEVICES, HOSTS
from backends.dialect import ROWS, ImportRow, Unfit, counted, idle, number, text, whole
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.recipe.paths import HUB, is_file
from backends.trainers.maxtext.data import COLUMNS
from backends.trainers.maxtext.defaults import DEFAULTS

_NATIVE = "native.maxtext."


def rows(variant: Variant) -> tuple[ImportRow, ...]:
    """What it is trained on, and for how long."""
    return (
        ImportRow(_DATA, _data(variant), "MaxText's loader of Hugging Face data"),
        ImportRow(
            ("hf_eval_split", "hf_eval_files", "eval_data_columns"),
            _evaluation,
            "and verbatim, since MaxText's own loader begins a second evaluation where the first one ended",
            also=("hf_path", "eval_interval", "dataset_type"),
        ),
        ImportRow(("eval_interval", "eval_steps"), _eval_steps, also=("hf_eval_split", "hf_eval_files")),
        ImportRow(("train_split",), lambda word: {"data.train_split": text(word)} if isinstance(word, str) else {}),
        ImportRow(("max_target_length",), lambda n: {"data.max_length": whole(n)}),
        ImportRow(("packing",), _packing(variant)),
        ImportRow(
            ("sft_train_on_completion_only",),
            lambda on: {"data.train_on_prompt": on is False} if variant.kind in ("sft", "distill") else {},
        ),
        ImportRow(("enable_data_shuffling",), lambda on: {"data.shuffle": on is not False}),
        ImportRow(
            ("add_eos",),
            lambda on, chats: {"data.add_eos": on is not False and variant.kind in ("pretrain", "distill") and chats is not True},
            also=("use_sft",),
        ),
        ImportRow(
            ("per_device_batch_size", "gradient_accumulation_steps"),
            per_device,
            "per device x accumulation x devices",
            also=(DEVICES, HOSTS),
        ),
        ImportRow(
            ("steps", "num_epoch"),
            lambda steps, _: {"train.steps": whole(steps)},
            "num_epoch repeats the rows, steps end the run",
        ),
    )


def _packing(variant: Variant) -> Callable[..., Flat]:
    def make(on: Value) -> Flat:
        if variant.kind in ("dpo", "orpo"):
            return {"data.pack": False, **idle("packing", "MaxText packs no pairs")}
        return {"data.pack": on is True}

    return make


def per_device(size: Value, times: Value, devices: Value = 1, hosts: Value = 1) -> Flat:
    """Sequences of a step."""
    one = number(size)
    if one < 1 or one != int(one):
        raise Unfit("a share of a sequence for each device", {"train.batch.global": 1, f"{_NATIVE}per_device_batch_size": size})
    return {"train.batch.global": int(one) * whole(times) * counted(devices, hosts), "train.batch.micro": int(one)}


def reinforced(variant: Variant) -> tuple[ImportRow, ...]:
    """What train_rl is trained on and for how long, in place of `rows`; an older program of MaxText's has no batch_size, and is
    told like the others. Source: trainers/post_train/rl/utils_rl.py.
    """
    plain, batches = _data(variant), ("num_batches", "rl.num_iterations", "train_fraction", "num_epoch")

    def rows_of(*values: Value) -> Flat:
        *data, subset, made, size = values
        if size is ABSENT:
            return plain(*data)
        name, files = (data[_DATA.index(key)] for key in ("dataset_name", "hf_train_files"))
        return _questions(name, files, subset, made)

    def steps(count: Value, *batched: Value) -> Flat:
        return {"train.steps": whole(count) if batched[0] is ABSENT else max(1, int(math.prod(map(number, batched))))}

    def prompts(size: Value, one: Value, times: Value, devices: Value, hosts: Value) -> Flat:
        return per_device(one, times, devices, hosts) if size is ABSENT else {"train.batch.global": whole(size)}

    return (
        ImportRow(
            (*_DATA, "hf_subset", "dataset_processor_path"), rows_of, "rows of the hub, made prompts", also=("batch_size",)
        ),
        ImportRow(("train_split",), lambda word: {"data.train_split": text(word)} if isinstance(word, str) else {}),
        ImportRow(("max_target_length",), lambda n: {"data.max_length": whole(n)}),
        ImportRow(("add_eos",), lambda _: {"data.add_eos": False}),
        ImportRow(("steps", *batches), steps, "batches x iterations x share x epochs"),
        ImportRow(
            ("batch_size", "per_device_batch_size", "gradient_accumulation_steps"),
            prompts,
            "prompts, each of which is answered several times",
            also=(DEVICES, HOSTS),
        ),
    )


def _questions(name: Value, files: Value, subset: Value, made: Value) -> Flat:
    leaves = {"data.format": "prompts", "data.columns.prompt": "question"}
    if not HUB.fullmatch(text(name)):
        raise Unfit(f"{name} is not a data set of the hub: name your rows in data.train", {"data.train": ROWS, **leaves})
    if files not in (ABSENT, None, ""):  # read in place of the data set, whose name says how prompts are made
        raise Unfit(f"{text(files)} are its rows: name files of yours in data.train", {"data.train": name, **leaves})
    if made not in (ABSENT, None, ""):
        raise Unfit(f"{made} makes prompts of the rows", {"data.train": name, **leaves})
    if subset not in (ABSENT, None, "", "main"):
        raise Unfit(f"{subset} is one of several configurations of the data set", {"data.train": name, **leaves})
    return {"data.train": name, **leaves}


_DATA = (
    "dataset_type",
    "hf_path",
    "hf_train_files",
    "train_data_columns",
    "dataset_path",
    "dataset_name",
    "grain_train_files",
)


def _data(variant: Variant) -> Callable[..., Flat]:
    def make(kind: Value, path: Value, files: Value, columns: Value, *others: Value) -> Flat:
        named = [text(each) for each in columns] if isinstance(columns, list) else [text(columns)]
        form, own = _format(variant, named), {f"{_NATIVE}train_data_columns": named}
        if kind != "hf":
            why, rows = _elsewhere(kind, *others)
            read = {} if kind == "synthetic" else {"hf_path": path, **dict(zip(_DATA[4:], others, strict=True))}
            raise Unfit(why, {"data.train": rows, **form, f"{_NATIVE}dataset_type": kind, **_carried(read)})
        if len(named) == 2 and variant.kind in ("dpo", "orpo"):
            why = "pairs without a column for the prompt, which both answers begin with: recipes have one"
            raise Unfit(why, {"data.train": _source(path, files), **form, **own})
        own = own if len(named) == 2 and tuple(named) not in COLUMNS else {}
        try:
            return {"data.train": _source(path, files), **form, **own}
        except Unfit as unfit:
            carried = {f"{_NATIVE}hf_path": path, **_carried({"hf_train_files": files})}
            raise Unfit(f"{unfit.why}: name your rows in data.train", {"data.train": ROWS, **form, **own, **carried}) from None

    return make


def _elsewhere(kind: Value, folder: Value, name: Value, grain: Value) -> tuple[str, str]:
    """Why rows that MaxText's Hugging Face loader does not read are no leaf, and what stands in for them."""
    if kind == "synthetic":
        return "tokens made up to measure speed: name your rows in data.train, and take native.maxtext.dataset_type away", ROWS
    if kind in ("tfds", "c4_mlperf") and "c4" in str(name):
        return "C4 as TFDS prepares it: the hub's stands in for it elsewhere", "allenai/c4"
    files = next((each for each in (grain, folder) if each not in (ABSENT, None, "")), "files")
    return f"{kind} reads {files} of its own form: name your rows in data.train for another trainer", ROWS


def _carried(keys: Flat) -> Flat:
    """Verbatim what is not MaxText's default."""
    usual = DEFAULTS.table
    return {f"{_NATIVE}{key}": value for key, value in keys.items() if value not in (ABSENT, None, "", usual.get(key))}


def _source(path: Value, files: Value) -> str:
    if files in (ABSENT, None, ""):
        name = text(path)
        if HUB.fullmatch(name):
            return name
        raise Unfit(f"{name} is not a data set of the hub")
    first = text(files)
    if "*" in first or first.startswith("gs://"):
        raise Unfit(f"{first} is several files, or not on this machine")
    if not is_file(first):
        raise Unfit(f"{first} is no file that recipes take")
    return first


def _format(variant: Variant, columns: list[str]) -> Flat:
    if variant.kind in ("dpo", "orpo"):
        named = dict(zip(("prompt", "chosen", "rejected"), columns[-3:], strict=False)) if len(columns) == 3 else {}
        return {"data.format": "preference", **_renamed(named)}
    if variant.kind == "grpo":
        return {"data.format": "prompts", **_renamed({"prompt": columns[0]})}
    if variant.kind == "pretrain":
        return {"data.format": "text", **_renamed({"text": columns[0]})}
    if len(columns) == 1 and columns[0] != "text":
        return {"data.format": "chat", **_renamed({"messages": columns[0]})}
    if len(columns) == 1:
        return {"data.format": "text"}
    return {"data.format": "completion", **_renamed({"prompt": columns[0], "completion": columns[1]})}


def _renamed(columns: dict[str, str]) -> Flat:
    return {f"data.columns.{ours}": theirs for ours, theirs in columns.items() if ours != theirs}


def _evaluates(interval: Value, split: Value, files: Value) -> bool:
    return isinstance(interval, int) and interval > 0 and bool((split not in (ABSENT, "")) or (files not in (ABSENT, "")))


def _evaluation(split: Value, files: Value, columns: Value, path: Value, interval: Value, kind: Value) -> Flat:
    if not _evaluates(interval, split, files):
        return {}
    given = {} if files in (ABSENT, None, "") else {"hf_eval_files": files}
    own = {f"{_NATIVE}{key}": value for key, value in {"hf_eval_split": split, "eval_data_columns": columns, **given}.items()}
    if kind != "hf":
        raise Unfit(f"evaluates on {kind} data", own)
    if given:
        return {"data.eval": _source(path, files), **own}
    return {"data.eval": _source(path, ""), "data.eval_split": text(split), **own}


def _eval_steps(interval: Value, batches: Value, split: Value, files: Value) -> Flat:
    if not _evaluates(interval, split, files):
        return {}
    return {
        "eval.every": whole(interval),
        **({"eval.batches": whole(batches)} if isinstance(batches, int) and batches > 0 else {}),
    }
