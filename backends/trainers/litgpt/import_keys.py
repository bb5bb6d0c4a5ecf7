"""What LitGPT's keys and classes mean in leaves, where backend.py writes another spelling of them."""

from __future__ import annotations

from backends.dialect import LONGEST, ROWS, ImportRow, Unfit, idle, number, text, whole
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.models import MODELS, ModelFacts
from backends.recipe.paths import HUB, is_path

_NATIVE = "native.litgpt."


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """Import's own rows for a command."""
    return (*(_pretraining() if variant.kind == "pretrain" else _finetuning(variant)), *_both(variant))


def _both(variant: Variant) -> tuple[ImportRow, ...]:
    pretrain = variant.kind == "pretrain"
    return (
        ImportRow(("seed",), lambda value: {"train.seed": whole(value)}),
        ImportRow(("data.init_args.seed",), _data_seed, also=("seed",)),
        ImportRow(("train.global_batch_size", "train.micro_batch_size"), _batch, "global over all devices, micro per device"),
        ImportRow(("precision",), _precision, "unset is bf16-mixed"),
        *_optimizer(),
        ImportRow(
            ("train.lr_warmup_steps",), lambda n: {"optim.schedule": "cosine", **({"optim.warmup_steps": whole(n)} if n else {})}
        ),
        ImportRow(("train.save_interval",), _saving),
        ImportRow(("train.log_interval",), lambda n: {"log.every": whole(n)}),
        ImportRow(("logger_name", "log.project", "log.run"), _logger, "tune reads the metrics itself; the service is named"),
        ImportRow(("devices",), _devices),
        ImportRow(("num_nodes",), lambda n: {"resources.hosts": whole(n)}),
        *((ImportRow(("train.max_norm",), lambda norm: {"train.grad_clip": number(norm)}),) if pretrain else ()),
    )


def _finetuning(variant: Variant) -> tuple[ImportRow, ...]:
    return (
        ImportRow(("launch:command",), _command, "chosen by the method"),
        ImportRow(("checkpoint_dir",), lambda folder: {"model.id": _name(folder)}, "where LitGPT keeps what it downloads"),
        *((ImportRow(("quantize",), _quantize, "method.adapter"),) if variant.lora else ()),
        ImportRow(DATA_KEYS, _data, "each of LitGPT's data sets has its own rows"),
        ImportRow(
            ("train.max_seq_length",), _length, "where LitGPT does not cut: the model's longest row", also=("checkpoint_dir",)
        ),
        ImportRow(("train.epochs", "train.max_steps"), _duration, "train.max_steps ends the run"),
        ImportRow(
            EVALUATION_KEYS,
            _evaluation,
            also=("data.init_args.json_path", "data.init_args.val_split_fraction"),
        ),
    )


def _command(word: Value) -> Flat:
    if str(word).startswith("finetune_adapter"):
        raise Unfit("trains LLaMA-Adapter's prompts, for which method.adapter has no word: lora stands in for them")
    return {}


def _name(folder: Value) -> str:
    """The hub id of a folder of LitGPT's; any other folder as it is."""
    path = text(folder).rstrip("/")
    tail = path.removeprefix("./").removeprefix("checkpoints/")
    if HUB.fullmatch(tail) and (tail != path or not is_path(path)):
        return tail
    found = next((m.id for m in MODELS.values() if tail in (m.litgpt, m.id.rpartition("/")[2])), "")
    return found or (path if is_path(path) else f"./{path}")


def _quantize(value: Value) -> Flat:
    """bitsandbytes's 4 bits; tune writes the doubly quantized one."""
    if value in (None, ABSENT, "bnb.nf4-dq"):
        return {}
    why = "LoRA over 8 bits" if "8" in str(value) else ""
    if why or value not in ("bnb.nf4", "bnb.fp4", "bnb.fp4-dq"):
        raise Unfit(why or f"method.adapter has no word for {value!r}", {f"{_NATIVE}quantize": value})
    return {f"{_NATIVE}quantize": value}


_SETS: dict[str, tuple[str, str, Flat]] = {
    "Alpaca": ("yahma/alpaca-cleaned", "instruct", {}),
    "Alpaca2k": ("mhenrichsen/alpaca_2k_test", "instruct", {}),
    "AlpacaGPT4": ("vicgalle/alpaca-gpt4", "instruct", {}),
    "Dolly": (
        "databricks/databricks-dolly-15k",
        "instruct",
        {"data.columns.input": "context", "data.columns.output": "response"},
    ),
}
"""Data set of LitGPT's -> the same rows on the hub, our format, columns with other names."""

_LOADED = ("Alpaca", "AlpacaGPT4", "Dolly")
"""Which come from a file of the net, and are the hub's but for the order."""

DATA_KEYS = (
    "data.class_path",
    "data.init_args.json_path",
    "data.init_args.repo_id",
)


def _data(path: Value, files: Value, repo: Value) -> Flat:
    """One of its instruction data sets, or a file or folder of the user's. The hub's id of one whose rows no recipe can name keeps
    LitGPT on its own class.
    """
    name = str(path).rpartition(".")[2]
    if name == "JSON":
        return {"data.format": "instruct", **_json(text(files))}
    if name not in _SETS:
        own = {
            f"{_NATIVE}data.class_path": path,
            f"{_NATIVE}data.init_args.~json_path": None,
            "data.train": repo if isinstance(repo, str) else ROWS,
            "data.format": "instruct",
        }
        raise Unfit(f"{path} has rows that a recipe cannot name: name your rows in data.train", own)
    hub, form, columns = _SETS[name]
    return {"data.train": hub, "data.format": form, **columns, f"{_NATIVE}data.class_path": path}


def _json(path: str) -> Flat:
    """A file; a folder has one for training and one for evaluation."""
    if path.endswith((".json", ".jsonl")):
        return {"data.train": path}
    folder = path.rstrip("/")
    place = folder if is_path(folder) else f"./{folder}"
    return {"data.train": f"{place}/train.json", "data.eval": f"{place}/val.json"}


def _length(longest: Value, folder: Value) -> Flat:
    """A recipe always cuts; where LitGPT does not, it is at the model's longest row, and LitGPT itself is left as it was."""
    if longest is not None and longest is not ABSENT:
        return {"data.max_length": whole(longest)}
    entry = MODELS.get(_name(folder))
    return {"data.max_length": entry.max_position if entry else LONGEST, f"{_NATIVE}train.max_seq_length": None}


def _duration(epochs: Value, steps: Value) -> Flat:
    if steps in (None, ABSENT):
        return {"train.epochs": whole(epochs)}
    return {"train.steps": whole(steps), f"{_NATIVE}train.epochs": whole(epochs)}


EVALUATION_KEYS = tuple(
    f"eval.{key}"
    for key in ("interval", "max_iters", "max_new_tokens", "initial_validation", "final_validation", "evaluate_example")
)


def _evaluation(*values: Value) -> Flat:
    """Leaves where there is a file for evaluation; LitGPT's own affair where it splits rows off."""
    *found, files, share = values
    is_folder = isinstance(files, str) and not files.endswith((".json", ".jsonl"))
    own = {f"{_NATIVE}{key}": value for key, value in zip(EVALUATION_KEYS, found, strict=True) if value is not ABSENT}
    if not is_folder or share not in (None, ABSENT):
        return own
    intervals = {"eval.every": whole(found[0]), "eval.batches": whole(found[1])}
    return intervals | {
        key: value for key, value in own.items() if key not in (f"{_NATIVE}eval.interval", f"{_NATIVE}eval.max_iters")
    }


def _saving(every: Value) -> Flat:
    """Every so many steps; LitGPT's default of 1000 is nobody's wish."""
    return {f"{_NATIVE}train.save_interval": every} if every in (None, 1000) else {"checkpoint.every": whole(every)}


def _data_seed(value: Value, seed: Value) -> Flat:
    """LitGPT has a second seed, for the split and the order."""
    return {} if value in (seed, ABSENT) else {f"{_NATIVE}data.init_args.seed": whole(value)}


def _batch(total: Value, micro: Value) -> Flat:
    """The micro-batch is native too where there are several in a step: LitGPT averages their means, and is left as it was."""
    own = {f"{_NATIVE}train.micro_batch_size": whole(micro)} if total != micro else {}
    return {"train.batch.global": whole(total), "train.batch.micro": whole(micro), **own}


_PRECISIONS = {"32-true": "fp32", "bf16-true": "bf16", "bf16-mixed": "bf16-mixed", "16-mixed": "fp16-mixed", None: "bf16-mixed"}


def _precision(value: Value) -> Flat:
    if not isinstance(value, str | None) or value not in _PRECISIONS:
        raise Unfit(f"train.precision has no word for {value!r}", {f"{_NATIVE}precision": value})
    return {"train.precision": _PRECISIONS[value]}


_OPTIMIZERS = {
    "torch.optim.AdamW": "adamw",
    "torch.optim.adamw.AdamW": "adamw",
    "torch.optim.SGD": "sgd",
    "bitsandbytes.optim.AdamW8bit": "adamw_8bit",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit",
}


def _optimizer() -> tuple[ImportRow, ...]:
    at = "optimizer.init_args."
    why = "torch's default where the key is missing"
    return (
        ImportRow(("optimizer.class_path",), _optimizer_name, "LitGPT's default is torch's AdamW"),
        ImportRow((f"{at}lr",), lambda value: {"optim.lr": number(value)}, why),
        ImportRow(
            (f"{at}betas", f"{at}betas.*"),
            lambda value, _: {} if value is ABSENT else {"optim.betas": [number(v) for v in value]},
            why,
        ),
        ImportRow((f"{at}eps",), lambda value: {} if value is ABSENT else {"optim.eps": number(value)}, why),
        ImportRow((f"{at}weight_decay",), lambda value: {} if value is ABSENT else {"optim.weight_decay": number(value)}, why),
        ImportRow((f"{at}fused",), lambda value: {"optim.fused": value is True}),
    )


def _optimizer_name(path: Value) -> Flat:
    if path not in _OPTIMIZERS:
        raise Unfit(f"optim.name has no word for {path}")
    return {"optim.name": _OPTIMIZERS[path]}


def _logger(name: Value, project: Value, run: Value) -> Flat:
    if name == "csv":
        return {}
    if name not in ("tensorboard", "wandb", "mlflow"):
        raise Unfit(f"log.trackers has no word for {name!r}")
    named = {leaf: value for leaf, value in (("log.project", project), ("log.run", run)) if isinstance(value, str)}
    return {"log.trackers": [name], **named}


def _devices(count: Value) -> Flat:
    if count in ("auto", -1):
        raise Unfit("as many devices as the machine has; a recipe says how many", {f"{_NATIVE}devices": count})
    return {"resources.devices": whole(count)}


_TEXTS: dict[str, Flat] = {
    "TinyStories": {"data.train": "roneneldan/TinyStories", "data.eval": "roneneldan/TinyStories"},
    "OpenWebText": {"data.train": "Skylion007/openwebtext"},
}


def _pretraining() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("initial_checkpoint_dir", "model_name"), _start, "its weights, or random ones of its sizes"),
        ImportRow(("data.class_path", "data.init_args.train_data_path"), _texts, "text, which tune turns into tokens"),
        ImportRow(
            ("train.max_tokens",),
            _steps,
            also=("train.global_batch_size", "train.max_seq_length", "model_name", "initial_checkpoint_dir"),
        ),
        ImportRow(
            ("train.max_seq_length",),
            lambda n, name, folder: {"data.max_length": _context(n, name, folder)},
            also=("model_name", "initial_checkpoint_dir"),
        ),
        ImportRow(("train.min_lr",), lambda value: {"optim.min_lr": number(value)}),
        ImportRow(("eval.interval", "eval.max_iters"), _text_evaluation, also=("data.class_path",)),
        ImportRow(("train.epochs", "train.max_steps"), lambda *_: {}, "pre-training counts tokens"),
        ImportRow(("train.tie_embeddings",), lambda *_: {}, "as the model's config.json says"),
        ImportRow(("data.init_args.num_workers",), lambda *_: {}, "tune's own rows are read without processes of their own"),
    )


def _start(folder: Value, name: Value) -> Flat:
    if isinstance(folder, str):
        return {"model.id": _name(folder), **idle("model_name", "the folder that it starts from says it")}
    entry = _entry(name)
    if entry is None or entry.family not in ("llama", "mistral", "qwen2", "qwen3"):
        raise Unfit(f"{name} is not in the model table, or of a family that recipes do not make at random")
    sizes = {
        key: getattr(entry, key)
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "layers",
            "heads",
            "kv_heads",
            "head_dim",
            "rope_theta",
            "norm_eps",
            "tied",
        )
    }
    family = "llama" if entry.family == "mistral" else entry.family
    shape = {**sizes, "family": family, "max_length": entry.max_position, "rope_theta": float(entry.rope_theta)}
    return {"model.id": entry.id, "model.init": "random", "model.architecture": shape}


def _entry(name: Value) -> ModelFacts | None:
    return next((m for m in MODELS.values() if name in (m.litgpt, m.id, m.id.rpartition("/")[2])), None)


def _texts(path: Value, files: Value) -> Flat:
    name = str(path).rpartition(".")[2]
    if name in _TEXTS:
        return {"data.format": "text", "data.pack": True, **_TEXTS[name]}
    if name == "TextFiles" and isinstance(files, str) and files.endswith((".txt", ".jsonl")):
        return {"data.format": "text", "data.pack": True, "data.train": files if is_path(files) else f"./{files}"}
    own = {"data.train": ROWS, "data.format": "text", "data.pack": True}
    raise Unfit(f"{path} reads a folder of its own making: name one file of text, or a hub id, in data.train", own)


def _context(longest: Value, name: Value, folder: Value) -> int:
    if longest not in (None, ABSENT):
        return whole(longest)
    entry = MODELS.get(_name(folder)) if isinstance(folder, str) else _entry(name)
    return entry.max_position if entry else LONGEST


def _steps(tokens: Value, batch: Value, longest: Value, name: Value, folder: Value) -> Flat:
    """Optimizer steps in which so many tokens are seen."""
    return {"train.steps": max(1, whole(tokens) // (whole(batch) * _context(longest, name, folder)))}


def _text_evaluation(every: Value, batches: Value, path: Value) -> Flat:
    if str(path).endswith(".TinyStories"):
        return {"eval.every": whole(every), "eval.batches": whole(batches)}
    return {}
