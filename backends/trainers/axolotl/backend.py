"""axolotl: one flat YAML over the trainers of transformers and TRL; unknown keys are dropped in silence.

Read beside it axolotl_method.py (what each method is called), axolotl_data.py (data sets) and axolotl_train.py. Sources:
https://github.com/axolotl-ai-cloud/axolotl (src/axolotl/utils/schemas, core/builders). Nothing of its
`integrations` is used: their licence forbids what we are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backends.backend import Backend, Progress, judge
from backends.log_signs import EVERYWHERE, TORCH
from backends.mapping.launch import LAUNCH, identity, resources, torchrun
from backends.mapping.methods import distill_idle
from backends.mapping.model import model
from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value, Values, Variant, cannot, const, couple, same
from backends.metrics import Point
from backends.plan import Step
from backends.recipe.leaves import PROJECT
from backends.trainers.axolotl import data, method, train
from backends.trainers.axolotl.method import SEE, TRAINER
from backends.trainers.axolotl.release import RELEASE
from backends.upstream.known_keys import KnownKeys

if TYPE_CHECKING:
    from backends.dialect import Dialect

ZERO = "deepspeed.json"


def _model(variant: Variant) -> Row:
    """Any folder in Hugging Face layout."""
    also = ("lora.json:model",) if variant.lora else ()
    return model(
        theirs=("base_model", "export.json:model", *also),
        to=lambda folder, _: (folder, folder, *(folder for _ in also)),
        shared=not variant.native,
    )


def _files(variant: Variant) -> tuple[Row, ...]:
    return (
        const("output_dir", "out", "in the job's folder"),
        const("export.json:trained", "out", "where axolotl leaves weights or adapter"),
        const("export.json:out", "checkpoint", "a folder in Hugging Face layout"),
        const("export.json:kind", variant.kind, "a reward model has another head"),
    )


def _trackers() -> Row:
    """The services' own keys; what they call the run is the recipe's name unless it says otherwise."""
    switches = {"tensorboard": "use_tensorboard", "wandb": "use_wandb", "mlflow": "use_mlflow"}
    named = ("wandb_project", "wandb_name", "mlflow_experiment_name", "mlflow_run_name", "mlflow_tracking_uri")
    theirs = (*switches.values(), *named, f"{LAUNCH}:log")

    def to(name: str, wanted: list[str], project: str | None, run: str | None, uri: str | None, _: Context) -> Values:
        what, which = project or PROJECT, run or name
        wandb = (what, which) if "wandb" in wanted else (ABSENT, ABSENT)
        mlflow = (what, which, uri or "file:out/mlflow") if "mlflow" in wanted else (ABSENT,) * 3
        return *(each in wanted for each in switches), *wandb, *mlflow, [name, wanted, project, run, uri]

    return couple(
        ("name", "log.trackers", "log.project", "log.run", "log.mlflow_uri"),
        theirs,
        to,
        lambda *values: tuple(values[-2]),
        status="same",
        absent=named,
    )


def _devices() -> tuple[Row, ...]:
    """One process a device: the whole model in each (DDP), FSDP2, or DeepSpeed's ZeRO."""
    keys = ("ddp", f"{TRAINER}:strategy", "fsdp_version", "fsdp_config", "deepspeed", f"{ZERO}:", f"{LAUNCH}:strategy")

    def to(word: str, context: Context) -> Values:
        chosen = _strategy(word, context)
        if chosen not in ("one", "ddp") and context.accelerator != "cuda":
            why = f"{chosen} is for CUDA devices here: axolotl's device mesh is, and on a CPU accelerate would make ddp of it in silence"
            fallback = {"ddp": True, f"{TRAINER}:strategy": "ddp", f"{LAUNCH}:strategy": "ddp"}
            raise Unsupported("resources.strategy", why, see=SEE + "utils/distributed.py", fallback=fallback)
        zero = chosen.startswith("zero")
        return (
            chosen == "ddp",
            chosen,
            2 if chosen == "fsdp" else ABSENT,
            _FSDP if chosen == "fsdp" else ABSENT,
            ZERO if zero else ABSENT,
            _zero(int(chosen[-1])) if zero else ABSENT,
            word,
        )

    return (
        same("resources.devices", f"{LAUNCH}:devices"),
        same("resources.hosts", f"{LAUNCH}:hosts"),
        couple(
            ("resources.strategy",),
            keys,
            to,
            lambda *values: (values[-2],),
            absent=keys[2:6],
            why="auto is fsdp on several CUDA devices and ddp on several CPU processes",
        ),
        cannot(
            "resources.tensor",
            "tensor_parallel_size is not translated yet",
            kind="todo",
            see=SEE + "utils/schemas/config.py",
        ),
    )


def _strategy(word: str, context: Context) -> str:
    if context.devices == 1:
        return "one"
    return word if word != "auto" else "fsdp" if context.accelerator == "cuda" else "ddp"


_FSDP = {
    "offload_params": False,
    "cpu_ram_efficient_loading": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "FULL_STATE_DICT",
    "reshard_after_forward": True,
}


def _zero(stage: int) -> Flat:
    """DeepSpeed's config; `auto` is filled in by transformers from the rest."""
    return {
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": True,
            "contiguous_gradients": True,
            **({"stage3_gather_16bit_weights_on_model_save": True} if stage == 3 else {}),
        },
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        **dict.fromkeys(
            ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size", "train_micro_batch_size_per_gpu"), "auto"
        ),
    }


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    version, _, description = identity()
    grpo = method.grpo(variant)
    return (
        version,
        _trackers(),
        description,
        *_files(variant),
        _model(variant),
        *method.kind(variant),
        *method.adapter(variant),
        *method.lora(variant),
        *method.preference(variant),
        *(grpo if variant.kind != "grpo" else (grpo[0], train.batch(variant), *grpo[1:])),
        *distill_idle(),
        *method.qat(variant),
        *(data.native(variant) if variant.native else data.shared()),
        *train.train(variant),
        *resources(*_devices()),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Draw A and B, train, export. The first process writes the weights, so the first host exports them."""
    lora = (Step("lora", (python, "tune_lora.py", "lora.json")),) if launch["lora"] else ()
    processes = torchrun(python, launch["devices"], launch["hosts"])
    return (
        *lora,
        Step("train", (*processes, "tune_axolotl.py", "axolotl.yaml")),
        Step("export", (python, "tune_axolotl_export.py", "export.json"), everywhere=False),
    )


_NAMES = {
    "loss": ("loss",),
    "lr": ("learning_rate",),
    "grad_norm": ("grad_norm",),
    "tokens": ("tokens", "num_tokens", "tokens/total"),
    "memory_gib": ("memory_gib",),
    "epoch": ("epoch",),
    "eval_loss": ("eval_loss",),
}
"""Our name -> theirs, the first that is there: the data step's count of tokens, TRL's, axolotl's with padding."""


def read(reading: Mapping[str, Value], progress: Progress, line: str) -> list[Point]:  # noqa: ARG001 - readers share a signature
    """A line of the metrics.jsonl that our trainer classes write: a step's figures, or those of an evaluation."""
    row = json.loads(line)
    step = row["step"]
    found = {ours: next((name for name in names if name in row), "") for ours, names in _NAMES.items()}
    points = [Point(step, ours, float(row[native]), native) for ours, native in found.items() if native]
    points += [Point(step, name, float(value), name) for name, value in row.items() if name.partition("/")[0] in _REWARDS]
    if "loss" not in row:
        return [point for point in points if point.name.startswith("eval_")]
    if step <= progress.last:
        return []
    learned = row.get("tokens/trainable")  # by axolotl, when it reads the data itself
    progress.unlabelled |= learned is not None and learned == progress.kept.get("learned", 0)
    progress.kept["learned"] = learned
    progress.step(step, row["loss"])
    progress.nonzero |= "reward" in row  # the loss of grpo is 0 where all answers of a prompt are as good
    return [*points, *_speed(progress.kept, row, found["tokens"])]


_REWARDS = ("rewards", "reward", "eval_rewards", "kl")


def _speed(kept: Flat, row: Mapping[str, Value], count: str) -> list[Point]:
    """Tokens a second since the line before; where an attempt goes on, its first count has the tokens of the others in it."""
    told = count and (row["step"] == 1 or "tokens" in kept)
    tokens, seconds = row.get(count, 0.0), row["seconds"]
    gone = max(seconds - kept.get("seconds", 0.0), 1e-9)
    speed = (tokens - kept.get("tokens", 0.0)) / gone
    kept["tokens"], kept["seconds"] = tokens, seconds
    return [Point(row["step"], "tokens_per_second", speed, "seconds")] if told else []


def _dialect() -> Dialect:
    from backends.trainers.axolotl.dialect import DIALECT  # noqa: PLC0415  # only import asks for it

    return DIALECT


AXOLOTL = Backend(
    name="axolotl",
    package=RELEASE.pinned,
    title=RELEASE.named,
    requires=RELEASE.requires,
    config="axolotl.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_axolotl.py", "tune_axolotl_export.py", "tune_lora.py"),
    watch=("out/metrics.jsonl",),
    read=read,
    known_keys=KnownKeys.beside(__file__),
    dialect=_dialect,
    signs=(*EVERYWHERE, *TORCH),
    judge=judge,
    resume={"resume_from_checkpoint": "resume"},
    env={"AXOLOTL_DO_NOT_TRACK": "1", "MLFLOW_ALLOW_FILE_STORE": "true"},  # MLflow 3.17 refuses files without the second
)
