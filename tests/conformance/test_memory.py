"""The counts behind `tune fit` against the trainers' own models, on torch's fake tensors: no memory is taken, and every byte is counted."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from backends.memory.estimate import estimate
from backends.memory.facts import Training
from backends.memory.layers import copied, one_layer
from backends.models import of_architecture
from backends.registry import BACKENDS

PEAKS = Path(__file__).with_name("memory_peaks.py")
PARTITION = Path(__file__).with_name("memory_partition.py")
SMALL = {
    "layers": 4,
    "hidden": 256,
    "inner": 768,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "vocab": 2048,
    "rows": 2,
    "length": 256,
    "recomputes": False,
    "dtype": "bfloat16",
}
CASES = (
    {"rank": 8},
    {"rank": 8, "recomputes": True},
    {"rank": 0},
    {"rank": 0, "recomputes": True},
    {"rank": 8, "vocab": 16000},
    {"rank": 0, "vocab": 16000},
    {"rank": 8, "layers": 4, "inner": 1024, "rows": 1, "length": 512},
    *(
        {"dtype": "float32", **case}
        for case in ({"rank": 8}, {"rank": 0}, {"rank": 8, "vocab": 16000}, {"rank": 0, "recomputes": True})
    ),
)
MIXED = (
    {"dtype": "mixed", "rank": 8},
    {"dtype": "mixed", "rank": 0},
    {"dtype": "mixed", "rank": 8, "vocab": 16000},
    {"dtype": "mixed", "rank": 0, "recomputes": True},
    {"dtype": "mixed", "rank": 8, "norms": True},
)
DORA = ({"rank": 8, "dora": True}, {"dtype": "float32", "rank": 8, "dora": True}, {"rank": 8, "dora": True, "recomputes": True})
MORE = {"torchtune": DORA, "litgpt": MIXED, "trl": MIXED + DORA}
"""Trainer -> what it has beside `CASES`: torchtune no mixed precision, LitGPT no DoRA."""
WHOLE = ({"rank": 8, "norms": True}, {"dtype": "float32", "rank": 8, "norms": True})
WORDS = {"bfloat16": "bf16", "float32": "fp32", "mixed": "bf16-mixed"}


def training_of(case):
    """A case as the estimate takes it."""
    shape = {
        "family": "llama", "vocab_size": case["vocab"], "hidden_size": case["hidden"], "intermediate_size": case["inner"],
        "layers": case["layers"], "heads": case["heads"], "kv_heads": case["kv_heads"], "head_dim": case["head_dim"],
        "max_length": case["length"], "rope_theta": 10000.0, "norm_eps": 1e-5, "tied": False,
    }  # fmt: skip
    adapter = "dora" if case.get("dora") else "lora" if case["rank"] else "none"
    return Training(
        model=of_architecture(shape), precision=WORDS[case["dtype"]], optimizer="adamw", adapter=adapter, rank=case["rank"],
        targets=("q", "k", "v", "o", "gate", "up", "down"), rows=case["rows"], length=case["length"], devices=1, strategy="one",
        recomputes=case["recomputes"], accelerator="cpu", whole=("norms",) * case.get("norms", False),
    )  # fmt: skip


def told(trainer, case):
    """What the estimate says, in bytes as torch counts them."""
    return estimate(training_of(case), BACKENDS[trainer].memory).counted


@pytest.mark.trainer
@pytest.mark.core
@pytest.mark.parametrize("trainer", [pytest.param(each, marks=pytest.mark.thorough) for each in ("torchtune", "trl", "litgpt")])
def test_estimates_of_a_trainers_own_model(trainer, trainer_python):
    """Sixteen trainings or more a trainer (all weights, LoRA and DoRA, norms beside LoRA, recomputed or not, by width, length, vocabulary and precision):
    within 15 per cent of the peak, and never under by more than 5.
    """
    asked = CASES + WHOLE + MORE[trainer]
    cases = [{**SMALL, **case} for case in asked]
    done = subprocess.run(
        [trainer_python(trainer), str(PEAKS), trainer], input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    peaks = json.loads(done.stdout.splitlines()[-1])
    off = {json.dumps(case): told(trainer, {**SMALL, **case}) / peak - 1 for case, peak in zip(asked, peaks, strict=True)}
    print(trainer, {case: f"{share:+.1%}" for case, share in off.items()})
    assert all(-0.05 <= share <= 0.15 for share in off.values()), off


COMPILED = {
    "torchtune": ({"rank": 8}, {"rank": 8, "norms": True}, {"rank": 8, "dora": True}),
    "litgpt": ({"rank": 8}, {"rank": 8, "norms": True}, {"rank": 8, "dtype": "mixed"}),
}


@pytest.mark.trainer
@pytest.mark.parametrize("trainer", [pytest.param(each, marks=pytest.mark.thorough) for each in COMPILED])
def test_counts_of_a_compiled_layer(trainer, trainer_python):
    """What torch's own partition of a compiled layer keeps (LoRA, norms that learn beside it, DoRA, mixed precision) is what is counted, within 2 per
    cent.
    """
    cases = [{**SMALL, **case} for case in COMPILED[trainer]]
    done = subprocess.run(
        [trainer_python(trainer), str(PARTITION), trainer], input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    footprint = BACKENDS[trainer].memory
    for case, seen in zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True):
        training = replace(training_of(case), compiled=True)
        layers = footprint.compiled_layers
        layer = layers.get((training.adapter, training.precision), layers[training.key])
        found = one_layer(training, layer, footprint) + copied(training) / training.model.layers
        assert found == pytest.approx(seen, rel=0.02), case
