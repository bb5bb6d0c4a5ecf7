"""The loss that a recipe means is the loss that is trained: each method in each trainer that claims it, against losses.py."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHIMS = HERE.parents[1] / "backends" / "shims"
SAME = 1e-5
"""Largest difference in fp32, of itself where a value is above 1."""

pytestmark = pytest.mark.trainer

SHAPE = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "kv_heads": 2}
SHAPE |= {"family": "llama", "max_length": 128, "rope_theta": 1e4, "norm_eps": 1e-5, "tied": False}
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
FORMATS = {"kto": "rated", "pretrain": "text", **dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "reward"), "preference")}
DEFAULTS = {"beta": 0.1, "label_smoothing": 0.0, "margin": 0.5, "desirable": 1.0, "undesirable": 1.0, "ratio": 0.5}
RANK, ALPHA = 4, 8.0


@dataclass(frozen=True)
class Cell:
    """A method in a trainer."""

    trainer: str
    kind: str
    adapter: str = "none"
    micro: int = 2
    settings: dict = field(default_factory=dict)
    clip: float | None = None
    unlike: dict = field(default_factory=dict)
    """What the report calls approximated: metric -> how far it may be from the truth."""

    def __str__(self):
        more = [f"{name}={value}" for name, value in self.settings.items()]
        return "-".join([self.trainer, self.kind, self.adapter, f"micro{self.micro}", *more])


PREFERRED = {"beta": 0.3}
CELLS = [
    Cell("axolotl", "dpo", settings={"beta": 0.3, "label_smoothing": 0.2}),
    Cell("torchtune", "dpo", settings={"beta": 0.3, "label_smoothing": 0.2}, clip=1e3),
    Cell("maxtext", "dpo", settings={"beta": 0.3, "label_smoothing": 0.2}),
    Cell("axolotl", "orpo", settings={"beta": 0.3}),
    Cell("maxtext", "orpo", settings={"beta": 0.3}),
    Cell("axolotl", "kto", settings={"beta": 0.3, "desirable": 1.3, "undesirable": 0.7}),
    Cell("axolotl", "simpo", settings={"beta": 1.5, "margin": 0.8}),
    Cell("axolotl", "reward"),
    Cell("trl", "dpo", settings={"beta": 0.3, "label_smoothing": 0.2}),
    Cell("trl", "orpo", settings={"beta": 0.3}),
    Cell("trl", "kto", settings={"beta": 0.3, "desirable": 1.3, "undesirable": 0.7}),
    Cell("trl", "simpo", settings={"beta": 1.5, "margin": 0.8}),
    Cell("trl", "reward"),
    Cell("trl", "sft"),
]
MORE = [
    Cell("trl", "ipo", settings={"beta": 0.3}),
    *(Cell("trl", kind, micro=micro, settings={"beta": 0.3}) for kind in ("orpo", "kto") for micro in (1, 4)),
    *(Cell("trl", kind, "lora", settings={"beta": 0.3}) for kind in ("dpo", "orpo", "kto", "simpo")),
    Cell("trl", "pretrain"),
    Cell("trl", "sft", "lora", clip=1e3),
    Cell("axolotl", "ipo", settings={"beta": 0.3}),
    *(Cell("axolotl", "orpo", micro=micro, settings={"beta": 0.3}) for micro in (1, 4)),
    *(Cell("maxtext", "orpo", micro=micro, settings={"beta": 0.3}) for micro in (1, 4)),
    *(Cell("axolotl", "kto", micro=micro, settings={"beta": 0.3}) for micro in (1, 4)),
    *(Cell("axolotl", kind, "lora", settings={"beta": 0.3}) for kind in ("dpo", "orpo", "kto", "simpo")),
    Cell("torchtune", "dpo", "lora", settings={"beta": 0.3, "label_smoothing": 0.2}, clip=1e3),
    *(Cell(trainer, kind) for trainer in ("litgpt", "torchtune", "axolotl", "maxtext") for kind in ("sft", "pretrain")),
    *(Cell(trainer, "sft", "lora", clip=1e3) for trainer in ("litgpt", "torchtune", "axolotl", "maxtext")),
]


@pytest.fixture(scope="session")
def sharp(trainer_python, tmp_path_factory):
    """The folder of a small model with sharp weights; that of a reward model has a head."""

    @cache
    def make(head):
        base = tmp_path_factory.mktemp("sharp")
        (base / "model.json").write_text(json.dumps({"init": "random", "folder": "made/model", "seed": 5, "architecture": SHAPE}))
        sharpen = [str(HERE / "loop.py"), "sharpen", "made/model", *(["head"] if head else [])]
        for argv in ([str(SHIMS / "tune_model.py"), "model.json"], sharpen):
            subprocess.run([trainer_python("torchtune"), *argv], cwd=base, check=True, capture_output=True)
        return base / "made" / "model"

    return make


def write(folder):
    """Rows of unequal lengths for every format, none of which repeats another."""
    for name, count in (("rows", 20), ("val", 6)):
        rows = {form: [] for form in ("preference", "rated", "text", "completion")}
        for n in range(count):
            prompt = f"{name} {n}: add {n * 7 % 11} and {n}" + " please" * (n % 3) + ". "
            good, bad = f"It is {n * 7 % 11 + n}" + ", really" * (n % 4) + ".", "No" + " idea" * (1 + n * 3 % 5) + "!"
            rows["preference"].append({"prompt": prompt, "chosen": good, "rejected": bad})
            rows["rated"].append({"prompt": prompt, "completion": good if n % 3 else bad, "label": bool(n % 3)})
            rows["text"].append({"text": prompt + good})
            rows["completion"].append({"prompt": prompt, "completion": good})
        for form, each in rows.items():
            (folder / f"{name}.{form}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))


def recipe(cell, model):
    """Four steps of four sequences, with evaluation rows where the trainer takes any."""
    form = FORMATS.get(cell.kind, "completion")
    section = {"distill": "distill"}.get(cell.kind, "preference")
    method = {"kind": cell.kind, "adapter": cell.adapter, **({section: cell.settings} if cell.settings else {})}
    if cell.adapter != "none":
        method["lora"] = {"rank": RANK, "alpha": ALPHA}
    rows = {"train": f"rows.{form}.jsonl", "format": form, "max_length": 96}
    if cell.trainer != "torchtune":
        rows["eval"] = f"val.{form}.jsonl"
    train = {"steps": 4, "batch": {"global": 4, "micro": cell.micro}, "precision": "fp32", "grad_clip": cell.clip}
    optim = {**ADAMW, "schedule": "cosine", "decay_on": "matrices"}
    return {
        "version": 1,
        "name": "truth",
        "model": {"id": str(model)},
        "method": method,
        "data": rows,
        "train": train,
        "optim": optim,
    }


def trained(tune, home, cell, model):
    """The cell's job: name of a metric -> step -> value, and its work folder."""
    write(tune.cwd)
    (tune.cwd / "r.yaml").write_text(json.dumps(recipe(cell, model)))
    job = tune("submit", "r.yaml", "--to", cell.trainer, "--follow").stdout.strip()
    points = {}
    for point in tune.json("metrics", job)["points"]:
        points.setdefault(point["name"], {})[point["step"]] = point["value"]
    return points, home / "jobs" / job / "1" / "work"


def truth(python, work, cell, model):
    """The same by loop.py."""
    lora = {"start": str(work / "lora" / "start.safetensors"), "alpha": ALPHA} if cell.adapter != "none" else None
    wish = {
        **{"kind": cell.kind, "settings": {**DEFAULTS, **cell.settings}, "model": str(model), "teacher": None},
        **{"data": str(work / "data"), "lora": lora, **ADAMW, "decay_on": "matrices", "clip": cell.clip},
        "schedule": {"kind": "cosine", "warmup": 0, "min_ratio": 0.0},
        "evaluates": (work / "data" / "eval.order.npy").exists() or any((work / "data").glob("eval.*")),
    }
    (work.parent / "run.json").write_text(json.dumps(wish))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([python, str(HERE / "loop.py"), "run.json", "truth.json"], cwd=work.parent, env=env, check=True)
    return json.loads((work.parent / "truth.json").read_text())


def gaps(points, want):
    """Metric -> largest difference over the steps, of itself where the truth is above 1. What the trainer does not report is left
    out, but for the loss.
    """
    want = {**want, "eval_loss": [None] * (len(want["loss"]) - 1) + [want["eval_loss"]]} if "eval_loss" in want else want
    found = {}
    for name, values in want.items():
        told = points[name] if name == "loss" else points.get(name, {})
        pairs = [(told[k], value) for k, value in enumerate(values, 1) if value is not None and k in told]
        if pairs:
            found[name] = max(abs(one - other) / max(1.0, abs(other)) for one, other in pairs)
    return found


@pytest.mark.parametrize("cell", [*CELLS, *(pytest.param(each, marks=pytest.mark.thorough) for each in MORE)], ids=str)
def test_what_is_trained_is_what_is_meant(tune, home, sharp, trainer_python, record_property, cell):
    """Loss, gradient norm, rewards and evaluation of four steps are those of plain PyTorch over single rows, within 1e-5 in fp32."""
    model = sharp(cell.kind == "reward")
    points, work = trained(tune, home, cell, model)
    want = truth(trainer_python("torchtune"), work, cell, model)
    assert list(points["loss"]) == [1, 2, 3, 4]
    assert len({round(value, 4) for value in want["loss"]}) > 1, "nothing was learned, so nothing was compared"
    found = gaps(points, want)
    record_property("truth", (str(cell), found))
    print(cell, json.dumps({"trainer": {k: list(v.values()) for k, v in points.items() if k in want}, "truth": want}))
    assert {name: gap for name, gap in found.items() if not gap < cell.unlike.get(name, SAME)} == {}
