"""Speed by arithmetic, against runs of GPUs."""

from dataclasses import replace

import pytest

from backends.memory.speed import PEAKS, flops_of_token, mfu, peak_of, reckoned, slice_peak
from tests.unit.memory.test_estimate import LLAMA_1B, RACE

RUNS = (
    ("NVIDIA H100 80GB HBM3", {"compiled": True}, 74_833),
    ("NVIDIA H100 80GB HBM3", {"compiled": True}, 62_327),
    ("NVIDIA H100 80GB HBM3", {"compiled": True, "recomputes": True}, 55_459),
    ("NVIDIA H100 80GB HBM3", {"compiled": True, "recomputes": True}, 48_263),
    ("NVIDIA H100 80GB HBM3", {}, 43_016),
    ("NVIDIA H100 80GB HBM3", {}, 43_200),
    ("NVIDIA H100 80GB HBM3", {"recomputes": True}, 31_300),
    ("NVIDIA H100 80GB HBM3", {"recomputes": True}, 24_600),
    ("NVIDIA H200", {"compiled": True}, 81_702),
    ("NVIDIA H200", {"compiled": True}, 73_075),
    ("NVIDIA H200", {"compiled": True}, 59_989),
    ("NVIDIA H200", {"fused": True}, 62_449),
)
"""Device, how the training of docs/races.md ran on it (torchtune, LitGPT, Hugging Face's model, MaxText, axolotl), tokens a second."""


@pytest.mark.parametrize(("device", "how", "seen"), RUNS)
def test_it_is_near_what_gpus_did(device, how, seen):
    """Within 30 per cent of what twelve runs had."""
    found = reckoned(replace(RACE, **how), peak_of(device))
    assert found.tokens_per_second / seen == pytest.approx(1, abs=0.3)


def test_operations_of_a_token():
    """Counted matrix by matrix: 6 a weight with all trained, 4 with adapters, 2 more where activations are recomputed or a reference looks on."""
    wide, kv, inner, length = 2048, 512, 8192, 2048
    matrices = 16 * (2 * wide * wide + 2 * wide * kv + 3 * wide * inner) + 128256 * wide
    scores = 16 * 4 * wide * length / 2  # queries with keys and scores with values, of half the row
    once = 2 * matrices + scores
    assert LLAMA_1B.tied
    assert flops_of_token(RACE) == pytest.approx(2 * once, rel=1e-3)
    assert flops_of_token(replace(RACE, adapter="none", rank=0)) == pytest.approx(3 * once, rel=1e-3)
    assert flops_of_token(replace(RACE, recomputes=True)) == pytest.approx(3 * once, rel=1e-3)
    assert flops_of_token(replace(RACE, adapter="none", rank=0, copies=2)) == pytest.approx(4 * once, rel=1e-3)


def test_peaks_by_name():
    """Names as nvidia-smi writes them find their own row, not that of a shorter name; others find none. TPUs have their chips'."""
    assert peak_of("NVIDIA H100 NVL") == 835
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312
    assert peak_of("NVIDIA L40S") == 362
    assert peak_of("NVIDIA GeForce RTX 4090") == 165
    assert peak_of("NVIDIA GH200 480GB") == 989
    assert peak_of("NVIDIA T4") is peak_of("") is None
    assert all(peak_of(name) == peak for name, peak in PEAKS)
    assert slice_peak("v5e-16") == 197
    assert slice_peak("v7x-8") == 2307 / 2
    assert reckoned(replace(RACE, precision="fp32"), 989.0) is None


def test_devices_share_the_tokens():
    """Four are four times as fast, as what they tell each other is not counted."""
    one = reckoned(RACE, 989.0).tokens_per_second
    assert reckoned(replace(RACE, devices=4, strategy="fsdp"), 989.0).tokens_per_second == pytest.approx(4 * one)


def test_share_of_the_peak():
    """Against operations counted by hand; recomputing costs operations that are not the model's, and do not count."""
    speed = 80_000
    assert mfu(RACE, speed, 989.0) == pytest.approx(speed * flops_of_token(RACE) / 989e12)
    assert mfu(replace(RACE, recomputes=True), speed, 989.0) == mfu(RACE, speed, 989.0)
    assert mfu(replace(RACE, precision="fp32"), speed, 989.0) is None
