"""Trainers' environments, small models, and job folders in which the shims run as they do on a host."""

import csv
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from backends.plan import Environment
from backends.stages.stage import LOCKS
from orchestrator.agent.provision import build, find_uv

HERE = Path(__file__).parent
ENV = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
ADAMW = {"lr": 0.005, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
LORA = {"q": "query", "k": "key", "v": "value", "o": "projection", "head": "head"}


@dataclass(frozen=True)
class Case:
    """One fine-tune, said once."""

    model: str
    warmup: int = 5
    micro: int = 8
    decay_on: str = "all"
    parts: int = 1
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    evals: bool = False
    eval_rows: int = 30
    devices: int = 1

    @property
    def accumulation(self):
        """Micro-batches of one process that make a step; the batch has 8 rows."""
        return 8 // self.micro // self.devices


ALL = ("q", "k", "v", "o", "gate", "up", "down")
CASES = {
    "full": Case("llama", micro=4, decay_on="matrices", parts=5, evals=True),
    "tied": Case("qwen2"),
    "lora": Case("llama", warmup=4, targets=(*ALL, "head"), evals=True, eval_rows=24),
    "some": Case("qwen2", micro=4, targets=("q", "v"), warmup=1, parts=2),
}
RANK, ALPHA = 4, 8


def call(argv, cwd, check=True):
    """Run a program; its output is in the message when it fails."""
    done = subprocess.run(argv, check=False, cwd=cwd, env={**os.environ, **ENV}, capture_output=True, text=True, timeout=900)
    assert not check or done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done


PYTHONS: dict[str, str] = {}
"""Trainer -> its interpreter, once `interpreters` has made them ready."""


@pytest.fixture(scope="session", autouse=True)
def interpreters(trainer_python):
    """Both trainers' environments are there before any test of this room."""
    PYTHONS.update({name: trainer_python(name) for name in ("torchtune", "litgpt")})


interpreter = PYTHONS.__getitem__


@pytest.fixture(scope="session", name="call")
def fixture_call():
    """Runs a program."""
    return call


@pytest.fixture(scope="session")
def python():
    """The interpreter of a trainer, by its name."""
    return interpreter


@pytest.fixture(scope="session")
def stage_environment(shared_home):
    """Makes an environment of the stages, by its name; gives the interpreter."""

    def make(name):
        environment = Environment(f"stage-{name}", "3.11", LOCKS[f"{name}-cpu"], "cpu")
        return str(build(shared_home / "envs", environment, say=print) / "bin" / "python")

    return make


@pytest.fixture(scope="session")
def stage_python(stage_environment):
    """The interpreter of the stages' usual environment."""
    return stage_environment("hf")


@pytest.fixture(scope="session")
def clients(tmp_path_factory):
    """Asks a server by LangChain, Haystack and LlamaIndex, each as shipped: (url, model, key) -> each one's name and finished process."""
    rag = HERE.parents[1] / "examples" / "rag"
    python = tmp_path_factory.mktemp("clients") / "env" / "bin" / "python"
    call([find_uv(), "venv", "--quiet", "--python", "3.11", python.parents[1]], HERE)
    call([find_uv(), "pip", "install", "--quiet", "--python", python, "-r", rag / "requirements.txt"], HERE)

    def ask(url, model, key):
        for name in ("langchain", "haystack", "llama_index"):
            argv = [python, rag / f"with_{name}.py", url, model, "What does READY mean?"]
            env = {**os.environ, "SERVE_KEY": key}
            yield name, subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=600)

    return ask


@pytest.fixture(scope="session")
def adapted(stage_python, tmp_path_factory):
    """Folder of `base`, a LoRA `adapter` for it, and `model`, which is both."""
    folder = tmp_path_factory.mktemp("adapted")
    call([stage_python, str(HERE / "adapted.py")], folder)
    return folder


@pytest.fixture(scope="session")
def case():
    """A case, by its name."""
    return CASES.__getitem__


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of small models and rows."""
    base = tmp_path_factory.mktemp("tiny")
    call([interpreter("torchtune"), str(HERE / "tiny.py"), str(base)], base)
    return base


@pytest.fixture(scope="session")
def job(tiny, tmp_path_factory):
    """Makes a job's folder: the shims, and links to model, data and cache."""
    shared = tmp_path_factory.mktemp("cache")

    def make(case):
        work = tmp_path_factory.mktemp("work")
        for shim in (HERE.parents[1] / "backends").rglob("shims/tune_*.py"):
            shutil.copy(shim, work)
        (work / "cache").symlink_to(shared)
        (work / "model").symlink_to(tiny / case.model)
        data = work / "data"
        data.mkdir()
        for file in (tiny / "data").iterdir():
            if case.evals or not file.name.startswith("eval."):
                (data / file.name).symlink_to(file)
        return work

    return make


@pytest.fixture(scope="session")
def start(job):
    """The LoRA start of a case: drawn by tune_lora.py, its B then filled with noise."""

    @cache
    def make(name):
        case, python = CASES[name], interpreter("torchtune")
        work = job(case)
        wish = {"model": "model", "rank": RANK, "seed": 5, "targets": list(case.targets)}
        (work / "lora.json").write_text(json.dumps(wish))
        call([python, "tune_lora.py", "lora.json"], work)
        file = work / "noisy.safetensors"
        shutil.copy(work / "lora" / "start.safetensors", file)
        call([python, str(HERE / "tiny.py"), str(file)], work)
        return file

    return make


@pytest.fixture(scope="session")
def yardstick(tiny, start, tmp_path_factory):
    """Curves and final weights of a case, by the yardstick."""

    @cache
    def measure(name):
        case, out = CASES[name], tmp_path_factory.mktemp("yardstick")
        wish = {
            "model": str(tiny / case.model),
            "data": str(tiny / "data"),
            **ADAMW,
            "decay_on": case.decay_on,
            "schedule": {"kind": "cosine", "warmup": case.warmup},
            "micro": case.micro,
            "lora": {"start": str(start(name)), "alpha": ALPHA} if case.targets else None,
            "eval_every": 10 if case.evals else None,
            "eval_rows": case.eval_rows,
            "save": str(out / "final.safetensors"),
        }
        (out / "run.json").write_text(json.dumps(wish))
        call([interpreter("torchtune"), str(HERE / "yardstick.py"), "run.json", "out.json"], out)
        return {**json.loads((out / "out.json").read_text()), "weights": out / "final.safetensors"}

    return measure


def torchtune_config(case, start):
    """What the compiler is to emit for torchtune."""
    lora = {
        "_component_": "tune_torchtune.lora_model",
        "path": "model",
        "start": str(start),
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": case.dropout,
        "lora_attn_modules": [{"o": "output_proj"}.get(t, f"{t}_proj") for t in "qkvo" if t in case.targets],
        "apply_lora_to_mlp": "gate" in case.targets,
        "apply_lora_to_output": "head" in case.targets,
    }
    return {
        "output_dir": "out",
        "tokenizer": {"_component_": "tune_torchtune.PadOnly"},
        "dataset": {"_component_": "tune_torchtune.rows", "folder": "data", "parts": case.parts},
        "model": lora if case.targets else {"_component_": "tune_torchtune.model", "path": "model"},
        "checkpointer": {
            "_component_": "tune_torchtune.checkpointer",
            "checkpoint_dir": "model",
            "output_dir": "${output_dir}",
            "model_type": "AUTO",
        },
        "resume_from_checkpoint": False,
        "save_adapter_weights_only": False,
        "seed": 42,
        "shuffle": False,
        "batch_size": case.micro,
        "gradient_accumulation_steps": case.accumulation,
        "epochs": case.parts,
        "max_steps_per_epoch": None,
        "optimizer": {"_component_": "tune_torchtune.adamw", "decay_on": case.decay_on, "fused": False, **ADAMW},
        "optimizer_in_bwd": False,
        "lr_scheduler": {"_component_": "tune_torchtune.schedule", "kind": "cosine", "warmup_steps": case.warmup},
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "clip_grad_norm": None,
        "compile": False,
        "metric_logger": {
            "_component_": "torchtune.training.metric_logging.DiskLogger",
            "log_dir": "${output_dir}/logs",
            "filename": "train.log",
        },
        "log_every_n_steps": 1,
        "log_peak_memory_stats": False,
        "device": "cpu",
        "dtype": "fp32",
        "enable_activation_checkpointing": False,
        "enable_activation_offloading": False,
    }


def litgpt_config(case, eval_every):
    """What the compiler is to emit for LitGPT."""
    lora = {f"lora_{word}": target in case.targets for target, word in LORA.items()}
    lora |= {"lora_mlp": "gate" in case.targets, "lora_r": RANK, "lora_alpha": ALPHA, "lora_dropout": case.dropout}
    return {
        "checkpoint_dir": "lit",
        "out_dir": "out",
        "precision": "32-true",
        "devices": case.devices,
        "num_nodes": 1,
        **(lora if case.targets else {}),
        "data": {
            "class_path": "tune_litgpt.Rows",
            "init_args": {"folder": "data", "checkpoint": "lit", "token_weighted": True},
        },
        "train": {
            "global_batch_size": 8,
            "micro_batch_size": case.micro,
            "lr_warmup_steps": case.warmup,
            "epochs": 1,
            "max_steps": None,
            "max_seq_length": None,
            "save_interval": None,
            "log_interval": 1,
        },
        "eval": {
            "interval": eval_every or 10**9,
            "max_new_tokens": 1,
            "max_iters": -(-case.eval_rows // (case.micro * case.devices)),
            "initial_validation": False,
            "final_validation": False,
        },
        "optimizer": {"class_path": "tune_litgpt.adamw", "init_args": {"decay_on": case.decay_on, **ADAMW}},
        "logger_name": "csv",
        "seed": 42,
    }


def torchtune_curves(work):
    """Loss and learning rate of every step, from the log."""
    rows = re.findall(r"Step \d+ \| loss:(\S+) lr:(\S+)", (work / "out/logs/train.log").read_text())
    return {"loss": [float(r[0]) for r in rows], "lr": [float(r[1]) for r in rows], "eval": {}}


def litgpt_curves(work, accumulation):
    """The same from the CSV, in which `iter` counts micro-batches."""
    rows = list(csv.DictReader((work / "out/logs/csv/version_0/metrics.csv").open()))
    steps = [r for r in rows if r["loss"] and int(r["iter"]) % accumulation == 0]
    evals = {str(int(r["step"]) // accumulation): float(r["val_loss"]) for r in rows if r.get("val_loss")}
    return {"loss": [float(r["loss"]) for r in steps], "lr": [float(r["learning_rate"]) for r in steps], "eval": evals}


@pytest.fixture(scope="session")
def trained(job, start):
    """A case, trained and exported: its curves, and its job's folder."""

    def with_torchtune(case, work, first, eval_every):
        (work / "torchtune.yaml").write_text(yaml.safe_dump(torchtune_config(case, first)))
        recipe = ("lora" if case.targets else "full") + "_finetune_single_device"
        argv = ["-m", "torchtune._cli.tune", "run", recipe, "--config", "torchtune.yaml"]
        call([interpreter("torchtune"), *argv], work)
        return torchtune_curves(work), f"out/epoch_{case.parts - 1}"

    def with_litgpt(case, work, first, eval_every):
        python = interpreter("litgpt")
        wish = {"model": "model", "out": "lit", "name": None, "precision": None}
        (work / "convert.json").write_text(json.dumps({**wish, "lora": {"start": str(first)} if first else None}))
        call([python, "tune_litgpt.py", "convert.json"], work)
        (work / "litgpt.yaml").write_text(yaml.safe_dump(litgpt_config(case, eval_every)))
        command = "finetune_lora" if case.targets else "finetune_full"
        call([python, "-m", "litgpt", command, "--config", "litgpt.yaml"], work)
        return litgpt_curves(work, case.accumulation), "out/final"

    @cache
    def run(trainer, name, **changes):
        case = replace(CASES[name], **changes)
        work = job(case)
        first = start(name) if case.targets else None
        train = {"torchtune": with_torchtune, "litgpt": with_litgpt}[trainer]
        curves, last = train(case, work, first, 10 if case.evals else None)
        wish = {"from": trainer, "model": "model", "trained": last, "out": "checkpoint"}
        (work / "export.json").write_text(json.dumps(wish))
        call([interpreter(trainer), "tune_export.py", "export.json"], work)
        return curves, work

    return run
