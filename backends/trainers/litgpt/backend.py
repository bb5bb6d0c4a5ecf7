"""LitGPT: one flat YAML a command, a global batch, cosine with warm-up and nothing else.

`litgpt finetune_full` and `finetune_lora` fine-tune, on plain text too; `litgpt pretrain` is for pre-training all weights. What
is done through our data module and what has no way in stands in shims/tune_litgpt.py and tune_litgpt_pretrain.py.

Sources: https://github.com/Lightning-AI/litgpt (litgpt/finetune/full.py, lora.py, pretrain.py, args.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from backends.backend import Backend, Progress, dialect_beside, judge
from backends.log_signs import EVERYWHERE, TORCH
from backends.mapping.data import shared_data
from backends.mapping.launch import LAUNCH, ROUNDED, resources, torchrun
from backends.mapping.methods import distill_idle, grpo_idle, kinds, lora_idle, lora_scale, no_qat, preference_idle
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
    handled_by_us,
    same,
)
from backends.metrics import Point
from backends.plan import Step
from backends.records import replace
from backends.report import Kind
from backends.trainers.litgpt import native, train
from backends.trainers.litgpt.families import FAMILIES, lacks
from backends.trainers.litgpt.memory import FOOTPRINT
from backends.trainers.litgpt.release import RELEASE
from backends.trainers.litgpt.train import FINETUNE, LORA, PRETRAIN, SEE, pretrains
from backends.upstream.known_keys import KnownKeys

_ISSUES = "https://github.com/Lightning-AI/litgpt/issues/"


def _kinds(variant: Variant) -> Row:
    pairs: tuple[Kind, str, str] = ("never", "LitGPT learns from no preferences", _ISSUES + "733")
    lacks: dict[str, tuple[Kind, str, str]] = {
        **dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "kto", "reward"), pairs),
        "grpo": ("never", "LitGPT has no reinforcement learning", _ISSUES + "557"),
        "distill": ("never", "LitGPT has no command for it", SEE + "__main__.py"),
        "pretrain": ("never", "its own pre-training data are litdata's chunks; use data.rendering: shared", SEE + "data"),
    }
    return kinds("sft", *(() if variant.native else ("pretrain",)), lacks=lacks)


def _adapter(variant: Variant) -> Row:
    """LitGPT has a command for each adapter; a base in 4 bits is a key of LoRA's."""
    plain = "pretrain" if pretrains(variant) else "finetune_full"
    nf4 = "bnb.nf4-dq"

    def to(adapter: str, context: Context) -> Values:
        fallback = {f"{LAUNCH}:command": "finetune_lora", "quantize": None}
        if adapter == "dora":
            raise Unsupported("method.adapter", "LitGPT has no DoRA", see=_ISSUES + "934", fallback=fallback)
        if adapter == "qlora" and context.accelerator != "cuda":
            why = "Lightning quantizes on CUDA only"
            see = "https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/fabric/plugins/precision/bitsandbytes.py"
            raise Unsupported("method.adapter", why, see=see, fallback=fallback)
        return (plain, ABSENT) if adapter == "none" else ("finetune_lora", nf4 if adapter == "qlora" else None)

    def back(command: str, quantize: Value, _: Context) -> Values:
        return ("none" if command == plain else "qlora" if quantize == nf4 else "lora",)

    return couple(
        ("method.adapter",), (f"{LAUNCH}:command", "quantize"), to, back, why="a command for each adapter", absent=("quantize",)
    )


def _named(context: Context) -> bool:
    """The model is converted by LitGPT's own converters."""
    return context.model.get("family", FAMILIES[0]) not in FAMILIES


def _model(variant: Variant) -> Row:
    """The Hugging Face folder becomes a LitGPT checkpoint in a step of its own."""
    also = ("lora.json:model",) if variant.lora else ()
    row = model(
        shared=not variant.native,
        theirs=("convert.json:model", "convert.json:name", "export.json:model", *also),
        to=lambda folder, context: (folder, context.model.get("litgpt") or None, folder, *(folder for _ in also)),
    )

    def to(*wish: Value) -> Values:
        crossed, context = row.to(*wish), wish[-1]
        if lack := lacks(context.model):
            fallback = dict(zip(row.theirs, crossed, strict=True))
            raise Unsupported("model.id", lack, see=SEE + "config.py", fallback=fallback)
        return crossed

    return replace(row, to=to)


def _files(variant: Variant) -> tuple[Row, ...]:
    made = "made by the convert step"
    start = (
        (
            const("model_name", "lit", made),
            const("initial_checkpoint_dir", "lit", made),
            const("tokenizer_dir", None, "of no use"),
        )
        if pretrains(variant)
        else (const("checkpoint_dir", "lit", made),)
    )
    return (
        const("convert.json:out", "lit", "LitGPT's own checkpoint format"),
        const("convert.json:precision", None, "as the weights are"),
        *start,
        const("export.json:from", "litgpt", "whose checkpoint it is"),
        const("export.json:trained", "out/final", "where LitGPT leaves it"),
        const("export.json:out", "checkpoint", "a folder in Hugging Face layout"),
        *(
            (const("export.json:over", "lit", "merged into the base as it was trained over"),)
            if variant.adapter == "qlora"
            else ()
        ),
    )


_FOUR_BITS = (
    "over a base in 4 bits LitGPT would have to leave the head and the embedding out: it quantizes the one and swaps the other"
)


def _whole() -> Row:
    """method.lora.train_fully."""
    leaf = "method.lora.train_fully"
    keys = ("data.init_args.train_fully", "export.json:train_fully", "lora.json:train_fully")

    def to(words: list[str], context: Context) -> Values:
        lacks = {
            "our data module lets them learn; use data.rendering: shared": context.variant.native,
            _FOUR_BITS: context.variant.adapter == "qlora",
            "several devices share the weights, where whole modules beside LoRA are not tried yet": context.devices > 1,
            "models that LitGPT's own converters take are not tried yet": _named(context),
        }
        if words and (why := next((each for each, so in lacks.items() if so), "")):
            kind: Kind = "waiting" if why == _FOUR_BITS else "todo"
            raise Unsupported(leaf, why, kind=kind, see=LORA, fallback=dict.fromkeys(keys, ABSENT))
        return (words or ABSENT,) * len(keys)

    def back(words: Value, *_: Value | Context) -> Values:
        return ([] if words is ABSENT else words,)

    why = "LitGPT freezes all but LoRA's matrices; the data module lets these modules learn and be saved"
    return couple((leaf,), keys, to, back, absent=keys, why=why, see=LORA)


def _lora() -> tuple[Row, ...]:
    mlp = ("gate", "up", "down")
    switches = {"q": "lora_query", "k": "lora_key", "v": "lora_value", "o": "lora_projection", "head": "lora_head"}

    def targets(wanted: list[str], _: Context) -> Values:
        chosen = [m for m in mlp if m in wanted]
        values = [t in wanted for t in switches]
        if chosen and len(chosen) < len(mlp):
            raise Unsupported(
                "method.lora.targets",
                f"lora_mlp is gate, up and down together; {', '.join(chosen)} alone is not possible",
                see=SEE + "lora.py",
                fallback={**dict(zip(switches.values(), values, strict=True)), "lora_mlp": True, "lora.json:targets": wanted},
            )
        return *values, bool(chosen), wanted

    def wanted(*values: Value) -> Values:
        *some, all_mlp, _, _ = values
        named = [t for t, on in zip(switches, some, strict=True) if on] + list(mlp if all_mlp else ())
        return ([t for t in ("q", "k", "v", "o", *mlp, "head") if t in named],)

    return (
        couple(("method.lora.rank",), ("lora_r", "lora.json:rank"), lambda v, _: (v, v), lambda v, *_: (v,), status="same"),
        lora_scale("lora_alpha", whole="LitGPT", see=LORA),
        same("method.lora.dropout", "lora_dropout"),
        couple(
            ("method.lora.targets",),
            (*switches.values(), "lora_mlp", "lora.json:targets"),
            targets,
            wanted,
            why="six switches; lora_mlp is gate, up and down together",
        ),
        _whole(),
        const("lora.json:families", list(FAMILIES), "LitGPT draws its own A and B for models that its own converters take"),
        const(f"{LAUNCH}:drawn", lambda context: not _named(context), "every trainer starts from the same A and B"),
        const(
            "convert.json:lora.start",
            lambda context: None if _named(context) else "lora/start.safetensors",
            "every trainer starts from the same A and B; of families that go through LitGPT's converters it draws its own",
        ),
    )


def _shared_data(variant: Variant) -> tuple[Row, ...]:
    """Rows of the data step, through the data module that LitGPT lets a config name."""
    all_tokens = "the gradient is the mean over all tokens of the global batch; LitGPT alone would average means of micro-batches"
    counted = "the data module puts in what the data step counted"
    length = (
        (
            const("train.max_tokens", 1, counted, PRETRAIN),
            const("train.max_seq_length", None, counted, PRETRAIN),
            const("train.tie_embeddings", None, "the data module puts in what config.json says", PRETRAIN),
            const("train.epochs", None, "pre-training refuses it", PRETRAIN),
        )
        if pretrains(variant)
        else (const("train.epochs", 1, "epochs are unrolled in the data step's order"),)
    )
    module = "tune_litgpt_pretrain.Rows" if pretrains(variant) else "tune_litgpt.Rows"
    return (
        *shared_data(*(() if pretrains(variant) else ("train.max_seq_length",))),
        const("data.class_path", module, "rows come from the data step, in its order"),
        const("data.init_args.folder", "data", "made by the data step"),
        const("data.init_args.token_weighted", True, all_tokens, FINETUNE),
        const("train.max_steps", None, "the data step fixes the number of steps"),
        *length,
    )


def _placed(variant: Variant) -> tuple[Row, ...]:
    """One process a device, on every host."""

    def devices(count: int, context: Context) -> Values:
        if context.devices > 1 and variant.adapter == "qlora":
            raise Unsupported("resources.devices", "LitGPT quantizes on one device only", see=LORA)
        return count, count

    return (
        couple(("resources.devices",), ("devices", f"{LAUNCH}:devices"), devices, lambda count, *_: (count,), why="of each host"),
        everywhere("resources.hosts", "num_nodes", f"{LAUNCH}:hosts"),
        cannot("resources.tensor", "LitGPT's training has tensor_parallel_size 1, in its code", see=LORA),
    )


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    return (
        handled_by_us("version", "of the recipe's schema"),
        handled_by_us("name", "names the job") if variant.native else same("name", "data.init_args.name"),
        handled_by_us("description", "for people"),
        _model(variant),
        tokens(variant.lora),
        *_files(variant),
        _kinds(variant),
        _adapter(variant),
        *(_lora() if variant.lora else lora_idle()),
        *preference_idle(),
        *grpo_idle(),
        *distill_idle(),
        *no_qat("never", "LitGPT has no quantization-aware training", SEE + "__main__.py"),
        *(native.rows(variant) if variant.native else _shared_data(variant)),
        *train.rows(variant),
        *resources(*_placed(variant)),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Convert, train, export. Weights and adapter starts go through files; the trainer is LitGPT's own command."""
    command = launch["command"]
    lora = (Step("lora", (python, "tune_lora.py", "lora.json")),) if launch.get("drawn") else ()
    start = torchrun(python, launch["devices"], launch["hosts"])
    return (
        *lora,
        Step("convert", (python, "tune_convert.py", "convert.json")),
        Step("train", (*start, "-m", "litgpt", command, "--config", "litgpt.yaml")),
        Step("export", (python, "tune_export.py", "export.json"), everywhere=False),
    )


def read(reading: Mapping[str, Value], progress: Progress, line: str) -> list[Point]:
    """A line of its metrics.csv.

    `step` there is the micro-batch, and LoRA writes two rows for each (source:
    https://github.com/Lightning-AI/litgpt/blob/main/litgpt/finetune/lora.py). Pre-training, which alone writes
    `remaining_time`, has a row for each step with the time of one of its micro-batches. `learning_rate` is the next step's, in
    pre-training the step's own; `step_lr` is what the step used (shims/tune_litgpt_log.py), and missing where LitGPT reads the
    rows itself.
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


def _step(reading: Mapping[str, Value], progress: Progress, row: Mapping[str, str]) -> list[Point]:
    times = reading["accumulation"]
    kept, whole = progress.kept, "remaining_time" in row
    kept["seconds"] = kept.get("seconds", 0.0) + float(row["iter_time"]) * (times if whole else 1)
    if int(row["iter"]) % times:
        return []
    step, loss, tokens = int(row["iter"]) // times, float(row["loss"]), float(row["total_tokens"])
    if step <= progress.last:
        return []
    own: Value = row.get("step_lr") or (row["learning_rate"] if whole else kept.get("lr", reading["first_lr"]))
    points = [
        Point(step, "loss", loss, "loss"),
        Point(step, "lr", float(own), "step_lr" if "step_lr" in row else "learning_rate"),
        Point(step, "tokens", tokens, "total_tokens"),
    ]
    if step == 1 or "tokens" in kept:  # where an attempt goes on, the first count has the tokens of the others in it
        speed = (tokens - kept.get("tokens", 0.0)) / max(kept["seconds"], 1e-9)
        points.append(Point(step, "tokens_per_second", speed, "iter_time"))
    if math.isfinite(norm := float(row.get("grad_norm", "nan"))):
        points.append(Point(step, "grad_norm", norm, "grad_norm"))
    if "memory_gib" in row:  # written by our logger, on CUDA
        points.append(Point(step, "memory_gib", float(row["memory_gib"]), "max_memory_allocated"))
    kept["lr"], kept["tokens"], kept["seconds"] = float(row["learning_rate"]), tokens, 0.0
    progress.step(step, loss)
    return points


LITGPT = Backend(
    name="litgpt",
    package=RELEASE.pinned,
    title=RELEASE.named,
    requires=RELEASE.requires,
    env=ROUNDED,
    config="litgpt.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_litgpt.py", "tune_litgpt_pretrain.py", "tune_lora.py", "tune_convert.py", "tune_export.py"),
    watch=("out/logs/csv/version_*/metrics.csv",),
    read=read,
    known_keys=KnownKeys.beside(__file__),
    dialect=dialect_beside(__name__),
    signs=(*EVERYWHERE, *TORCH),
    lacks=lacks,
    judge=judge,
    memory=FOOTPRINT,
    nf4="bitsandbytes",
    resume={"resume": "resume/lit_model.pth", "initial_checkpoint_dir": None},  # pre-training takes one of them
)
