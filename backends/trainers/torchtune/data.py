"""torchtune with data.rendering: native: its own data sets and tokenizers. Part of backend.py."""

from __future__ import annotations

from backends.mapping.data import COLUMNS, sources, unchecked
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
    couple,
    handled_by_us,
    same,
)
from backends.recipe.paths import is_hub
from backends.trainers.torchtune.method import RECIPES, SEE, learns
from backends.trainers.torchtune.release import RELEASE

_DATASETS = SEE + "torchtune/datasets/"
_NO_EVAL = f"{RELEASE.named} has no validation"
TOKENIZERS = {
    "llama2": ("llama2.llama2_tokenizer", {"path": "tokenizer.model"}),
    "llama3": ("llama3.llama3_tokenizer", {"path": "original/tokenizer.model"}),
    "mistral": ("mistral.mistral_tokenizer", {"path": "tokenizer.model"}),
    "gemma2": ("gemma.gemma_tokenizer", {"path": "tokenizer.model"}),
    "phi3": ("phi3.phi3_mini_tokenizer", {"path": "tokenizer.model"}),
    "qwen2": ("qwen2.qwen2_tokenizer", {"path": "vocab.json", "merges_file": "merges.txt"}),
    "qwen2_5": ("qwen2_5.qwen2_5_tokenizer", {"path": "vocab.json", "merges_file": "merges.txt"}),
}
"""Family of torchtune's -> its tokenizer component, and the files in a Hugging Face folder that this takes."""

TOKENIZER_KEYS = ("tokenizer._component_", "tokenizer.path", "tokenizer.merges_file")


def family(context: Context) -> str:
    """The package of torchtune's model; all Llama 3s share one tokenizer."""
    name = str(context.model.get("torchtune", "")).partition(".")[0]
    return "llama3" if name.startswith("llama3") else name


def tokenizer(folder: str, context: Context) -> Values:
    """Values of TOKENIZER_KEYS."""
    if family(context) not in TOKENIZERS:
        return ABSENT, ABSENT, ABSENT  # said under native.torchtune.tokenizer; its files have other names in each component
    component, files = TOKENIZERS[family(context)]
    merges = files.get("merges_file")
    return f"torchtune.models.{component}", f"{folder}/{files['path']}", f"{folder}/{merges}" if merges else ABSENT


_KEYS = (
    "_component_",
    "source",
    "data_files",
    "column_map",
    "conversation_column",
    "conversation_style",
    "column",
    "split_across_pack",
)
_MORE = ("train_on_input", "new_system_prompt")
_FORMS = {
    "instruct": "alpaca_dataset",
    "chat": "chat_dataset",
    "text": "text_completion_dataset",
    "completion": "instruct_dataset",
    "preference": "stack_exchange_paired_dataset",
}


def _source(name: str, path: str) -> Flat:
    if is_hub(name):
        return {"source": name}
    kind = "parquet" if name.endswith(".parquet") else "text" if name.endswith(".txt") else "json"
    return {"source": kind, "data_files": path}


def _columns(form: str, columns: Flat) -> Flat:
    """How this format's component names the columns."""
    if form == "chat":
        return {"conversation_column": columns["messages"], "conversation_style": "openai"}
    if form == "text":
        return {"column": columns["text"], "split_across_pack": False}
    if form == "completion":
        return {"column_map": {"input": columns["prompt"], "output": columns["completion"]}}
    names = ("instruction", "input", "output") if form == "instruct" else ("prompt", "chosen", "rejected")
    return {"column_map": {c: columns[c] for c in names}}


def _section(name: Value, form: str, columns: Flat, on_prompt: bool, system: str | None) -> Flat:
    """The `dataset` section; of a list, for its first data set."""
    if form not in _FORMS:
        raise Unsupported("data.format", f"{RELEASE.named} has no data set of {form} rows", see=_DATASETS)
    first = sources("data.train", name, "")[0]
    source = _source(str(first.get("hub", first.get("name"))), first.get("path", ""))
    more: Flat = {} if form in ("text", "preference") else {"train_on_input": on_prompt}
    more |= {"new_system_prompt": system} if form in ("chat", "completion") and system is not None else {}
    return {"_component_": f"torchtune.datasets.{_FORMS[form]}", **source, **_columns(form, columns), **more}


def _refuse(name: Value, form: str, system: str | None, keys: Flat) -> None:
    """What the section leaves out."""
    if isinstance(name, list):
        why = "torchtune joins data sets without weights; use data.rendering: shared"
        raise Unsupported("data.train", why, see=_DATASETS + "_concat.py", fallback=keys)
    if system is not None and "dataset.new_system_prompt" not in keys:
        why = f"torchtune's {_FORMS[form]} takes no system text; use data.rendering: shared"
        raise Unsupported("data.system", why, see=_DATASETS, fallback=keys)


def _files() -> Row:
    """The data set component of the format, with its own names for files and columns."""
    ours = ("data.train", "data.format", *(f"data.columns.{c}" for c in COLUMNS), "data.system", "data.train_on_prompt")
    named = (*_KEYS, *_MORE)
    keys = tuple(f"dataset.{key}" for key in named)

    def to(name: Value, form: str, *rest: Value) -> Values:
        *columns, system, on_prompt, _context = rest
        section = _section(name, form, dict(zip(COLUMNS, columns, strict=True)), on_prompt, system)
        wish = [name, form, *columns, system, on_prompt]
        written = {f"dataset.{key}": value for key, value in section.items()} | {f"{LAUNCH}:data": wish}
        _refuse(name, form, system, written)
        return *(section.get(key, ABSENT) for key in named), wish

    return couple(ours, (*keys, f"{LAUNCH}:data"), to, lambda *values: tuple(values[-2]), see=_DATASETS, absent=keys)


def _rendering(_value: str, context: Context) -> Values:
    if family(context) not in TOKENIZERS:
        raise Unsupported(
            "data.rendering",
            "torchtune has tokenizers for its own models only, and this model is none of them; use data.rendering: shared",
            see=SEE + "torchtune/models/",
            fallback={"tokenizer._component_": "tune_torchtune.PadOnly"},
            overridden_by=("tokenizer._component_",),
        )
    return ()


def _packed(variant: Variant) -> Row:
    if learns(variant) == "dpo":
        return cannot("data.pack", "torchtune packs no pairs", see=_DATASETS + "_preference.py")
    return same("data.pack", "dataset.packed")


def native(variant: Variant) -> tuple[Row, ...]:
    """The data section, read by torchtune itself; for models of the table."""
    return (
        _files(),
        same("data.train_split", "dataset.split"),
        cannot("data.eval", _NO_EVAL, see=RECIPES),
        handled_by_us("data.eval_split", "no validation"),
        cannot("data.eval_share", _NO_EVAL, see=RECIPES),
        cannot("data.template", "torchtune's alpaca text is fixed; chat formats are in its tokenizers", see=_DATASETS),
        cannot("data.loss_roles", "in torchtune's chats the assistant carries loss", see=_DATASETS),
        couple(
            ("data.rendering",),
            (),
            _rendering,
            lambda _: ("native",),
            status="approximated",
            why="torchtune's own template and tokenizer: the header before an answer carries loss",
            see=_DATASETS,
        ),
        same("data.max_length", "tokenizer.max_seq_len"),
        _packed(variant),
        cannot("data.add_eos", "torchtune always ends a row with the end token", see=_DATASETS),
        cannot("data.drop_empty", "torchtune keeps rows without loss tokens, in silence", see=_DATASETS),
        *unchecked(_DATASETS),
        couple(
            ("data.shuffle",),
            ("shuffle",),
            lambda v, _: (v,),
            lambda v, _: (v,),
            status="approximated",
            why="torchtune's order does not depend on train.seed: its sampler's seed is 0",
            see=RECIPES,
        ),
        couple(
            ("train.epochs", "train.steps"),
            ("epochs", "max_steps_per_epoch", "export.json:trained"),
            lambda epochs, steps, _: (epochs or 1, steps, f"out/epoch_{(epochs or 1) - 1}"),
            lambda epochs, steps, *_: (None if steps else epochs, steps),
            why="torchtune caps the steps of each epoch",
            see=RECIPES,
        ),
    )
