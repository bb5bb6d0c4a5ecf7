"""What is around axolotl's training: evaluation, checkpoints, services, and files that a config names. Part of import_keys.py."""

from __future__ import annotations

import re
from collections.abc import Callable

from backends.dialect import ImportRow, Unfit, counted, idle, note, number, text, whole
from backends.mapping.rows import ABSENT, Flat, Value, Values, Variant
from backends.recipe.paths import HUB, is_path
from backends.recording import plain
from backends.trainers.axolotl.import_data import evaluated, section

_NATIVE = "native.axolotl."


def _split_off(share: Value) -> Flat:
    if share in (ABSENT, None, 0):
        return {}
    if isinstance(share, float) and share < 1:
        return {"data.eval_share": share}
    raise Unfit("so many rows are for evaluation; a recipe holds out a share of them", {f"{_NATIVE}val_set_size": share})


def evaluation(variant: Variant) -> tuple[ImportRow, ...]:
    """When rows for evaluation are looked at, where there are any: axolotl refuses the keys without."""
    others = (
        "eval_strategy",
        "eval_batch_size",
        "eval_table_size",
        "eval_causal_lm_metrics",
        "eval_sample_packing",
    )
    return (
        ImportRow(("test_datasets.*",), evaluated(variant), "rows for evaluation", also=(f"{section(variant)}.*",)),
        ImportRow(("val_set_size",), _split_off),
        ImportRow(("eval_steps",), _every, also=_EVALUATES),
        ImportRow(("evals_per_epoch",), _times, "a share of the run", also=("num_epochs", *_EVALUATES)),
        ImportRow(("early_stopping_patience",), _patience, also=("eval_steps", "evals_per_epoch", *_EVALUATES)),
        ImportRow(("eval_on_start",), _first, "axolotl 0.21 has it; here tune does it", also=_EVALUATES),
        *(ImportRow((key,), _beside(key), "how it is evaluated", also=_EVALUATES) for key in others),
    )


_EVALUATES = ("test_datasets", "test_datasets.*", "val_set_size")
"""Keys of which one at least has to be there for an evaluation."""


def _evaluates(values: Values) -> bool:
    return any(value not in (ABSENT, None, 0, []) for value in values)


def _every(steps: Value, *rows: Value) -> Flat:
    if steps in (ABSENT, None):
        return {}
    if not _evaluates(rows):
        return idle("eval_steps", _NO_ROWS)
    if 0 < number(steps) < 1:
        return {"eval.every_share": number(steps)}
    return {"eval.every": whole(steps)}


def _times(times: Value, epochs: Value, *rows: Value) -> Flat:
    """axolotl makes a share of all steps of it, and leaves out what would be 1 (utils/config/__init__.py)."""
    if times in (ABSENT, None):
        return {}
    if not _evaluates(rows):
        return idle("evals_per_epoch", _NO_ROWS)
    count = number(times) * (1.0 if epochs in (ABSENT, None) else number(epochs))
    return {"eval.every_share": 1 / count} if count > 1 else idle("evals_per_epoch", "there is one at the end in any case")


def _patience(most: Value, steps: Value, times: Value, *rows: Value) -> Flat:
    """axolotl refuses it without eval_steps."""
    if most in (ABSENT, None):
        return {}
    if not _evaluates(rows) or (steps in (ABSENT, None) and times in (ABSENT, None)):
        return idle("early_stopping_patience", "there are no evaluations on the way")
    return {"eval.patience": whole(most)}


def _first(on: Value, *rows: Value) -> Flat:
    if on is not True:
        return {}
    return {"eval.on_start": True} if _evaluates(rows) else idle("eval_on_start", _NO_ROWS)


_NO_ROWS = "there are no rows to evaluate on"


def _beside(key: str) -> Callable[..., Flat]:
    def make(value: Value, *rows: Value) -> Flat:
        if value in (ABSENT, None):
            return {}
        return (
            idle(key, _NO_ROWS)
            if key == "eval_strategy" and value != "no" and not _evaluates(rows)
            else {f"{_NATIVE}{key}": value}
        )

    return make


def around() -> tuple[ImportRow, ...]:
    """Checkpoints, logs, services, and files beside the config."""
    return (
        ImportRow(
            ("save_steps", "save_strategy"),
            _saving,
            "checkpoints at the end of epochs are axolotl's own affair",
            also=("saves_per_epoch",),
        ),
        ImportRow(
            ("save_total_limit",),
            lambda n: {f"{_NATIVE}save_total_limit": 4} if n in (ABSENT, None) else {"checkpoint.keep": whole(n)},
            "axolotl keeps 4",
        ),
        ImportRow(("logging_steps",), lambda n: {"log.every": 1 if n in (ABSENT, None) else whole(n)}),
        ImportRow(
            (
                "use_tensorboard",
                "wandb_project",
                "use_wandb",
                "use_mlflow",
                "wandb_name",
                "mlflow_experiment_name",
                "mlflow_run_name",
                "mlflow_tracking_uri",
                "use_trackio",
                "trackio_project_name",
                "trackio_run_name",
            ),
            _trackers,
        ),
        ImportRow(("loss_watchdog_threshold", "loss_watchdog_patience"), _watchdog, "tune looks at the loss of each step"),
        ImportRow(("lora_model_dir",), _begun, "an adapter to start from"),
        ImportRow(("tokenizer_use_mistral_common",), _mistral, "which class loads the tokenizer, and has its own template"),
        ImportRow(
            ("deepspeed", "deepspeed.*"),
            _deepspeed,
            "how several devices share the work",
            also=("launch:devices", "launch:hosts"),
        ),
        ImportRow(("load_best_model_at_end",), lambda on: {f"{_NATIVE}load_best_model_at_end": True} if on is True else {}),
    )


def _watchdog(limit: Value, steps: Value) -> Flat:
    if limit in (ABSENT, None):
        return {}
    return {"retry.diverged_above": number(limit), "retry.diverged_steps": 3 if steps in (ABSENT, None) else whole(steps)}


def _begun(name: Value) -> Flat:
    """An adapter of the hub is there for every job; a folder is not."""
    if name in (ABSENT, None, ""):
        return {}
    carry = {f"{_NATIVE}lora_model_dir": name} if HUB.fullmatch(text(name)) and not is_path(name) else {}
    raise Unfit(
        f"an adapter to start from{'' if carry else ': its folder does not come along, and the run starts with a new one'}", carry
    )


def _mistral(on: Value) -> Flat:
    """mistral-common's tokenizers refuse chat_template, which is written for all others."""
    if on is not True:
        return {} if on in (ABSENT, None) else {f"{_NATIVE}tokenizer_use_mistral_common": on}
    return {f"{_NATIVE}tokenizer_use_mistral_common": True, f"{_NATIVE}~chat_template": None}


def _deepspeed(path: Value, listed: Value, devices: Value, hosts: Value) -> Flat:
    """DeepSpeed's config comes along as a value; of one that is not there its name says the stage, where it is one of axolotl's."""
    if isinstance(listed, dict):
        return {
            f"{_NATIVE}deepspeed": plain(listed),
            **note("deepspeed comes along as a value: how many devices share the work is resources.devices"),
        }
    if path in (ABSENT, None, ""):
        return {}
    stage = re.match(r"zero([123])(?:_|\.|$)", text(path).rpartition("/")[2])
    values = {"resources.strategy": f"zero{stage[1]}"} if stage and counted(devices, hosts) > 1 else {}
    raise Unfit(f"{path} is not beside the config: put it there and it comes along, or name resources.strategy", values)


def _saving(steps: Value, strategy: Value, per_epoch: Value) -> Flat:
    if isinstance(steps, int) and not isinstance(steps, bool):
        return {"checkpoint.every": steps, **idle("save_strategy", "save_steps goes before")}
    if steps not in (ABSENT, None):
        own = {f"{_NATIVE}save_steps": number(steps), f"{_NATIVE}save_strategy": "steps"}
        raise Unfit("saves after a share of the run; a recipe counts steps", own)
    if strategy == "no":
        return {}
    counted = per_epoch not in (ABSENT, None)
    own = {"save_strategy": None if counted else strategy if strategy not in (ABSENT, None) else "epoch"}
    return {f"{_NATIVE}{key}": value for key, value in own.items()}


def _trackers(
    board: Value,
    project: Value,
    wandb: Value,
    mlflow: Value,
    run: Value,
    experiment: Value,
    attempt: Value,
    uri: Value,
    trackio: Value,
    *space: Value,
) -> Flat:
    services = [
        name
        for name, on in (
            ("tensorboard", board is True),
            ("wandb", isinstance(project, str) and wandb is not False),
            ("mlflow", mlflow is True),
            ("trackio", trackio is True),
        )
        if on
    ]
    if not services:
        return {}
    first = (project, run) if "wandb" in services else (experiment, attempt) if "mlflow" in services else space
    values = dict(zip(("log.project", "log.run"), first, strict=True))
    values |= {"log.mlflow_uri": uri} if "mlflow" in services else {}
    return {"log.trackers": services, **{leaf: value for leaf, value in values.items() if isinstance(value, str) and value}}
