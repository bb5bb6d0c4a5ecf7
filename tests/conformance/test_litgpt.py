"""LitGPT beyond the quickstart, really run: pre-training, several processes, several hosts, trackers, other families."""

import csv
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from backends.trainers.litgpt.families import DESCRIBED, lacks
from tests.families.matrix import facts
from tests.twins.families import TWINS

HERE = Path(__file__).parent
SAME = 1e-5
ENV = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.trainer

RECIPE = """\
version: 1
name: litgpt
model:
  id: tiny
  init: random
  architecture: {family: llama, hidden_size: 64, intermediate_size: 96, layers: 2, heads: 4, kv_heads: 2, max_length: 256, tied: true}
method: {kind: pretrain}
data: {train: rows.jsonl, eval: val.jsonl, format: text, max_length: 48}
train: {steps: 12, batch: {global: 8, micro: 2}, precision: fp32, grad_clip: 0.5}
optim: {lr: 5e-3, weight_decay: 0.1, warmup_steps: 3, min_lr: 1e-3, decay_on: matrices}
eval: {every: 6}
checkpoint: {every: 8}
"""
TARGETS = "version: 1\ntargets:\n  two: {kind: local, accelerator: cpu, devices: 2}\n"


@pytest.fixture
def recipe(tune):
    """The recipe's folder, with plain-text rows of unequal lengths."""
    for name, count in (("rows", 60), ("val", 9)):
        lines = [json.dumps({"text": f"{name} {n}: " + "so it goes " * (n % 4)}) for n in range(count)]
        (tune.cwd / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (tune.cwd / "clusters.yaml").write_text(TARGETS)
    (tune.cwd / "r.yaml").write_text(RECIPE)
    return tune.cwd / "r.yaml"


def run(tune, home, recipe, *words):
    """A job that succeeds: its points by name and step, and its work folder."""
    job = tune("submit", recipe, "--to", "litgpt", *words, "--follow").stdout.strip()
    points = {}
    for point in tune.json("metrics", job)["points"]:
        points.setdefault(point["name"], {})[point["step"]] = point["value"]
    return points, home / "jobs" / job / "1" / "work"


def measured(call, python, work, **more):
    """The yardstick's curves for the job in a work folder, and the largest difference of its weights from the job's."""
    wish = {
        "model": json.loads((work / "model.json").read_text())["folder"],
        "data": "data",
        "lr": 5e-3,
        "betas": [0.9, 0.95],
        "eps": 1e-8,
        "weight_decay": 0.1,
        "decay_on": "matrices",
        "schedule": {"kind": "cosine", "warmup": 3, "min_ratio": 0.2},
        "micro": 8,
        "clip": 0.5,
        "save": "yardstick.safetensors",
        **more,
    }
    (work / "yardstick.json").write_text(json.dumps(wish))
    plain = [str(HERE / "yardstick.py"), "yardstick.json", "yardstick.out"]
    call([python("torchtune"), *plain], work)
    gap = call([python("torchtune"), plain[0], "diff", "yardstick.safetensors", "checkpoint"], work)
    return json.loads((work / "yardstick.out").read_text()), json.loads(gap.stdout)


def close(curve, want):
    """Every step's value is the yardstick's."""
    assert list(curve) == list(range(1, len(want) + 1))
    gap = max(abs(value - other) for value, other in zip(curve.values(), want, strict=True))
    print(f"largest difference {gap:.2e}")
    return gap < SAME


def test_pretraining_is_the_yardsticks(tune, home, recipe, call, python):
    """A tied random model, accumulation, clipping, a schedule that ends above 0: `litgpt pretrain` has every loss, rate,
    evaluation and weight of a plain PyTorch loop, and its real number of tokens.
    """
    points, work = run(tune, home, recipe)
    want, weights = measured(call, python, work, eval_every=6, eval_rows=9)
    assert close(points["loss"], want["loss"])
    assert list(points["lr"].values()) == pytest.approx(want["lr"], rel=1e-9)
    assert points["eval_loss"] == pytest.approx({int(step): loss for step, loss in want["eval"].items()}, abs=SAME)
    assert weights["alone"] == []
    assert weights["largest"] < SAME
    manifest = json.loads((work / "data" / "manifest.json").read_text())
    assert points["tokens"][12] == sum(manifest["tokens_per_step"])
    assert [p.name for p in (work / "out").glob("step-*")] == ["step-00000008"]
    assert (work / "checkpoint" / "tokenizer.json").exists()


SFT = ("--set", "method.kind=sft", "--set", "train.grad_clip=null", "--set", "optim.min_lr=0.0")
AGAIN = ("--set", "train.activation_checkpointing=true")


@pytest.mark.parametrize("kind", [pytest.param("pretrain", marks=pytest.mark.thorough), "sft"])
def test_two_processes_are_one_run(tune, home, recipe, call, python, kind):
    """Each process has the whole model (LitGPT's FSDP of all weights wants CUDA), and together they follow the yardstick; with
    activations that are recomputed as well.
    """
    points, work = run(
        tune, home, recipe, "--on", "two", "--set", "resources.devices=2", *((*SFT, *AGAIN) if kind == "sft" else ())
    )
    plain = {"clip": None, "schedule": {"kind": "cosine", "warmup": 3}} if kind == "sft" else {}
    want, weights = measured(call, python, work, eval_every=6, eval_rows=9, **plain)
    assert close(points["loss"], want["loss"])
    assert points["eval_loss"] == pytest.approx({int(step): loss for step, loss in want["eval"].items()}, abs=SAME)
    assert list(points["lr"].values()) == pytest.approx(want["lr"], rel=1e-9)
    assert weights["largest"] < SAME
    manifest = json.loads((work / "data" / "manifest.json").read_text())
    assert points["tokens"][12] == sum(manifest["tokens_per_step"]), "LitGPT alone multiplies those of its first process"


@pytest.mark.thorough
def test_two_hosts_are_one_run(tune, home, recipe, call, python):
    """LoRA by FSDP, one process on each of two hosts: the steps that a plan has for them, with the places' numbers put in."""
    lora = (*SFT, "--set", "method.adapter=lora", "--set", "method.lora.rank=4", "--set", "optim.decay_on=all")
    _, work = run(tune, home, recipe, *lora)
    said = tune.json("translate", recipe, "--to", "litgpt", "--set", "resources.hosts=2", *lora)
    plan = said["backends"]["litgpt"]
    (work / "litgpt.yaml").write_text(plan["files"]["litgpt.yaml"].replace("out_dir: out", "out_dir: two"))
    [step] = [argv for argv in plan["steps"] if "finetune_lora" in argv]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    hosts = []
    for rank in ("0", "1"):
        placed = [{"@RANK@": rank, "@HEAD@": "127.0.0.1", "@PORT@": port}.get(word, word) for word in step]
        hosts.append(subprocess.Popen([python("litgpt"), *placed[1:]], cwd=work, env={**os.environ, **ENV}))
    assert [host.wait(timeout=300) for host in hosts] == [0, 0]
    one, two = (losses(work / out / "logs/csv/version_0/metrics.csv", times) for out, times in (("out", 4), ("two", 2)))
    assert len(two) == 12
    assert two == pytest.approx(one, abs=SAME)


def losses(file, times):
    """Loss of each optimizer step, of `times` micro-batches."""
    rows = [row for row in csv.DictReader(file.open()) if row["loss"]]
    return [float(row["loss"]) for row in rows if int(row["iter"]) % times == 0]


@pytest.mark.thorough
def test_a_qwen3_is_trained_as_one(tune, home, recipe, call, python):
    """A family with norms on queries and keys: its LitGPT shape is made from config.json, and follows a forward pass of ours."""
    points, work = run(tune, home, recipe, *SFT, "--set", "model.architecture.family=qwen3")
    want, weights = measured(call, python, work, clip=None, schedule={"kind": "cosine", "warmup": 3})
    assert close(points["loss"], want["loss"])
    assert weights["alone"] == []
    assert weights["largest"] < SAME


THERE_AND_BACK = """
import json, os, sys
sys.path.insert(0, os.getcwd())
from pathlib import Path
import torch, tune_convert, tune_export
from safetensors.torch import load_file

def tried(act, **wish):
    Path("wish.json").write_text(json.dumps(wish))
    return act("wish.json")

def trip(model):
    assert tried(tune_convert.main, model=model, out="lit", name=None) == 0
    assert tried(tune_export.main, **{"from": "litgpt"}, model=model, trained="lit", out="checkpoint") == 0
    base, out = load_file(f"{model}/model.safetensors"), load_file("checkpoint/model.safetensors")
    assert base.keys() == out.keys() and all(torch.equal(base[k], out[k]) for k in base), model
    facts = json.loads(Path(model, "config.json").read_text())
    Path("other").mkdir()
    for file in Path(model).iterdir():
        Path("other", file.name).symlink_to(file)
    Path("other/config.json").unlink()
    Path("other/config.json").write_text(json.dumps(facts | {"intermediate_size": 128, "moe_intermediate_size": 24}))
    assert tried(tune_convert.main, model="other", out="odd", name=None) == 1
    print(json.loads(Path("reason.json").read_text())["detail"])

here = os.getcwd()
for name, model in json.loads(sys.argv[1]).items():
    os.mkdir(name), os.chdir(name)
    trip(model)
    os.chdir(here)
"""


@pytest.mark.parametrize("some", [slice(2), pytest.param(slice(2, None), marks=pytest.mark.thorough)], ids=["two", "others"])
def test_families_of_litgpts_own_converters_go_there_and_back(call, python, twin, tmp_path, some):
    """Families that LitGPT knows by name only go through its own converters, described from config.json: every weight comes back where
    it was, bit for bit, and weights that are not of the model described are refused.
    """
    names = [name for name, made in TWINS.items() if made.family in DESCRIBED and not lacks(facts(name))]
    assert {TWINS[name].family for name in names} == set(DESCRIBED)
    for shim in (HERE.parents[1] / "backends").rglob("shims/tune_*.py"):
        shutil.copy(shim, tmp_path)
    chosen = names[some]
    folders = json.dumps({name: str(twin(name)) for name in chosen})
    said = call([python("litgpt"), "-c", THERE_AND_BACK, folders], tmp_path).stdout
    assert said.count("the weights in the folder are not those of LitGPT's") == len(chosen)


RECOMPUTED = """
import json, torch, tune_litgpt
from litgpt.config import Config
from litgpt.model import GPT
from tune_convert import main
assert main("convert.json") == 0
torch.manual_seed(0)
model, calls = GPT(Config.from_file("lit/model_config.yaml")), []
model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
def gradient():
    calls.clear(), model.zero_grad()
    model(torch.arange(60).view(2, 30)).logsumexp(-1).sum().backward()
    return [p.grad.clone() for p in model.parameters()], len(calls)
plain, once = gradient()
tune_litgpt.Rows(recompute=True).connect(batch_size=8)
same, twice = gradient()
with torch.no_grad():
    calls.clear(), model(torch.arange(60).view(2, 30))
print(json.dumps([max((a - b).abs().max().item() for a, b in zip(plain, same)), once, twice, len(calls)]))
"""


@pytest.mark.thorough
def test_activations_are_recomputed(job, case, call, python):
    """With `recompute` each block runs a second time for the gradient, which is the same, and once without one."""
    work = job(case("full"))
    (work / "convert.json").write_text(json.dumps({"model": "model", "out": "lit"}))
    said = call([python("litgpt"), "-c", RECOMPUTED], work).stdout.splitlines()[-1]
    gap, once, twice, without = json.loads(said)
    assert gap < 1e-6
    assert (once, twice, without) == (1, 2, 1)


COMPILED = """
import json, torch, tune_litgpt
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
from torch._dynamo.utils import counters
from tune_convert import main
assert main("convert.json") == 0
torch.manual_seed(0)
layers = ("query", "key", "value", "projection", "mlp")
model = GPT(Config.from_file("lit/model_config.yaml", lora_r=4, lora_alpha=8, **{f"lora_{layer}": True for layer in layers}))
mark_only_lora_as_trainable(model)
trained = [p for p in model.parameters() if p.requires_grad]
for each in trained:
    torch.nn.init.normal_(each, std=0.1)
def gradients():
    losses = [model(torch.arange(2 * length).view(2, length)).logsumexp(-1).sum() for length in (30, 27, 29, 25)]
    return [grad for loss in losses for grad in torch.autograd.grad(loss, trained)], counters["stats"]["unique_graphs"]
plain, none = gradients()
tune_litgpt.Rows(compile=True, recompute=True).connect(batch_size=8)
same, graphs = gradients()
gap = max(((a - b).abs().max() / a.abs().max().clamp(min=1e-3)).item() for a, b in zip(plain, same))
print(json.dumps([gap, none, graphs]))
"""


@pytest.mark.thorough(3)
def test_blocks_are_compiled(job, case, call, python):
    """With `compile` the gradient is the same, and rows of whatever length need two graphs: for the first block, whose
    input is not trained, and for the others.
    """
    work = job(case("full"))
    (work / "convert.json").write_text(json.dumps({"model": "model", "out": "lit"}))
    gap, none, graphs = json.loads(call([python("litgpt"), "-c", COMPILED], work).stdout.splitlines()[-1])
    assert gap < SAME
    assert none == 0
    assert graphs == 2


FULL = """
import torch, tune_litgpt
torch.set_float32_matmul_precision("high")
torch.backends.cudnn.allow_tf32 = True
tune_litgpt.Rows()
print(torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
"""


@pytest.mark.thorough
def test_single_precision_is_single_precision(job, case, call, python):
    """LitGPT's command allows TF32, 10 bits of mantissa, on CUDA; with our rows products are as precise as the recipe says."""
    assert call([python("litgpt"), "-c", FULL], job(case("full"))).stdout.split() == ["highest", "False"]
