"""One recipe is the same training in every trainer that can express it: steps, rates, trained parameters, losses.

What is trained, and the plain loop's settings, are those of benchmarks/parity.py, which measures the same in two processes and in
half precision and makes the tables of docs/sameness.md.
"""

import json
import shutil
import struct
import subprocess
from math import prod
from pathlib import Path

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from benchmarks.parity import LIMIT, MACHINE, RECIPE, STEPS, Case, chat, plain_loop

RATE = 1e-7
"""Largest difference of a step's learning rate, as a share of itself: float32, in which MaxText has it, rounds by up to 6e-8."""

FIRST = ("litgpt", "torchtune", "axolotl", "maxtext")
"""Of these each has a loop of its own; all others train by Hugging Face's Trainer, as axolotl does."""
YARDSTICK = Path(__file__).with_name("yardstick.py")

pytestmark = pytest.mark.trainer

PAIRS = """\
version: 1
name: pairs
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 176, layers: 2, heads: 4, kv_heads: 2, max_length: 256}
method: {kind: dpo, preference: {beta: 0.2}}
data: {train: pairs.jsonl, format: preference, max_length: 96}
train: {steps: 20, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, weight_decay: 0.1, warmup_steps: 3}
"""


def curve(tune, job, name):
    """Values of a metric by step."""
    return {p["step"]: p["value"] for p in tune.json("metrics", job, "--name", name)["points"]}


def able(text):
    """The trainers that express the recipe."""
    out = []
    for name, backend in BACKENDS.items():
        try:
            plan(backend, parse(text, base="/somewhere"), Target())
        except Inexpressible:
            continue
        out.append(name)
    return out


def trained(tune, case, trainers):
    """Trainer -> its job, ended."""
    for name, text in (("rows.jsonl", chat()), ("clusters.yaml", MACHINE), ("r.yaml", RECIPE)):
        (tune.cwd / name).write_text(text)
    sets = [word for leaf, value in case.changes.items() for word in ("--set", f"{leaf}={value}")]
    jobs = {t: tune("submit", "r.yaml", "--to", t, *sets).stdout.strip() for t in trainers}
    tune("wait", *jobs.values())
    return jobs


def weights(folder):
    """Numbers in the safetensors files of a folder, from their headers."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as data:
            header = json.loads(data.read(struct.unpack("<Q", data.read(8))[0]))
        count += sum(prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
    return count


@pytest.mark.parametrize(
    ("method", "some"),
    [
        pytest.param("full", FIRST, id="full"),
        pytest.param("full", None, id="full-all", marks=pytest.mark.thorough(3)),
        pytest.param("lora", None, id="lora-all", marks=pytest.mark.thorough(3)),
    ],
)
def test_one_recipe_is_the_same_training(tune, home, tmp_path, method, some):
    """Chat rows, batches of 8 accumulated over 2, 100 steps in fp32: every trainer's losses lie within 1e-5 of a plain PyTorch loop
    at every step, with the same rates, the same rows, the same trained parameters.
    """
    case, trainers = Case(method), able(RECIPE)
    assert set(FIRST) < set(trainers)
    trainers = some or trainers
    jobs = trained(tune, case, trainers)
    works = {t: home / "jobs" / job / "1" / "work" for t, job in jobs.items()}
    want = plain_loop(works["torchtune"], case, tmp_path / "plain.json")
    assert want.loss[-1] < want.loss[0] - 1, "nothing was learned, so nothing was compared"
    counts = {t: weights(work / ("adapter" if method == "lora" else "checkpoint")) for t, work in works.items()}
    print(f"\n{method:12}{'trained':>10}{'max |dloss|':>14}{'max |dlr|/lr':>14}")
    for trainer, job in jobs.items():
        losses, rates = curve(tune, job, "loss"), curve(tune, job, "lr")
        assert list(losses) == list(rates) == list(range(1, STEPS + 1))
        gap = max(abs(one - other) for one, other in zip(losses.values(), want.loss, strict=True))
        off = max(abs(one - other) / other for one, other in zip(rates.values(), want.lr, strict=True) if other)
        print(f"{trainer:12}{counts[trainer]:10}{gap:14.1e}{off:14.1e}")
        assert gap < LIMIT
        assert list(rates.values()) == pytest.approx(want.lr, rel=RATE, abs=0)
        assert (works[trainer] / "data").resolve() == works["torchtune"].joinpath("data").resolve(), "all read the very same rows"
    assert len(set(counts.values())) == 1


@pytest.mark.thorough(3)
def test_half_precision_is_as_near_as_the_page_says(tune):
    """LitGPT and torchtune with everything in bfloat16: alike before the weights move, and close afterwards; docs/sameness.md
    measured 1.7e-3.
    """
    jobs = trained(tune, Case("full", "bf16"), ("litgpt", "torchtune"))
    one, other = (list(curve(tune, job, "loss").values()) for job in jobs.values())
    gaps = [abs(a - b) for a, b in zip(one, other, strict=True)]
    print(f"bf16: {max(gaps[:2]):.1e} at steps 1 and 2, {max(gaps):.1e} at worst")
    assert len(gaps) == STEPS
    assert max(gaps[:2]) < 1e-4
    assert max(gaps) < 5e-3


@pytest.mark.thorough(3)
def test_the_token_of_padding_is_learned_where_rows_use_it(tune, home, tmp_path):
    """A model whose config pads with its end of turn: every trainer's losses still lie within 1e-5 of the plain loop, which knows no
    padding_idx. One embedding row without a gradient parts them by more.
    """
    jobs = trained(tune, Case("full"), ["torchtune"])
    work = home / "jobs" / jobs["torchtune"] / "1" / "work"
    shutil.copytree(work / json.loads((work / "model.json").read_text())["folder"], tune.cwd / "base")
    config = tune.cwd / "base" / "config.json"
    facts = json.loads(config.read_text())
    config.write_text(json.dumps(facts | {"pad_token_id": facts["eos_token_id"]}))
    sets = [f"--set={each}" for each in ("model.init=pretrained", "model.id=./base", "model.architecture=null", "train.steps=30")]
    jobs = {t: tune("submit", "r.yaml", "--to", t, *sets).stdout.strip() for t in able(RECIPE)}
    tune("wait", *jobs.values())
    work = home / "jobs" / jobs["torchtune"] / "1" / "work"
    want = plain_loop(work, Case("full"), tmp_path / "plain.json", model=str(tune.cwd / "base"))
    for trainer, job in jobs.items():
        losses = list(curve(tune, job, "loss").values())
        gap = max(abs(one - other) for one, other in zip(losses, want.loss, strict=True))
        print(f"{trainer}: {gap:.1e}")
        assert gap < LIMIT, trainer


@pytest.mark.thorough(3)
def test_adapters_scaled_by_the_root_of_their_rank(tune, home, tmp_path):
    """rsLoRA: every trainer's losses lie within 1e-5 of the plain loop with B A scaled by alpha / sqrt(rank), and the merged weights of
    all are the same.
    """
    changes = {"method.adapter": "lora", "method.lora.rank": 16, "method.lora.alpha": 8, "method.lora.rank_stabilized": "true"}
    for name, text in (("rows.jsonl", chat()), ("clusters.yaml", MACHINE), ("r.yaml", RECIPE)):
        (tune.cwd / name).write_text(text)
    sets = [f"--set={leaf}={value}" for leaf, value in {**changes, "train.steps": 30}.items()]
    jobs = {t: tune("submit", "r.yaml", "--to", t, *sets).stdout.strip() for t in able(RECIPE)}
    tune("wait", *jobs.values())
    works = {t: home / "jobs" / job / "1" / "work" for t, job in jobs.items()}
    start = str(works["torchtune"] / "lora" / "start.safetensors")
    want = plain_loop(
        works["torchtune"],
        Case("lora"),
        tmp_path / "plain.json",
        lora={"start": start, "alpha": 32},
        save=str(tmp_path / "merged"),
    )
    for trainer, job in jobs.items():
        losses = list(curve(tune, job, "loss").values())
        gap = max(abs(one - other) for one, other in zip(losses, want.loss, strict=True))
        argv = [
            works["torchtune"] / "env" / "bin" / "python",
            YARDSTICK,
            "diff",
            tmp_path / "merged",
            works[trainer] / "checkpoint",
        ]
        apart = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
        print(f"rsLoRA {trainer}: losses {gap:.1e}, weights {apart['largest']:.1e}")
        assert gap < LIMIT, trainer
        assert (apart["largest"] < LIMIT, apart["alone"]) == (True, []), trainer


@pytest.mark.thorough(3)
def test_rows_that_are_held_out(tune, home, tmp_path):
    """data.eval_share: the trainers that evaluate train the very rows that are left and report the plain loop's losses, also of the rows
    that are held out, before the first step (eval.on_start) and after each share of the run; none of these is trained.
    """
    sets = ["--set=data.eval_share=0.2", "--set=eval.every_share=0.35", "--set=eval.on_start=true", "--set=train.steps=20"]
    text = RECIPE.replace("format: chat", "eval_share: 0.2, format: chat")
    for name, content in (("rows.jsonl", chat()), ("clusters.yaml", MACHINE), ("r.yaml", RECIPE)):
        (tune.cwd / name).write_text(content)
    trainers = able(text)
    assert set(trainers) >= {"litgpt", "axolotl", "maxtext"}
    jobs = {t: tune("submit", "r.yaml", "--to", t, *sets).stdout.strip() for t in trainers}
    tune("wait", *jobs.values())
    work = home / "jobs" / jobs["axolotl"] / "1" / "work"
    manifest = json.loads((work / "data" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["eval"]["rows"]) == (96, 24)
    out = tmp_path / "plain.json"
    want = plain_loop(work, Case("full"), out, eval_every=7, eval_rows=24, eval_on_start=True, eval_last=True)
    evals = {int(step): loss for step, loss in json.loads(out.read_text())["eval"].items()}
    assert list(evals) == [0, 7, 14, 20]
    for trainer, job in jobs.items():
        assert list(curve(tune, job, "loss").values()) == pytest.approx(want.loss, abs=LIMIT), trainer
        assert curve(tune, job, "eval_loss") == pytest.approx(evals, abs=LIMIT), trainer


@pytest.mark.thorough(3)
def test_evaluations_that_no_longer_get_better_end_a_run(tune):
    """eval.patience: a run ends after as many evaluations in a row without a lower loss, all rows are looked at then, and the job has
    SUCCEEDED and says at which step; the trainers end at the same one.
    """
    leaves = {"data.eval_share": 0.2, "eval.every": 1, "eval.patience": 2, "train.steps": 60, "optim.lr": 0.05, "eval.batches": 2}
    text = RECIPE.replace("format: chat", "eval_share: 0.2, format: chat")
    for name, content in (("rows.jsonl", chat()), ("clusters.yaml", MACHINE), ("r.yaml", text)):
        (tune.cwd / name).write_text(content)
    sets = [f"--set={leaf}={value}" for leaf, value in leaves.items()]
    jobs = {t: tune("submit", "r.yaml", "--to", t, *sets).stdout.strip() for t in ("trl", "axolotl", "unsloth")}
    tune("wait", *jobs.values())
    ends = set()
    for trainer, job in jobs.items():
        losses, found = curve(tune, job, "eval_loss"), tune.json("status", job)[0]
        end = max(curve(tune, job, "loss"))
        before = [losses[step] for step in range(1, end - 1)]
        assert end < 60, trainer
        assert min(losses[end - 1], losses[end]) >= min(before) - 0.1, trainer  # the last is of all rows
        assert found["state"] == "SUCCEEDED"
        assert f"ended at step {end}" in found["detail"]
        ends.add(end)
    assert len(ends) == 1


@pytest.mark.thorough(3)
def test_preferences_are_learned_alike(tune):
    """DPO with all weights and accumulation: from ln 2 downwards, every trainer's loss within 1e-5 of each other's at every step."""
    rows = [
        {"prompt": f"Add {n} and 1{' now' * (n % 3)}: ", "chosen": f"It is {n + 1}.", "rejected": f"No{'!' * (n % 4 + 1)}"}
        for n in range(96)
    ]
    (tune.cwd / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tune.cwd / "clusters.yaml").write_text(MACHINE)
    (tune.cwd / "r.yaml").write_text(PAIRS)
    jobs = {t: tune("submit", "r.yaml", "--to", t).stdout.strip() for t in able(PAIRS)}
    assert jobs.keys() >= {"torchtune", "axolotl", "maxtext"}
    tune("wait", *jobs.values())
    curves = {t: curve(tune, job, "loss") for t, job in jobs.items()}
    first = curves["torchtune"]
    assert first[1] == pytest.approx(0.6931472, abs=1e-6)
    assert first[20] < 0.2
    for trainer, losses in curves.items():
        print(f"dpo {trainer}: largest difference from torchtune {max(abs(losses[k] - loss) for k, loss in first.items()):.1e}")
        assert losses == pytest.approx(first, abs=LIMIT)
