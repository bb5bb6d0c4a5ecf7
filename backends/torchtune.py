"""torchtune 0.6.1: components by dotted name, steps counted per epoch, no validation. No longer developed upstream.

Sources: https://github.com/pytorch/torchtune/tree/v0.6.1 (recipes/full_finetune_single_device.py, lora_finetune_single_device.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import Backend, Progress, judge
from backends.plan import Step
from backends.points import Point
from backends.report import Kind
from backends.rows import ABSENT, Flat, Lost, Row, Scene, Shape, cannot, const, couple, kept, same, usual, words
from backends.shapes import (
    COLUMNS,
    DATA,
    LAUNCH,
    batch_per_device,
    distill_idle,
    everywhere,
    grpo_idle,
    identity,
    input_path,
    is_hub,
    kinds,
    lora_idle,
    model,
    no_qat,
    no_trackers,
    one_device,
    preference_idle,
    resources,
    shared_data,
    warmup_steps,
)

_SEE = "https://github.com/pytorch/torchtune/blob/v0.6.1/"
FULL = _SEE + "recipes/full_finetune_single_device.py"
NO_EVAL = "torchtune 0.6.1 has no validation"

KINDS = kinds(
    "sft",
    lacks=dict.fromkeys(
        ("pretrain", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo", "distill"), ("todo", "not translated yet", FULL)
    ),
)

ADAPTER = words(
    "method.adapter",
    f"{LAUNCH}:recipe",
    {"none": "full_finetune_single_device", "lora": "lora_finetune_single_device"},
    otherwise={
        "qlora": ("todo", "torchtune's quantize_base is not translated yet"),
        "dora": ("todo", "use_dora is not translated yet"),
    },
    instead="lora_finetune_single_device",
    why="torchtune has a recipe for each adapter",
)


def _model(lora: bool, native: bool) -> Row:
    """A named builder for models of the table, else one that reads the folder's config.json; with native data its tokenizer."""
    also = ("lora.json:model",) if lora else ()
    tokens = ("tokenizer._component_", "tokenizer.path", "tokenizer.merges_file") if native else ()

    def to(folder: str, scene: Scene) -> Sequence[Any]:
        name = scene.model.get("torchtune", "")
        if lora and name:
            package, _, last = name.rpartition(".")
            name = f"{package}.lora_{last}"
        component, path, merges = _TOKENIZERS.get(_family(scene), ("", "", ""))
        tokenizer = (component or ABSENT, f"{folder}/{path}", f"{folder}/{merges}" if merges else ABSENT) if native else ()
        return (folder, f"torchtune.models.{name}" if name else ABSENT, folder, folder, *(folder for _ in also), *tokenizer)

    return model(
        theirs=("model.path", "model.builder", "checkpointer.checkpoint_dir", "export.json:model", *also, *tokens),
        to=to,
        shared=not native,
        absent=("model.builder", "tokenizer._component_", "tokenizer.merges_file"),
    )


_TOKENIZERS = {
    "llama3": ("torchtune.models.llama3.llama3_tokenizer", "original/tokenizer.model", ""),
    "qwen2_5": ("torchtune.models.qwen2_5.qwen2_5_tokenizer", "vocab.json", "merges.txt"),
}
"""Family -> tokenizer component and its files in a Hugging Face folder."""


def _family(scene: Scene) -> str:
    name = str(scene.model.get("torchtune", "")).partition(".")[0]
    return "llama3" if name.startswith("llama3") else name


def _components(lora: bool) -> tuple[Row, ...]:
    return (
        const(
            "model._component_",
            "tune_torchtune.lora_model" if lora else "tune_torchtune.model",
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


def _lora() -> tuple[Row, ...]:
    attention = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "output_proj"}
    mlp = ("gate", "up", "down")
    see = _SEE + "torchtune/models/llama3_2/_component_builders.py"

    def targets(wanted: list[str], scene: Scene) -> Sequence[Any]:
        chosen = [m for m in mlp if m in wanted]
        modules = [native for ours, native in attention.items() if ours in wanted]
        if chosen and len(chosen) < len(mlp):
            raise Lost(
                "method.lora.targets",
                f"apply_lora_to_mlp is gate, up and down together; {', '.join(chosen)} alone is not possible",
                see=see,
                instead={"model.lora_attn_modules": modules, "model.apply_lora_to_mlp": True, "lora.json:targets": wanted},
            )
        head = "head" in wanted
        if head and scene.model.get("tied"):
            raise Lost(
                "method.lora.targets",
                "the output embedding of this model is tied to the input; torchtune puts no adapter there",
                see=see,
                instead={
                    "model.lora_attn_modules": modules,
                    "model.apply_lora_to_mlp": bool(chosen),
                    "lora.json:targets": [t for t in wanted if t != "head"],
                },
            )
        return modules, bool(chosen), head or ABSENT, wanted

    def wanted(modules: list[str], all_mlp: bool, head: Any, *_: Any) -> Sequence[Any]:
        named = [t for t, native in attention.items() if native in modules]
        return ([*named, *(mlp if all_mlp else ()), *(("head",) if head is True else ())],)

    return (
        couple(
            ("method.lora.rank",), ("model.lora_rank", "lora.json:rank"), lambda v, _: (v, v), lambda v, *_: (v,), status="same"
        ),
        same("method.lora.alpha", "model.lora_alpha"),
        same("method.lora.dropout", "model.lora_dropout"),
        couple(
            ("method.lora.targets",),
            ("model.lora_attn_modules", "model.apply_lora_to_mlp", "model.apply_lora_to_output", "lora.json:targets"),
            targets,
            wanted,
            why="attention by name; the MLP's three together",
            see=see,
            absent=("model.apply_lora_to_output",),
        ),
        const("model.start", "lora/start.safetensors", "every trainer starts from the same A and B"),
        const("save_adapter_weights_only", False, "merged weights and the adapter"),
    )


def _parts(every: int | None, scene: Scene) -> Sequence[Any]:
    """torchtune saves at the end of an epoch only: the run is cut into as many of its epochs as checkpoints are wanted."""
    if every is None:
        return 1, 1, "out/epoch_0"
    single = {"epochs": 1, "dataset.parts": 1, "export.json:trained": "out/epoch_0"}
    if scene.steps is None or scene.steps % every:
        raise Lost(
            "checkpoint.every",
            "torchtune saves at the end of an epoch: train.steps must be given and be a multiple",
            see=FULL,
            instead=single,
        )
    parts = scene.steps // every
    return parts, parts, f"out/epoch_{parts - 1}"


def _schedule() -> tuple[Row, ...]:
    """Our own factory: torchtune has cosine only, and its recipes with LoRA insist on a schedule."""
    kind, warm = "lr_scheduler.kind", "lr_scheduler.warmup_steps"

    def warmup(steps: int | None, share: float | None, scene: Scene) -> Sequence[Any]:
        count = warmup_steps(scene.steps, steps, share)
        return (ABSENT, share) if count is None else (count, ABSENT)

    return (
        const(
            "lr_scheduler._component_",
            "tune_torchtune.schedule",
            "torchtune has only a cosine that ends at 0",
            _SEE + "torchtune/training/lr_schedulers.py",
        ),
        same("optim.schedule", kind),
        couple(
            ("optim.warmup_steps", "optim.warmup_share"),
            (warm, "lr_scheduler.warmup_share"),
            warmup,
            lambda count, share, _: (None if count is ABSENT else count, None if share is ABSENT else share),
            absent=(warm, "lr_scheduler.warmup_share"),
            why="a share is counted on the host when the steps are known there only",
        ),
    )


def _train(seeds: Sequence[str], also: Sequence[str]) -> tuple[Row, ...]:
    mixed: tuple[Kind, str] = ("never", "torchtune has no mixed precision: weights, gradients and optimizer share one type")
    return (
        batch_per_device("batch_size", "gradient_accumulation_steps", *also),
        words(
            "train.precision",
            "dtype",
            {"fp32": "fp32", "bf16": "bf16"},
            otherwise={"bf16-mixed": mixed, "fp16-mixed": mixed},
            instead="bf16",
            see=FULL,
        ),
        everywhere("train.seed", *seeds),
        same("train.grad_clip", "clip_grad_norm"),
        same("train.activation_checkpointing", "enable_activation_checkpointing"),
        same("train.offload", "enable_activation_offloading"),
        cannot("train.attention", "torchtune chooses its attention by itself", unless="auto", see=FULL),
        usual("train.compile", "compile", lambda scene: scene.accelerator == "cuda", "on for CUDA"),
        couple(
            ("optim.name", "optim.decay_on"),
            ("optimizer._component_", "optimizer.decay_on"),
            lambda _n, on, _s: ("torch.optim.AdamW", ABSENT) if on == "all" else ("tune_torchtune.adamw", on),
            lambda _path, on, _s: ("adamw", "all" if on is ABSENT else on),
            absent=("optimizer.decay_on",),
            status="same",
        ),
        usual("optim.fused", "optimizer.fused", lambda scene: scene.accelerator == "cuda", "on for CUDA"),
        couple(
            ("optim.lr", "optim.min_lr"),
            ("optimizer.lr", "lr_scheduler.min_ratio"),
            lambda lr, low, _: (lr, low / lr),
            lambda lr, ratio, _: (lr, lr * ratio),
            why="the schedule's factor ends at min_lr / lr",
        ),
        same("optim.betas", "optimizer.betas"),
        same("optim.eps", "optimizer.eps"),
        same("optim.weight_decay", "optimizer.weight_decay"),
        *_schedule(),
        *_around(shared=bool(also)),
    )


def _around(*, shared: bool) -> tuple[Row, ...]:
    """Evaluation, checkpoints, logs, and what has no leaf."""
    return (
        cannot("eval.every", NO_EVAL, see=FULL),
        cannot("eval.batches", NO_EVAL, see=FULL),
        couple(
            ("checkpoint.every",),
            ("epochs", "dataset.parts", "export.json:trained"),
            _parts,
            lambda _epochs, parts, _trained, scene: (None if parts == 1 else scene.steps // parts,),
            why="torchtune saves at the end of an epoch: the steps are cut into that many",
            see=FULL,
        )
        if shared
        else cannot(
            "checkpoint.every", "torchtune saves at the end of each epoch of its own; use data.rendering: shared", see=FULL
        ),
        cannot("checkpoint.keep", "torchtune keeps every checkpoint", see=FULL),
        cannot(
            "checkpoint.resume",
            "resuming torchtune is not translated yet",
            unless=False,
            kind="todo",
            instead={"resume_from_checkpoint": False},
        ),
        const("resume_from_checkpoint", False, "each attempt starts anew"),
        kept("log.every", "we keep every n-th point of what is read", 1),
        const("log_every_n_steps", 1, "every step is checked"),
        *no_trackers("todo", "trackers are not translated yet"),
        const("metric_logger._component_", "torchtune.training.metric_logging.DiskLogger", "where our metrics are read"),
        const("metric_logger.log_dir", "out/logs", "in the job's folder"),
        const("metric_logger.filename", "train.log", "a fixed name: torchtune's own has the time in it"),
        const("log_peak_memory_stats", lambda scene: scene.accelerator == "cuda", "memory_gib; not on a CPU"),
        const(
            "loss._component_",
            "torchtune.modules.loss.CEWithChunkedOutputLoss",
            "mean over all tokens with loss of the global batch",
        ),
        const("device", lambda scene: scene.accelerator, "the target's"),
    )


def _shared_data() -> tuple[Row, ...]:
    """Rows of the data step, through a data set component."""
    return (
        const("dataset._component_", "tune_torchtune.rows", "rows come from the data step, in its order"),
        *(row if row.ours[0] != "data.eval" else _no_eval() for row in shared_data()),
        const("dataset.folder", "data", "made by the data step"),
        const("tokenizer._component_", "tune_torchtune.PadOnly", "torchtune reads nothing of it but the padding id"),
        const("shuffle", False, "the order is in the data step's file"),
        const("max_steps_per_epoch", None, "the data step fixes the number of steps"),
    )


def _no_eval() -> Row:
    def to(name: str | None, _split: str, _: Scene) -> Sequence[Any]:
        if name is not None:
            raise Lost("data.eval", NO_EVAL, see=FULL, instead={f"{DATA}:eval": None})
        return (None,)

    return couple(("data.eval", "data.eval_split"), (f"{DATA}:eval",), to, lambda _v, _s: (None, "validation"), status="same")


_COLUMNS = ("instruction", "input", "output", "messages", "text")


def _native_rows() -> Row:
    """The data set component of the format, with its own names for files and columns."""
    see = _SEE + "torchtune/datasets/"
    ours = ("data.train", "data.format", *(f"data.columns.{c}" for c in _COLUMNS), "data.train_on_prompt")
    theirs = (
        "_component_",
        "source",
        "data_files",
        "column_map",
        "conversation_column",
        "conversation_style",
        "column",
        "train_on_input",
    )

    def to(name: str, form: str, *rest: Any) -> Sequence[Any]:
        columns, prompt = dict(zip(_COLUMNS, rest[:5], strict=True)), rest[5]
        kind = "parquet" if name.endswith(".parquet") else "text" if name.endswith(".txt") else "json"
        source = (name, ABSENT) if is_hub(name) else (kind, input_path("data.train", name))
        if form == "instruct":
            named = {c: columns[c] for c in ("instruction", "input", "output")}
            keys = ("torchtune.datasets.alpaca_dataset", *source, named, ABSENT, ABSENT, ABSENT, prompt)
        elif form == "chat":
            keys = ("torchtune.datasets.chat_dataset", *source, ABSENT, columns["messages"], "openai", ABSENT, prompt)
        else:
            keys = ("torchtune.datasets.text_completion_dataset", *source, ABSENT, ABSENT, ABSENT, columns["text"], ABSENT)
        return *keys, [name, form, *rest[:6]]

    keys = tuple(f"dataset.{key}" for key in theirs)
    return couple(ours, (*keys, f"{LAUNCH}:data"), to, lambda *values: tuple(values[-2]), see=see, absent=keys)


def _native_data() -> tuple[Row, ...]:
    """torchtune's own data sets and tokenizers, for models of the table."""
    see = _SEE + "torchtune/datasets/"

    def rendering(_value: str, scene: Scene) -> Sequence[Any]:
        if _family(scene) not in _TOKENIZERS:
            raise Lost(
                "data.rendering",
                "torchtune has tokenizers for its own models only, and this model is none of them; use data.rendering: shared",
                see=_SEE + "torchtune/models/",
                instead={"tokenizer._component_": "tune_torchtune.PadOnly"},
            )
        return ()

    return (
        _native_rows(),
        same("data.train_split", "dataset.split"),
        cannot("data.eval", NO_EVAL, see=FULL),
        kept("data.eval_split", "no validation", "validation"),
        *(kept(f"data.columns.{c}", "not for these rows", c) for c in COLUMNS[5:]),
        cannot("data.template", "torchtune's alpaca text is fixed; chat formats are in its tokenizers", see=see),
        kept("data.loss_roles", "todo", ["assistant"]),
        cannot("data.system", "torchtune's data sets take a system text from the rows", kind="todo", see=see),
        couple(
            ("data.rendering",),
            (),
            rendering,
            lambda _: ("native",),
            status="approximated",
            why="torchtune's own template and tokenizer: the header before an answer carries loss",
            see=see,
        ),
        same("data.max_length", "tokenizer.max_seq_len"),
        same("data.pack", "dataset.packed"),
        cannot("data.add_eos", "torchtune always ends a row with the end token", unless=True, see=see),
        cannot("data.drop_empty", "torchtune keeps rows without loss tokens, in silence", unless=False, see=see),
        couple(
            ("data.shuffle",),
            ("shuffle",),
            lambda v, _: (v,),
            lambda v, _: (v,),
            status="approximated",
            why="torchtune's order does not depend on train.seed: its sampler's seed is 0",
            see=FULL,
        ),
        couple(
            ("train.epochs", "train.steps"),
            ("epochs", "max_steps_per_epoch", "export.json:trained"),
            lambda epochs, steps, _: (epochs or 1, steps, f"out/epoch_{(epochs or 1) - 1}"),
            lambda epochs, steps, *_: (None if steps else epochs, steps),
            why="torchtune caps the steps of each epoch",
            see=FULL,
        ),
    )


def rows(shape: Shape) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    lora, native = shape.lora, shape.native
    seeds = ("seed", *(() if native else (f"{DATA}:seed",)), *(("lora.json:seed",) if lora else ()))
    return (
        *identity(),
        *_components(lora),
        _model(lora, native),
        KINDS,
        ADAPTER,
        *(_lora() if lora else (*lora_idle(), const("optimizer_in_bwd", False, "it excludes accumulation and clipping"))),
        *preference_idle(),
        *grpo_idle(),
        *distill_idle(),
        *no_qat("todo", "not translated yet"),
        *(_native_data() if native else _shared_data()),
        *_train(seeds, () if native else (f"{DATA}:batch",)),
        *resources(*one_device(FULL)),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Train and export. Never the bare `tune` command: torchtune's and ours have the same name."""
    recipe = launch["recipe"]
    lora = (Step("lora", (python, "tune_lora.py", "lora.json")),) if recipe.startswith("lora") else ()
    return (
        *lora,
        Step("train", (python, "-m", "torchtune._cli.tune", "run", recipe, "--config", "torchtune.yaml")),
        Step("export", (python, "tune_export.py", "export.json")),
    )


_LINE = re.compile(r"^Step (\d+) \| (.*)$")
_NAMES = {"grad_norm": "grad_norm", "peak_memory_alloc": "memory_gib"}


def read(reading: Mapping[str, Any], progress: Progress, line: str) -> list[Point]:
    """A line of its DiskLogger. The rate logged is the next step's; tokens_per_second_per_gpu counts tokens with loss only."""
    found = _LINE.match(line)
    if not found or int(found[1]) <= progress.last:
        return []
    step = int(found[1])
    row = {name: float(value) for name, _, value in (pair.rpartition(":") for pair in found[2].split()) if name}
    if "loss" not in row:
        return []
    lr = reading["first_lr"] if step == 1 else progress.kept.get("lr", reading["first_lr"])
    speed = row.get("tokens_per_second_per_gpu", 0.0)
    progress.unlabelled |= speed == 0
    progress.kept["lr"] = row.get("lr", lr)
    progress.step(step, row["loss"])
    return [
        Point(step, "loss", row["loss"], "loss"),
        Point(step, "lr", lr, "lr"),
        Point(step, "loss_tokens_per_second", speed, "tokens_per_second_per_gpu"),
        *(Point(step, ours, row[native], native) for native, ours in _NAMES.items() if native in row),
    ]


TORCHTUNE = Backend(
    name="torchtune",
    package="torchtune 0.6.1",
    requires="torchtune>=0.6.1,<0.7",
    config="torchtune.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_torchtune.py", "tune_lora.py", "tune_export.py"),
    watch=("out/logs/train.log",),
    read=read,
    judge=judge,
)
