"""`tune verify` by plain PyTorch: what a trainer does otherwise than the recipe says is found, and its leaf is named."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from backends.compile import context_of, plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.store import Job, PointRow
from orchestrator.verification import LOSS, Run, truth
from orchestrator.verification.truth import FOUND, wished

BACKEND = Path(__file__).parents[2] / "backends"
STEPS = 6

pytestmark = pytest.mark.trainer

RECIPE = {
    "version": 1,
    "name": "same",
    "model": {
        "id": "tiny",
        "init": "random",
        "architecture": {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2, "kv_heads": 2},
    },
    "train": {"steps": STEPS, "batch": {"global": 4}, "precision": "fp32", "grad_clip": 0.05},
    "optim": {"lr": 0.02, "weight_decay": 0.5, "warmup_steps": 1, "eps": 1e-3, "betas": [0.8, 0.95]},
}
SETTINGS = {
    "dpo": {"beta": 0.6, "label_smoothing": 0.2},
    "ipo": {"beta": 0.6},
    "orpo": {"beta": 0.6},
    "simpo": {"beta": 3.0, "margin": 0.8},
    "kto": {"beta": 0.6, "desirable": 1.5, "undesirable": 0.7},
}
REFERENCE = "method.kind (the model that it is held near)"
MISTAKES = [
    *(
        (kind, f"method.preference.{name}", {"settings": {name: value * 2}})
        for kind, s in SETTINGS.items()
        for name, value in s.items()
    ),
    *((kind, "method.preference.beta", {"settings": {"beta": s["beta"] * 0.7}}) for kind, s in SETTINGS.items()),
    ("dpo", "method.preference.label_smoothing", {"settings": {"label_smoothing": 0.0}}),
    ("simpo", "method.preference.margin", {"settings": {"margin": 0.0}}),
    ("kto", "method.preference.desirable", {"settings": {"desirable": 1.0}}),
    ("kto", "method.preference.undesirable", {"settings": {"undesirable": 1.0}}),
    *((kind, REFERENCE, {"reference": "policy"}) for kind in ("dpo", "ipo", "kto")),
    *(
        (kind, leaf, change)
        for kind in ("dpo", "reward", "sft")
        for leaf, change in (
            ("train.grad_clip", {"clip": None}),
            ("optim.lr", {"lr": 0.022}),
            ("optim.weight_decay", {"weight_decay": 0.0}),
            ("optim.betas", {"betas": [0.9, 0.999]}),
            ("optim.warmup_steps", {"schedule": {"warmup": 0}}),
        )
    ),
]


def rows(folder):
    """Pairs, verdicts and answers."""
    for n in range(24):
        prompt, good, bad = (
            f"Add {n} and {n * 7 % 5}: ",
            f"It is {n + n * 7 % 5}." + " Yes." * (n % 3),
            "No" + " idea" * (n % 4 + 1),
        )
        for form, row in {
            "preference": {"prompt": prompt, "chosen": good, "rejected": bad},
            "rated": {"prompt": prompt, "completion": good if n % 3 else bad, "label": bool(n % 3)},
            "completion": {"prompt": prompt, "completion": good},
        }.items():
            with (folder / f"{form}.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


def recipe(kind):
    """Flat leaves and context of a recipe of this kind."""
    form = {"kto": "rated", "sft": "completion"}.get(kind, "preference")
    method = {"kind": kind, **({"preference": SETTINGS[kind]} if kind in SETTINGS else {})}
    text = yaml.safe_dump({**RECIPE, "method": method, "data": {"train": f"./{form}.jsonl", "format": form, "max_length": 64}})
    made = parse(text, base="/x")
    return made, made.flat(), context_of(made.flat(), Target())


@pytest.fixture(scope="session")
def folder(trainer_python, tmp_path_factory):
    """A job's folder with a model and rows; computes what plain PyTorch finds for a wish."""
    work = tmp_path_factory.mktemp("job")
    for shim in BACKEND.glob("shims/tune_*.py"):
        shutil.copy(shim, work)
    (work / "cache").mkdir()
    (work / "inputs").mkdir()
    rows(work / "inputs")
    made, flat, _ = recipe("dpo")
    spec = next(file.text for file in plan(BACKENDS["torchtune"], made, Target()).files if file.path == "model.json")
    (work / "model.json").write_text(spec)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def call(*argv):
        done = subprocess.run(
            [trainer_python("torchtune"), *argv], cwd=work, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    call("tune_model.py", "model.json")

    def find(wish):
        (work / "truth.json").write_text(json.dumps(wish))
        call("tune_truth_job.py", "truth.json")
        return (work / FOUND).read_text()

    return find


KNOWN = {}


def found(folder, kind):
    """What plain PyTorch finds for a kind, once."""
    if kind not in KNOWN:
        _, flat, context = recipe(kind)
        wish = wished(BACKENDS["axolotl"], flat, context)
        name = {"kto": "rated", "sft": "completion"}.get(kind, "preference")
        wish["data_spec"]["train"]["path"] = f"inputs/{name}.jsonl"
        KNOWN[kind] = (wish, folder(wish))
    return KNOWN[kind]


def ran(text):
    """A run that reports these figures."""
    figures = json.loads(text)
    names = [name for name, values in figures.items() if isinstance(values, list) and name != "variants"]
    points = [PointRow(k, name, v, 1.0, 1, "") for name in names for k, v in enumerate(figures[name], 1) if v is not None]
    job = Job(
        *("a", "same", "axolotl", "local", "SUCCEEDED", "", "", 1),
        *(6, 6, "train", 1.0, 1.0, 1.0, 1.0, 0, "", True, {}, 1.0, 1.0),
    )
    made, _, _ = recipe("dpo")
    return Run("axolotl", plan(BACKENDS["axolotl"], made, Target()), job, points)


@pytest.mark.parametrize("kind", [*SETTINGS, "reward", "sft"])
def test_the_same_training_passes(folder, kind):
    """A run with plain PyTorch's own figures passes, and its detail says how far what is."""
    _, flat, context = recipe(kind)
    _, text = found(folder, kind)
    assert "error" not in json.loads(text), text
    verdict = truth(ran(text), flat, context, text, LOSS["fp32"])
    assert verdict.outcome == "passed", verdict.detail
    assert verdict.detail.startswith(f"{STEPS} steps as in plain PyTorch")


@pytest.mark.parametrize(("kind", "leaf", "change"), MISTAKES, ids=lambda each: str(each)[:60])
def test_each_mistake_is_named(folder, kind, leaf, change):
    """A run with another beta, without smoothing, margin, weights or clipping, near another model, or with another optimizer fails, and
    the leaf is named.
    """
    _, flat, context = recipe(kind)
    wish, text = found(folder, kind)
    changed = {**wish, "variants": []}
    for key, value in change.items():
        changed[key] = {**changed[key], **value} if isinstance(value, dict) else value
    verdict = truth(ran(folder(changed)), flat, context, text, LOSS["fp32"])
    assert verdict.outcome == "failed", verdict.detail
    assert verdict.detail.startswith(f"{leaf}: "), verdict.detail
