"""LLaMA-Factory's second form, which it calls v1 and starts by USE_V1=1: sections for what is exchangeable, and data sets in a YAML.

Sources: https://github.com/hiyouga/LLaMA-Factory (src/llamafactory/v1 at the pinned tag: config/*_args.py, core/base_trainer.py,
core/data_engine.py, plugins/model_plugins/peft.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from backends.command_line import DEVICES, HOSTS
from backends.dialect import (
    ROWS,
    Beside,
    ImportRow,
    Refused,
    Rule,
    Unfit,
    counted,
    idle,
    machine,
    note,
    number,
    text,
    unmodelled,
    whole,
)
from backends.hf import import_arguments as arguments
from backends.hf.import_arguments import NOTHING
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.native_config import NativeConfig, Unreadable, flat
from backends.native_config import read as read_yaml
from backends.recipe.paths import FILES, HUB, is_file, is_path

DEFAULTS: dict[str, Value] = {
    "flash_attn": "sdpa",
    "micro_batch_size": 1,
    "global_batch_size": None,
    "cutoff_len": 2048,
    "learning_rate": 1e-4,
    "num_train_epochs": 3,
    "max_steps": None,
    "max_grad_norm": 1.0,
    "bf16": True,
    "batching_strategy": "normal",
    "enable_activation_checkpointing": True,
    "seed": 42,
    "save_steps": None,
    "save_total_limit": None,
    "logging_steps": 1,
    "peft_config.r": 8,
    "peft_config.lora_alpha": 16,
    "peft_config.lora_dropout": 0.05,
    "peft_config.target_modules": "all",
    "peft_config.use_rslora": False,
    "peft_config.use_dora": False,
}
"""Key -> what v1 takes without it."""
_OWN = ("train_dataset", "peft_config.name", "dist_config.name", "kernel_config.name", "quant_config.name")


def sure(keys: Flat) -> str:
    """The model and v1's own sections."""
    found = next((key for key in _OWN if key in keys), "")
    return f"model = {keys['model']} and {found}" if isinstance(keys.get("model"), str) and found else ""


def resolve(config: NativeConfig, beside: Beside) -> NativeConfig:
    """The data sets of the YAML that `train_dataset` names, below `datasets`."""
    name = config.keys.get("train_dataset")
    found = beside(name) if isinstance(name, str) and name.endswith((".yaml", ".yml")) else None
    try:
        named = read_yaml(found).keys if found else {}
    except Unreadable:
        named = {}
    if not named:
        return config
    keys = {key: value for key, value in config.keys.items() if key != "train_dataset"}
    listed = flat({f"datasets.{key}": value for key, value in named.items()})
    return config.but({**keys, **listed}, f"train_dataset = {name}: the keys below datasets are from that file")


def shape(keys: Flat) -> Variant:
    """What is trained; the method is a word of the command line, and fine-tuning without one."""
    if not any(key == "train_dataset" or key.startswith("datasets.") for key in keys):
        raise Refused("this is not a training config: it has no train_dataset")
    kind = {"dpo": "dpo", "rm": "reward"}.get(str(keys.get("launch:command")), "sft")
    if keys.get("peft_config.name") != "lora":
        return Variant(kind, "none", native=False)
    if keys.get("quant_config.quantization_bit") == 4 and keys.get("quant_config.name") in ("bnb", "auto"):
        return Variant(kind, "qlora", native=False)
    return Variant(kind, "dora" if keys.get("peft_config.use_dora") is True else "lora", native=False)


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """The rows of this form."""
    return (
        ImportRow(("model",), lambda name: {"model.id": _model(text(name))}),
        *_adapter(variant),
        ImportRow(
            ("train_dataset", "datasets.*"), lambda name, listed: _rows(variant, name, listed), "what its file says of the rows"
        ),
        ImportRow(("template",), _template, "how messages become text"),
        ImportRow(("cutoff_len",), lambda n: {"data.max_length": whole(n)}),
        machine("micro_batch_size"),
        ImportRow(("micro_batch_size", "global_batch_size"), _batch, also=(DEVICES, HOSTS)),
        ImportRow(("num_train_epochs", "max_steps"), _duration),
        ImportRow(("learning_rate",), lambda n: {"optim.lr": number(n)}),
        ImportRow(("max_grad_norm",), lambda n: {"train.grad_clip": number(n) or None}),
        ImportRow(
            ("bf16",),
            lambda on: {"train.precision": "bf16" if on is True else "fp32"},
            "weights are in the type of the checkpoint",
        ),
        ImportRow(("enable_activation_checkpointing",), lambda on: {"train.activation_checkpointing": on is True}),
        ImportRow(("flash_attn",), _attention, "which kernel: the same result but for rounding"),
        ImportRow(("seed",), lambda n: {"train.seed": whole(n)}),
        ImportRow(("save_steps",), lambda n: {} if n in NOTHING else {"checkpoint.every": whole(n)}),
        ImportRow(("save_total_limit",), lambda n: {} if n in NOTHING else {"checkpoint.keep": whole(n)}),
        ImportRow(("logging_steps",), lambda n: {"log.every": whole(n)}),
        ImportRow(("dist_config.name",), _distributed, also=(DEVICES, HOSTS)),
        ImportRow((), lambda: _UNSAID),
    )


_UNSAID: Flat = {"optim.betas": [0.9, 0.999], "optim.eps": 1e-8, "optim.weight_decay": 0.01, "optim.schedule": "constant"}
"""torch's AdamW, at a constant rate (core/base_trainer.py), where no section says otherwise."""


def _model(name: str) -> str:
    return name if HUB.fullmatch(name) or is_path(name) else f"./{name}"


def _adapter(variant: Variant) -> tuple[ImportRow, ...]:
    kind = ImportRow(("peft_config.name", "quant_config.name", "quant_config.quantization_bit"), _tuning, "method.adapter")
    if not variant.lora:
        return (kind,)
    at = "peft_config."
    return (
        kind,
        ImportRow((f"{at}r",), lambda n: {"method.lora.rank": whole(n)}),
        ImportRow((f"{at}lora_alpha",), lambda n: {"method.lora.alpha": number(n)}),
        ImportRow((f"{at}lora_dropout",), lambda n: {"method.lora.dropout": number(n)}),
        ImportRow((f"{at}target_modules",), _targets),
        ImportRow((f"{at}use_rslora",), lambda on: {"method.lora.rank_stabilized": True} if on is True else {}),
        ImportRow((f"{at}use_dora",), lambda _: {}, "method.adapter"),
    )


def _tuning(name: Value, method: Value, bits: Value) -> Flat:
    if name not in ("lora", ABSENT, None):
        return unmodelled("peft_config.name", f"{name}, which recipes have no word for: the recipe trains all weights")
    if bits not in (4, ABSENT, None):
        return unmodelled("quant_config.quantization_bit", f"the base in {bits} bits by {method}; recipes have 4 bits (qlora)")
    return {}


def _targets(modules: Value) -> Flat:
    named = [modules] if isinstance(modules, str) else modules
    return {"method.lora.targets": arguments.ALL} if named == ["all"] else arguments.targets(named, {})


def _rows(variant: Variant, name: Value, listed: Value) -> Flat:
    usual = {"data.format": "chat" if variant.kind == "sft" else "preference"}
    sets = {key: each for key, each in listed.items() if isinstance(each, dict)} if isinstance(listed, dict) else {}
    if not sets:
        said = text(name)
        if said.endswith((".yaml", ".yml")):
            raise Unfit(f"{said} is not beside the config: put it there, or name data.train", {"data.train": ROWS, **usual})
        return {"data.train": said, **usual}
    forms = {key: each.get("converter") if "converter" in each else None for key, each in sets.items()}
    paths = [text(each.get("path")) for each in sets.values()]
    odd = [path for path in paths if not (path.endswith(FILES) or HUB.fullmatch(path))]
    if odd:
        raise Unfit(f"{', '.join(odd)}: no file that recipes take, and no data set of the hub", {"data.train": ROWS, **usual})
    splits = [str(each.get("split")) if "split" in each else "train" for each in sets.values()]
    parts = [{"path": path, "split": split, "weight": 1.0} for path, split in zip(paths, splits, strict=True)]
    alone = {"data.train": paths[0], **({} if is_file(paths[0]) else {"data.train_split": splits[0]})}
    found = {**_form(variant, next(iter(forms.values()))), **(alone if len(parts) == 1 else {"data.train": parts})}
    first = next(iter(forms.values()))
    for key in (key for key, each in forms.items() if each != first):
        found |= unmodelled(f"datasets.{key}.converter", "rows of another form than the first data set's, and a recipe has one")
    return found | _lost(forms)


def _form(variant: Variant, converter: Value) -> Flat:
    if variant.kind != "sft":
        return {"data.format": "preference"}
    if converter == "alpaca":
        return {"data.format": "instruct", "data.template": "chat"}
    return {"data.format": "chat", **({"data.columns.messages": "conversations"} if converter == "sharegpt" else {})}


def _lost(forms: Mapping[str, Value]) -> Flat:
    """v1 joins the input to the instruction with nothing between."""
    joined = "v1 joins instruction and input with nothing between them, the recipe with a newline"
    out: Flat = {}
    for key, converter in forms.items():
        if converter == "alpaca":
            out |= note(f"datasets.{key}: {joined}")
        elif converter is None:
            out |= note(f"datasets.{key}: rows in v1's own form, whose contents are lists of parts: write their texts as one")
    return out


def _template(word: Value) -> Flat:
    if word in NOTHING:
        return {}
    raise Unfit(f"LLaMA-Factory's own text for {word}; the recipe takes the tokenizer's own template: see that it is the same")


def _batch(one: Value, whole_batch: Value, devices: Value, hosts: Value) -> Flat:
    total = counted(devices, hosts) * whole(one) if whole_batch in NOTHING else whole(whole_batch)
    return {"train.batch.global": total, "train.batch.micro": whole(one)}


def _duration(epochs: Value, steps: Value) -> Flat:
    if steps not in NOTHING and whole(steps) > 0:
        return {"train.steps": whole(steps), **idle("num_train_epochs", "max_steps ends the run")}
    return {"train.epochs": whole(epochs)}


def _attention(word: Value) -> Flat:
    words = {"sdpa": "sdpa", "eager": "eager", "flash_attention_2": "flash", "flash_attention2": "flash"}
    if word not in words:
        raise Unfit(f"train.attention has no word for {word}")
    return {"train.attention": words[word]}


def _distributed(name: Value, devices: Value, hosts: Value) -> Flat:
    if name in NOTHING:
        return {}
    if re.match(r"fsdp2?$", str(name)):
        if counted(devices, hosts) > 1:
            return {"resources.strategy": "fsdp"}
        return note(f"{name} is for several devices: name resources.devices, and resources.strategy with them")
    raise Unfit(f"{name}: name resources.strategy")


_FOLDERS = "each job has a folder of its own"
RULES = (
    Rule("output_dir", "job", _FOLDERS),
    Rule("kernel_config.*", "kept", "memory and speed; the same result but for rounding"),
    Rule("dist_config.*", "kept", "how several devices share the work"),
    Rule("init_config.*", "kept", "how weights are loaded"),
    Rule("model_class", "kept", "a language model, as recipes train"),
    Rule("trust_remote_code", "kept", "code of the model's own, which recipes never run"),
    Rule("batching_*", "kept", "how rows are loaded and padded"),
    Rule("sample_backend", "kept", "of answering, not of training"),
    Rule("max_new_tokens", "kept", "of answering, not of training"),
    Rule("datasets.*.source", "kept", "where the rows lie, which their name says"),
    Rule("datasets.*", "unmodelled", "of a data set, with no recipe equivalent"),
    Rule("optim_config.*", "unmodelled", "another optimizer: the recipe has torch's AdamW"),
    Rule("lr_scheduler_config.*", "unmodelled", "another schedule: the recipe has a constant rate"),
    Rule("*", "unmodelled", "a key of LLaMA-Factory's with no recipe equivalent"),
)
KNOWN = (
    *DEFAULTS, "model", "model_class", "template", "trust_remote_code", "train_dataset", "eval_dataset", "output_dir", "batching_workers",
    "full_determinism", "resume_from_checkpoint", "save_epochs", "save_ckpt_as_hf", "sample_backend", "max_new_tokens", "datasets.*",
    *(f"{name}_config.*" for name in ("peft", "kernel", "quant", "init", "dist", "optim", "lr_scheduler")),
)  # fmt: skip
"""Keys of this form."""
