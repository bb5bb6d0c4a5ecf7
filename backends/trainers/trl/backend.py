"""TRL: one flat YAML of transformers' arguments, the model's and the method's, read by TRL's own parser, which refuses unknown keys.

Read beside it method.py (what each method is called) and train.py; most rows are those of backends/hf. Sources:
https://github.com/huggingface/trl (trl/trainer, trl/scripts). Its command line falls back to one process in silence where accelerate
finds no others (kubeflow/trainer#3930): we start `torchrun`, and the shim compares.
"""

from __future__ import annotations

from backends.backend import Backend, dialect_beside
from backends.hf import memory
from backends.hf import run as hf
from backends.hf.arguments import trackers
from backends.hf.method import grpo, preference
from backends.mapping.launch import ROUNDED, identity, resources
from backends.mapping.rows import ABSENT, Flat, Row, Variant, cannot
from backends.plan import Step
from backends.trainers.trl import data, method, train
from backends.trainers.trl.method import SEE
from backends.trainers.trl.release import RELEASE
from backends.trainers.trl.signs import SIGNS
from backends.upstream.known_keys import KnownKeys

_FSDP = {
    "version": 2,
    "reshard_after_forward": True,
    "cpu_ram_efficient_loading": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "FULL_STATE_DICT",
}
_WHOLE: Flat = {"fsdp": ABSENT, "fsdp_config": ABSENT, "deepspeed": ABSENT}
_STRATEGIES: dict[str, Flat] = {
    "one": _WHOLE,
    "ddp": _WHOLE,
    "fsdp": {**_WHOLE, "fsdp": True, "fsdp_config": _FSDP},
    "zero": {**_WHOLE, "deepspeed": hf.ZERO},
}

_MANY = SEE + "accelerate_configs/"
_TENSOR = cannot("resources.tensor", "TRL trains on several devices by DDP, FSDP and DeepSpeed, and splits no matrix", see=_MANY)


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    version, _, description = identity()
    own = grpo(variant, SEE, scaled="group")
    return (
        version,
        trackers(),
        description,
        *hf.files(variant),
        *hf.model_folder(variant),
        *method.kind(variant),
        *method.adapter(variant),
        *method.lora(variant),
        *preference(variant.kind, SEE),
        *(own if variant.kind != "grpo" else (own[0], train.batch(variant), *own[1:])),
        *method.distill(variant.kind),
        *method.qat(),
        *(data.native(variant) if variant.native else data.shared(variant)),
        *train.train(variant),
        *resources(*hf.devices(variant, _STRATEGIES, tuple(_WHOLE), _MANY, tensor=_TENSOR)),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Make the teacher ready where there is one; draw A and B, train, export."""
    teacher = (Step("teacher", (python, "tune_model.py", "teacher.json")),) if launch["kind"] == "distill" else ()
    return (*teacher, *hf.steps(launch, python, "tune_trl.py", "trl.yaml"))


TRL = Backend(
    name="trl",
    package=RELEASE.pinned,
    title=RELEASE.named,
    requires=RELEASE.requires,
    config="trl.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_trl.py", *hf.SHIMS),
    watch=("out/metrics.jsonl",),
    read=hf.read,
    known_keys=KnownKeys.beside(__file__),
    dialect=dialect_beside(__name__),
    signs=SIGNS,
    judge=hf.judge,
    memory=memory.TILED,
    nf4="bitsandbytes",
    resume={"resume_from_checkpoint": "resume"},
    resumes_smaller=True,
    env={
        **ROUNDED,
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    },  # MLflow 3.17 refuses files without the second
)
