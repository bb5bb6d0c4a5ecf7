"""torchtune: components by dotted name, steps counted per epoch, no validation. No longer developed upstream.

Read beside it torchtune_method.py (which of upstream's recipes does what), torchtune_train.py and torchtune_data.py
(data.rendering: native).
Sources: https://github.com/pytorch/torchtune (recipes/full_finetune_single_device.py and its siblings).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from backends.backend import Backend, Progress, dialect_beside, judge
from backends.log_signs import EVERYWHERE, TORCH
from backends.mapping.data import DATA, shared_data
from backends.mapping.launch import LAUNCH, OFFLINE, ROUNDED, identity, resources, resume, torchrun
from backends.mapping.methods import grpo_idle
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
    handled_by_us,
    same,
)
from backends.metrics import Point
from backends.plan import Step
from backends.recipe.flat import defaults
from backends.records import replace
from backends.trainers.torchtune import data, method, train
from backends.trainers.torchtune.families import lacks
from backends.trainers.torchtune.memory import FOOTPRINT
from backends.trainers.torchtune.method import MANY, RECIPES, SEE, learns
from backends.trainers.torchtune.release import RELEASE
from backends.upstream.known_keys import KnownKeys

FULL = RECIPES + "full_finetune_single_device.py"
NO_EVAL = f"{RELEASE.named} has no validation"


def _model(variant: Variant) -> Row:
    """A named builder for models of the table, else one that reads the folder's config.json; with native data its tokenizer."""
    also = (
        *(("lora.json:model",) if variant.lora else ()),
        *(("ref_checkpointer.checkpoint_dir",) if method.upstream(variant, 1).startswith("full_dpo") else ()),
        *(("teacher_model.student",) if learns(variant) == "distill" else ()),
    )
    tokens = data.TOKENIZER_KEYS if variant.native else ()

    def to(folder: str, context: Context) -> Values:
        name = context.model.get("torchtune", "")
        if variant.lora and name:
            package, _, last = name.rpartition(".")
            name = f"{package}.lora_{last}"
        tokenizer = data.tokenizer(folder, context) if variant.native else ()
        return (folder, f"torchtune.models.{name}" if name else ABSENT, folder, folder, *(folder for _ in also), *tokenizer)

    row = model(
        theirs=("model.path", "model.builder", "checkpointer.checkpoint_dir", "export.json:model", *also, *tokens),
        to=to,
        shared=not variant.native,
        absent=("model.builder", "tokenizer._component_", "tokenizer.path", "tokenizer.merges_file"),
    )
    return replace(row, to=lambda *wish: _known(row, variant, *wish))


def _tokens(variant: Variant) -> Row:
    """model.tokens. torchtune's own tokenizers read the model's first files, and know special tokens of their own only."""
    lacks = "torchtune's own tokenizer reads none but the model's own; use data.rendering: shared" if variant.native else ""
    return tokens(lora=variant.lora, lacks=lacks, see=SEE + "torchtune/modules/transforms/tokenizers")


def _known(
    row: Row, variant: Variant, name: str, revision: str | None, init: str, facts: Flat | None, context: Context
) -> Values:
    """The row's values, if the model is one that our components build."""
    crossed = row.to(name, revision, init, facts, context)
    model = facts or context.model
    lack = lacks(model)
    if not lack and variant.lora and model.get("family") == "phi3":
        lack = f"{RELEASE.named} saves no adapter of phi3, whose q, k and v are one matrix; use method.adapter: none"
    if lack:
        raise Unsupported(
            "model.architecture" if facts else "model.id",
            lack,
            see=SEE + "torchtune/models",
            fallback=dict(zip(row.theirs, crossed, strict=True)),
        )
    return crossed


def _components(variant: Variant) -> tuple[Row, ...]:
    return (
        const(
            "model._component_",
            "tune_torchtune.lora_model" if variant.lora else "tune_torchtune.model",
            "builds the model of a Hugging Face folder, or the named builder",
        ),
        const(
            "checkpointer._component_",
            "tune_torchtune.checkpointer",
            "torchtune's own, with the files and type read from the folder",
        ),
        const("checkpointer.output_dir", "out", "in the job's folder"),
        const("checkpointer.model_type", "AUTO", "read from config.json"),
        const("output_dir", "out", "in the job's folder"),
        const("export.json:from", "torchtune", "whose checkpoint it is"),
        const("export.json:out", "checkpoint", "a folder in Hugging Face layout"),
    )


def _checkpoints(variant: Variant) -> tuple[Row, ...]:
    """torchtune saves at the end of an epoch only: the run is cut into as many of its epochs as checkpoints are wanted."""
    if variant.native:
        why = "torchtune saves at the end of each epoch of its own; use data.rendering: shared"
        return (
            cannot("checkpoint.every", why, see=FULL),
            cannot("checkpoint.keep", "torchtune keeps every checkpoint; use data.rendering: shared", see=FULL),
            resume(lambda _: ("never", why, FULL)),
        )
    keys = ("epochs", "dataset.parts", "export.json:trained", "checkpointer.every")
    return (
        couple(
            ("checkpoint.every",),
            keys,
            lambda every, context: _parts(every, context, keys),
            lambda *values: (values[-2],),
            why="torchtune saves at the end of an epoch: the steps are cut into that many",
            see=FULL,
        ),
        same("checkpoint.keep", "checkpointer.keep"),
        resume(lambda _: None),
    )


def _parts(every: int | None, context: Context, keys: Sequence[str]) -> Values:
    if every is None:
        return 1, 1, "out/epoch_0", None
    if context.steps is None or context.steps % every:
        raise Unsupported(
            "checkpoint.every",
            "torchtune saves at the end of an epoch: train.steps must be given and be a multiple",
            see=FULL,
            fallback=dict(zip(keys, (1, 1, "out/epoch_0", None), strict=True)),
        )
    parts = context.steps // every
    return parts, parts, f"out/epoch_{parts - 1}", every


def _around(variant: Variant) -> tuple[Row, ...]:
    """Evaluation, checkpoints, logs, and what has no leaf."""
    return (
        cannot("eval.every", NO_EVAL, see=FULL),
        cannot("eval.every_share", NO_EVAL, see=FULL),
        cannot("eval.batches", NO_EVAL, see=FULL),
        cannot("eval.patience", NO_EVAL, see=FULL),
        cannot("eval.on_start", NO_EVAL, see=FULL),
        *_checkpoints(variant),
        const("resume_from_checkpoint", False, "a retry is told the checkpoint"),
        handled_by_us("log.every", "we keep every n-th point of what is read"),
        const("log_every_n_steps", 1, "every step is checked"),
        *_logs(variant),
        const("log_peak_memory_stats", lambda context: context.accelerator == "cuda", "memory_gib; not on a CPU"),
        const("device", lambda context: context.accelerator, "the target's"),
    )


def _logs(variant: Variant) -> tuple[Row, ...]:
    """Our own logger: torchtune takes one, and this hands on to its others."""
    at = "metric_logger."
    return (
        same("log.trackers", f"{at}trackers"),
        same("log.project", f"{at}project"),
        same("log.run", f"{at}run"),
        same("log.mlflow_uri", f"{at}mlflow_uri"),
        OFFLINE,
        const(f"{at}log_dir", "out/logs", "in the job's folder"),
        const(f"{at}filename", "train.log", "a fixed name: torchtune's own has the time in it"),
        const(
            f"{at}summed_over",
            lambda context: context.devices if method.upstream(variant, context.devices) == f"lora_dpo{MANY}" else 1,
            "that recipe adds up the losses of its processes where it should average them",
            RECIPES + "lora_dpo_distributed.py",
        ),
    )


def _devices(variant: Variant) -> tuple[Row, ...]:
    """One process a device. All of upstream's recipes for several split the weights (FSDP2)."""
    see = RECIPES + f"full_finetune{MANY}.py"
    split = {"auto": True, "fsdp": True, "zero3": True, "zero2": False}
    switch = "fsdp_reshard_after_forward"

    def strategy(word: str, context: Context) -> Values:
        if method.upstream(variant, context.devices).endswith(MANY) and word in split:
            return split[word], word
        if context.devices > 1:
            why = "torchtune splits weights, gradients and optimizer state (fsdp, zero3), or the last two (zero2)"
            raise Unsupported("resources.strategy", why, see=see, fallback={switch: True, f"{LAUNCH}:strategy": "auto"})
        return ABSENT, word

    def devices(count: int, context: Context) -> Values:
        if learns(variant) == "distill" and context.devices > 1:
            raise Unsupported(
                "resources.devices",
                "torchtune's distillation on several devices logs the loss of one micro-batch of one of them, and does not clip",
                see=RECIPES + f"knowledge_distillation{MANY}.py",
            )
        return (count,)

    return (
        couple(("resources.devices",), (f"{LAUNCH}:devices",), devices, lambda count, _: (count,), status="same"),
        same("resources.hosts", f"{LAUNCH}:hosts"),
        couple(
            ("resources.strategy",),
            (switch, f"{LAUNCH}:strategy"),
            strategy,
            lambda _, word, _context: (word,),
            why="fsdp_reshard_after_forward: weights too",
            absent=(switch,),
        ),
        _tensor(variant),
        const(
            f"{LAUNCH}:accelerator", lambda context: context.accelerator, "upstream's recipes for several processes want a GPU"
        ),
    )


def _tensor(variant: Variant) -> Row:
    """Matrices shared by devices that stand side by side. torchtune's own plan leaves norms out, over which it cannot clip."""
    see = RECIPES + f"full_finetune{MANY}.py"
    if not method.shares(variant):
        return cannot(
            "resources.tensor",
            "of torchtune's recipes that of supervised fine-tuning of all weights alone shares matrices",
            see=see,
        )
    keys = (
        "tensor_parallel_dim",
        "tensor_parallel_plan._component_",
        "model.tensor",
        *(() if variant.native else ("dataset.tensor",)),
    )

    def to(count: int, _: Context) -> Values:
        if count == 1:
            return (ABSENT,) * len(keys)
        return (count, "tune_torchtune_tensor.plan", *(count for _ in keys[2:]))

    return couple(
        ("resources.tensor",),
        keys,
        to,
        lambda count, *_: (1 if count is ABSENT else count,),
        absent=keys,
        why="by a plan of ours that has the norms too; the devices of a group get the same rows",
        see=see,
    )


def _shared_data(variant: Variant) -> tuple[Row, ...]:
    """Rows of the data step, through a data set component."""
    made = "tune_torchtune.pairs" if learns(variant) == "dpo" else "tune_torchtune.rows"
    return (
        const("dataset._component_", made, "rows come from the data step, in its order"),
        *(_NO_EVAL.get(row.ours[0], row) for row in shared_data()),
        const("dataset.folder", "data", "made by the data step"),
        const("tokenizer._component_", "tune_torchtune.PadOnly", "torchtune reads nothing of it but the padding id"),
        const("shuffle", False, "the order is in the data step's file"),
        const("max_steps_per_epoch", None, "the data step fixes the number of steps"),
    )


def _no_eval() -> Row:
    def to(name: str | None, _split: str, _: Context) -> Values:
        if name is not None:
            raise Unsupported("data.eval", NO_EVAL, see=FULL, fallback={f"{DATA}:eval": None})
        return (None,)

    return couple(
        ("data.eval", "data.eval_split"),
        (f"{DATA}:eval",),
        to,
        lambda _v, _s: (None, defaults()["data.eval_split"]),
        status="same",
    )


_NO_EVAL = {"data.eval": _no_eval(), "data.eval_share": cannot("data.eval_share", NO_EVAL, see=FULL)}


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    version, _, description = identity()
    return (
        version,
        const("metric_logger._component_", "tune_torchtune.log", "where our metrics are read; hands on to the trackers"),
        same("name", "metric_logger.name"),
        description,
        *_components(variant),
        _model(variant),
        _tokens(variant),
        method.kind(variant),
        method.adapter(variant),
        *method.lora(variant),
        *method.losses(variant),
        *method.preference(variant),
        *grpo_idle(),
        *method.distill(variant),
        *method.qat(variant),
        *(data.native(variant) if variant.native else _shared_data(variant)),
        *train.train(variant),
        *_around(variant),
        *resources(*_devices(variant)),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Make what the recipe needs, train, export. The first process writes the checkpoint, so the first host exports it."""
    recipe = launch["recipe"]
    lora = (Step("lora", (python, "tune_lora.py", "lora.json")),) if not recipe.startswith("full") else ()
    teacher = (Step("teacher", (python, "tune_model.py", "teacher.json")),) if recipe.startswith("knowledge") else ()
    return (
        *teacher,
        *lora,
        Step("train", (*_program(launch, python), "run", recipe, "--config", "torchtune.yaml")),
        Step("export", (python, "tune_export.py", "export.json"), everywhere=False),
    )


def _program(launch: Flat, python: str) -> tuple[str, ...]:
    """torchtune's command, by module: the bare `tune` is also ours. Each process of torchrun starts it by itself."""
    module = ("-m", "torchtune._cli.tune")
    if not launch["recipe"].endswith(MANY):
        return (python, *module)
    processes = torchrun(python, launch["devices"], launch["hosts"])
    if len(processes) == 1:  # a recipe for several processes, with one
        processes = (python, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--standalone")
    return (*processes, *(("tune_torchtune_cpu.py",) if launch["accelerator"] == "cpu" else module))


_LINE = re.compile(r"^Step (\d+) \| (.*)$")
_NAMES = {"lr": "lr", "grad_norm": "grad_norm", "peak_memory_alloc": "memory_gib"} | {
    name: name
    for name in ("class_loss", "kd_loss", *(f"rewards/{each}" for each in ("chosen", "rejected", "accuracies", "margins")))
}


def read(reading: Mapping[str, Value], progress: Progress, line: str) -> list[Point]:
    """A line of its DiskLogger. The rate is the step's own (shims/tune_torchtune_log.py); tokens_per_second_per_gpu counts tokens
    with loss only, in DPO all tokens of both answers, padding too, and each as often as devices share a matrix.
    """
    found = _LINE.match(line)
    if not found or int(found[1]) <= progress.last:
        return []
    step = int(found[1])
    row = {name: float(value) for name, _, value in (pair.rpartition(":") for pair in found[2].split()) if name}
    if "loss" not in row:
        return []
    speed = row.get("tokens_per_second_per_gpu", 0.0) * reading.get("devices", 1) / reading.get("tensor", 1)
    progress.unlabelled |= speed == 0
    progress.step(step, row["loss"])
    counted = "tokens_per_second" if "rewards/chosen" in row else "loss_tokens_per_second"
    return [
        Point(step, "loss", row["loss"], "loss"),
        Point(step, counted, speed, "tokens_per_second_per_gpu"),
        *(Point(step, ours, row[native], native) for native, ours in _NAMES.items() if native in row),
    ]


TORCHTUNE = Backend(
    name="torchtune",
    package=RELEASE.pinned,
    title=RELEASE.named,
    requires=RELEASE.requires,
    config="torchtune.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_torchtune.py", "tune_torchtune_losses.py", "tune_torchtune_cpu.py", "tune_lora.py", "tune_export.py"),
    watch=("out/logs/train.log",),
    read=read,
    known_keys=KnownKeys.beside(__file__),
    dialect=dialect_beside(__name__),
    signs=(*EVERYWHERE, *TORCH),
    lacks=lacks,
    judge=judge,
    memory=FOOTPRINT,
    nf4="torchao",
    env={**ROUNDED, "TIKTOKEN_CACHE_DIR": ""},  # tiktoken remembers a vocabulary by its path, which is the same in every job
    resume={"resume_from_checkpoint": True},
    resumes_smaller=True,
)
