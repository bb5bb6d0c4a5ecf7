"""MaxText 0.2.5's side: what of its config only the host knows, and the start of its trainers.

    python tune_maxtext.py maxtext.json           writes job.yml, on which maxtext.yml is based
    python tune_maxtext.py maxtext.json MODULE [HEAD PORT RANK]    runs one of its trainers on maxtext.yml, as one of several hosts

maxtext.json: `{"kind": sft|pretrain|dpo|orpo|distill, "model": folder, "data": the data step's folder or null, "weights": the link of
convert.json, "teacher": folder or null, whose weights are the link teacher-weights, "lora": bool, "steps": number or null (as the data give it), "schedule": constant|linear|cosine, "warmup_steps":
number or null, "warmup_share": share or null, "evaluates": bool, "eval_every": number or null, "eval_every_share": share or null, "eval_on_start": bool, "block": tokens that sequences
are multiples of, "devices": 1, "hosts": 1, "slices": TPU slices or not there, "accelerator": "cpu", "parts": of a step that Tunix trains, "keep": checkpoints that remain or null, "wandb": the project there or null}`.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_checkpoints
import tune_maxtext_checkpoints
import tune_maxtext_evaluation
import tune_maxtext_hosts
import tune_maxtext_mends
import tune_shape
import tune_shared
import tune_trackers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BASES = {"sft": "post_train/sft.yml", "pretrain": "base.yml", "dpo": "post_train/dpo.yml", "orpo": "post_train/dpo.yml"}
BASES["distill"] = "base.yml"  # distillation.yml has a name for either model, which would bring its sizes
"""Kind -> the file of MaxText's own that job.yml is based on."""
PAIRS = ("dpo", "orpo")
TEACHER = "teacher-weights"
"""The link of the teacher's conversion."""


def main(spec: str, module: str = "", *where: str) -> int:
    """Prepare, or train. 0, or 1 with a message and reason.json; a trainer's own exit code is its own."""
    wish = json.loads(Path(spec).read_text())
    if module:
        run = partial(tune_shared.guarded, "bad_spec", lambda: _train(wish, module, where))
        return tune_maxtext_hosts.at_once(run) if where else run()
    return tune_shared.guarded("bad_model", lambda: _prepare(wish))


# What only the host knows


def _prepare(wish: Mapping[str, Any]) -> None:
    plan = tune_shared.manifest(wish["data"]) if wish["data"] else {}
    steps = wish["steps"] or plan["steps"]
    shape = tune_shape.read(wish["model"], tune_shape.FAMILIES)
    keys = {
        "base_config": BASES[wish["kind"]],
        **architecture(shape),
        **_places(wish),
        "steps": steps,
        **schedule(steps, wish["schedule"], _warmup(steps, wish)),
        **_evaluation(wish["eval_every"] or _share(steps, wish["eval_every_share"]) or steps, wish["evaluates"]),
    }
    if wish["kind"] == "distill":
        keys |= _overrides(wish["teacher"], shape)
    if plan:
        keys |= _lengths(plan, shape, wish)
    lines = [f"{key}: {json.dumps(value)}" for key, value in keys.items()]  # JSON is YAML
    Path("job.yml").write_text("\n".join(["# Written on the host: shapes, paths, lengths", *lines, ""]))


def architecture(shape: tune_shape.Shape) -> dict[str, Any]:
    """The model in MaxText's keys.

    The block is `qwen2` for every family: Llama, Mistral, Qwen 2 and 3 differ from it in biases and norms only, and the block
    `llama2` leaves the scale of the attention to the query weights (see tune_maxtext_weights.py).
    """
    return {
        "model_name": "default",
        "decoder_block": "qwen2",
        "attention_bias": shape.qkv_bias,
        "use_qk_norm": shape.qk_norm,
        "base_emb_dim": shape.width,
        "base_num_query_heads": shape.heads,
        "base_num_kv_heads": shape.kv_heads,
        "base_mlp_dim": shape.inner,
        "base_num_decoder_layers": shape.layers,
        "head_dim": shape.head,
        "vocab_size": shape.vocab,
        "logits_via_embedding": shape.tied,
        "normalize_embedding_logits": False,
        "normalization_layer_epsilon": shape.eps,
        "mlp_activations": ["silu", "linear"],
        "rope_type": "default",
        "rope_max_timescale": shape.theta,
    }


def _overrides(teacher: str, student: tune_shape.Shape) -> dict[str, Any]:
    """The teacher, in what it differs from the model."""
    shape = tune_shape.read(teacher, tune_shape.FAMILIES)
    if shape.vocab != student.vocab:
        raise ValueError(f"{teacher}: the teacher knows {shape.vocab} tokens, the model {student.vocab}: they need the same ones")
    return {"teacher_overrides": {**architecture(shape), "load_parameters_path": str(Path.cwd() / TEACHER / "0/items")}}


def _places(wish: Mapping[str, Any]) -> dict[str, Any]:
    """Paths, which MaxText wants absolute: `Checkpoint path should be absolute`."""
    here = Path.cwd()
    places = {
        "base_output_directory": str(here / "out"),
        "metrics_file": str(here / "out" / "metrics.jsonl"),
        "load_parameters_path": str(here / wish["weights"] / "0/items"),
        "tokenizer_path": str(here / wish["model"]),
        "hf_train_files": str(here / "data"),
        "hf_eval_files": str(here / "data"),
    }
    return {**places, "lora": {"lora_restore_path": str(here / wish["weights"] / "lora/start")}} if wish["lora"] else places


def _evaluation(every: int, wanted: bool) -> dict[str, Any]:
    """MaxText's own loop evaluates after the steps s, counted from 0, for which `every` divides s - eval_start_step."""
    return {"eval_interval": every if wanted else -1, "eval_start_step": every - 1}


def _warmup(steps: int, wish: Mapping[str, Any]) -> int:
    return _share(steps, wish["warmup_share"]) or wish["warmup_steps"] or 0


def _share(steps: int, share: float | None) -> int:
    """Steps that a share of a run is, rounded up: 0.07 of 100 is 7, whatever binary says."""
    return math.ceil(round(share * steps, 9)) if share else 0


def schedule(steps: int, kind: str, warmup: int) -> dict[str, Any]:
    """Shares of the schedule, such that MaxText's floor of share x length gives the steps meant.

    Its schedules end one step early, so that one step more makes step k use f(k - 1); create_learning_rate_schedule:
    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/utils/maxtext_utils.py
    """
    length = steps + 1
    return {
        "learning_rate_schedule_steps": length,
        "warmup_steps_fraction": share(warmup, length),
        "wsd_decay_steps_fraction": share(length - warmup, length) if kind == "linear" else 0.0,
    }


def share(part: int, whole: int) -> float:
    """The smallest number that times `whole` is not below `part`: two that make a whole must not come to more than 1."""
    value = part / whole
    return value if int(whole * value) == part else math.nextafter(value, 1.0)


def _lengths(plan: Mapping[str, Any], shape: tune_shape.Shape, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Every sequence is padded to the longest, in whole blocks of the attention kernel."""

    def longest(name: str) -> int:
        tokens = max(plan[name], (plan.get("eval") or {}).get(name, 0))
        return -(-tokens // wish["block"]) * wish["block"]

    if shape.window and longest("longest") > shape.window:
        raise ValueError(f"{wish['model']}: sees {shape.window} tokens at once, rows are longer; lower data.max_length to that")
    if wish["kind"] in PAIRS:
        prompt = longest("longest_prompt")
        return {"max_target_length": prompt + longest("longest_answer"), "dpo": {"max_prompt_length": prompt}}
    return {"max_target_length": longest("longest")}


# Training


def _train(wish: Mapping[str, Any], module: str, where: Sequence[str]) -> None:
    _surroundings(wish)
    if where:
        tune_maxtext_hosts.join(wish, *where)
    tune_maxtext_mends.recorded("maxtext.yml")
    tune_maxtext_mends.spare_other_processes()
    tune_maxtext_mends.exact_rates()
    tune_maxtext_mends.whole_metrics(counts_from=1 if wish["lora"] or wish["kind"] in PAIRS else 0)
    lacks = "" if wish["data"] else "MaxText does not take up the place in rows that it reads itself"
    tune_maxtext_checkpoints.on_time(wish.get("keep"), lacks)
    if where:
        tune_maxtext_hosts.gather(wish.get("keep"), lacks)
    if not where or tune_maxtext_hosts.is_first():
        tune_maxtext_checkpoints.taken_over()
    tune_maxtext_evaluation.at_the_ends(first=wish["eval_on_start"] and not tune_checkpoints.begun(here=False))
    if wish["data"]:
        tune_maxtext_mends.own_rows(wish)
    if wish["lora"]:
        tune_maxtext_mends.token_means(wish)
        tune_maxtext_mends.lora_in_its_type(wish["dtype"])
    if wish["lora"] or wish["kind"] in (*PAIRS, "distill"):
        tune_maxtext_mends.metrics_of_the_step()
    if wish["kind"] in PAIRS:
        import tune_maxtext_preferences  # noqa: PLC0415 - imports JAX

        tune_maxtext_mends.unregistered_model()
        tune_maxtext_preferences.mend(wish)
    _run(wish, module)


def _run(wish: Mapping[str, Any], module: str) -> None:
    shapes = [tune_shape.read(model, tune_shape.FAMILIES) for model in (wish["model"], wish.get("teacher")) if model]
    if any(shape.tied for shape in shapes):
        tune_maxtext_mends.tied_head()
    if any(shape.scaling for shape in shapes):
        tune_maxtext_mends.scale_rotation(shapes[0].scaling)
    sys.argv = [module, "maxtext.yml"]
    if wish["kind"] == "distill":
        import tune_maxtext_distill  # noqa: PLC0415 - imports JAX

        return tune_maxtext_distill.main(shapes[1].scaling, wish["parts"])
    from absl import app  # noqa: PLC0415 - MaxText's own

    app.run(importlib.import_module(module).main)  # not as __main__, which would be a second copy, with nothing mended
    return None


def _surroundings(wish: Mapping[str, Any]) -> None:
    """What JAX and MaxText read when they are imported. `M_STEPS=3` in the environment would be a key of the config, and Tunix
    starts a run at wandb wherever wandb is installed.
    """
    for name in [name for name in os.environ if name.startswith("M_")]:
        del os.environ[name]
    if wish["wandb"]:
        tune_trackers.name_wandb(wish["wandb"])
    else:
        os.environ["WANDB_MODE"] = "disabled"
    if wish["accelerator"] == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        flags = (os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={wish['devices']}")
        os.environ["XLA_FLAGS"] = " ".join(flags).strip()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
