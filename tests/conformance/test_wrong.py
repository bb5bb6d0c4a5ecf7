"""Thirty single keys of emitted configs set wrong: `tune verify` sees each, names its leaf, and more than one level can tell."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml

from backends.compile import context_of, plan
from backends.plan import File
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.client.race import run_all
from orchestrator.client.targets import places
from orchestrator.client.verify import measured, watched
from orchestrator.verification import LOSS, Run, accepted, curve, round_trip, tokens

LOADERS = Path(__file__).parent / "loaders"
RECIPE = """
version: 1
name: wrong
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 176, layers: 2, heads: 4, kv_heads: 2, max_length: 256}
method: {adapter: lora, lora: {rank: 4, alpha: 8}}
data: {train: rows.jsonl, format: instruct, template: plain, max_length: 256}
train: {steps: 8, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, weight_decay: 0.1, warmup_steps: 2}
"""

pytestmark = pytest.mark.trainer


class Wrong(NamedTuple):
    """One key of one file of a plan, and the leaf whose meaning it changes."""

    trainer: str
    leaf: str
    key: str
    """Native; of a file that is not the main config with its name."""
    value: Any


WRONG = [
    Wrong("litgpt", "optim.lr", "optimizer.init_args.lr", 2e-3),
    Wrong("litgpt", "optim.weight_decay", "optimizer.init_args.weight_decay", 0.0),
    Wrong("litgpt", "optim.betas", "optimizer.init_args.betas", [0.9, 0.999]),
    Wrong("litgpt", "optim.warmup_steps", "train.lr_warmup_steps", 3),
    Wrong("litgpt", "train.batch.global", "train.global_batch_size", 4),
    Wrong("litgpt", "method.lora.targets", "lora_mlp", False),
    Wrong("litgpt", "method.lora.alpha", "lora_alpha", 16),
    Wrong("litgpt", "train.precision", "precision", "bf16-true"),
    Wrong("litgpt", "data.train_on_prompt", "data.json:train_on_prompt", True),
    Wrong("torchtune", "optim.lr", "optimizer.lr", 1.0001e-3),
    Wrong("torchtune", "optim.warmup_steps", "lr_scheduler.warmup_steps", 3),
    Wrong("torchtune", "optim.schedule", "lr_scheduler.kind", "linear"),
    Wrong("torchtune", "train.batch.global", "gradient_accumulation_steps", 1),
    Wrong("torchtune", "method.lora.targets", "model.lora_attn_modules", ["q_proj", "k_proj", "v_proj"]),
    Wrong("torchtune", "method.lora.rank", "model.lora_rank", 8),
    Wrong("torchtune", "train.grad_clip", "clip_grad_norm", 1.0),
    Wrong("torchtune", "optim.eps", "optimizer.eps", 1e-6),
    Wrong("torchtune", "train.seed", "data.json:seed", 43),
    Wrong("torchtune", "data.max_length", "data.json:max_length", 48),
    Wrong("axolotl", "optim.lr", "learning_rate", 5e-4),
    Wrong("axolotl", "optim.weight_decay", "weight_decay", 0.01),
    Wrong("axolotl", "train.batch.global", "gradient_accumulation_steps", 4),
    Wrong("axolotl", "method.lora.dropout", "lora_dropout", 0.05),
    Wrong("axolotl", "optim.decay_on", "trainer.json:decay_on", "matrices"),
    Wrong("axolotl", "data.template", "data.json:template", "alpaca"),
    Wrong("maxtext", "optim.min_lr", "learning_rate_final_fraction", 0.1),
    Wrong("maxtext", "optim.weight_decay", "adam_weight_decay", 0.0),
    Wrong("maxtext", "method.lora.rank", "lora.lora_rank", 8),
    Wrong("maxtext", "optim.warmup_steps", "maxtext.json:warmup_steps", 1),
    Wrong("maxtext", "model.architecture", "model.json:architecture.rope_theta", 20000.0),
]
WISH = parse(RECIPE, base="/somewhere")
FLAT, SCENE = WISH.flat(), context_of(WISH.flat(), Target())


def place(each):
    """The file of a key, and the key's name in it."""
    file, colon, key = each.key.partition(":")
    return (file, key) if colon else (BACKENDS[each.trainer].config, each.key)


def changed(made, each):
    """The plan with the key set wrong."""
    name, key = place(each)
    read = json.loads if name.endswith(".json") else yaml.safe_load
    document = read(next(file.text for file in made.files if file.path == name))
    *above, last = key.split(".")
    inner = document
    for part in above:
        inner = inner[part]
    assert last in inner, f"{name} has no {key}"
    assert inner[last] != each.value
    inner[last] = each.value
    text = json.dumps(document) if name.endswith(".json") else yaml.safe_dump(document)
    return replace(made, files=tuple(File(name, text) if file.path == name else file for file in made.files))


def planned(trainer):
    """The plan as it should be."""
    return plan(BACKENDS[trainer], WISH, Target())


def write_rows(path):
    """Rows of unequal lengths, some of them longer than 48 tokens."""
    lines = [{"instruction": f"Add {n} and 1", "output": f"It is {n + 1}." + " So it is." * (n % 7)} for n in range(90)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def level_one(each, made):
    """What level 1 says of the files."""
    return round_trip(BACKENDS[each.trainer], made, FLAT, SCENE)


@pytest.fixture(scope="module")
def resolved(trainer_python, tmp_path_factory):
    """What each trainer's own loader makes of its wrong configs, as its job would write it down: key -> text of resolved.json."""

    @cache
    def look(trainer):
        base, jobs, cases = tmp_path_factory.mktemp(trainer), [], [each for each in WRONG if each.trainer == trainer]
        for number, each in enumerate(cases):
            jobs.append(job(base / str(number), changed(planned(trainer), each)))
        (base / "jobs.json").write_text(json.dumps(jobs))
        argv = [trainer_python(trainer), str(LOADERS / "each.py"), trainer, "jobs.json", "said.json"]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(argv, cwd=base, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        said = json.loads((base / "said.json").read_text())
        return {each.key: told(Path(job["folder"]), one) for each, job, one in zip(cases, jobs, said, strict=True)}

    return look


def job(folder, made):
    """A job's folder as far as its config is concerned, and what a loader is told of it."""
    write(folder, made)
    (folder / "data").mkdir()
    counts = {"rows": 90, "longest": 96, "longest_prompt": 60, "longest_answer": 36, "steps": 8, "batch": 8}
    (folder / "data" / "manifest.json").write_text(json.dumps({**counts, "pad_id": 0, "eval": None}))
    argv = next(step.argv for step in made.steps if step.name == "train")
    main = BACKENDS[made.backend].config
    return {"folder": str(folder), "config": main, "argv": argv, "accelerator": "cpu", "lock": made.environment.lock}


def write(folder, made):
    """The plan's files, and a model folder with config.json and tokenizer, made once beside."""
    folder.mkdir(exist_ok=True)
    for file in made.files:
        (folder / file.path).write_text(file.text)
    cache = folder.parent / "cache"
    cache.mkdir(exist_ok=True)
    (folder / "cache").symlink_to(cache)
    model = folder / json.loads((folder / "model.json").read_text())["folder"]
    if not model.exists():
        argv = [sys.executable, "tune_model.py", "model.json", "--tokenizer-only"]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)
        model.symlink_to(f"{model}-tokenizer")


def told(folder, said):
    """resolved.json; empty where the loader refused."""
    specs = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return "" if said["error"] else json.dumps({"config": said["resolved"], "specs": specs})


def level_two(each, text):
    """What level 2 says of a run that resolved this."""
    ended = SimpleNamespace(id="wrong", state="SUCCEEDED" if text else "FAILED", reason="exit_code", detail="refused")
    return accepted(BACKENDS[each.trainer], Run(each.trainer, planned(each.trainer), ended, ()), text, FLAT, SCENE)


@pytest.fixture(scope="module")
def rendered(trainer_python, tmp_path_factory):
    """What the data step makes of a data spec, as digests: text of expected.json."""
    base = tmp_path_factory.mktemp("rendered") / "job"
    write(base, planned("litgpt"))
    (base / "inputs").mkdir()
    write_rows(base / "inputs" / "train.jsonl")

    def render(made):
        spec = json.loads(next(file.text for file in made.files if file.path == "data.json"))
        (base / "witness.json").write_text(json.dumps({"data": spec, "steps": 8}))
        argv = [trainer_python("litgpt"), "tune_witness.py", "witness.json"]
        subprocess.run(argv, cwd=base, check=True, capture_output=True)
        return (base / "expected.json").read_text()

    return render


def level_three(each, expected, found):
    """What level 3 says of a trainer that meets these rows."""
    said = json.loads(found)
    rows = [said["rows"][str(number)] for number in said["order"]]
    seen = "".join(f"{json.dumps(rows[n : n + 4])}\n" for n in range(0, len(rows), 4))
    ended = SimpleNamespace(id="wrong", state="SUCCEEDED", reason="", detail="")
    return tokens(Run(each.trainer, planned(each.trainer), ended, ()), FLAT, expected, [seen])


def names(verdict, each):
    """The level failed, and the leaf is in the part that says what."""
    return verdict.outcome == "failed" and any(each.leaf in part.partition(": ")[0] for part in verdict.detail.split("; "))


def test_thirty_of_thirty(resolved, rendered, capsys):
    """Every wrong key fails level 1 with its leaf; on the way to the trainer, level 2 sees it in what the trainer's own loader
    made of it; and what changes rows shows in the rows, at level 3.
    """
    honest, lines = rendered(planned("litgpt")), []
    for each in WRONG:
        made = changed(planned(each.trainer), each)
        seen = [names(level_one(each, planned(each.trainer)), each), names(level_one(each, made), each)]
        seen.append(names(level_two(each, resolved(each.trainer)[each.key]), each))
        rows = each.key.startswith("data.json")
        seen.append(level_three(each, honest, rendered(made)).outcome == "failed" if rows else None)
        lines.append((each, seen))
    with capsys.disabled():
        print(f"\n{'trainer':10} {'wrong key':42} {'leaf':22} {'level 1':8} {'level 2':8} level 3")
        for each, (_, *levels) in lines:
            words = " ".join(f"{'-' if said is None else 'failed' if said else 'MISSED':8}" for said in levels)
            print(f"{each.trainer:10} {each.key:42} {each.leaf:22} {words}")
        print(f"{sum(all(said is not False for said in levels) for _, (_, *levels) in lines)} of {len(WRONG)}")
    assert len(WRONG) == 30
    assert [each.key for each, (before, *_) in lines if before] == [], "named although nothing is wrong"
    assert [each.key for each, (_, *levels) in lines if False in levels] == []


def run(tune, monkeypatch, **wrong):
    """Verdicts of real runs by level and trainer, where plans are made wrong behind verify's back; and the runs.

    A change is a `Wrong`, or the recipe's text for another recipe's plan.
    """
    monkeypatch.chdir(tune.cwd)
    write_rows(tune.cwd / "rows.jsonl")
    wish, plans = parse(RECIPE, base=str(tune.cwd)), {}
    for trainer, change in wrong.items():
        text = change if isinstance(change, str) else RECIPE
        made = plan(BACKENDS[trainer], parse(text, base=str(tune.cwd)), Target())
        made = changed(made, change) if isinstance(change, Wrong) else made
        plans[trainer] = watched(trainer, made, wish, Target())
    runs, finished = run_all("wrong", plans, places("local"))
    assert finished
    return {(each.level, *each.trainers): each for each in measured(runs, wish, Target(), LOSS["fp32"])}, runs


def test_rows_that_reach_the_model_are_seen(tune, monkeypatch):
    """A real run that trains in another order than the recipe's: it trained, and level 3 says what is wrong, as does level 2."""
    seed = next(each for each in WRONG if each.key == "data.json:seed")
    found, [made] = run(tune, monkeypatch, torchtune=seed)
    assert made.ok
    assert found[3, "torchtune"].outcome == "failed"
    assert found[3, "torchtune"].detail.startswith("data.shuffle, train.seed")
    assert "data.json:seed is 43, by the recipe 42" in found[2, "torchtune"].detail


@pytest.mark.thorough
def test_a_wrong_rotation_shows_on_the_way(tune, monkeypatch, capsys):
    """Another base of the rotary embedding in one of two runs: rows, rates and sizes are right, but at some step the losses part
    further than the tolerance, and level 2 names the leaf.
    """
    other = RECIPE.replace("max_length: 256}\nmethod", "max_length: 256, rope_theta: 100}\nmethod")
    assert other != RECIPE
    found, runs = run(tune, monkeypatch, torchtune=RECIPE, litgpt=other)
    assert {found[level, name].outcome for level in (3, 4) for name in ("litgpt", "torchtune")} == {"passed"}
    assert found[5, "torchtune", "litgpt"].outcome == "failed"
    assert "model.json:architecture.rope_theta is 100.0, by the recipe 10000.0" in found[2, "litgpt"].detail
    assert found[2, "torchtune"].outcome == "passed", found[2, "torchtune"]
    one, two = (curve(each.points, "loss") for each in runs)
    with capsys.disabled():
        print("\nrope base 100 for 10000, the losses apart by step:", " ".join(f"{abs(one[k] - two[k]):.1e}" for k in one))
