"""LitGPT 0.5.13: one flat YAML a command, a global batch, cosine with warm-up and nothing else.

Sources: https://github.com/Lightning-AI/litgpt/tree/v0.5.13 (litgpt/finetune/full.py, lora.py, args.py, data/json_data.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.base import Backend, Progress, judge
from backends.plan import Step
from backends.points import Point
from backends.rows import ABSENT, Flat, Lost, Row, Scene, Shape, cannot, const, couple, kept, same, usual, words
from backends.shapes import (
    COLUMNS,
    DATA,
    LAUNCH,
    batch_global,
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

_SEE = "https://github.com/Lightning-AI/litgpt/blob/v0.5.13/litgpt/"
FINETUNE = _SEE + "finetune/full.py"
NEVER = 1_000_000_000
"""An eval interval that no run reaches: LitGPT cannot switch evaluation off."""

KINDS = kinds(
    "sft",
    lacks=dict.fromkeys(
        ("pretrain", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo", "distill"), ("todo", "not translated yet", FINETUNE)
    ),
)

ADAPTER = words(
    "method.adapter",
    f"{LAUNCH}:command",
    {"none": "finetune_full", "lora": "finetune_lora"},
    otherwise={"qlora": ("todo", "LitGPT's quantize is not translated yet"), "dora": ("never", "LitGPT has no DoRA")},
    instead="finetune_lora",
    why="LitGPT has a command for each adapter",
)


def _model(*also: str, shared: bool = True) -> Row:
    """The Hugging Face folder becomes a LitGPT checkpoint in a step of its own. `also` are keys that get the folder."""
    return model(
        shared=shared,
        theirs=("convert.json:model", "convert.json:name", "export.json:model", *also),
        to=lambda folder, scene: (folder, scene.model.get("litgpt") or None, folder, *(folder for _ in also)),
    )


FILES = (
    const("convert.json:out", "lit", "LitGPT's own checkpoint format"),
    const("convert.json:precision", None, "as the weights are"),
    const("checkpoint_dir", "lit", "made by the convert step"),
    const("export.json:from", "litgpt", "whose checkpoint it is"),
    const("export.json:trained", "out/final", "where LitGPT leaves it"),
    const("export.json:out", "checkpoint", "a folder in Hugging Face layout"),
)


def _lora() -> tuple[Row, ...]:
    mlp = ("gate", "up", "down")
    switches = {"q": "lora_query", "k": "lora_key", "v": "lora_value", "o": "lora_projection", "head": "lora_head"}

    def alpha(value: float, _: Scene) -> Sequence[Any]:
        if value != int(value):
            raise Lost(
                "method.lora.alpha",
                f"lora_alpha is a whole number in LitGPT, {value} is none",
                see=_SEE + "finetune/lora.py",
                instead={"lora_alpha": round(value)},
            )
        return (int(value),)

    def targets(wanted: list[str], _: Scene) -> Sequence[Any]:
        chosen = [m for m in mlp if m in wanted]
        values = [t in wanted for t in switches]
        if chosen and len(chosen) < len(mlp):
            raise Lost(
                "method.lora.targets",
                f"lora_mlp is gate, up and down together; {', '.join(chosen)} alone is not possible",
                see=_SEE + "lora.py",
                instead={**dict(zip(switches.values(), values, strict=True)), "lora_mlp": True, "lora.json:targets": wanted},
            )
        return *values, bool(chosen), wanted

    def wanted(*values: Any) -> Sequence[Any]:
        *some, all_mlp, _, _ = values
        named = [t for t, on in zip(switches, some, strict=True) if on] + list(mlp if all_mlp else ())
        return ([t for t in ("q", "k", "v", "o", *mlp, "head") if t in named],)

    return (
        couple(("method.lora.rank",), ("lora_r", "lora.json:rank"), lambda v, _: (v, v), lambda v, *_: (v,), status="same"),
        couple(("method.lora.alpha",), ("lora_alpha",), alpha, lambda v, _: (float(v),), status="same"),
        same("method.lora.dropout", "lora_dropout"),
        couple(
            ("method.lora.targets",),
            (*switches.values(), "lora_mlp", "lora.json:targets"),
            targets,
            wanted,
            why="six switches; lora_mlp is gate, up and down together",
        ),
        const("convert.json:lora.start", "lora/start.safetensors", "every trainer starts from the same A and B"),
    )


def _warmup(steps: int | None, share: float | None, scene: Scene) -> Sequence[Any]:
    count = warmup_steps(scene.steps, steps, share)
    see = _SEE + "finetune/lora.py#L494"
    if count is None:
        raise Lost(
            "optim.warmup_share",
            "LitGPT wants warm-up in steps; give optim.warmup_steps, or train.steps",
            see=see,
            instead={"train.lr_warmup_steps": 1},
        )
    if count == 0:
        raise Lost(
            "optim.warmup_steps",
            "LitGPT divides by the warm-up steps; give 1 or more (step 1 then has learning rate 0)",
            see=see,
            instead={"train.lr_warmup_steps": 1},
        )
    if count == scene.steps:
        raise Lost(
            "optim.warmup_steps",
            "LitGPT divides by the steps after the warm-up; give fewer than train.steps",
            see=see,
            instead={"train.lr_warmup_steps": max(1, count - 1)},
        )
    return (count,)


def _train(seeds: Sequence[str], shared: bool) -> tuple[Row, ...]:
    lora = "LitGPT saves no optimizer state with an adapter"
    return (
        batch_global("train.global_batch_size", "train.micro_batch_size", f"{DATA}:batch") if shared else _unweighted_batch(),
        words(
            "train.precision",
            "precision",
            {"fp32": "32-true", "bf16": "bf16-true", "bf16-mixed": "bf16-mixed", "fp16-mixed": "16-mixed"},
        ),
        everywhere("train.seed", *seeds),
        cannot("train.grad_clip", "LitGPT's fine-tuning has no gradient clipping and refuses train.max_norm", see=FINETUNE),
        cannot(
            "train.activation_checkpointing",
            "LitGPT switches it on by itself with several devices only",
            unless=False,
            see=FINETUNE,
        ),
        cannot("train.offload", "LitGPT has no activation offloading", unless=False, see=FINETUNE),
        cannot(
            "train.attention",
            "LitGPT calls torch's scaled_dot_product_attention",
            unless="auto",
            nor=("sdpa",),
            see=_SEE + "model.py",
        ),
        cannot("train.compile", "LitGPT's fine-tuning does not compile", nor=(False,), see=FINETUNE),
        couple(
            ("optim.name", "optim.decay_on"),
            ("optimizer.class_path", "optimizer.init_args.decay_on"),
            lambda _n, on, _s: ("torch.optim.AdamW", ABSENT) if on == "all" else ("tune_litgpt.adamw", on),
            lambda _path, on, _s: ("adamw", "all" if on is ABSENT else on),
            absent=("optimizer.init_args.decay_on",),
            status="same",
        ),
        usual("optim.fused", "optimizer.init_args.fused", lambda scene: scene.accelerator == "cuda", "on for CUDA"),
        same("optim.lr", "optimizer.init_args.lr"),
        same("optim.betas", "optimizer.init_args.betas"),
        same("optim.eps", "optimizer.init_args.eps"),
        same("optim.weight_decay", "optimizer.init_args.weight_decay"),
        cannot(
            "optim.schedule",
            "LitGPT's fine-tuning has cosine with warm-up only",
            unless="cosine",
            see=_SEE + "finetune/lora.py#L494",
        ),
        couple(("optim.warmup_steps", "optim.warmup_share"), ("train.lr_warmup_steps",), _warmup, lambda n, _: (n, None)),
        cannot("optim.min_lr", "LitGPT's fine-tuning ignores train.min_lr: its cosine ends at 0", unless=0.0, see=FINETUNE),
        couple(
            ("eval.every",),
            ("eval.interval",),
            lambda v, _: (v or NEVER,),
            lambda v, _: (None if v == NEVER else v,),
            why="no evaluation during training is an interval that is never reached",
        ),
        couple(("eval.batches",), ("eval.max_iters",), lambda v, _: (v or NEVER,), lambda v, _: (None if v == NEVER else v,)),
        const("eval.max_new_tokens", 1, "LitGPT wants it; no sample is generated, tune_litgpt takes that out", FINETUNE),
        const("eval.initial_validation", False, "no evaluation before training"),
        const("eval.final_validation", lambda scene: scene.evaluates, "evaluation at the end when there are rows for it"),
        same("checkpoint.every", "train.save_interval"),
        cannot("checkpoint.keep", "LitGPT keeps every checkpoint", see=FINETUNE),
        *_resume(lora),
        kept("log.every", "we keep every n-th point of what is read", 1),
        const("train.log_interval", 1, "with more, LitGPT writes no metrics file at all", _SEE + "utils.py"),
        *no_trackers("todo", "trackers are not translated yet"),
        const("logger_name", "csv", "where our metrics are read"),
        const("out_dir", "out", "in the job's folder"),
        const("num_nodes", 1, "one host"),
    )


def _unweighted_batch() -> Row:
    """LitGPT's own accumulation averages the means of the micro-batches, so that their size changes the result."""
    row = batch_global("train.global_batch_size", "train.micro_batch_size")

    def to(total: int, micro: int | None, scene: Scene) -> Sequence[Any]:
        crossed = row.to(total, micro, scene)
        if total != crossed[1] * scene.devices:
            raise Lost(
                "train.batch.micro",
                "LitGPT averages the means of micro-batches instead of all tokens; "
                "leave train.batch.micro unset, or use data.rendering: shared",
                see=FINETUNE,
                instead=dict(zip(row.theirs, crossed, strict=True)),
            )
        return crossed

    return replace(row, to=to)


def _resume(lora: str) -> tuple[Row, ...]:
    def to(wanted: bool, scene: Scene) -> Sequence[Any]:
        if wanted and scene.shape.adapter != "none":
            raise Lost("checkpoint.resume", lora, see=_SEE + "finetune/lora.py")
        if wanted:
            raise Lost(
                "checkpoint.resume",
                "resuming LitGPT's full fine-tuning is not translated yet",
                kind="todo",
                instead={"resume": False},
            )
        return (False if scene.shape.adapter == "none" else ABSENT,)

    back = lambda value, _: (value is not ABSENT and value,)  # noqa: E731  # as short as its neighbours
    return (couple(("checkpoint.resume",), ("resume",), to, back, status="same", absent=("resume",)),)


def _shared_data() -> tuple[Row, ...]:
    """Rows of the data step, through the data module that LitGPT lets a config name."""
    return (
        *shared_data("train.max_seq_length"),
        const("data.class_path", "tune_litgpt.Rows", "rows come from the data step, in its order"),
        const("data.init_args.folder", "data", "made by the data step"),
        const(
            "data.init_args.token_weighted",
            True,
            "the gradient is the mean over all tokens of the global batch; LitGPT alone would "
            "average the means of the micro-batches",
            FINETUNE,
        ),
        const("train.epochs", 1, "epochs are unrolled in the data step's order"),
        const("train.max_steps", None, "the data step fixes the number of steps"),
    )


def _native_files(see: str) -> Row:
    """One file, or a folder with a file for training and one for evaluation."""
    keys = ("class_path", "init_args.json_path", "init_args.val_split_fraction")

    def to(name: str, other: str | None, _: Scene) -> Sequence[Any]:
        if is_hub(name):
            raise Lost("data.train", "LitGPT's JSON data reads local files; use data.rendering: shared", see=see)
        return "litgpt.data.JSON", "inputs" if other else input_path("data.train", name), None if other else 0.0, name, other

    return couple(
        ("data.train", "data.eval"),
        (*(f"data.{key}" for key in keys), f"{LAUNCH}:train", f"{LAUNCH}:eval"),
        to,
        lambda *v: (v[3], v[4]),
        why="the file is linked into the job's folder",
        see=see,
    )


def _native_data() -> tuple[Row, ...]:
    """LitGPT's own JSON data module: one instruction, one answer."""
    see = _SEE + "data/json_data.py"

    def only(leaf: str, value: Any, why: str) -> Row:
        return cannot(leaf, why, unless=value, see=see)

    return (
        _native_files(see),
        kept("data.train_split", "local files have no splits", "train"),
        kept("data.eval_split", "local files have no splits", "validation"),
        only("data.format", "instruct", "LitGPT's JSON data has no chat and no plain text; use data.rendering: shared"),
        *(
            only(f"data.columns.{c}", c, f"LitGPT's JSON data wants the column to be called {c}")
            for c in ("instruction", "input", "output")
        ),
        kept("data.columns.messages", "not for instruct rows", "messages"),
        *(kept(f"data.columns.{c}", "not for instruct rows", c) for c in COLUMNS[4:]),
        couple(("data.template",), ("data.init_args.prompt_style",), _style, lambda v, _: (None if v == "alpaca" else v,)),
        kept("data.loss_roles", "not for instruct rows", ["assistant"]),
        only("data.system", None, "LitGPT's JSON data takes a system text from each row only"),
        couple(
            ("data.rendering",),
            (),
            _untied,
            lambda _: ("native",),
            why="LitGPT reads the file itself",
            status="approximated",
            see=see,
        ),
        same("data.max_length", "train.max_seq_length"),
        only("data.pack", False, "LitGPT pads every sample; it has no packing"),
        couple(("data.train_on_prompt",), ("data.init_args.mask_prompt",), lambda v, _: (not v,), lambda v, _: (not v,)),
        only("data.add_eos", True, "LitGPT always ends a sample with the end-of-sequence token"),
        only("data.drop_empty", False, "LitGPT keeps rows without loss tokens, in silence"),
        only("data.shuffle", True, "LitGPT's JSON data always shuffles"),
        const("data.init_args.ignore_index", -100, "labels without loss"),
        const("data.init_args.num_workers", 0, "no loader processes"),
        couple(
            ("train.epochs", "train.steps"),
            ("train.epochs", "train.max_steps"),
            lambda epochs, steps, _: (epochs or steps, steps),
            lambda epochs, steps, _: (None if steps else epochs, steps),
            why="LitGPT wants epochs in any case; train.max_steps ends the run",
        ),
    )


def _untied(_value: str, scene: Scene) -> Sequence[Any]:
    if scene.model.get("tied") and scene.shape.adapter == "none":
        raise Lost(
            "data.rendering",
            "LitGPT's full fine-tuning trains this model's tied embeddings as two matrices; data.rendering: shared keeps them one",
            see=FINETUNE,
        )
    return ()


def _style(template: str | None, _: Scene) -> Sequence[Any]:
    if template not in (None, "alpaca"):
        raise Lost(
            "data.template",
            "only alpaca is translated to LitGPT's prompt styles; use data.rendering: shared",
            kind="todo",
            instead={"data.init_args.prompt_style": "alpaca"},
        )
    return ("alpaca",)


def rows(shape: Shape) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    lora, native = shape.lora, shape.native
    seed = "data.init_args.seed" if native else f"{DATA}:seed"
    return (
        *identity(),
        _model(*(("lora.json:model",) if lora else ()), shared=not native),
        *FILES,
        KINDS,
        ADAPTER,
        *(_lora() if lora else lora_idle()),
        *preference_idle(),
        *grpo_idle(),
        *distill_idle(),
        *no_qat("todo", "not translated yet"),
        *(_native_data() if native else _shared_data()),
        *_train(("seed", seed, *(("lora.json:seed",) if lora else ())), shared=not native),
        *resources(*one_device(FINETUNE)),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Convert, train, export. Weights and adapter starts go through files; the trainer is LitGPT's own command."""
    command = launch["command"]
    lora = (Step("lora", (python, "tune_lora.py", "lora.json")),) if command == "finetune_lora" else ()
    return (
        *lora,
        Step("convert", (python, "tune_convert.py", "convert.json")),
        Step("train", (python, "-m", "litgpt", command, "--config", "litgpt.yaml")),
        Step("export", (python, "tune_export.py", "export.json")),
    )


def read(reading: Mapping[str, Any], progress: Progress, line: str) -> list[Point]:
    """A line of its metrics.csv.

    `step` there is the micro-batch, the rate logged is the next step's, and LoRA writes two rows for each (0.5.13:
    https://github.com/Lightning-AI/litgpt/blob/v0.5.13/litgpt/finetune/lora.py).
    """
    cells = line.split(",")
    if "iter" in cells or "val_loss" in cells:
        progress.kept["header"] = cells
        return []
    row = {name: cell for name, cell in zip(progress.kept.get("header", ()), cells, strict=False) if cell}
    points = _step(reading, progress, row) if "loss" in row and "iter" in row else []
    if "val_loss" in row:
        points.append(Point(progress.last, "eval_loss", float(row["val_loss"]), "val_loss"))
    return points


def _step(reading: Mapping[str, Any], progress: Progress, row: Mapping[str, str]) -> list[Point]:
    times = reading["accumulation"]
    kept = progress.kept
    kept["seconds"] = kept.get("seconds", 0.0) + float(row["iter_time"])
    if int(row["iter"]) % times:
        return []
    step, loss, tokens = int(row["iter"]) // times, float(row["loss"]), float(row["total_tokens"])
    if step <= progress.last:
        return []
    if step == 1:
        kept["lr"] = reading["first_lr"]
    points = [
        Point(step, "loss", loss, "loss"),
        Point(step, "lr", kept["lr"], "learning_rate"),
        Point(step, "tokens", tokens, "total_tokens"),
        Point(step, "tokens_per_second", (tokens - kept.get("tokens", 0.0)) / max(kept["seconds"], 1e-9), "iter_time"),
    ]
    kept["lr"], kept["tokens"], kept["seconds"] = float(row["learning_rate"]), tokens, 0.0
    progress.step(step, loss)
    return points


LITGPT = Backend(
    name="litgpt",
    package="litgpt 0.5.13",
    requires="litgpt>=0.5.13,<0.6",
    config="litgpt.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_litgpt.py", "tune_lora.py", "tune_convert.py", "tune_export.py"),
    watch=("out/logs/csv/version_*/metrics.csv",),
    read=read,
    judge=judge,
)
