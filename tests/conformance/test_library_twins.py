"""Every recipe that comes along, trained for a few steps on its model's twin by each trainer that says it can: rows, template, adapter and
precision are the recipe's own, and what is exported loads in transformers and generates.

A twin (twins/families.py) has bytes for words and 512 positions or 1024, and the machine is a CPU: sizes, steps, devices and the rows of the hub
are replaced (`changes`), nothing else.
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.models import MODELS
from backends.recipe.parse import parse
from backends.recipe.paths import is_hub
from backends.registry import BACKENDS
from backends.target import Target
from tests.twins.families import TWINS, twin_of

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
DATA = RECIPES / "data"
LIBRARY = {str(path.relative_to(RECIPES).with_suffix("")): path for path in sorted(RECIPES.rglob("*.yaml"))}
TRAINERS = [name for name in BACKENDS if name != "command"]
ROWS = {
    "instruct": "quickstart.jsonl",
    "chat": "chat.jsonl",
    "text": "text.jsonl",
    "preference": "preference-chat.jsonl",
    "rated": "rated.jsonl",
    "prompts": "prompts.jsonl",
}
"""Rows that come along, for those of the hub."""
LONGEST = {"tools.jsonl": 832}
"""Bytes of rows that are longer than 384, with the template and its description of each tool."""
GRADED = ROOT / "tests" / "twins" / "graded.py"
"""A reward beside the recipe's own: a model of random weights is never right, and learns nothing from answers that score the same."""
LOADS = """
import json, sys, torch, transformers
folder, kind = sys.argv[1:]
name = "AutoModelForSequenceClassification" if kind == "reward" else "AutoModelForCausalLM"
model = getattr(transformers, name).from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
asked = tokenizer("What is 6 x 4?", return_tensors="pt")
with torch.no_grad():
    assert torch.isfinite(model(**asked).logits.float()).all()
if kind != "reward":
    said = model.generate(**asked, max_new_tokens=4, do_sample=False)
    assert said.shape[1] > asked["input_ids"].shape[1]
"""


WIDE = {("qlora", "torchtune"): "-wide"}
"""Where a twin's matrices are too small: torchtune's NF4 takes blocks of 16,384 weights."""


@cache
def read(name):
    """A recipe as it comes along."""
    path = LIBRARY[name]
    return parse(path.read_text(), name=str(path), base=str(path.parent))


def changes(name, folder="./twin"):
    """What is set over a recipe, so that it trains a twin on a CPU."""
    recipe = read(name)
    flat, optimizer = recipe.flat(), recipe.optim.name
    train = flat["data.train"] if isinstance(flat["data.train"], str) else flat["data.train"][0]["path"]
    sets = {
        "model.id": folder,
        "model.revision": None,
        "data.max_length": min(recipe.data.max_length, LONGEST.get(Path(train).name, 384)),
        "data.drop_empty": recipe.data.rendering == "shared",
        "data.train": str(DATA / ROWS[recipe.data.format]) if is_hub(train) else flat["data.train"],
        "data.eval": str(DATA / ROWS[recipe.data.format]) if recipe.data.eval and is_hub(recipe.data.eval) else recipe.data.eval,
        "train.epochs": None,
        "train.steps": 3,
        "train.batch.global": 4,
        "train.batch.micro": 2,
        "optim.name": "adamw" if "adamw" in optimizer else optimizer,
        **({"optim.warmup_steps": 1} if recipe.optim.warmup_steps else {}),
        "resources.accelerator": "cpu",
        "resources.devices": 1,
        "resources.hosts": 1,
        "resources.strategy": "auto",
    }
    if recipe.method.kind == "grpo":
        sets |= {"method.grpo.generations": 4, "method.grpo.max_new_tokens": 8}
        sets["method.grpo.rewards"] = [*flat["method.grpo.rewards"], f"{GRADED}:graded"]
    if recipe.method.kind == "distill":
        sets["method.distill.teacher"] = folder
    return [f"{leaf}={json.dumps(value)}" for leaf, value in sets.items() if value != flat[leaf]]


def planned(name, trainer, sets):
    """The plan of a recipe with settings over it; raises `Inexpressible`."""
    path = LIBRARY[name]
    recipe = parse(path.read_text(), name=str(path), base=str(path.parent), sets=sets, trainers=BACKENDS)
    return plan(BACKENDS[trainer], recipe, Target("local", "cpu"))


def refused(name, trainer):
    """Why a trainer cannot express a recipe for its twin; empty where it can. It is asked of the model's id, too, as a plan knows nothing of
    a folder: where q, k and v are one matrix there is no adapter of each.
    """
    sets = changes(name)
    for each in (sets, [word for word in sets if not word.startswith(("model.id=", "model.revision="))]):
        try:
            planned(name, trainer, each)
        except Inexpressible as error:
            return "; ".join(f"{line.leaf}: {line.why}" for line in error.report.refused)
    return ""


PRETRAINED = [name for name in LIBRARY if read(name).model.init == "pretrained"]
CASES = [(name, trainer) for name in PRETRAINED for trainer in TRAINERS if not refused(name, trainer)]


def test_every_model_of_the_library_has_a_twin(capsys):
    """So many recipes, so many of them with each trainer; a recipe that no trainer can train on a CPU is named."""
    with capsys.disabled():
        counts = ", ".join(f"{trainer} {sum(each == trainer for _, each in CASES)}" for trainer in TRAINERS)
        print(f"\n{len(PRETRAINED)} recipes on twins: {len(CASES)} cases ({counts})")
    assert [name for name in PRETRAINED if twin_of(read(name).model.id) not in TWINS] == []
    assert set(PRETRAINED) - {name for name, _ in CASES} == set()
    assert all(read(name).model.id in MODELS for name in PRETRAINED)


TRAINED = Path(__file__).parents[1] / "twins" / "trained.txt"
"""Cases that were run and held: `RECIPE TRAINER`, a line each; `TUNE_TWINS_RECORD=1` adds those of a run, `TUNE_TWINS_PRELOAD=1` beside it
makes a run of all of them take an hour on two cores (`twins/preloaded.py`).
"""


def table():
    """Recipes and trainers: **trained** on the twin, `yes` where it is a case, `-` where the trainer refuses it, with the reason in
    `tune submit --dry-run`.
    """
    done = {tuple(line.split()) for line in TRAINED.read_text().splitlines()}
    marks = {case: "**trained**" if case in done else "yes" for case in CASES}
    rows = [[name, twin_of(read(name).model.id), *(marks.get((name, each), "-") for each in TRAINERS)] for name in PRETRAINED]
    head = ["recipe", "twin", *TRAINERS]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def test_the_page_has_this_table():
    """docs/library.md has the cases as they are; `python tests/conformance/test_library_twins.py` writes them anew."""
    assert table() in (ROOT / "docs" / "library.md").read_text()


@pytest.mark.trainer
@pytest.mark.thorough(60)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "trainer"), CASES)
def test_a_recipe_trains_its_twin(tune, twin, trainer_interpreter, name, trainer):
    """Three steps, SUCCEEDED, and a folder that transformers loads and generates from."""
    recipe = read(name)
    folder = twin(twin_of(recipe.model.id) + WIDE.get((recipe.method.adapter, trainer), ""))
    trainer_interpreter(trainer, dict(planned(name, trainer, changes(name)).env))
    sets = [word for each in changes(name, str(folder)) for word in ("--set", each)]
    done = tune("submit", LIBRARY[name], "--to", trainer, "--id", "twin", "--follow", *sets, code=None, timeout=1700)
    assert done.returncode == 0, f"{done.stderr[-1500:]}\n{tune('logs', 'twin', code=None).stdout[-3000:]}"
    checkpoint = Path(os.environ["TUNE_HOME"]) / "jobs" / "twin" / "1" / "work" / "checkpoint"
    argv = [trainer_interpreter("trl", {}), "-c", LOADS, str(checkpoint), recipe.method.kind]
    said = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=600, check=False
    )
    assert said.returncode == 0, said.stderr[-3000:]
    if os.environ.get("TUNE_TWINS_RECORD"):
        with TRAINED.open("a") as file:
            file.write(f"{name} {trainer}\n")


def main():
    """Write the table into the page, and put the cases that were recorded in order."""
    TRAINED.write_text("".join(sorted(set(TRAINED.read_text().splitlines(keepends=True)))))
    page = ROOT / "docs" / "library.md"
    head, _, rest = page.read_text().partition("| recipe | twin |")
    lines = rest.splitlines(keepends=True)
    end = next((n for n, line in enumerate(lines) if n and not line.startswith("|")), len(lines))
    page.write_text(head + table() + "".join(lines[end:]))


if __name__ == "__main__":
    main()
