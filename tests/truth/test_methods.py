"""The loss that a recipe means is the loss that is trained: each method in each trainer that claims it, against plain PyTorch."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from backends.recipe.flat import nest
from tests.truth.cells import CELLS, FIRST, MORE, OFTEN, STEPS
from tests.truth.wishes import SILENT, planned, recipe, wish

HERE = Path(__file__).parent
SHIMS = HERE.parents[1] / "backends" / "shims"
SAME = 1e-5
"""Largest difference in fp32, of itself where a value is above 1."""
FELT = 5 * SAME
"""Least difference that a leaf must make to be seen."""

pytestmark = pytest.mark.trainer

SHAPE = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "kv_heads": 2}
SHAPE |= {"family": "llama", "max_length": 128, "rope_theta": 1e4, "norm_eps": 1e-5, "tied": False}
BLOCKS = {"hidden_size": 128, "intermediate_size": 128, "kv_heads": 4}
"""NF4 wants whole blocks."""
MACHINE = "version: 1\ntargets: {local: {accelerator: cpu, devices: 2, threads: 1}}\n"
REWARDS = """import json


def score(prompts, completions, completion_ids, **_):
    rewards = [sum(ids) % 64 / 64 + len(ids) / 8 for ids in completion_ids]
    with open("answers.jsonl", "a") as file:
        rows = [{"prompt": p, "completion_ids": list(map(int, i)), "rewards": [r]} for p, i, r in zip(prompts, completion_ids, rewards)]
        file.write(json.dumps(rows) + "\\n")
    return rewards
"""


@pytest.fixture(scope="session")
def sharp(trainer_python, tmp_path_factory):
    """The folder of a small model with sharp weights; that of a reward model has a head."""

    @cache
    def make(head=False, blocks=False, seed=5, tied=False):
        base = tmp_path_factory.mktemp("sharp")
        shape = {**SHAPE, **(BLOCKS if blocks else {}), "tied": tied}
        (base / "model.json").write_text(
            json.dumps({"init": "random", "folder": "made/model", "seed": seed, "architecture": shape})
        )
        sharpen = [str(HERE / "sharpen.py"), "made/model", *(["head"] if head else [])]
        for argv in ([str(SHIMS / "tune_model.py"), "model.json"], sharpen):
            subprocess.run([trainer_python("torchtune"), *argv], cwd=base, check=True, capture_output=True)
        return base / "made" / "model"

    return make


def write(folder):
    """Rows of unequal lengths for every format, none of which repeats another."""
    for name, count in (("rows", 20), ("val", 8)):
        rows = {form: [] for form in ("preference", "rated", "text", "completion", "prompts")}
        for n in range(count):
            prompt = f"{name} {n}: add {n * 7 % 11} and {n}" + " please" * (n % 3) + ". "
            good, bad = f"It is {n * 7 % 11 + n}" + ", really" * (n % 4) + ".", "No" + " idea" * (1 + n * 3 % 5) + "!"
            rows["preference"].append({"prompt": prompt, "chosen": good, "rejected": bad})
            rows["rated"].append({"prompt": prompt, "completion": good if n % 3 else bad, "label": bool(n % 3)})
            rows["text"].append({"text": prompt + good})
            rows["completion"].append({"prompt": prompt, "completion": good})
            rows["prompts"].append({"prompt": prompt})
        for form, each in rows.items():
            (folder / f"{name}.{form}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    (folder / "rewards.py").write_text(REWARDS)
    (folder / "clusters.yaml").write_text(MACHINE)


def trained(tune, home, interpreter, trainer, flat):
    """A job: name of a metric -> step -> value, and its work folder."""
    interpreter(trainer, dict(planned(trainer, flat).env))
    write(tune.cwd)
    (tune.cwd / "r.yaml").write_text(json.dumps(nest(flat)))
    job = tune("submit", "r.yaml", "--to", trainer, "--follow").stdout.strip()
    points = {}
    for point in tune.json("metrics", job)["points"]:
        points.setdefault(point["name"], {})[point["step"]] = point["value"]
    return points, home / "jobs" / job / "1" / "work"


def truth(python, asked, folder):
    """The same by tune_truth.py."""
    (folder / "truth-wish.json").write_text(json.dumps(asked))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([python, str(SHIMS / "tune_truth.py"), "truth-wish.json"], cwd=folder, env=env, check=True)
    found = json.loads((folder / asked["out"]).read_text())
    assert "error" not in found, found["error"]
    return found


def answered(work):
    """The answers of grpo by step, with the tokens of their prompts: a file."""
    with (work / "data" / "train.prompts.jsonl").open() as file:
        ids = {row["prompt"]: row["prompt_ids"] for row in map(json.loads, file)}
    with (work / "answers.jsonl").open() as file:
        steps = [[{**row, "prompt_ids": ids[row["prompt"]]} for row in json.loads(line)] for line in file]
    out = work.parent / "answers.jsonl"
    out.write_text("".join(json.dumps(step) + "\n" for step in steps))
    return str(out)


def gaps(points, want, steps=STEPS):
    """Metric -> largest difference over the first steps, of itself where the truth is above 1; infinite where one is not reported."""
    curves = {name: values[:steps] for name, values in want.items() if isinstance(values, list) and name != "variants"}
    if steps < STEPS:
        want = {}
    if "eval_loss" in want:
        curves["eval_loss"] = [None] * (len(want["loss"]) - 1) + [want["eval_loss"]]
    found = {name: far(values, [points.get(name, {}).get(k) for k in range(1, STEPS + 1)]) for name, values in curves.items()}
    return {**found, **want.get("exported", {})}


def far(want, told):
    """The largest difference of two curves."""
    pairs = [(one, value) for one, value in zip(told, want, strict=False) if value is not None]
    return max(float("inf") if one is None else abs(one - value) / max(1.0, abs(value)) for one, value in pairs)


FELT_BEFORE: dict[str, dict] = {}
"""What was turned up with which effect, by all that it hangs on: trainers, micro-batches and processes share it."""


def told_apart(cell, asked):
    """The wish without variants whose effect is known, and the name under which it is; grpo's hangs on a run's answers, too."""
    adapter = asked["adapter"] and {**asked["adapter"], "start": None}
    same = {**asked, "adapter": adapter, "tied": cell.tied} | dict.fromkeys(("model", "data", "teacher", "exported"))
    name = "" if cell.kind == "grpo" else json.dumps(same, sort_keys=True)
    return {**asked, "variants": []} if name in FELT_BEFORE else asked, name


def felt(want):
    """Leaf -> the largest difference that turning it up makes in a loss or a gradient norm, by the truth."""
    return {each["leaf"]: max(far(want[name], each[name]) for name in ("loss", "grad_norm")) for each in want["variants"]}


@pytest.mark.parametrize(
    "cell",
    [
        *(pytest.param(each, marks=pytest.mark.thorough(2)) for each in CELLS),
        *(pytest.param(each, marks=pytest.mark.thorough) for each in OFTEN),
        *(pytest.param(each, marks=pytest.mark.thorough(3)) for each in MORE),
    ],
    ids=str,
)
def test_what_is_trained_is_what_is_meant(tune, home, sharp, trainer_interpreter, record_property, cell):
    """Loss, gradient norm, rewards and evaluation of five steps, and the exported models, are those of plain PyTorch over single rows
    within 1e-5 in fp32. Each numeric leaf that the trainer claims has another value than its default, with which the curves would be
    others: none is taken and not used. Two have no effect by the truth either: A and B of LoRA are matrices, whatever decays, and
    answers that are learned from once have a ratio of 1, wherever it is clipped. Where numbers are rounded in training only the first step is
    held as closely.
    """
    model = sharp(head=cell.kind == "reward", blocks=cell.adapter == "qlora", tied=cell.tied)
    teacher = sharp(blocks=cell.adapter == "qlora", seed=6) if cell.kind == "distill" else None
    flat = recipe(cell, model, teacher)
    points, work = trained(tune, home, trainer_interpreter, cell.trainer, flat)
    asked = wish(cell, flat, model, work, teacher)
    if cell.kind == "grpo":
        asked["answers"] = answered(work)
    asked, name = told_apart(cell, asked)
    want = truth(trainer_interpreter("torchtune", {}), asked, work.parent)
    assert list(points["loss"]) == list(range(1, STEPS + 1))
    found, effects = gaps(points, want), FELT_BEFORE.get(name) or felt(want)
    if name:
        FELT_BEFORE[name] = effects
    record_property("truth", (str(cell), found))
    record_property("felt", (cell.trainer, cell.kind, cell.adapter, effects))
    print(cell, json.dumps({"trainer": {k: list(v.values()) for k, v in points.items() if k in want}, "truth": want}))
    assert {name: gap for name, gap in found.items() if not gap <= cell.unlike.get(name, SAME)} == {}
    if cell.group:
        first = gaps(points, want, 1)
        assert {name: gap for name, gap in first.items() if not gap <= FIRST.get(name, SAME)} == {}
        other = next(each["grad_norm"] for each in want["variants"] if each["leaf"] == "method.qat.group")
        assert far(want["grad_norm"][:1], other) > 5 * FIRST["grad_norm"], (
            "another size of groups would be seen in the first step"
        )
    silent = {*SILENT, *(["optim.decay_on"] if cell.adapter in ("lora", "qlora") else [])}
    assert {leaf: size for leaf, size in effects.items() if size < FELT and leaf not in silent} == {}
