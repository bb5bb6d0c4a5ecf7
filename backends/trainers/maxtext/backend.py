"""MaxText: JAX on TPU, GPU and CPU; one flat YAML, sizes per device, schedules as shares of the steps.

Three loops: MaxText's own (`train_sft_native`, `pre_train.train`) for all weights, Tunix's for LoRA (`train_sft`) and for
preferences (`train_dpo`). What only the host knows (shape of the model, steps, absolute paths) is in job.yml, which
shims/tune_maxtext.py writes there and on which maxtext.yml is based.

Sources: https://github.com/AI-Hypercomputer/maxtext (src/maxtext/configs, trainers), google-tunix 0.1.7.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from backends.backend import Backend, Progress, dialect_beside, judge
from backends.mapping.data import DATA
from backends.mapping.launch import LAUNCH, identity, resources
from backends.mapping.methods import grpo_idle, no_qat
from backends.mapping.model import model, tokens
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
    const,
    couple,
    everywhere,
    same,
)
from backends.metrics import Point
from backends.plan import HEAD, PORT, RANK, Step
from backends.records import replace
from backends.trainers.maxtext.ahead import question
from backends.trainers.maxtext.around import around
from backends.trainers.maxtext.data import JOB, batch, native, shared
from backends.trainers.maxtext.method import (
    KINDS,
    SEE,
    adapter,
    adapts,
    converts,
    distill,
    lacks,
    module,
    preference,
)
from backends.trainers.maxtext.optimizer import optimizer
from backends.trainers.maxtext.release import RELEASE
from backends.trainers.maxtext.signs import SIGNS
from backends.upstream.known_keys import KnownKeys

_TYPES = SEE + "configs/types.py"
_CHECKPOINTS = SEE + "common/checkpointing.py"
_SPLIT = SEE + "utils/sharding.py"


def _model(variant: Variant) -> Row:
    """The Hugging Face folder: its weights are converted in a step of their own, its shape is read when job.yml is written."""
    also = ("lora.json:model",) if adapts(variant) else ()
    theirs = (f"{JOB}:model", "convert.json:model", "export.json:model", *also)
    row = model(theirs=theirs, to=lambda folder, _: (folder,) * len(theirs), shared=not variant.native)

    def to(*wish: Value) -> Values:
        crossed, facts, context = row.to(*wish), wish[3], wish[4]
        family = facts["family"] if facts else context.model.get("family", "llama")
        converts("model.id", family, dict(zip(row.theirs, crossed, strict=True)))
        return crossed

    return replace(row, to=to)


def _files(variant: Variant) -> tuple[Row, ...]:
    made = "made by the convert step"
    return (
        const("base_config", "job.yml", "what only the host knows; written there"),
        const("run_name", "run", "names a folder in the job's folder"),
        const(f"{JOB}:kind", lambda context: context.variant.kind, "chooses MaxText's own base config"),
        const(f"{JOB}:data", None if variant.native else "data", "made by the data step"),
        const(f"{JOB}:weights", "weights", made),
        const(f"{JOB}:lora", adapts(variant), "whether there is a start of LoRA"),
        const("convert.json:out", "weights", "an Orbax checkpoint"),
        const(
            "convert.json:lora", {"start": "lora/start.safetensors"} if adapts(variant) else None, "the same A and B everywhere"
        ),
        const("export.json:weights", "weights", made),
        const("export.json:trained", "out/run/checkpoints", "where MaxText leaves it"),
        const("export.json:out", "checkpoint", "a folder in Hugging Face layout"),
        *(() if adapts(variant) else (const("export.json:lora", None, "all weights were trained"),)),
    )


_FLOATS = {"fp32": ("float32", "float32", "highest"), "bf16": ("bfloat16", "bfloat16", "default")}
_FLOATS["bf16-mixed"] = ("bfloat16", "float32", "default")


def _precision(variant: Variant) -> Row:
    also = ("convert-teacher.json:dtype",) if variant.kind == "distill" else ()
    stored = ("grad_dtype", "mu_dtype", "convert.json:dtype", *also)
    used = (f"{JOB}:dtype",) if adapts(variant) else ()
    keys = ("dtype", "weight_dtype", "matmul_precision", *stored, *used)

    def to(value: str, _: Context) -> Values:
        if value not in _FLOATS:
            raise Unsupported(
                "train.precision", "MaxText has no loss scaling, which float16 needs", see=_TYPES, fallback=written("bf16-mixed")
            )
        return tuple(written(value).values())

    def written(value: str) -> Flat:
        dtype, weights, products = _FLOATS[value]
        return dict(zip(keys, (dtype, weights, products, *(weights for _ in stored), *(dtype for _ in used)), strict=True))

    def back(dtype: str, weights: str, products: str, *_: Value) -> Values:
        return (next(word for word, floats in _FLOATS.items() if floats == (dtype, weights, products)),)

    return couple(("train.precision",), keys, to, back, why="of arithmetic, weights, gradients and optimizer state")


_REMAT = {(False, False): "none", (True, False): "full", (False, True): "minimal_offloaded", (True, True): "minimal_offloaded"}


def _memory(recompute: bool, offload: bool, context: Context) -> Values:
    if offload and context.accelerator == "cpu":
        raise Unsupported(
            "train.offload",
            "on a CPU the activations are in main memory anyway",
            see=_TYPES,
            fallback={"remat_policy": _REMAT[recompute, False]},
        )
    return (_REMAT[recompute, offload],)


_KERNELS = {"auto": "autoselected", "eager": "dot_product"}
_FLASH = {"tpu": "flash", "cuda": "cudnn_flash_jax"}


def _attention(value: str, context: Context) -> Values:
    if value == "flash" and context.accelerator in _FLASH:
        return (_FLASH[context.accelerator],)
    if value not in _KERNELS:
        why = "MaxText has no flash attention on a CPU" if value == "flash" else "scaled_dot_product_attention is torch's"
        raise Unsupported("train.attention", why, see=SEE + "layers/attention_op.py", fallback={"attention": "autoselected"})
    return (_KERNELS[value],)


def _care() -> tuple[Row, ...]:
    """Memory, speed, precision."""
    kernels = {native: word for word, native in _KERNELS.items()}
    return (
        couple(
            ("train.grad_clip",),
            ("gradient_clipping_threshold",),
            lambda v, _: (v or 0.0,),
            lambda v, _: (v or None,),
            why="0 is no clipping",
        ),
        cannot("train.neftune_alpha", "MaxText looks embeddings up without noise", see=SEE + "layers/embeddings.py"),
        couple(
            ("train.activation_checkpointing", "train.offload"),
            ("remat_policy",),
            _memory,
            lambda v, _: (v == "full", v == "minimal_offloaded"),
            why="JAX recomputes by policy",
        ),
        couple(
            ("train.attention",),
            ("attention",),
            _attention,
            lambda v, _: (kernels.get(v, "flash"),),
            why="the kernel by its name",
        ),
        cannot("train.compile", "JAX always compiles", supported=(None, True), see=SEE + "trainers/pre_train/train.py"),
    )


_STRATEGIES = {
    "auto": (1, -1, False),
    "fsdp": (1, -1, False),
    "zero3": (1, -1, False),
    "ddp": (-1, 1, False),
    "zero1": (-1, 1, True),
}


def _hosts(variant: Variant) -> Row:
    """A process on each, which meet by JAX's own rules; the first gathers what was trained (shims/tune_maxtext_hosts.py)."""
    keys = (f"{JOB}:hosts", f"{LAUNCH}:hosts")
    lack = "rows that MaxText reads itself were not tried on several hosts; use data.rendering: shared" if variant.native else ""

    def to(count: int, _: Context) -> Values:
        if count > 1 and lack:
            raise Unsupported("resources.hosts", lack, kind="todo", see=_CHECKPOINTS, fallback=dict.fromkeys(keys, 1))
        return (count, count)

    return couple(("resources.hosts",), keys, to, lambda one, _two, _: (one,), why="a process on each host")


def _devices(variant: Variant) -> tuple[Row, ...]:
    """One process drives all devices of a host; how they share the work is a mesh."""
    keys = ("ici_data_parallelism", "ici_fsdp_parallelism", "shard_optimizer_over_data", f"{LAUNCH}:strategy")

    def strategy(word: str, _: Context) -> Values:
        if word not in _STRATEGIES:
            why = "MaxText splits the optimizer's state alone, or everything"
            fallback = dict(zip(keys, (*_STRATEGIES["fsdp"], "fsdp"), strict=True))
            raise Unsupported("resources.strategy", why, see=_TYPES, fallback=fallback)
        return *_STRATEGIES[word], word

    return (
        same("resources.devices", f"{JOB}:devices"),
        _hosts(variant),
        couple(("resources.strategy",), keys, strategy, lambda *values: (values[3],), why="axes of the mesh; -1 is what is left"),
        same("resources.tensor", "ici_tensor_parallelism"),
        const("dcn_data_parallelism", lambda context: context.slices, "each slice has all weights, and rows of its own"),
        const(
            "num_slices", lambda context: context.slices if context.hosts > 1 else ABSENT, "else JAX counts each process as one"
        ),
        const(f"{JOB}:slices", lambda context: context.slices if context.slices > 1 else ABSENT, "the target's"),
        const("sharding_tolerance", 1.0, "LoRA's A and B are not split; more of that than 2 % is refused otherwise", _SPLIT),
    )


_HARDWARE = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}


def _fixed() -> tuple[Row, ...]:
    """What has no leaf and a default that would matter."""
    return (
        const("dataset_type", "hf", "the base config's is synthetic"),
        const("use_tunix_gradient_accumulation", False, "the parts of a step that Tunix trains are taken from it by tune"),
        const("hardware", lambda context: _HARDWARE[context.accelerator], "the target's"),
        const("skip_jax_distributed_system", True, "several hosts meet before MaxText begins"),
        const(f"{JOB}:accelerator", lambda context: context.accelerator, "the target's"),
        const(f"{JOB}:block", lambda context: 1 if context.accelerator == "cpu" else 128, "kernels want whole blocks of tokens"),
        const("enable_dropout", False, "no setting asks for it"),
        const("dropout_rate", 0.0, "no setting asks for it"),
        const("z_loss_multiplier", 0.0, "no setting asks for it"),
        const("logits_dot_in_fp32", False, "in the precision of the rest"),
        const("cast_logits_to_fp32", True, "the loss is taken in float32"),
        const("tokenizer_type", "huggingface", "the model folder's"),
        const("grain_worker_count", 0, "no loader processes"),
        const("jax_cache_dir", lambda context: "" if context.accelerator == "cpu" else "cache/jax", "compiled programs"),
        const("abort_on_nan_loss", False, "we look at every loss, and end the run ourselves"),
        const("abort_on_inf_loss", False, "we look at every loss, and end the run ourselves"),
        const("log_config", False, "860 lines"),
    )


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    seeds = ("data_shuffle_seed", "init_weights_seed", *(() if variant.native else (f"{DATA}:seed",)))
    return (
        *identity(),
        _model(variant),
        tokens(adapts(variant)),
        *_files(variant),
        KINDS,
        *adapter(variant),
        *preference(variant.kind),
        *grpo_idle(),
        *distill(variant),
        *no_qat("never", "MaxText trains in int8, int4 or fp8 throughout: none has int4 beside int8", SEE + "configs/types.py"),
        *(native(variant) if variant.native else shared()),
        batch(variant),
        _precision(variant),
        everywhere("train.seed", *seeds, *(("lora.json:seed",) if adapts(variant) else ())),
        *_care(),
        *optimizer(),
        *around(variant),
        *resources(*_devices(variant)),
        *_fixed(),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Prepare, convert, train, export."""
    kind, adapted = launch["kind"], launch["adapter"] != "none"
    weights = "tune_maxtext_weights.py"
    where = (HEAD, PORT, RANK) if launch["hosts"] > 1 else ()
    return (
        *((Step("teacher", (python, "tune_model.py", "teacher.json")),) if kind == "distill" else ()),
        *((Step("lora", (python, "tune_lora.py", "lora.json")),) if adapted else ()),
        Step("prepare", (python, "tune_maxtext.py", JOB)),
        Step("convert", (python, weights, "convert.json")),
        *((Step("convert-teacher", (python, weights, "convert-teacher.json")),) if kind == "distill" else ()),
        Step("train", (python, "tune_maxtext.py", JOB, module(kind, launch["adapter"]), *where)),
        Step("export", (python, "tune_maxtext_export.py", "export.json"), everywhere=launch["hosts"] == 1),
    )


_BESIDE = {"class_loss": "learning/class_loss", "kd_loss": "learning/kd_loss"}
_BESIDE |= {"rewards/accuracies": "learning/reward_accuracy", "rewards/margins": "learning/reward_margin"}
_BESIDE |= {f"rewards/{side}": f"learning/reward_{side}" for side in ("chosen", "rejected")}
"""Beside the loss: what a distillation's consists of, the labels' and the teacher's; what preferences are learned by."""


def read(reading: Mapping[str, Value], progress: Progress, line: str) -> list[Point]:
    """A line of its metrics file: of a step, or of an evaluation.

    MaxText's loop counts steps from 0 and logs the rate that the step used, Tunix counts from 1 and logs the next step's;
    `counts_from` is ours (shims/tune_maxtext.py). Its speed counts padding, so that it is taken from the tokens with loss.
    """
    row = json.loads(line)
    step = int(row["step"]) + 1 - row["counts_from"]
    if "eval/total_loss" in row:
        return [Point(step, "eval_loss", row["eval/avg_loss"], "eval/avg_loss")] if step >= 0 else []
    if step <= progress.last:
        return []
    loss, tokens, seconds = row["learning/loss"], row["learning/total_weights"], row["perf/step_time_seconds"]
    lr = row["learning/current_learning_rate"]
    if row["counts_from"]:
        lr, progress.kept["lr"] = progress.kept.get("lr", reading["first_lr"]), lr
    progress.unlabelled |= tokens == 0
    progress.step(step, loss)
    norm = row.get("learning/raw_grad_norm", row.get("learning/grad_norm"))
    return [
        Point(step, "loss", loss, "learning/loss"),
        Point(step, "lr", lr, "learning/current_learning_rate"),
        Point(step, "loss_tokens_per_second", tokens / max(seconds, 1e-9), "learning/total_weights"),
        *([Point(step, "grad_norm", norm, "learning/grad_norm")] if norm is not None else []),
        *([Point(step, "memory_gib", row["memory_gib"], "peak_bytes_in_use")] if "memory_gib" in row else []),
        *(Point(step, name, row[key], key) for name, key in _BESIDE.items() if key in row),
    ]


MAXTEXT = Backend(
    name="maxtext",
    package=RELEASE.pinned,
    title=RELEASE.named,
    requires=RELEASE.requires,
    config="maxtext.yml",
    rows=rows,
    steps=steps,
    shims=("tune_maxtext.py", "tune_maxtext_rows.py", "tune_maxtext_weights.py", "tune_maxtext_export.py", "tune_lora.py"),
    watch=("out/metrics.jsonl",),
    read=read,
    known_keys=KnownKeys.beside(__file__),
    dialect=dialect_beside(__name__),
    signs=SIGNS,
    lacks=lacks,
    judge=judge,
    nf4="qwix",
    python="3.12",
    accelerators=("cpu", "cuda", "tpu"),
    resumes_smaller=True,
    resumes_over_hosts=True,
    ahead=question,
)
