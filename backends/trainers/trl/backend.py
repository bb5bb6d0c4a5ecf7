"""TRL: one flat YAML of transformers' arguments, the model's and the method's, read by TRL's own parser, which refuses unknown keys.

Read beside it method.py (what each method is called), data.py and train.py; most rows are those of backends/hf. Sources:
https://github.com/huggingface/trl (trl/trainer, trl/scripts). Its command line falls back to one process in silence where accelerate
finds no others (kubeflow/trainer#3930): we start `torchrun`, and the shim compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.backend import Backend, judge
from backends.hf import run as hf
from backends.hf.method import grpo, preference
from backends.hf.names import TRAINER
from backends.mapping.launch import LAUNCH, identity, resources
from backends.mapping.methods import distill_idle
from backends.mapping.rows import ABSENT, Context, Flat, Row, Values, Variant, couple
from backends.plan import Step
from backends.recipe.leaves import PROJECT
from backends.trainers.trl import data, method, train
from backends.trainers.trl.method import SEE
from backends.trainers.trl.release import RELEASE
from backends.trainers.trl.signs import SIGNS
from backends.upstream.known_keys import KnownKeys

if TYPE_CHECKING:
    from backends.dialect import Dialect


def _trackers() -> Row:
    """transformers' callbacks report; a project and MLflow's server are known to them by the environment alone."""
    keys = ("report_to", "run_name", f"{TRAINER}:project", f"{TRAINER}:mlflow_uri", f"{LAUNCH}:log")

    def to(name: str, wanted: list[str], project: str | None, run: str | None, uri: str | None, _: Context) -> Values:
        mlflow = (uri or "file:out/mlflow") if "mlflow" in wanted else None
        return wanted, run or name, project or PROJECT, mlflow, [name, wanted, project, run, uri]

    return couple(
        ("name", "log.trackers", "log.project", "log.run", "log.mlflow_uri"),
        keys,
        to,
        lambda *values: tuple(values[-2]),
        status="same",
    )


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


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order. The trainer reads no files itself, so a native variant has the same."""
    shape = variant._replace(native=False)
    version, _, description = identity()
    own = grpo(shape, SEE, scaled="group")
    return (
        version,
        _trackers(),
        description,
        *hf.files(shape),
        hf.model_folder(shape),
        *method.kind(shape),
        *method.adapter(shape),
        *method.lora(shape),
        *preference(shape.kind, SEE),
        *(own if shape.kind != "grpo" else (own[0], train.batch(shape), *own[1:])),
        *distill_idle(),
        *method.qat(),
        *data.data(shape),
        *train.train(shape),
        *resources(*hf.devices(_STRATEGIES, tuple(_WHOLE), SEE + "accelerate_configs/")),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Draw A and B, train, export."""
    return hf.steps(launch, python, "tune_trl.py", "trl.yaml")


def _dialect() -> Dialect:
    from backends.trainers.trl.dialect import DIALECT  # noqa: PLC0415  # only import asks for it

    return DIALECT


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
    dialect=_dialect,
    signs=SIGNS,
    judge=judge,
    resume={"resume_from_checkpoint": "resume"},
    env={"TRL_EXPERIMENTAL_SILENCE": "1", "MLFLOW_ALLOW_FILE_STORE": "true"},  # MLflow 3.17 refuses files without the second
)
