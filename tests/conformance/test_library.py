"""Every recipe that comes along, as every trainer's own loader takes it: nothing refused, no key unknown, no value changed."""

import json
import os
import subprocess
import sys
from functools import cache
from math import isclose
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from backends.backend import Inexpressible
from backends.compile import context_of, plan
from backends.mapping.translate import reverse, translate
from backends.models import MODELS
from backends.plan import Plan
from backends.recipe.parse import parse
from backends.recipe.schema import Recipe
from backends.registry import BACKENDS
from backends.target import Target

ROOT = Path(__file__).parents[2]
LOADERS = Path(__file__).parent / "loaders"
LIBRARY = {str(p.relative_to(ROOT / "recipes").with_suffix("")): p for p in sorted((ROOT / "recipes").rglob("*.yaml"))}
TRAINERS = [name for name in BACKENDS if (LOADERS / f"{name}.py").exists()]
LATER = ("trl", "unsloth")
"""Their settings go through the loader of transformers, as axolotl's do: a thorough case each."""
EACH = [pytest.param(name, marks=pytest.mark.thorough) if name in LATER else name for name in TRAINERS]
WRONG = "wrong"
"""The quickstart with a key that no trainer has."""
COUNT = 45
ACCEPTED = {"litgpt": 29, "torchtune": 19, "axolotl": 42, "maxtext": 24, "trl": 40, "unsloth": 23}
"""At least so many recipes can each trainer express: what is accepted must not shrink unseen."""

NOT_ON_A_CPU = {("llama-3.1-8b/full-one-device", "torchtune")}
"""What names a package that only the lock for CUDA has: bitsandbytes, for an optimizer in pages."""
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardx"), "wandb": ("wandb",), "mlflow": ("mlflow", "mlflow-skinny")}
WINDOWS = {"mistralai/Mistral-7B-v0.1": 4096}
"""Of config.json, what the model table leaves out."""

pytestmark = pytest.mark.trainer


class Job(NamedTuple):
    """A recipe for a trainer, and what the trainer's loader said of it."""

    recipe: Recipe
    target: Target
    plan: Plan
    said: dict


def wanted(recipe):
    """A machine such as the recipe asks for. One that runs anywhere is looked at where it is likely to run."""
    usual = "cpu" if recipe.model.init == "random" else "cuda"
    asked = recipe.resources
    accelerator = usual if asked.accelerator == "any" else asked.accelerator
    return Target("there", accelerator, asked.devices, hosts=asked.hosts)


@cache
def planned(trainer):
    """Recipe -> (recipe, target, plan) of those that a trainer can express."""
    out = {}
    for name, path in LIBRARY.items():
        if (name, trainer) in NOT_ON_A_CPU:
            continue
        recipe = parse(path.read_text(), name=str(path), base=str(path.parent), trainers=BACKENDS)
        target = wanted(recipe)
        try:
            out[name] = (recipe, target, plan(BACKENDS[trainer], recipe, target))
        except Inexpressible:
            continue
    return out


def write(folder, recipe, made):
    """A job's folder, as far as its config is concerned: the plan's files and inputs, the model's config.json, the data step's
    counts.
    """
    for file in made.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)
    for each in made.inputs:
        (folder / each.path).parent.mkdir(exist_ok=True)
        (folder / each.path).symlink_to(each.source)
    place = folder / json.loads((folder / "model.json").read_text())["folder"]
    if recipe.model.init == "random":
        argv = [sys.executable, "tune_model.py", "model.json", "--tokenizer-only"]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)
        place.symlink_to(f"{place}-tokenizer")
    else:
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(facts(MODELS[recipe.model.id])))
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "manifest.json").write_text(json.dumps(manifest(recipe)))


def facts(model):
    """A model's config.json, from the model table."""
    kind, _, scaling = model.rope_scaling.partition(":")
    factor, _, before = scaling.partition(":")
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    rope = (
        {"rope_type": kind, "factor": float(factor), "original_max_position_embeddings": int(before), **bands} if kind else None
    )
    return {
        "model_type": model.family,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_position,
        "rope_theta": model.rope_theta,
        "rope_scaling": rope,
        "rms_norm_eps": model.norm_eps,
        "tie_word_embeddings": model.tied,
        "sliding_window": WINDOWS.get(model.id),
        **({"num_local_experts": model.experts, "num_experts_per_tok": model.active} if model.experts else {}),
    }


def manifest(recipe):
    """What the data step would say of some rows."""
    longest = recipe.data.max_length
    half = longest // 2
    counts = {"rows": 1000, "longest": longest, "longest_prompt": half, "longest_answer": half}
    return {**counts, "steps": recipe.train.steps or 300, "batch": recipe.train.batch.global_, "pad_id": 0, "eval": None}


@pytest.fixture(scope="session")
def looked_at(trainer_python, tmp_path_factory):
    """Recipe -> Job of those that a trainer can express, and `WRONG`: its loader runs once over all of them."""

    @cache
    def look(trainer):
        base, jobs = tmp_path_factory.mktemp(trainer), []
        for n, (recipe, target, made) in enumerate(planned(trainer).values()):
            folder = base / str(n)
            write(folder, recipe, made)
            jobs.append(asked(folder, made, target))
        recipe, target, made = planned(trainer)["quickstart"]
        write(base / WRONG, recipe, made)
        with (base / WRONG / config(made)).open("a") as file:
            file.write("lerning_rate: 1\n")
        *said, wrong = load(trainer_python(trainer), trainer, base, [*jobs, asked(base / WRONG, made, target)])
        found = {name: Job(*each, answer) for (name, each), answer in zip(planned(trainer).items(), said, strict=True)}
        return {**found, WRONG: Job(recipe, target, made, wrong)}

    return look


@pytest.fixture
def library(looked_at):
    """The same of the recipes as they are."""
    return lambda trainer: {name: job for name, job in looked_at(trainer).items() if name != WRONG}


def asked(folder, made, target):
    """What a loader is told of a plan."""
    argv = next(step.argv for step in made.steps if step.name == "train")
    lock = made.environment.lock
    return {"folder": str(folder), "config": config(made), "argv": argv, "accelerator": target.accelerator, "lock": lock}


def load(python, trainer, base, jobs):
    """What the trainer's loader says of jobs, one process for all."""
    (base / "jobs.json").write_text(json.dumps(jobs))
    argv = [python, str(LOADERS / "each.py"), trainer, "jobs.json", "said.json"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=base, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((base / "said.json").read_text())


def config(made):
    """Name of a plan's main config."""
    return BACKENDS[made.backend].config


def written(job):
    """The trainer's main config, as the plan has it."""
    return yaml.safe_load(next(file.text for file in job.plan.files if file.path == config(job.plan)))


def at(values, name, planned=...):
    """Value at a dotted name; fails where there is none, but for what was planned to be nothing: axolotl leaves that out."""
    for part in name.split("."):
        if planned is None and part not in values:
            return None
        values = values[part]
    return values


def agrees(ours, theirs):
    """What was written stands in what was resolved, which may hold more."""
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and all(key in theirs and agrees(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, list):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(agrees, ours, theirs))
    if isinstance(ours, float) or isinstance(theirs, float):
        return (
            not isinstance(ours, bool)
            and ours is not None
            and theirs is not None
            and isclose(float(ours), float(theirs), rel_tol=1e-9)
        )
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize(
    "trainer", [pytest.param(each, marks=pytest.mark.thorough(2)) if each == "maxtext" else each for each in EACH]
)
def test_the_trainer_accepts_what_is_emitted(library, trainer):
    """The trainer's own loader takes every config, and knows every key in it."""
    jobs = library(trainer)
    assert {name: job.said["error"] for name, job in jobs.items() if job.said["error"]} == {}
    assert {name: job.said["unknown"] for name, job in jobs.items() if job.said["unknown"]} == {}
    assert len(jobs) >= ACCEPTED.get(trainer, 1)


@pytest.mark.parametrize("trainer", EACH)
def test_the_trainer_resolves_what_was_written(library, trainer):
    """No key that the plan wrote has another value once the trainer has read the config."""
    changed = {
        (name, key): (value, job.said["resolved"].get(key))
        for name, job in library(trainer).items()
        for key, value in written(job).items()
        if not agrees(value, job.said["resolved"].get(key))
    }
    assert changed == {}


@pytest.mark.parametrize("trainer", EACH)
def test_what_the_trainer_resolved_means_the_recipe(library, trainer):
    """The trainer's resolved values, carried back across the table, are the recipe."""
    assert {name: back for name, job in library(trainer).items() if (back := other_leaves(job))} == {}


def other_leaves(job):
    """Leaves that come back from the trainer's values as something else: (in the recipe, come back)."""
    flat = job.recipe.flat()
    context = context_of(flat, job.target)
    table = BACKENDS[job.plan.backend].table(context.variant)
    native = translate(table, flat, context).native
    theirs = {key: value if ":" in key else at(job.said["resolved"], key, value) for key, value in native.items()}
    back = translate(reverse(table), theirs, context).native
    if job.recipe.model.init == "random":
        del back["model.id"]  # any name: no trainer is told
    other = {leaf: (flat[leaf], value) for leaf, value in back.items() if not agrees(flat[leaf], value)}
    stands_for = translate(table, flat | back, context).native == native  # null stands for what the trainer got
    return {leaf: pair for leaf, pair in other.items() if not (stands_for and None in pair)}


@pytest.mark.parametrize("trainer", EACH)
def test_a_wrong_key_is_found(looked_at, trainer):
    """What is looked for would be seen: a key that the trainer does not know is named or refused."""
    said = looked_at(trainer)[WRONG].said
    assert said["unknown"] == ["lerning_rate"] or "lerning_rate" in said["error"]


@pytest.mark.parametrize("trainer", EACH)
def test_a_wrong_value_is_found(looked_at, trainer):
    """What is looked for would be seen: beside another recipe, the trainer's learning rate comes back as what it is."""
    path = LIBRARY["quickstart"]
    other = parse(path.read_text(), base=str(path.parent), sets=["optim.lr=1e-4"])
    found = other_leaves(looked_at(trainer)["quickstart"]._replace(recipe=other))
    assert found["optim.lr"] == (1e-4, pytest.approx(3e-3))


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("service", PACKAGES)
def test_a_tracker_is_in_the_lock(trainer, service):
    """A trainer that reports to a service has its package in every environment that a plan may ask for."""
    path = LIBRARY["quickstart"]
    recipe = parse(path.read_text(), base=str(path.parent), sets=[f"log.trackers=[{service}]"])
    for accelerator in BACKENDS[trainer].accelerators:
        try:
            lock = plan(BACKENDS[trainer], recipe, Target("there", accelerator)).environment.lock
        except Inexpressible:
            continue
        assert any(f"\n{package}==" in lock for package in PACKAGES[service]), f"{trainer} on {accelerator}"


def test_the_library_is_what_it_was(capsys):
    """So many recipes, each for some trainer, and many for several."""
    able = {name: [trainer for trainer in TRAINERS if name in planned(trainer)] for name in LIBRARY}
    with capsys.disabled():
        print(f"\n{'recipe':36} " + " ".join(f"{trainer:10}" for trainer in TRAINERS))
        for name, trainers in able.items():
            print(f"{name:36} " + " ".join(f"{'yes' if trainer in trainers else '-':10}" for trainer in TRAINERS))
        print(f"{f'{len(able)} recipes':36} " + " ".join(f"{len(planned(trainer)):<10}" for trainer in TRAINERS))
    assert len(LIBRARY) == COUNT
    assert [name for name, trainers in able.items() if not trainers] == []
    assert sum(len(trainers) > 1 for trainers in able.values()) >= 25
