"""What torchtune's components and keys mean in leaves, where backend.py writes another spelling of them."""

from __future__ import annotations

import re
from collections.abc import Callable

from backends.dialect import LONGEST, ImportRow, Unfit, counted, idle, machine, number, text, unmodelled, whole
from backends.mapping.model import model_folder
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.models import MODELS
from backends.recipe.paths import is_path
from backends.trainers.torchtune.import_data import KEYS, data
from backends.trainers.torchtune.import_grpo import CLIP, grpo

_NATIVE = "native.torchtune."


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """Import's own rows for a shape of config."""
    return (
        ImportRow(MODEL_KEYS, _model, "the hub's name, where a command of the comments or the folder says it"),
        ImportRow(CHECKPOINT_KEYS, _checkpoint, FOLDERS, also=MODEL_KEYS),
        *_method(variant),
        ImportRow(KEYS, data, "each of torchtune's data sets has its own rows"),
        ImportRow(("dataset.split",), lambda split: {} if split in (ABSENT, None) else {"data.train_split": split}),
        ImportRow(("dataset.packed",), _packed),
        ImportRow(
            ("tokenizer.max_seq_len",), _length, "where torchtune does not cut: the model's longest row", also=("launch:model",)
        ),
        ImportRow(TOKENIZER_KEYS, _tokenizer, "the model's own", also=MODEL_KEYS),
        ImportRow(("tokenizer.special_tokens_path",), _special_tokens, also=MODEL_KEYS),
        ImportRow(("tokenizer.prompt_template",), _no_template),
        ImportRow(("model.image_size", "tokenizer.image_size"), _images),
        ImportRow(("epochs", "max_steps_per_epoch"), _duration, "a cap of an epoch's steps"),
        ImportRow(BATCH_KEYS, _batch, "per device x accumulation x devices", also=("launch:devices", "launch:hosts")),
        ImportRow(("seed",), _seed, "null is another seed each time, for torchtune alone: others take the recipe's"),
        *_optimizer(),
        ImportRow(
            SCHEDULE_KEYS,
            _schedule,
            "torchtune's cosine ends at 0; without a scheduler the rate is constant",
            also=("max_steps_per_epoch", "epochs"),
        ),
        ImportRow(("optimizer_in_bwd",), _in_backward),
        ImportRow(("log_every_n_steps",), lambda every: {"log.every": 1 if every in (ABSENT, None) else whole(every)}),
        ImportRow(LOGGER_KEYS, _logger, "tune reads the metrics itself; the services are named"),
        ImportRow(("device",), _device),
        ImportRow(("compile",), _compile, "speed; the same result but for rounding"),
        machine("train.batch.global"),
    )


MODEL_KEYS = ("launch:model", "checkpointer.checkpoint_dir", "model._component_")
CHECKPOINT_KEYS = tuple(f"checkpointer.{key}" for key in ("_component_", "model_type", "checkpoint_files", "checkpoint_files.*"))
TOKENIZER_KEYS = tuple(f"tokenizer.{key}" for key in ("_component_", "path", "merges_file", "vocab_path", "merges_path"))
FOLDERS = "each job has a folder of its own, and the model's files are found in it"


def _checkpoint(path: Value, kind: Value, files: Value, numbered: Value, *model: Value) -> Flat:
    """torchtune's own reader, its name for the weights, and their files, of a model that the table does not know."""
    if not str(path).endswith("FullModelHFCheckpointer") or not _is_strange(*model):
        return {}
    names = {"_component_": path, "model_type": kind, "checkpoint_files": files if numbered is ABSENT else numbered}
    return {f"{_NATIVE}checkpointer.{key}": value for key, value in names.items()}


def _tokenizer(path: Value, *rest: Value) -> Flat:
    """torchtune's own, of a model that the table does not know; its files lie in the model's folder."""
    files, model = dict(zip(TOKENIZER_KEYS[1:], rest[:4], strict=True)), rest[4:]
    foreign = [key for key, file in files.items() if isinstance(file, str) and not _is_inside(file, model[1])]
    if path is not ABSENT and foreign:
        why = "a tokenizer from another folder than the model's, which a recipe takes"
        return {key: text for each in foreign for key, text in unmodelled(each, why).items()}
    if path is ABSENT or not _is_strange(*model):
        return {}
    places = {f"{_NATIVE}{key}": _place(file, *model) for key, file in files.items() if isinstance(file, str)}
    return {f"{_NATIVE}tokenizer._component_": path, **places}


def _is_inside(file: str, folder: Value) -> bool:
    """A file of the model's folder. `original` is Meta's form of the same model, in a folder of its own there."""
    start = re.sub(r"(/original)?/*$", "", text(folder)).removeprefix("./")
    return file.removeprefix("./").startswith(f"{start}/")


def _special_tokens(path: Value, *model: Value) -> Flat:
    if path in (ABSENT, None):
        return {}
    carry = {f"{_NATIVE}tokenizer.special_tokens_path": _place(text(path), *model)}
    raise Unfit("other special tokens than the model's own", carry)


def _place(file: str, model_id: Value, folder: Value, builder: Value) -> str:
    """Where a file of the model's folder is in a job; a file beside it is not there."""
    start = re.sub(r"^(\./)?(.*?)/*$", r"\2/", text(folder))
    return f"{model_folder('pretrained', _name(model_id, folder, builder), None, None)}/{file.removeprefix('./').removeprefix(start)}"


def _is_strange(model_id: Value, folder: Value, builder: Value) -> bool:
    """The table has not this builder for this model, so that backend.py cannot write what belongs to it."""
    return bool(_builder(_name(model_id, folder, builder), str(builder)))


def _model(model_id: Value, folder: Value, builder: Value) -> Flat:
    """The hub id that the comments give, else the table's by folder and builder, else the folder."""
    name = _name(model_id, folder, builder)
    unread = idle("checkpointer.checkpoint_dir", "launch:model says which model is in it") if isinstance(model_id, str) else {}
    return {"model.id": name, **_builder(name, str(builder)), **unread}


def _name(model_id: Value, folder: Value, builder: Value) -> str:
    path = text(folder)
    found = _today(model_id) if isinstance(model_id, str) else _known(path, str(builder))
    return found or (path if is_path(path) else f"./{path}")


def _today(name: str) -> str:
    """The hub's name of a model that was renamed there since: Meta-Llama-3.1 is Llama-3.1."""
    new = name.replace("/Meta-Llama-", "/Llama-")
    return new if new in MODELS and name not in MODELS else name


def _stem(builder: str) -> str:
    """`torchtune.models.llama3.qlora_llama3_8b` -> `llama3.llama3_8b`."""
    package, _, last = builder.removeprefix("torchtune.models.").rpartition(".")
    return f"{package}.{re.sub('^q?lora_', '', last)}"


def _known(path: str, builder: str) -> str:
    """The model that torchtune itself downloads to this folder. Any other folder holds whatever its owner put there."""
    start, _, last = re.sub(r"(/original)?/*$", "", path).rpartition("/")
    if start != DOWNLOADS:
        return ""
    last = last.replace("Meta-Llama-", "Llama-") if last not in {id.rpartition("/")[2] for id in MODELS} else last
    return next((m.id for m in MODELS.values() if m.id.rpartition("/")[2] == last and m.torchtune == _stem(builder)), "")


DOWNLOADS = "/tmp"  # noqa: S108  # torchtune's own default
"""Where `tune download` puts models, each in a folder of its name."""


def _builder(name: str, builder: str) -> Flat:
    """The builder verbatim, where the model table has none or another one for this model."""
    entry = MODELS.get(name)
    if not builder.startswith("torchtune.models.") or (entry and entry.torchtune == _stem(builder)):
        return {}
    plain = re.sub(r"\.qlora_(\w+)$", r".lora_\1", builder)
    if ".lora_" in plain:
        return {f"{_NATIVE}model._component_": "tune_torchtune.lora_model", f"{_NATIVE}model.builder": plain}
    ours = ("path", "builder") if entry else ("path",)  # arguments of our own component
    return {f"{_NATIVE}model._component_": plain, **{f"{_NATIVE}model.~{key}": None for key in ours}}


def _method(variant: Variant) -> tuple[ImportRow, ...]:
    """What chose the shape says method.kind and method.adapter; the rest of the method's keys."""
    second = ImportRow(
        ("launch:teacher", "teacher_checkpointer.checkpoint_dir", "teacher_model._component_", "kd_loss._component_"), _teacher
    )
    return (
        *(_lora() if variant.lora else ()),
        *(grpo() if variant.kind == "grpo" else ()),
        *((CLIP,) if variant.kind == "dpo" and not variant.lora else ()),
        ImportRow(("loss._component_",), lambda path: {} if variant.kind == "grpo" else _loss(path), "the method's own loss"),
        ImportRow(("model.quantize_base",), _quantized(variant), "method.adapter"),
        ImportRow(("model.use_dora",), lambda _: {}, "method.adapter"),
        *((second,) if variant.kind == "distill" else ()),
        ImportRow(("ref_checkpointer.checkpoint_dir",), _reference, also=("checkpointer.checkpoint_dir",)),
        ImportRow(("quantizer._component_", "quantizer.groupsize"), _quantizer),
    )


_LINEAR = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "output_proj": "o"}
_MLP = ["gate", "up", "down"]


def _lora() -> tuple[ImportRow, ...]:
    """Layers with an adapter, named in any order; two switches for the MLP and the head."""
    keys = ("model.lora_attn_modules", "model.apply_lora_to_mlp", "model.apply_lora_to_output")
    return (ImportRow(keys, _targets, "attention by name; the MLP's three together"),)


def _targets(modules: Value, mlp: Value, head: Value) -> Flat:
    if not isinstance(modules, list) or not all(isinstance(each, str) and each in _LINEAR for each in modules):
        raise Unfit("layers that method.lora.targets has no word for", {f"{_NATIVE}model.lora_attn_modules": modules})
    attention = [ours for native, ours in _LINEAR.items() if native in modules]
    targets = [*attention, *(_MLP if mlp is True else ()), *(["head"] if head is True else ())]
    return {"method.lora.targets": targets} if targets else {}


def _quantized(variant: Variant) -> Callable[..., Flat]:
    """QLoRA is an adapter of its own; DoRA over weights in 4 bits is none."""

    def make(on: Value) -> Flat:
        if variant.adapter == "dora" and on is True:
            raise Unfit(
                "DoRA over weights in 4 bits: method.adapter has no word for both", {f"{_NATIVE}model.quantize_base": True}
            )
        return {}

    return make


_LOSSES = ("CEWithChunkedOutputLoss", "LinearCrossEntropyLoss", "CrossEntropyLoss", "DPOLoss")


def _loss(path: Value) -> Flat:
    if path is not ABSENT and str(path).rpartition(".")[2] not in _LOSSES:
        raise Unfit(f"{path} is a loss that recipes have no method for")
    return {}


def _teacher(model_id: Value, folder: Value, _builder: Value, _loss: Value) -> Flat:
    path = text(folder)
    if model_id is not ABSENT:
        return {
            "method.distill.teacher": model_id,
            **idle("teacher_checkpointer.checkpoint_dir", "launch:model says which model is in it"),
        }
    return {"method.distill.teacher": path if is_path(path) else f"./{path}"}


def _reference(reference: Value, start: Value) -> Flat:
    if reference is not ABSENT and reference != start:
        raise Unfit("DPO compares with another model than the one it starts from; recipes compare with the start")
    return {}


def _quantizer(path: Value, group: Value) -> Flat:
    if path is ABSENT:
        return {}
    if not str(path).endswith(".Int8DynActInt4WeightQATQuantizer"):
        raise Unfit(f"{path} rounds in a way that method.qat.scheme has no word for")
    return {"method.qat.scheme": "int8-int4", "method.qat.group": 256 if group is ABSENT else whole(group)}


def _packed(value: Value) -> Flat:
    return {} if value is ABSENT else {"data.pack": value is True}


def _length(longest: Value, model_id: Value) -> Flat:
    """A recipe always cuts; where torchtune does not, it is at the model's longest row, and torchtune itself is left as it was."""
    if longest is not ABSENT and longest is not None:
        return {"data.max_length": whole(longest)}
    entry = MODELS.get(_today(model_id)) if isinstance(model_id, str) else None
    return {"data.max_length": entry.max_position if entry else LONGEST, f"{_NATIVE}tokenizer.max_seq_len": None}


def _no_template(value: Value) -> Flat:
    if value not in (ABSENT, None):
        raise Unfit("puts text of its own around each message", {f"{_NATIVE}tokenizer.prompt_template": value})
    return {}


def _images(model: Value, tokenizer: Value) -> Flat:
    """Told even at torchtune's default: the run is another without them."""
    sizes = {f"{_NATIVE}model.image_size": model, f"{_NATIVE}tokenizer.image_size": tokenizer}
    if found := {key: value for key, value in sizes.items() if value is not ABSENT}:
        raise Unfit("images: the model sees them besides text, and a recipe has text only", found)
    return {}


def _duration(epochs: Value, cap: Value) -> Flat:
    """Epochs, or steps where an epoch is cut short."""
    times = 1 if epochs is ABSENT else whole(epochs)
    return {"train.epochs": times} if cap in (ABSENT, None) else {"train.steps": times * whole(cap)}


BATCH_KEYS = ("batch_size", "gradient_accumulation_steps", "tensor_parallel_dim")


def _batch(one: Value, times: Value, tensor: Value, devices: Value, hosts: Value) -> Flat:
    micro, shared = whole(one), 1 if tensor in (ABSENT, None) else whole(tensor)
    copies = counted(devices, hosts)
    if shared < 1 or copies % shared:
        raise Unfit(f"{shared} devices for each matrix product do not divide {copies}")
    total = micro * (1 if times is ABSENT else whole(times)) * copies // shared
    return {"train.batch.global": total, "train.batch.micro": micro, **({"resources.tensor": shared} if shared > 1 else {})}


def _seed(value: Value) -> Flat:
    """Null is another seed each time, which no recipe says: torchtune keeps it, the others get a fixed one."""
    return {f"{_NATIVE}seed": None} if value is None else {} if value is ABSENT else {"train.seed": whole(value)}


_ADAM = {
    "torch.optim.AdamW": "adamw",
    "torchao.optim.AdamW8bit": "adamw_8bit",
    "bitsandbytes.optim.AdamW8bit": "adamw_8bit",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit",
    "bitsandbytes.optim.PagedAdamW": "adamw",
    "bitsandbytes.optim.AdamW": "adamw",
}


def _optimizer() -> tuple[ImportRow, ...]:
    """The optimizer, and what it takes."""
    switches = ("momentum", "nesterov", "amsgrad")
    return (
        ImportRow(tuple(f"optimizer.{key}" for key in ("_component_", *switches)), _optimizer_name),
        ImportRow(("optimizer.lr",), lambda value: {} if value is ABSENT else {"optim.lr": number(value)}),
        ImportRow(("optimizer.betas",), lambda value: {} if value is ABSENT else {"optim.betas": _pair(value)}, _TORCH),
        ImportRow(("optimizer.eps",), lambda value: {} if value is ABSENT else {"optim.eps": number(value)}, _TORCH),
        ImportRow(
            ("optimizer.weight_decay",), lambda value: {} if value is ABSENT else {"optim.weight_decay": number(value)}, _TORCH
        ),
        ImportRow(("optimizer.fused",), _fused, also=("optimizer._component_",)),
    )


_TORCH = "torch's default where the key is missing"


def _optimizer_name(path: Value, *switches: Value) -> Flat:
    name = "sgd" if path == "torch.optim.SGD" else _ADAM.get(str(path))
    if name is None:
        raise Unfit(f"optim.name has no word for {path}")
    if any(switch not in (ABSENT, None, False, 0) for switch in switches):
        raise Unfit("momentum, nesterov and amsgrad are not in a recipe")
    own = {f"{_NATIVE}optimizer._component_": path} if str(path).startswith("bitsandbytes.") else {}
    return {"optim.name": name, **own}


def _fused(value: Value, path: Value) -> Flat:
    """Of torch's own optimizers; the others have one kernel anyway, and take no such word."""
    return {"optim.fused": value is True and str(path).startswith("torch.optim.")}


def _pair(betas: Value) -> list[float]:
    if not isinstance(betas, list) or len(betas) != 2:
        raise Unfit(f"should be two numbers, got {betas!r}")
    return [number(each) for each in betas]


SCHEDULE_KEYS = (
    "lr_scheduler",
    *(f"lr_scheduler.{key}" for key in ("_component_", "num_warmup_steps", "num_cycles")),
)


def _schedule(_: Value, path: Value, warmup: Value, cycles: Value, cap: Value, epochs: Value) -> Flat:
    """torchtune's only schedule, or none."""
    if path is ABSENT:
        return {"optim.schedule": "constant"}
    if not str(path).endswith(".get_cosine_schedule_with_warmup"):
        raise Unfit(f"optim.schedule has no word for {path}")
    if cycles not in (ABSENT, 0.5):
        raise Unfit(f"a cosine of {cycles} waves; a recipe's has half a wave")
    return {"optim.schedule": "cosine", **_warmup(whole(warmup), cap, epochs)}


def _warmup(count: int, cap: Value, epochs: Value) -> Flat:
    total = None if cap in (ABSENT, None) else whole(cap) * (1 if epochs is ABSENT else whole(epochs))
    if total is not None and count > total:
        raise Unfit(
            f"{count} warm-up steps of {total}: the rate never gets to optim.lr",
            {"optim.schedule": "cosine", "optim.warmup_steps": total},
        )
    return {"optim.warmup_steps": count} if count else {}


def _compile(on: Value) -> Flat:
    """A recipe compiles where it pays, which is torchtune on CUDA: to have it off there is torchtune's own affair."""
    return {} if on is True else {f"{_NATIVE}compile": False}


def _in_backward(value: Value) -> Flat:
    return {} if value in (ABSENT, False) else {f"{_NATIVE}optimizer_in_bwd": value}


LOGGER_KEYS = tuple(
    f"metric_logger.{key}" for key in ("_component_", "project", "name", "experiment_name", "run_name", "tracking_uri")
)
_LOGGERS = {
    "DiskLogger": [],
    "StdoutLogger": [],
    "TensorBoardLogger": ["tensorboard"],
    "WandBLogger": ["wandb"],
    "MLFlowLogger": ["mlflow"],
}


def _logger(path: Value, project: Value, name: Value, experiment: Value, run: Value, uri: Value) -> Flat:
    """The services that get the metrics."""
    last = "DiskLogger" if path is ABSENT else str(path).rpartition(".")[2]
    if last not in _LOGGERS:
        raise Unfit(f"log.trackers has no word for {path}")
    services: list[str] = _LOGGERS[last]
    if not services:
        return {}
    named = {"log.project": project if "wandb" in services else experiment, "log.run": name if "wandb" in services else run}
    found = {
        leaf: value
        for leaf, value in {**named, "log.mlflow_uri": uri if "mlflow" in services else None}.items()
        if isinstance(value, str)
    }
    return {"log.trackers": services, **found}


def _device(value: Value) -> Flat:
    if value is ABSENT or str(value) not in ("cuda", "cpu"):
        raise Unfit(f"resources.accelerator has no word for {value!r}")
    return {"resources.accelerator": value}
