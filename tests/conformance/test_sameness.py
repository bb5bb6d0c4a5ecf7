"""One recipe is the same training in every trainer that can express it: steps, rates, trained parameters, losses."""

import json
import struct
import subprocess
from math import prod
from pathlib import Path

import pytest

from backends.base import Inexpressible, plan
from backends.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

HERE = Path(__file__).parent
LOSS = 1e-5
"""Largest difference of a step's loss from the plain loop's, in nats."""
RATE = {"same": 1e-9, "converted": 1e-9, "defaulted": 1e-9, "approximated": 2e-5}
"""Largest relative difference of a step's learning rate, by what the report says of optim.schedule; 1e-10 of the highest rate
is nothing in any case.
"""

pytestmark = pytest.mark.trainer

RECIPE = """\
version: 1
name: same
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 176, layers: 2, heads: 4, kv_heads: 2, max_length: 256}
data: {train: rows.jsonl, format: chat, max_length: 160}
train: {steps: 50, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, weight_decay: 0.1, warmup_steps: 5}
"""
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
TWO_AT_A_TIME = "version: 1\ntargets: {local: {accelerator: cpu, devices: 2, threads: 1}}\n"
LORA = "method: {adapter: lora, lora: {rank: 8, alpha: 16}}\n"


def curve(tune, job, name):
    """Values of a metric by step."""
    return {p["step"]: p["value"] for p in tune.json("metrics", job, "--name", name)["points"]}


def write_chat(path, rows=120):
    """Conversations of several turns, some with a system message, of unequal lengths."""
    lines = []
    for n in range(rows):
        turns = [{"role": "system", "content": "Be short."}] if n % 3 == 0 else []
        for k in range(1 + n % 2):
            turns += [
                {"role": "user", "content": f"Add {n} and {k}" + " please" * (n % 4)},
                {"role": "assistant", "content": f"It is {n + k}."},
            ]
        lines.append(json.dumps({"messages": turns}))
    path.write_text("\n".join(lines) + "\n")


def able(text):
    """Trainer -> what its report says of the schedule, for all that express the recipe."""
    out = {}
    for name, backend in BACKENDS.items():
        try:
            report = plan(backend, parse(text, base="/somewhere"), Target()).report
        except Inexpressible:
            continue
        out[name] = next(line.status for line in report.lines if line.leaf == "optim.schedule")
    return out


def weights(folder):
    """Numbers in the safetensors files of a folder, from their headers."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as data:
            header = json.loads(data.read(struct.unpack("<Q", data.read(8))[0]))
        count += sum(prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
    return count


def yardstick(python, work, folder, *, lora):
    """Losses and rates of a plain PyTorch loop over the same weights and rows."""
    wish = {
        "model": str(work / json.loads((work / "model.json").read_text())["folder"]),
        "data": str(work / "data"),
        "lr": 1e-3,
        "betas": [0.9, 0.95],
        "eps": 1e-8,
        "weight_decay": 0.1,
        "decay_on": "all",
        "schedule": {"kind": "cosine", "warmup": 5, "min_ratio": 0.0},
        "micro": 4,
        "clip": None,
        "lora": {"start": str(work / "lora" / "start.safetensors"), "alpha": 16} if lora else None,
    }
    (folder / "run.json").write_text(json.dumps(wish))
    subprocess.run([python, str(HERE / "yardstick.py"), "run.json", "out.json"], cwd=folder, check=True)
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_one_recipe_is_the_same_training(tune, home, trainer_python, tmp_path, method):
    """Chat rows, accumulation, 50 steps in fp32: every trainer's losses lie within 1e-5 of a plain PyTorch loop at every step,
    with the same rates (within 1e-9, or what the report calls approximated), the same rows, the same trained parameters.
    """
    write_chat(tune.cwd / "rows.jsonl")
    text = RECIPE + (LORA if method == "lora" else "")
    (tune.cwd / "clusters.yaml").write_text(TWO_AT_A_TIME)
    (tune.cwd / "r.yaml").write_text(text)
    schedules = able(text)
    assert schedules.keys() >= {"litgpt", "torchtune", "axolotl", "maxtext"}
    jobs = {t: tune("submit", "r.yaml", "--to", t).stdout.strip() for t in schedules}
    tune("wait", *jobs.values())
    works = {t: home / "jobs" / job / "1" / "work" for t, job in jobs.items()}
    want = yardstick(trainer_python("torchtune"), works["torchtune"], tmp_path, lora=method == "lora")
    assert want["loss"][-1] < want["loss"][0] - (0.02 if method == "lora" else 1), "nothing was learned, so nothing was compared"
    counts = {t: weights(work / ("adapter" if method == "lora" else "checkpoint")) for t, work in works.items()}
    print(f"\n{method:12}{'steps':>8}{'trained':>10}{'max |dloss|':>14}{'max |dlr|/lr':>14}")
    for trainer, job in jobs.items():
        losses, rates = curve(tune, job, "loss"), curve(tune, job, "lr")
        gap = max(abs(losses[k + 1] - loss) for k, loss in enumerate(want["loss"]))
        off = max(abs(rates[k + 1] - rate) / rate for k, rate in enumerate(want["lr"]) if rate > 1e-7)
        print(f"{trainer:12}{len(losses):8}{counts[trainer]:10}{gap:14.1e}{off:14.1e}")
        assert list(losses) == list(range(1, 51))
        assert gap < LOSS
        assert [rates[k + 1] for k in range(50)] == pytest.approx(want["lr"], rel=RATE[schedules[trainer]], abs=1e-13)
        assert (works[trainer] / "data").resolve() == works["torchtune"].joinpath("data").resolve(), "all read the very same rows"
    assert len(set(counts.values())) == 1


def test_preferences_are_learned_alike(tune):
    """DPO with all weights and accumulation: from ln 2 downwards, every trainer's loss within 1e-5 of each other's at every step."""
    rows = [
        {"prompt": f"Add {n} and 1{' now' * (n % 3)}: ", "chosen": f"It is {n + 1}.", "rejected": f"No{'!' * (n % 4 + 1)}"}
        for n in range(96)
    ]
    (tune.cwd / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tune.cwd / "clusters.yaml").write_text(TWO_AT_A_TIME)
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
        assert losses == pytest.approx(first, abs=LOSS)
