"""axolotl: one flat YAML over the trainers of transformers and TRL; unknown keys are dropped in silence.

Read beside it axolotl_method.py (what each method is called), axolotl_data.py (data sets) and axolotl_train.py. Sources:
https://github.com/axolotl-ai-cloud/axolotl (src/axolotl/utils/schemas, core/builders). Nothing of its
`integrations` is used: their licence forbids what we are.
"""

from __future__ import annotations

from backends.backend import Backend, dialect_beside
from backends.hf import run as hf
from backends.hf.memory import LIGER
from backends.hf.names import respelled
from backends.log_signs import EVERYWHERE, TORCH
from backends.mapping.launch import LAUNCH, ROUNDED, identity, resources
from backends.mapping.methods import distill_idle
from backends.mapping.rows import ABSENT, Context, Flat, Row, Values, Variant, cannot, couple
from backends.plan import Step
from backends.recipe.leaves import PROJECT
from backends.records import replace
from backends.trainers.axolotl import data, method, train
from backends.trainers.axolotl.following import next_rows
from backends.trainers.axolotl.method import SEE
from backends.trainers.axolotl.release import NEXT, RELEASE
from backends.upstream.known_keys import KnownKeys


def _trackers() -> Row:
    """The services' own keys; what they call the run is the recipe's name unless it says otherwise."""
    switches = {"tensorboard": "use_tensorboard", "wandb": "use_wandb", "mlflow": "use_mlflow", "trackio": "use_trackio"}
    mlflow_keys = ("mlflow_experiment_name", "mlflow_run_name", "mlflow_tracking_uri")
    named = ("wandb_project", "wandb_name", *mlflow_keys, "trackio_project_name", "trackio_run_name")
    theirs = (*switches.values(), *named, f"{LAUNCH}:log")

    def to(name: str, wanted: list[str], project: str | None, run: str | None, uri: str | None, _: Context) -> Values:
        what, which = project or PROJECT, run or name
        wandb = (what, which) if "wandb" in wanted else (ABSENT, ABSENT)
        mlflow = (what, which, uri or "file:out/mlflow") if "mlflow" in wanted else (ABSENT,) * 3
        trackio = (what, which) if "trackio" in wanted else (ABSENT, ABSENT)
        return *(each in wanted for each in switches), *wandb, *mlflow, *trackio, [name, wanted, project, run, uri]

    return couple(
        ("name", "log.trackers", "log.project", "log.run", "log.mlflow_uri"),
        theirs,
        to,
        lambda *values: tuple(values[-2]),
        status="same",
        absent=named,
    )


_FSDP = {
    "offload_params": False,
    "cpu_ram_efficient_loading": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "FULL_STATE_DICT",
    "reshard_after_forward": True,
}
_NONE: Flat = {"ddp": False, "fsdp_version": ABSENT, "fsdp_config": ABSENT, "deepspeed": ABSENT}
_STRATEGIES: dict[str, Flat] = {
    "one": _NONE,
    "ddp": {**_NONE, "ddp": True},
    "fsdp": {**_NONE, "fsdp_version": 2, "fsdp_config": _FSDP},
    "zero": {**_NONE, "deepspeed": hf.ZERO},
}

_MANY = SEE + "utils/distributed.py"
_TENSOR = cannot(
    "resources.tensor",
    "accelerate has to clip gradients of shared and of whole weights together first: torch refuses the mixture that axolotl leaves it",
    kind="waiting",
    see="https://github.com/huggingface/accelerate/blob/v1.13.0/src/accelerate/accelerator.py",
)


def rows(variant: Variant) -> tuple[Row, ...]:
    """All rows, in the schema's order."""
    version, _, description = identity()
    grpo = method.grpo(variant)
    return (
        version,
        _trackers(),
        description,
        *hf.files(variant),
        *respelled(hf.model_folder(variant), {"model_name_or_path": "base_model"}),
        *method.kind(variant),
        *method.adapter(variant),
        *method.lora(variant),
        *method.preference(variant),
        *(grpo if variant.kind != "grpo" else (grpo[0], *train.batch(variant), *grpo[1:])),
        *distill_idle(),
        *method.qat(variant),
        *(data.native(variant) if variant.native else data.shared()),
        *train.train(variant),
        *resources(*hf.devices(variant, _STRATEGIES, tuple(_NONE)[1:], _MANY, tensor=_TENSOR)),
    )


def steps(launch: Flat, python: str) -> tuple[Step, ...]:
    """Draw A and B, train, export."""
    return hf.steps(launch, python, "tune_axolotl.py", "axolotl.yaml")


_PINNED = Backend(
    name="axolotl",
    package=RELEASE.pinned,
    title=RELEASE.named,
    requires=RELEASE.requires,
    config="axolotl.yaml",
    rows=rows,
    steps=steps,
    shims=("tune_axolotl.py", *hf.SHIMS),
    watch=("out/metrics.jsonl",),
    read=hf.read,
    known_keys=KnownKeys.beside(__file__),
    dialect=dialect_beside(__name__),
    signs=(*EVERYWHERE, *TORCH),
    judge=hf.judge,
    memory=LIGER,
    nf4="bitsandbytes",
    resume={"resume_from_checkpoint": "resume"},
    resumes_smaller=True,
    env={
        **ROUNDED,
        "AXOLOTL_DO_NOT_TRACK": "1",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    },  # MLflow 3.17 refuses files without the second
)

_NEXT = replace(
    _PINNED,
    package=NEXT.pinned,
    title=NEXT.named,
    requires=NEXT.requires,
    rows=next_rows(rows),
    known_keys=KnownKeys.beside(__file__, "keys-next.txt"),
    python="3.12",
    room=lambda _shape, accelerator: f"next-{accelerator}",
)

AXOLOTL = replace(_PINNED, releases=(_NEXT,))
