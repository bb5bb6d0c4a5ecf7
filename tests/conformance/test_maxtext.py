"""MaxText as a user runs it: every loop that it trains with, against a plain PyTorch loop over the same rows."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.mapping.schedule import rate

HERE = Path(__file__).parent
SHIMS = HERE.parents[1] / "backends" / "shims"
MAXTEXT = SHIMS.parent / "trainers" / "maxtext" / "shims"
SAME = 1e-5
RATE = 1e-7
"""Of a learning rate: float32, in which MaxText has it, rounds by up to 6e-8."""

pytestmark = pytest.mark.trainer

MODEL = {"hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "kv_heads": 2, "max_length": 256}
OPTIM = {"lr": 0.002, "weight_decay": 0.1, "warmup_steps": 3}
ADAMW = {"lr": 0.002, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}

SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALING["original_max_position_embeddings"] = 16

PREFERENCE = """
import json, sys
import numpy as np, torch
from torch.nn.functional import logsigmoid
from yardstick import Model, factor, read_model
torch.set_num_threads(1)
wish = json.load(open("run.json"))
facts, weights = read_model(wish["model"])
first = Model(facts, {name: value.clone() for name, value in weights.items()})
for value in weights.values():
    value.requires_grad_()
model = Model(facts, weights)
rows = [json.loads(line) for line in open(wish["data"] + "/train.pairs.jsonl")]
order = np.load(wish["data"] + "/train.order.npy").reshape(-1, wish["batch"])
optimizer = torch.optim.AdamW(weights.values(), **wish["adamw"])
def said(model, row, answer):
    ids = torch.tensor([row["prompt_ids"] + row[answer]])
    tokens = model.logits(ids)[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
    return tokens[len(row["prompt_ids"]) - 1 :].sum()
losses = []
for step, numbers in enumerate(order):
    for group in optimizer.param_groups:
        group["lr"] = wish["adamw"]["lr"] * factor(step, len(order), "cosine", wish["warmup"])
    total = 0
    for row in (rows[n] for n in numbers):
        with torch.no_grad():
            before = said(first, row, "chosen_ids") - said(first, row, "rejected_ids")
        margin = said(model, row, "chosen_ids") - said(model, row, "rejected_ids") - before
        total = total - logsigmoid(wish["beta"] * margin) / len(numbers)
    total.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(total.item())
json.dump({"loss": losses}, open("out.json", "w"))
"""

TAUGHT = """
import json, sys
import numpy as np, torch
from torch.nn import functional as F
from yardstick import Data, Model, factor, optimizer, read_model
from safetensors.torch import save_file
torch.set_num_threads(1)
wish = json.load(open("run.json"))
facts, weights = read_model(wish["model"])
student, teacher = Model(facts, weights), Model(*read_model(wish["teacher"]))
params = list(weights.values())
for p in params:
    p.requires_grad_()
data, ratio = Data(wish["data"], "train"), wish["ratio"]
order = np.load(wish["data"] + "/train.order.npy").reshape(-1, wish["batch"])
opt, out = optimizer(wish, params), {"loss": [], "kd_loss": [], "eval": 0}

def losses(ids, labels):
    learned = labels[:, 1:] != -100
    with torch.no_grad():
        wanted = teacher.logits(ids)[:, :-1][learned].log_softmax(-1)
    given = student.logits(ids)[:, :-1][learned].log_softmax(-1)
    hard = F.nll_loss(given, labels[:, 1:][learned])
    soft = (wanted.exp() * (wanted - given)).sum(-1).mean()
    return (1 - ratio) * hard + ratio * soft, soft

for step, rows in enumerate(order):
    for group in opt.param_groups:
        group["lr"] = wish["lr"] * factor(step, len(order), "linear", wish["warmup"])
    loss, soft = losses(*data.batch(rows))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, wish["clip"])
    opt.step()
    opt.zero_grad()
    out["loss"].append(loss.item())
    out["kd_loss"].append(soft.item())
with torch.no_grad():
    out["eval"] = losses(*Data(wish["data"], "eval").batch(range(wish["eval_rows"])))[0].item()
save_file({name: value.detach().contiguous() for name, value in weights.items()}, wish["save"])
json.dump(out, open("out.json", "w"))
"""

KILLS = """
import os, signal, sys
import tune_maxtext_mends
tune_maxtext_mends.spare_other_processes()
from maxtext.input_pipeline import multihost_dataloading as loading
ended = []
os.kill = lambda *words: ended.append(words)
os.listdir = lambda path: sys.exit("it looks for processes")
loading.cleanup_all_iterators()
print(ended)
"""


RATES = """
import sys
from itertools import product
from types import SimpleNamespace
import jax, jax.numpy as jnp
import tune_maxtext_mends
from maxtext.utils import maxtext_utils
theirs = maxtext_utils.create_learning_rate_schedule
tune_maxtext_mends.exact_rates()
shapes = [("cosine", "linear", 0.2), *product(["wsd"], ("linear", "cosine"), (0.0, 0.2, 0.5))]  # cosine reads neither of the two
for (kind, style, decay), length, warmup, low in product(shapes, (5, 40, 101), (0.0, 0.1), (0.0, 0.1)):
    config = SimpleNamespace(
        steps=40, learning_rate=0.5, learning_rate_final_fraction=low, learning_rate_schedule_steps=length,
        lr_schedule_type=kind, warmup_steps_fraction=warmup, wsd_decay_style=style, wsd_decay_steps_fraction=decay,
    )
    steps = jnp.arange(40)
    ours = jax.jit(maxtext_utils.create_learning_rate_schedule(config))(steps)
    if not jnp.allclose(ours, theirs(config)(steps), rtol=0, atol=1e-6):
        sys.exit(f"{config}: {ours}")
"""


@dataclass
class Run:
    """A job that succeeded."""

    points: dict
    """Name of a metric -> step -> value."""
    work: Path
    said: str
    """What its steps printed."""

    def largest(self, name, want):
        """Largest difference of a metric to the yardstick's, over all steps."""
        assert list(self.points[name]) == list(range(1, len(want) + 1))
        return max(abs(self.points[name][k + 1] - value) for k, value in enumerate(want))


@pytest.fixture
def train(tune, home):
    """Runs a recipe with MaxText, and says how it went."""

    def run(recipe):
        whole = {
            "version": 1,
            "name": "maxtext",
            "model": {"id": "tiny", "init": "random", "architecture": MODEL | recipe.pop("shape", {})},
            **recipe,
        }
        (tune.cwd / "r.yaml").write_text(json.dumps(whole))
        job = tune("submit", "r.yaml", "--to", "maxtext", "--follow").stdout.strip()
        points = {}
        for point in tune.json("metrics", job)["points"]:
            points.setdefault(point["name"], {})[point["step"]] = point["value"]
        return Run(points, home / "jobs" / job / "1" / "work", tune("logs", job).stdout)

    return run


@pytest.fixture
def yardstick(trainer_python, tmp_path):
    """The same by the yardstick: its curves; `save` in the wish leaves the final weights."""

    def measure(run, script="", **wish):
        model = json.loads((run.work / "model.json").read_text())["folder"]
        (tmp_path / "run.json").write_text(json.dumps({"model": str(run.work / model), "data": str(run.work / "data"), **wish}))
        argv = ["-c", script] if script else [str(HERE / "yardstick.py"), "run.json", "out.json"]
        env = {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        subprocess.run([trainer_python("torchtune"), *argv], cwd=tmp_path, env=env, check=True)
        return json.loads((tmp_path / "out.json").read_text())

    return measure


@pytest.fixture
def teacher(tune, trainer_python):
    """A folder with a model of other sizes than the student, its head tied, its rotary embedding scaled as Llama 3's is."""
    wide = {"vocab_size": 512, "hidden_size": 96, "intermediate_size": 128, "layers": 3, "heads": 3, "kv_heads": 3}
    spec = {
        "init": "random",
        "folder": "made/teacher",
        "seed": 5,
        "architecture": {**wide, "family": "qwen2", "max_length": 256, "rope_theta": 1e4, "norm_eps": 1e-5, "tied": True},
    }
    (tune.cwd / "teacher.json").write_text(json.dumps(spec))
    argv = [trainer_python("torchtune"), str(SHIMS / "tune_model.py"), "teacher.json"]
    subprocess.run(argv, cwd=tune.cwd, check=True)
    config = tune.cwd / "made" / "teacher" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_scaling": SCALING}))
    return "./made/teacher"


def text_rows(path, count=60):
    """Plain texts of unequal lengths."""
    path.write_text("".join(json.dumps({"text": f"{n}: " + "so it goes " * (1 + n % 4)}) + "\n" for n in range(count)))


def asked_rows(path, count=60):
    """Questions and answers."""
    rows = [
        {"instruction": f"Add {n} and {n % 7}", "input": "", "output": f"It is {n + n % 7}." * (1 + n % 3)} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.thorough
def test_all_weights_by_its_own_loop(tune, train, yardstick, trainer_python, tmp_path):
    """Accumulation, decay on matrices, evaluation: losses, rates, evaluations and the exported weights are the yardstick's."""
    asked_rows(tune.cwd / "rows.jsonl")
    asked_rows(tune.cwd / "val.jsonl", 13)
    run = train(
        {
            "data": {"train": "rows.jsonl", "eval": "val.jsonl", "format": "instruct", "template": "plain", "max_length": 128},
            "train": {"steps": 15, "batch": {"global": 8, "micro": 4}, "precision": "fp32"},
            "optim": {**OPTIM, "decay_on": "matrices"},
            "eval": {"every": 5},
        }
    )
    schedule, saved = {"kind": "cosine", "warmup": 3, "min_ratio": 0.0}, tmp_path / "final.safetensors"
    wish = {"schedule": schedule, "decay_on": "matrices", "micro": 8, "save": str(saved), "eval_every": 5, "eval_rows": 13}
    want = yardstick(run, **ADAMW, **wish)
    assert want["loss"][-1] < want["loss"][0] - 0.5, "nothing was learned, so nothing was compared"
    assert run.largest("loss", want["loss"]) < SAME
    assert list(run.points["lr"].values()) == pytest.approx(want["lr"], rel=RATE)
    assert run.points["eval_loss"] == pytest.approx({int(k): v for k, v in want["eval"].items()}, abs=SAME)
    argv = [trainer_python("torchtune"), str(HERE / "yardstick.py"), "diff", str(saved), str(run.work / "checkpoint")]
    gap = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert gap["largest"] < SAME
    assert gap["alone"] == []


@pytest.mark.thorough(2)
def test_lora_by_tunix(tune, train, yardstick, trainer_python, tmp_path):
    """LoRA on every kind of layer, the head too, with micro-batches: the same curves, merged weights that are the yardstick's, an adapter apart."""
    asked_rows(tune.cwd / "rows.jsonl")
    every = ["q", "k", "v", "o", "gate", "up", "down", "head"]
    run = train(
        {
            "method": {"adapter": "lora", "lora": {"rank": 4, "alpha": 8.0, "targets": every}},
            "data": {"train": "rows.jsonl", "eval": "rows.jsonl", "format": "instruct", "template": "plain", "max_length": 128},
            "train": {"steps": 15, "batch": {"global": 8, "micro": 2}, "precision": "fp32"},
            "optim": {**OPTIM, "schedule": "linear", "min_lr": 2e-4},
        }
    )
    schedule, saved = {"kind": "linear", "warmup": 3, "min_ratio": 0.1}, tmp_path / "final.safetensors"
    lora = {"start": str(run.work / "lora" / "start.safetensors"), "alpha": 8}
    more = {"lora": lora, "save": str(saved), "eval_every": 15, "eval_rows": 60}
    want = yardstick(run, **ADAMW, schedule=schedule, decay_on="all", micro=8, **more)
    assert want["loss"][-1] < want["loss"][0] - 0.01, "nothing was learned, so nothing was compared"
    assert run.largest("loss", want["loss"]) < SAME
    assert list(run.points["lr"].values()) == pytest.approx(want["lr"], rel=RATE)
    assert run.points["eval_loss"] == pytest.approx({15: want["eval"]["15"]}, abs=SAME)
    argv = [trainer_python("torchtune"), str(HERE / "yardstick.py"), "diff", str(saved), str(run.work / "checkpoint")]
    assert json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)["largest"] < SAME
    facts = json.loads((run.work / "adapter" / "adapter_config.json").read_text())
    assert (facts["r"], facts["lora_alpha"], len(facts["target_modules"])) == (4, 8.0, 8)


@pytest.mark.thorough(3)
def test_lora_in_mixed_precision_on_two_devices(tune, train, yardstick):
    """A and B in float32, products in bfloat16; on each device whole, which is more than the 2 % of all weights that MaxText allows by
    itself: it trains, and its losses are near those of a loop in float32.
    """
    asked_rows(tune.cwd / "rows.jsonl")
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  local: {kind: local, accelerator: cpu, devices: 2}\n")
    run = train(
        {
            "method": {"adapter": "lora", "lora": {"rank": 8, "alpha": 16.0}},
            "data": {"train": "rows.jsonl", "format": "instruct", "template": "plain", "max_length": 128},
            "train": {"steps": 12, "batch": {"global": 8}, "precision": "bf16-mixed"},
            "optim": OPTIM,
            "resources": {"devices": 2},
        }
    )
    lora = {"start": str(run.work / "lora" / "start.safetensors"), "alpha": 16}
    want = yardstick(run, **ADAMW, schedule={"kind": "cosine", "warmup": 3}, decay_on="all", micro=8, lora=lora)
    assert want["loss"][-1] < want["loss"][0] - 0.03, "nothing was learned, so nothing was compared"
    assert SAME < run.largest("loss", want["loss"]) < 0.01


@pytest.mark.thorough(3)
def test_pretraining_on_two_devices(tune, train, yardstick):
    """Packed plain text, a tied Qwen 2 shape, clipping, a constant rate, two devices of one host: the yardstick's curve."""
    text_rows(tune.cwd / "rows.jsonl", 120)
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  local: {kind: local, accelerator: cpu, devices: 2}\n")
    run = train(
        {
            "shape": {"family": "qwen2", "tied": True, "rope_theta": 100.0},
            "method": {"kind": "pretrain"},
            "data": {"train": "rows.jsonl", "format": "text", "max_length": 96, "pack": True},
            "train": {
                "steps": 12,
                "batch": {"global": 8},
                "precision": "fp32",
                "grad_clip": 0.5,
                "activation_checkpointing": True,
            },
            "optim": {**OPTIM, "schedule": "constant"},
            "resources": {"devices": 2},
        }
    )
    schedule = {"kind": "constant", "warmup": 3}
    want = yardstick(run, **ADAMW, schedule=schedule, decay_on="all", micro=8, clip=0.5)
    assert want["loss"][-1] < want["loss"][0] - 0.3, "nothing was learned, so nothing was compared"
    assert run.largest("loss", want["loss"]) < SAME
    assert "Num_devices: 2" in run.said


@pytest.mark.thorough(3)
def test_preferences_by_tunix(tune, train, yardstick):
    """DPO with accumulation: it begins at ln 2, and each loss is that of a plain loop over the same pairs."""
    rows = [{"prompt": f"Say {n}.", "chosen": f" {n}!" * (1 + n % 3), "rejected": " No" * (1 + n % 4)} for n in range(40)]
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = train(
        {
            "method": {"kind": "dpo", "preference": {"beta": 0.3}},
            "data": {"train": "rows.jsonl", "format": "preference", "max_length": 64},
            "train": {"steps": 10, "batch": {"global": 8, "micro": 4}, "precision": "fp32"},
            "optim": OPTIM,
        }
    )
    want = yardstick(run, PREFERENCE, adamw=ADAMW, warmup=3, beta=0.3, batch=8)
    assert want["loss"][0] == pytest.approx(0.693147, abs=1e-5)
    assert want["loss"][-1] < 0.5, "nothing was learned, so nothing was compared"
    assert run.largest("loss", want["loss"]) < SAME


@pytest.mark.thorough(3)
def test_a_teacher_of_other_sizes(tune, teacher, train, yardstick, trainer_python, tmp_path):
    """Distillation, part by part: losses, divergences, the evaluation and the exported weights are those of a plain loop beside the same teacher."""
    asked_rows(tune.cwd / "rows.jsonl")
    asked_rows(tune.cwd / "val.jsonl", 13)
    run = train(
        {
            "shape": {"vocab_size": 512},
            "method": {"kind": "distill", "distill": {"teacher": teacher, "ratio": 0.3}},
            "data": {"train": "rows.jsonl", "eval": "val.jsonl", "format": "instruct", "template": "plain", "max_length": 128},
            "train": {"steps": 12, "batch": {"global": 8, "micro": 4}, "precision": "fp32", "grad_clip": 0.5},
            "optim": {**OPTIM, "schedule": "linear"},
            "eval": {"every": 6},
        }
    )
    saved = tmp_path / "final.safetensors"
    more = {"teacher": str(tune.cwd / teacher), "ratio": 0.3, "batch": 8, "warmup": 3, "clip": 0.5, "eval_rows": 13}
    want = yardstick(run, TAUGHT, **ADAMW, **more, decay_on="all", save=str(saved))
    assert want["loss"][-1] < want["loss"][0] - 0.3, "nothing was learned, so nothing was compared"
    assert run.largest("loss", want["loss"]) < SAME
    assert run.largest("kd_loss", want["kd_loss"]) < SAME
    assert run.points["lr"] == pytest.approx({k + 1: 0.002 * min(k / 3, (12 - k) / 9) for k in range(12)}, rel=RATE)
    assert list(run.points["eval_loss"]) == [6, 12]
    assert run.points["eval_loss"][12] == pytest.approx(want["eval"], abs=SAME)
    argv = [trainer_python("torchtune"), str(HERE / "yardstick.py"), "diff", str(saved), str(run.work / "checkpoint")]
    assert json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)["largest"] < SAME


@pytest.mark.thorough(3)
def test_a_teacher_over_rows_of_its_own_loader(tune, teacher, train):
    """MaxText's own rows of plain text are repeated, and training ends after the steps asked for all the same."""
    text_rows(tune.cwd / "rows.jsonl")
    run = train(
        {
            "shape": {"vocab_size": 512},
            "method": {"kind": "distill", "distill": {"teacher": teacher}},
            "data": {"train": "rows.jsonl", "format": "text", "rendering": "native", "max_length": 64, "pack": True},
            "train": {"steps": 4, "batch": {"global": 8}, "precision": "fp32"},
            "optim": {**OPTIM, "warmup_steps": 1},
        }
    )
    assert list(run.points["loss"]) == [1, 2, 3, 4]
    assert run.points["loss"][4] < run.points["loss"][1] - 0.1
    assert run.points["loss"][1] == pytest.approx((run.points["class_loss"][1] + run.points["kd_loss"][1]) / 2, abs=SAME)


def test_other_processes_are_spared(trainer_python):
    """MaxText's loader, which ends whatever looks like an orphaned worker on the machine, ends nothing and looks for nothing."""
    argv = [trainer_python("maxtext"), "-c", KILLS]
    env = {"PYTHONPATH": f"{SHIMS}:{MAXTEXT}", "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "[]"


def test_rates_follow_the_config(trainer_python):
    """Whatever the schedule, its shares and its length: the rate of each step is that of MaxText's own function, but for what float32
    loses there.
    """
    env = {"PYTHONPATH": f"{SHIMS}:{MAXTEXT}", "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([trainer_python("maxtext"), "-c", RATES], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_lora_with_preferences_is_refused(tune):
    """MaxText would train all weights, in silence."""
    model = {"id": "tiny", "init": "random", "architecture": MODEL}
    method, data = {"kind": "dpo", "adapter": "lora"}, {"train": "rows.jsonl", "format": "preference"}
    recipe = {"version": 1, "name": "no", "model": model, "method": method, "data": data, "optim": OPTIM}
    (tune.cwd / "r.yaml").write_text(json.dumps({**recipe, "train": {"steps": 5, "batch": {"global": 8}}}))
    assert "method.adapter" in tune("submit", "r.yaml", "--to", "maxtext", code=3).stderr


@pytest.mark.parametrize("kind", ["linear", "constant", "cosine"])
def test_shares_of_the_schedule_come_out_whole(kind, monkeypatch):
    """For any number of steps, MaxText's floor of share x length is the warm-up meant, and two shares never exceed 1."""
    monkeypatch.syspath_prepend(str(SHIMS))
    monkeypatch.syspath_prepend(str(MAXTEXT))
    monkeypatch.delitem(sys.modules, "tune_maxtext", raising=False)
    import tune_maxtext  # noqa: PLC0415 - it lies where a plan puts it

    for steps in (*range(1, 300), 12345):
        for warmup in {0, 1, steps // 10, steps // 3, steps - 1, steps}:
            keys = tune_maxtext.schedule(steps, kind, warmup)
            length = keys["learning_rate_schedule_steps"]
            assert int(length * keys["warmup_steps_fraction"]) == warmup
            if kind == "linear":
                assert int(length * keys["wsd_decay_steps_fraction"]) == length - warmup
            assert keys["warmup_steps_fraction"] + keys["wsd_decay_steps_fraction"] <= 1


@pytest.mark.parametrize("kind", ["linear", "constant", "cosine"])
def test_rates_are_the_recipes(kind, monkeypatch):
    """For any number of steps, each step's rate is the recipe's, in double precision, to the end of a cosine."""
    monkeypatch.syspath_prepend(str(SHIMS))
    monkeypatch.syspath_prepend(str(MAXTEXT))
    for name in ("tune_maxtext", "tune_maxtext_mends"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import tune_maxtext  # noqa: PLC0415 - it lies where a plan puts it

    fixed = {"learning_rate": 2e-3, "learning_rate_final_fraction": 0.0, "wsd_decay_style": "linear"}
    fixed["lr_schedule_type"] = "cosine" if kind == "cosine" else "wsd"
    for steps in (*range(1, 60), 1234):
        for warmup in {0, 1, steps // 10, steps - 1, steps}:
            keys = SimpleNamespace(steps=steps, **fixed, **tune_maxtext.schedule(steps, kind, warmup))
            want = [rate(k, steps, lr=2e-3, schedule=kind, warmup=warmup, min_lr=0.0) for k in range(1, steps + 1)]
            assert tune_maxtext.tune_maxtext_mends.rates(keys)[:steps] == pytest.approx(want, rel=1e-12)
