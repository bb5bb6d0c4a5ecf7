"""Each family of models in each trainer: trained as transformers trains it, or refused by the operation that the trainer lacks."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tune_convert_described import describe
from tune_shape import read

from backends.backend import Inexpressible
from backends.compile import plan
from backends.models import MODELS
from backends.recipe.flat import nest
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from backends.trainers.maxtext.method import FAMILIES as MAXTEXT
from backends.trainers.torchtune import families as torchtune
from tests.families.matrix import CELLS, REFUSED, WINDOWLESS, lack, measured, stretched, windowed
from tests.twins.families import TWINS, WINDOW

HERE = Path(__file__).parent
SAME = 1e-5
"""Largest difference in fp32, of itself where a loss is above 1."""
STEPS = 4
OPTIM = {"optim.lr": 1e-3, "optim.betas": [0.9, 0.95], "optim.eps": 1e-3, "optim.weight_decay": 0.0}
OPTIM |= {"optim.schedule": "cosine", "optim.warmup_steps": 1}
"""With a small epsilon Adam would make whole steps of rounding noise, where a gradient is nothing else."""
FIRST = (("litgpt", "gemma-3"), ("torchtune", "phi-4"))
"""These run where the trainers are; of the others a share."""


def recipe(model, length):
    """A few steps over all weights, in fp32."""
    flat = {"version": 1, "name": "family", "model.id": str(model), "method.kind": "sft", "method.adapter": "none"}
    flat |= {"data.train": "rows.jsonl", "data.format": "completion", "data.max_length": length}
    flat |= {"train.steps": STEPS, "train.batch.global": 4, "train.batch.micro": 2, "train.precision": "fp32"}
    return nest({**flat, **OPTIM})


def rows(short, far):
    """Rows of unequal lengths; longer than a window of attention, unless `short`. All past the length at which LongRoPE turns to its long
    factors, if `far`: with rows on both sides transformers takes those of the longest row for its whole micro-batch (docs/upstream.md).
    """
    slowly = "Take all the time that you need for this one. " if far else ""
    for n in range(12):
        prompt, answer = f"{n}+{n * 7 % 11}=", f"{n + n * 7 % 11}."
        yield (
            {"prompt": prompt, "completion": answer}
            if short
            else {
                "prompt": f"{slowly}Add {prompt} and say it" + " please" * (n % 3) + ". ",
                "completion": f"It is {answer}" + " Really," * (n % 4) + " it is.",
            }
        )


@pytest.mark.trainer
@pytest.mark.parametrize(
    ("trainer", "name"),
    [
        pytest.param(*cell, id="-".join(cell), marks=pytest.mark.core if cell in FIRST else pytest.mark.thorough(12))
        for cell in CELLS
    ],
)
def test_a_family_is_trained_as_transformers_trains_it(
    tune, home, twin, trainer_python, record_property, tmp_path, trainer, name
):
    """Losses of all steps are those of transformers' own model over the same rows within 1e-5, and so are the weights that are exported,
    which transformers loads.
    """
    short, far = windowed(name) and trainer in WINDOWLESS, stretched(name)
    model = twin(name)
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(short, far)))
    (tune.cwd / "r.yaml").write_text(json.dumps(recipe(model, WINDOW if short else 160 if far else 96)))
    job = tune("submit", "r.yaml", "--to", trainer, "--follow").stdout.strip()
    points = {p["step"]: p["value"] for p in tune.json("metrics", job)["points"] if p["name"] == "loss"}
    work = home / "jobs" / job / "1" / "work"
    wish = {
        "model": str(model),
        "data": str(work / "data"),
        "exported": str(work / "checkpoint"),
        "out": str(tmp_path / "out.json"),
    }
    wish |= {name.removeprefix("optim."): OPTIM[name] for name in ("optim.lr", "optim.betas", "optim.eps")}
    (tmp_path / "wish.json").write_text(json.dumps(wish))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    argv = [trainer_python("trl"), str(HERE / "truth.py"), str(tmp_path / "wish.json")]
    subprocess.run(argv, env=env, check=True, timeout=900)
    want = json.loads((tmp_path / "out.json").read_text())
    print(trainer, name, points, want)
    assert list(points) == list(range(1, STEPS + 1))
    assert want["alone"] == []
    gap = max(abs(points[n + 1] - loss) / max(1.0, loss) for n, loss in enumerate(want["loss"]))
    assert gap < SAME
    assert want["checkpoint"] < SAME
    record_property("family", (trainer, name, max(gap, want["checkpoint"])))


@pytest.mark.parametrize(("trainer", "name"), REFUSED, ids="-".join)
def test_a_family_is_refused_by_what_is_lacking(trainer, name):
    """A plan for a published model of the table stops, and names the operation that the trainer lacks."""
    why = lack(trainer, name)
    assert BACKENDS[trainer].title in why or "MaxText" in why
    like = TWINS[name].like
    if like in MODELS:
        with pytest.raises(Inexpressible) as stopped:
            plan(BACKENDS[trainer], parse(json.dumps(recipe(like, 96)), base="/x"), Target())
        lost = {line.leaf: line.why for line in stopped.value.report.lines if line.status == "lost"}
        assert lost["model.id"] == why


LATER = {("torchtune", "mistral-small")}
"""Of a family that is known: its heads are looked at where the model is built (tune_torchtune.py)."""


@pytest.mark.parametrize(("trainer", "name"), [cell for cell in REFUSED if cell not in LATER], ids="-".join)
def test_a_folder_of_such_a_family_is_refused_on_the_host(tmp_path, trainer, name):
    """Before anything is trained, whatever the folder is called: what reads config.json for that trainer says what is different."""
    (tmp_path / "config.json").write_text(json.dumps(TWINS[name].settings()))
    families = {"torchtune": torchtune.FAMILIES, "maxtext": MAXTEXT}.get(trainer)
    with pytest.raises(ValueError, match=r"config.json: "):
        describe(str(tmp_path), None) if trainer == "litgpt" else read(str(tmp_path), families)


def test_no_cell_is_called_the_same_without_a_run():
    """Every figure on the page is below the bound, and is of a cell that is run."""
    figures = {(trainer, name): gap for trainer, cells in measured().items() for name, gap in cells.items()}
    assert figures.keys() <= set(CELLS)
    assert {cell: gap for cell, gap in figures.items() if not gap < SAME} == {}
