"""Unsloth: a faster model and adapter under TRL's trainers. On a CPU it is stock transformers, PEFT and TRL with defaults of its own.

unsloth.yaml has the arguments of its calls, as its scripts write them: `model` (FastLanguageModel.from_pretrained), `lora`
(get_peft_model) and `training` (TRL's SFTConfig). Nothing is left to Unsloth's own defaults: a base in 4 bits, a rank of 16 (64 by its
command line) with alpha 16, the seed 3407, activations recomputed and moved to main memory. Sources:
https://github.com/unslothai/unsloth (unsloth/models/loader.py, llama.py) and unsloth_zoo (cpu/).
"""

from __future__ import annotations

from backends.backend import Backend, dialect_beside
from backends.hf import arguments
from backends.hf import run as hf
from backends.hf.arguments import trackers
from backends.hf.names import respelled
from backends.mapping.launch import identity, one_device, resources
from backends.mapping.methods import distill_idle, grpo_idle, preference_idle
from backends.mapping.rows import Flat, Row, Variant
from backends.plan import Step
from backends.trainers.unsloth import method, train
from backends.trainers.unsloth.method import SEE
from backends.trainers.unsloth.release import RELEASE
from backends.trainers.unsloth.signs import SIGNS
from backends.upstream.known_keys import KnownKeys

OWN = {
    "model_name_or_path": "model.model_name",
    "attn_implementation": "model.attn_implementation",
    "lora_r": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "use_rslora": "lora.use_rslora",
    "lora_dropout": "lora.lora_dropout",
    "lora_target_modules": "lora.target_modules",
    "lora_modules_to_save": "lora.modules_to_save",
    "resume_from_checkpoint": "resume_from_checkpoint",
}
"""Names of transformers and PEFT -> Unsloth's arguments; all others are keys of `training`."""

_ONE = RELEASE.source("unsloth/_gpu_init.py")


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    shape = variant._replace(native=False)
    version, _, description = identity()
    table = (
        version,
        trackers(),
        description,
        *hf.files(shape),
        *hf.model_folder(shape),
        *method.kind(shape),
        *method.adapter(shape),
        *method.lora(shape),
        *preference_idle(),
        *grpo_idle(),
        *distill_idle(),
        *method.qat(),
        *arguments.data("max_length", "model.max_seq_length", rendering=method.rendering()),
        arguments.batch(shape._replace(kind="sft"), SEE),
        *train.train(shape),
        *resources(*one_device(_ONE, "in Unsloth's own words several GPUs are not yet supported (a beta on request)", "waiting")),
    )
    names = {key: OWN.get(key, f"training.{key}") for row in table for key in row.theirs if _is_argument(key)}
    return respelled(table, names)


def _is_argument(key: str) -> bool:
    """Of a call of transformers' or TRL's: it has no section yet, and stands in no other file."""
    return ":" not in key and key.partition(".")[0] not in ("model", "lora", "training")


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Draw A and B, train, export."""
    return hf.steps({**launch, "devices": 1, "hosts": 1}, python, "tune_unsloth.py", "unsloth.yaml")


UNSLOTH = Backend(
    name="unsloth",
    package=RELEASE.pinned,
    title=RELEASE.named,
    requires=RELEASE.requires,
    config="unsloth.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_unsloth.py", *hf.SHIMS),
    watch=("out/metrics.jsonl",),
    read=hf.read,
    known_keys=KnownKeys.beside(__file__),
    dialect=dialect_beside(__name__),
    signs=SIGNS,
    judge=hf.judge,
    resume={"resume_from_checkpoint": "resume"},
    resumes_smaller=True,
    env={"UNSLOTH_DISABLE_STATISTICS": "1", "MLFLOW_ALLOW_FILE_STORE": "true"},  # MLflow 3.17 refuses files without the second
)
