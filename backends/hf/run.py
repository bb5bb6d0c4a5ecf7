"""The model's folder, devices, steps, and how metrics are read."""

from __future__ import annotations

import json
from collections.abc import Mapping

from backends.backend import Ending, Progress
from backends.backend import judge as judge_all
from backends.hf.memory import whole_each
from backends.hf.names import EXPORT, TRAINER
from backends.mapping.launch import LAUNCH, sharing, torchrun
from backends.mapping.model import model, tokens
from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value, Values, Variant, const, couple, same
from backends.metrics import Point
from backends.plan import Step
from backends.records import replace

SHIMS = ("tune_hf_export.py", "tune_lora.py")
"""Scripts of `steps`, besides the trainer's own."""


def model_folder(variant: Variant) -> tuple[Row, Row]:
    """Whatever lies in Hugging Face layout, and tokens beside its own."""
    also = ("lora.json:model",) if variant.lora else ()
    row = model(
        theirs=("model_name_or_path", f"{EXPORT}:model", *also),
        to=lambda folder, _: (folder, folder, *(folder for _ in also)),
        shared=not variant.native,
    )
    return row, tokens(variant.lora)


def files(variant: Variant) -> tuple[Row, ...]:
    """Where results go."""
    return (
        const("output_dir", "out", "in the job's folder"),
        const(f"{EXPORT}:trained", "out", "where the trainer leaves weights or adapter"),
        const(f"{EXPORT}:out", "checkpoint", "a folder in Hugging Face layout"),
        const(f"{EXPORT}:kind", variant.kind, "a reward model has another head"),
    )


ZERO = "deepspeed.json"
"""DeepSpeed's own config."""


def devices(
    variant: Variant, spelled: Mapping[str, Mapping[str, Value]], absent: tuple[str, ...], see: str, *, tensor: Row
) -> tuple[Row, ...]:
    """One process a device: the whole model in each (DDP), FSDP2, or DeepSpeed's ZeRO.

    Args:
        variant: whose rows these are.
        spelled: strategy (one, ddp, fsdp, zero) -> the trainer's keys; all have the same keys.
        absent: of these, those that are not written for every strategy.
        see: upstream's word on what runs where.
        tensor: the row of resources.tensor.
    """
    own = tuple(spelled["one"])
    keys = (*own, f"{TRAINER}:strategy", f"{ZERO}:", f"{LAUNCH}:strategy")

    def to(word: str, context: Context) -> Values:
        chosen = strategy(word, variant, context)
        if chosen not in ("one", "ddp") and context.accelerator != "cuda":
            why = (
                f"{chosen} is for CUDA devices here: the device mesh is, and on a CPU accelerate would make ddp of it in silence"
            )
            fallback = {**spelled["ddp"], f"{TRAINER}:strategy": "ddp", f"{LAUNCH}:strategy": "ddp"}
            raise Unsupported("resources.strategy", why, see=see, fallback=fallback)
        values = spelled["zero" if chosen.startswith("zero") else chosen]
        return *values.values(), chosen, zero(int(chosen[-1])) if chosen.startswith("zero") else ABSENT, word

    return (
        same("resources.devices", f"{LAUNCH}:devices"),
        same("resources.hosts", f"{LAUNCH}:hosts"),
        couple(
            ("resources.strategy",),
            keys,
            to,
            lambda *values: (values[-2],),
            absent=(*absent, f"{ZERO}:"),
            why="auto is ddp on several CPU processes, and where an adapter of a small model is trained; else fsdp",
        ),
        tensor,
    )


def strategy(word: str, variant: Variant, context: Context) -> str:
    """What becomes of resources.strategy on a machine: one, ddp, fsdp, zero1, zero2 or zero3."""
    if context.devices == 1:
        return "one"
    if word != "auto":
        return word
    return "ddp" if whole_each(sharing(variant.lora, context)) else "fsdp"


def zero(stage: int) -> Flat:
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


def steps(launch: Flat, python: str, *train: str) -> tuple[Step, ...]:
    """Draw A and B, train, export. The first process writes the weights, so the first host exports them.

    Args:
        launch: what rows wrote under `launch:`.
        python: the interpreter.
        train: our script for the trainer, with its arguments.
    """
    lora = (Step("lora", (python, "tune_lora.py", "lora.json")),) if launch["lora"] else ()
    processes = torchrun(python, launch["devices"], launch["hosts"])
    return (
        *lora,
        Step("train", (*processes, *train)),
        Step("export", (python, "tune_hf_export.py", EXPORT), everywhere=False),
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
    if "stopped" in row:
        progress.kept["stopped"] = step
        return []
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
    learns = progress.nonzero or row.get("grad_norm") != 0  # answers that are cut away leave a loss of pairs, and no gradient
    progress.step(step, row["loss"])
    progress.nonzero &= learns
    progress.nonzero |= "reward" in row  # the loss of grpo is 0 where all answers of a prompt are as good
    if "reward" in row:
        progress.kept["differing"] = progress.kept.get("differing", False) or row.get("frac_reward_zero_std", 0) < 1
    return [*points, *_speed(progress.kept, row, found["tokens"])]


def judge(ending: Ending) -> tuple[str, str] | None:
    """As for every trainer; weights that GRPO left as they were are told by their cause: answers that all score the same."""
    if ending.progress.kept.get("stopped") == ending.progress.last:  # as eval.patience has it
        ending = replace(ending, steps=None)
    found = judge_all(ending)
    if found and found[0] == "not_changed" and not ending.progress.kept.get("differing", True):
        why = "in every step all answers to a prompt scored the same, and nothing is learned from them: see method.grpo.rewards"
        return "not_changed", f"none of {ending.unchanged:,} weights is another than before the first step: {why}"
    return found


_REWARDS = ("rewards", "reward", "eval_rewards", "kl", "class_loss", "kd_loss")


def _speed(kept: Flat, row: Mapping[str, Value], count: str) -> list[Point]:
    """Tokens a second since the line before; where an attempt goes on, its first count has the tokens of the others in it."""
    measured = count and (row["step"] == 1 or "tokens" in kept)
    tokens, seconds = row.get(count, 0.0), row["seconds"]
    gone = max(seconds - kept.get("seconds", 0.0), 1e-9)
    speed = (tokens - kept.get("tokens", 0.0)) / gone
    kept["tokens"], kept["seconds"] = tokens, seconds
    return [Point(row["step"], "tokens_per_second", speed, "seconds")] if measured else []
