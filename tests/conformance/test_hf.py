"""Trainers over transformers': their own loaders accept what we write for every method and know every key, and small models really train."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from backends.compile import plan
from backends.recipe import leaves
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from tests.conformance.test_main_job import ended_with_0, failed

HERE = Path(__file__).parent

pytestmark = pytest.mark.trainer

MODEL = {
    "id": "tiny",
    "init": "random",
    "architecture": {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 4, "kv_heads": 2, "max_length": 256},
}
FORMATS = {kind: forms[0] for kind, forms in leaves.FORMATS.items() if kind not in ("sft", "distill")}
REWARDS = "def brief(prompts, completions, answer, **_):\n    return [-float(len(text)) for text in completions]\n"


def recipe(kind="sft", adapter="none", **more):
    """A recipe of one method: 6 steps of 8 sequences, accumulated."""
    method = {"kind": kind, "adapter": adapter, "qat": more.pop("qat", {})}
    if adapter != "none":
        method["lora"] = {"rank": 4, "alpha": 8.0}
    if kind == "grpo":
        method["grpo"] = {"rewards": ["./rewards.py:brief"], "generations": 2, "max_new_tokens": 8}
    return {
        "version": 1,
        "name": f"{kind}-{adapter}",
        "model": MODEL,
        "method": method,
        "data": {"train": "rows.jsonl", "format": FORMATS.get(kind, "completion"), "max_length": 96, **more.pop("data", {})},
        "train": {"steps": 6, "batch": {"global": 8, "micro": 4}, "precision": "fp32", **more.pop("train", {})},
        "optim": {"lr": 5e-3, "warmup_steps": 1, **more.pop("optim", {})},
        **more,
    }


def write(folder, kind, rows=40, column="prompt"):
    """Rows for a method, and evaluation rows; `column` is what the prompt's is called."""
    for name, count in (("rows", rows), ("val", 5)):
        lines = []
        for n in range(count):
            good, bad = f"It is {n + 2}.", "No idea" + "!" * (n % 5)
            prompt = f"{name}: add {n} and 2" + " please" * (n % 3) + ". "
            row = {
                "preference": {column: prompt, "chosen": good, "rejected": bad},
                "rated": {"prompt": prompt, "completion": good if n % 2 else bad, "label": bool(n % 2)},
                "prompts": {column: prompt, "answer": good},
                "text": {"text": prompt + good},
            }
            lines.append(json.dumps(row.get(FORMATS.get(kind, ""), {"prompt": prompt, "completion": good})))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "rewards.py").write_text(REWARDS)


CHECK = """
import json, sys
import yaml
from axolotl.utils.config import validate_config
from axolotl.utils.dict import DictDefault
from axolotl.utils.schemas.config import AxolotlInputConfig

fields = {field.alias or name: name for name, field in AxolotlInputConfig.model_fields.items()}
fields |= {name: name for name in AxolotlInputConfig.model_fields}
out = {}
for path in sys.argv[1:]:
    raw = yaml.safe_load(open(path))
    found = {"unknown": sorted(key for key in raw if key not in fields)}
    try:
        gpu = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 2, "compute_capability": "sm_90"}
        cfg = validate_config(DictDefault(raw), capabilities=gpu, env_capabilities={"torch_version": "2.13.0"})
        got = {key: cfg[fields.get(key, key)] for key, value in raw.items() if not isinstance(value, dict | list)}
        found["changed"] = {key: [raw[key], value] for key, value in got.items() if value != raw[key]}
    except Exception as error:
        found["refused"] = f"{type(error).__name__}: {error}"
    out[path] = found
print("RESULT " + json.dumps(out, default=str))
"""

FEW = {"global": 16, "micro": 2}
CUDA = {
    "fsdp": {"resources": {"devices": 2}, "train": {"batch": FEW, "precision": "bf16-mixed", "activation_checkpointing": True}},
    "zero2": {
        "resources": {"devices": 2, "strategy": "zero2"},
        "train": {"batch": FEW, "activation_checkpointing": True, "offload": True, "precision": "fp16-mixed"},
    },
    "ddp": {
        "resources": {"devices": 2, "hosts": 2, "strategy": "ddp"},
        "train": {"batch": FEW},
        "optim": {"name": "paged_adamw_8bit"},
    },
    "log": {"log": {"trackers": ["tensorboard", "wandb", "mlflow"]}, "checkpoint": {"every": 2, "keep": 1}},
    "qat": {"qat": {"scheme": "int8-int4", "group": 16}, "train": {"compile": True}},
}


def every_method(python, folder, **more):
    """What axolotl's schema says of each kind with each adapter, of each format of its own data sets, and of each strategy: config -> keys
    that are unknown and values that are changed. `more` is said in every recipe.
    """
    wishes = {f"{kind}-{a}": recipe(kind, a) for kind in (*FORMATS, "sft") for a in ("none", "lora", "qlora", "dora")}
    wishes |= {name: recipe(**wish) for name, wish in CUDA.items()}
    for form in ("instruct", "chat", "text", "completion"):
        wishes[f"native-{form}"] = recipe(data={"format": form, "rendering": "native", "pack": True, "eval": "val.jsonl"})
    for kind in ("dpo", "kto", "orpo", "reward", "grpo"):
        wishes[f"native-{kind}"] = recipe(kind, "lora", data={"rendering": "native"}, eval={})
    paths = []
    for name, wish in wishes.items():
        accelerator = "cuda" if name in CUDA else "cpu"
        target = Target("t", accelerator, 2, hosts=2)
        made = plan(BACKENDS["axolotl"], parse(json.dumps({**wish, **more}), base="/somewhere"), target)
        for file in made.files:
            if file.path in ("axolotl.yaml", "deepspeed.json"):
                (folder / name).mkdir(exist_ok=True)
                (folder / name / file.path).write_text(file.text)
        paths.append(f"{name}/axolotl.yaml")
    env = {"AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    argv = [python, "-c", CHECK, *paths]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert "RESULT" in done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert len(found) == len(wishes) == 50
    return found


def test_axolotls_own_schema_accepts_every_method(trainer_python, tmp_path):
    """For each kind with each adapter, each format of its own data sets, and each strategy: accepted, no key unknown, no value
    changed. axolotl itself would drop an unknown key in silence.
    """
    found = every_method(trainer_python("axolotl"), tmp_path)
    assert {path: what for path, what in found.items() if what != {"unknown": [], "changed": {}}} == {}


def run(tune, home, trainer, wish, *words, column="prompt"):
    """A job that succeeds: its points by name and step, and its work folder."""
    write(tune.cwd, wish["method"]["kind"], column=column)
    (tune.cwd / "r.yaml").write_text(yaml.safe_dump(wish))
    job = tune("submit", "r.yaml", "--to", trainer, "--follow", *words).stdout.strip()
    points = {}
    for point in tune.json("metrics", job)["points"]:
        points.setdefault(point["name"], {})[point["step"]] = point["value"]
    return points, home / "jobs" / job / "1" / "work"


def test_trls_own_parser_accepts_every_method(trainer_python, tmp_path):
    """For each kind with each adapter, and each strategy: TRL's parser and config class of the kind know every key and change no value."""
    wishes = {f"{kind}-{a}": recipe(kind, a) for kind in (*FORMATS, "sft") for a in ("none", "lora", "qlora", "dora")}
    wishes |= {name: recipe(**more) for name, more in CUDA.items() if name not in ("qat", "zero2")}  # DeepSpeed is on GPUs alone
    jobs, plans = [], []
    for name, wish in wishes.items():
        target = Target("t", "cuda" if name in CUDA else "cpu", 2, hosts=2)
        made = plan(BACKENDS["trl"], parse(json.dumps(wish), base="/somewhere"), target)
        (tmp_path / name).mkdir()
        for file in made.files:
            (tmp_path / name / file.path).write_text(file.text)
        jobs.append({"folder": str(tmp_path / name), "config": "trl.yaml", "accelerator": target.accelerator})
        plans.append(yaml.safe_load((tmp_path / name / "trl.yaml").read_text()))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    argv = [trainer_python("trl"), str(HERE / "loaders" / "each.py"), "trl", "jobs.json", "said.json"]
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(zip(wishes, json.loads((tmp_path / "said.json").read_text()), strict=True))
    assert {name: each["error"] for name, each in said.items() if each["error"]} == {}
    changed = {
        (name, key): (value, said[name]["resolved"].get(key))
        for name, written in zip(wishes, plans, strict=True)
        for key, value in written.items()
        if not isinstance(value, dict) and said[name]["resolved"].get(key) != value
    }
    assert changed == {}
    assert len(said) == 39


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ({"num_train_epochs": 0}, "no_steps"),
        pytest.param({"output_dir": "elsewhere"}, "no_checkpoint", marks=pytest.mark.thorough),
        pytest.param({"learning_rate": 1e30, "lr_scheduler_kwargs.warmup_steps": 0}, "nan_loss", marks=pytest.mark.thorough),
        pytest.param({"max_length": 4}, "no_loss_tokens", marks=pytest.mark.thorough),
    ],
)
def test_what_trl_calls_a_success(tune, home, native, reason):
    """No step, a checkpoint elsewhere, a loss that is no number, answers cut away: TRL ends with 0, and the job FAILED."""
    wish = {**recipe("dpo" if "max_length" in native else "sft"), "native": {"trl": native}}
    write(tune.cwd, wish["method"]["kind"])
    (tune.cwd / "r.yaml").write_text(yaml.safe_dump(wish))
    said, _, job = failed(tune, "r.yaml", "--to", "trl")
    assert said == reason
    assert ended_with_0(home, job)


TWO = "version: 1\ntargets:\n  two: {kind: local, accelerator: cpu, devices: 2}\n"


@pytest.mark.thorough
@pytest.mark.parametrize("trainer", ["axolotl", "trl"])
def test_two_processes_and_many_leaves(tune, home, trainer_python, tmp_path, trainer):
    """LoRA in two processes, with clipping, a linear schedule that ends above 0 after a share of warm-up, evaluation,
    checkpoints, trackers: losses, rates, evaluations and merged weights are those of a plain PyTorch loop.
    """
    (tune.cwd / "clusters.yaml").write_text(TWO)
    wish = recipe(
        adapter="lora",
        data={"eval": "val.jsonl"},
        train={"batch": {"global": 8, "micro": 2}, "grad_clip": 0.05, "activation_checkpointing": True},
        optim={"warmup_steps": None, "warmup_share": 0.1, "schedule": "linear", "min_lr": 1e-3, "weight_decay": 0.1},
        eval={"every": 2, "batches": 1},
        checkpoint={"every": 2, "keep": 2},
        log={"trackers": ["tensorboard", "mlflow"]},
        resources={"devices": 2},
    )
    points, work = run(tune, home, trainer, wish, "--on", "two")
    loop = {
        "model": str(work / json.loads((work / "model.json").read_text())["folder"]),
        "data": str(work / "data"),
        **{"lr": 5e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "decay_on": "all", "micro": 8, "clip": 0.05},
        "schedule": {"kind": "linear", "warmup": 1, "min_ratio": 0.2},
        "lora": {"start": str(work / "lora" / "start.safetensors"), "alpha": 8},
        **{"eval_every": 2, "eval_rows": 4, "save": str(tmp_path / "want.safetensors")},
    }
    (tmp_path / "run.json").write_text(json.dumps(loop))
    argv = [trainer_python(trainer), str(HERE / "yardstick.py")]
    subprocess.run([*argv, "run.json", "out.json"], cwd=tmp_path, check=True)
    want = json.loads((tmp_path / "out.json").read_text())
    steps = range(1, 7)
    assert points["loss"] == pytest.approx(dict(zip(steps, want["loss"], strict=True)), abs=1e-5)
    assert points["lr"] == pytest.approx(dict(zip(steps, want["lr"], strict=True)), rel=1e-9, abs=1e-18)
    assert [points["eval_loss"][k] for k in (2, 4)] == pytest.approx([want["eval"][k] for k in ("2", "4")], abs=1e-5)
    assert points["eval_loss"][6] < points["eval_loss"][2]
    diff = [*argv, "diff", str(tmp_path / "want.safetensors"), str(work / "checkpoint")]
    apart = json.loads(subprocess.run(diff, capture_output=True, text=True, check=True).stdout)
    assert apart["largest"] < 1e-5
    assert apart["alone"] == []
    manifest = json.loads((work / "data" / "manifest.json").read_text())
    assert points["tokens"][6] == sum(manifest["tokens_per_step"])
    assert sorted(each.name for each in (work / "out").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    assert list((work / "out").glob("tensorboard/*/events*"))
    assert list((work / "out" / "mlflow").glob("*/*/metrics"))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("trainer", "kind", "adapter"),
    [
        ("axolotl", "dpo", "dora"),
        ("axolotl", "kto", "lora"),
        ("axolotl", "grpo", "lora"),
        ("axolotl", "reward", "lora"),
        ("axolotl", "orpo", "none"),
        ("axolotl", "sft", "qlora"),
        ("trl", "dpo", "dora"),
        ("trl", "grpo", "lora"),
        ("trl", "kto", "lora"),
        ("trl", "reward", "lora"),
        ("trl", "sft", "qlora"),
        ("trl", "orpo", "none"),
    ],
)
def test_every_method_trains(tune, home, trainer, kind, adapter):
    """Each ends SUCCEEDED with a point for every step; what it learns from falls (grpo: the reward is there)."""
    points, work = run(tune, home, trainer, recipe(kind, adapter))
    assert list(points["loss"]) == [1, 2, 3, 4, 5, 6]
    if kind == "grpo":
        assert set(points["reward"]) == set(points["loss"])
    else:
        assert points["loss"][6] < points["loss"][1]
    if kind in FORMATS and FORMATS[kind] == "preference" and kind != "reward":
        assert points["rewards/accuracies"][6] >= points["rewards/accuracies"][1]
    assert (work / "adapter").exists() == (adapter != "none")


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["bf16", pytest.param("bf16-mixed", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("trainer", ["axolotl", pytest.param("trl", marks=pytest.mark.thorough)])
def test_bfloat16_on_a_cpu(tune, home, trainer, precision):
    """It trains without a GPU; mixed precision leaves weights in float32, the other keeps them in bfloat16."""
    points, work = run(tune, home, trainer, recipe("sft", "lora", train={"precision": precision}))
    assert list(points["loss"]) == [1, 2, 3, 4, 5, 6]
    assert points["loss"][6] < points["loss"][1]
    stored = {entry["dtype"] for entry in header(work / "checkpoint" / "model.safetensors").values()}
    assert stored == {"BF16" if precision == "bf16" else "F32"}


def header(file):
    """What a safetensors file says of its tensors."""
    raw = file.read_bytes()
    said = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {name: entry for name, entry in said.items() if name != "__metadata__"}
