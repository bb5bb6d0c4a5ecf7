"""Leaves beyond the quickstart's, each honoured by the trainer itself, and what one trainer has and the other has not."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.trainer

RECIPE = """\
version: 1
name: leaves
model:
  id: tiny
  init: random
  architecture: {family: qwen2, hidden_size: 64, intermediate_size: 96, layers: 2, heads: 4, kv_heads: 2, max_length: 256, tied: true}
data: {train: rows.jsonl, eval: val.jsonl, format: text, max_length: 64, pack: true}
train: {steps: 12, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, weight_decay: 0.1, warmup_steps: 2, decay_on: matrices}
eval: {every: 4}
checkpoint: {every: 6}
log: {every: 2}
"""


@pytest.fixture
def recipe(tune):
    """The recipe's folder, with plain-text rows."""
    for name, count in (("rows", 200), ("val", 20)):
        (tune.cwd / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": f"{name} {n}: " + "so it goes " * (n % 3)}) + "\n" for n in range(count))
        )
    (tune.cwd / "r.yaml").write_text(RECIPE)
    return tune.cwd / "r.yaml"


def run(tune, home, recipe, *words):
    """A job that succeeds: its points by name and step, and its work folder."""
    job = tune("submit", recipe, *words, "--follow").stdout.strip()
    points = {}
    for point in tune.json("metrics", job)["points"]:
        points.setdefault(point["name"], {})[point["step"]] = point["value"]
    return points, home / "jobs" / job / "1" / "work"


def test_litgpt(tune, home, recipe, trainer_python):
    """Packed text, a tied Qwen2 shape, evaluation and checkpoints on the way, every second point. Then what came out is a model folder
    beside the recipe, with LoRA on it, and the target has a `python:`: no environment is made, the adapter is apart.
    """
    points, work = run(tune, home, recipe, "--to", "litgpt")
    assert list(points["loss"]) == [2, 4, 6, 8, 10, 12]
    assert set(points["eval_loss"]) == {4, 8, 12}
    assert points["eval_loss"][12] < points["eval_loss"][4]
    assert sorted(p.name for p in (work / "out").glob("step-*")) == ["step-000006", "step-000012"]
    manifest = json.loads((work / "data" / "manifest.json").read_text())
    assert manifest["longest"] <= 64
    assert manifest["rows"] < 200, "nothing was packed"
    goes_on(tune, home, recipe, work, trainer_python("litgpt"))


def goes_on(tune, home, recipe, first, python):
    """LoRA on a job's checkpoint, by an interpreter of one's own."""
    (tune.cwd / "base").symlink_to(first / "checkpoint")
    (tune.cwd / "clusters.yaml").write_text(
        f"version: 1\ntargets:\n  mine: {{kind: local, accelerator: cpu, python: {python}}}\n"
    )
    values = json.loads(json.dumps({"id": "./base"}))
    text = RECIPE.replace(
        RECIPE[RECIPE.index("model:") : RECIPE.index("data:")],
        f"model: {json.dumps(values)}\nmethod: {{adapter: lora, lora: {{rank: 4}}}}\n",
    )
    recipe.write_text(text)
    points, work = run(tune, home, recipe, "--to", "litgpt", "--on", "mine")
    assert points["loss"][2] < 5, "it does not start from the trained weights"
    assert not (work / "env").exists()
    assert (work / "adapter" / "adapter_model.safetensors").exists()
    assert (
        "has no torchtune"
        in tune(
            "submit",
            recipe,
            "--to",
            "torchtune",
            "--on",
            "mine",
            "--accept",
            "data.eval",
            "--accept",
            "eval.every",
            "--set",
            "checkpoint.every=6",
            code=2,
        ).stderr
    )


def test_torchtune(tune, home, recipe):
    """What LitGPT has not: clipping, a linear schedule that ends above 0, a warm-up share; and without evaluation."""
    said = tune("submit", recipe, "--to", "torchtune", code=3).stderr
    assert "data.eval" in said
    assert "eval.every" in said
    recipe.write_text(
        RECIPE.replace(" eval: val.jsonl,", "")
        .replace("eval: {every: 4}\n", "")
        .replace("warmup_steps: 2", "warmup_share: 0.1")
        .replace("precision: fp32", "precision: fp32, grad_clip: 0.5, activation_checkpointing: true")
        .replace("decay_on: matrices", "decay_on: matrices, schedule: linear, min_lr: 1e-4")
    )
    assert "train.grad_clip" in tune("submit", recipe, "--to", "litgpt", code=3).stderr
    points, work = run(tune, home, recipe)
    assert list(points["loss"]) == [2, 4, 6, 8, 10, 12]
    assert points["grad_norm"][2] > 0
    assert points["lr"][2] == pytest.approx(5e-4)
    assert points["lr"][12] == pytest.approx(1e-4 + 9e-4 * 1 / 10)
    assert sorted(p.name for p in (work / "out").glob("epoch_*")) == ["epoch_0", "epoch_1"]


def test_litgpts_own_data_path(tune, home):
    """`data.rendering: native`: LitGPT reads the file itself, and really trains."""
    quickstart = str(ROOT / "recipes" / "quickstart.yaml")
    words = (
        "--set",
        "data.rendering=native",
        "--set",
        "data.template=alpaca",
        "--set",
        "data.max_length=256",
        "--set",
        "train.steps=12",
        "--set",
        "optim.warmup_steps=2",
        "--set",
        "train.batch.global=4",
    )
    points, _ = run(tune, home, quickstart, "--to", "litgpt", *words)
    assert points["loss"][12] < points["loss"][1]
