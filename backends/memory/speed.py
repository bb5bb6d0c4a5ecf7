"""How fast a training is by arithmetic alone, where no run like it is known.

Operations a token are counted; what a device reaches of its peak was taken from runs (`tests/unit/memory/test_speed.py` has them).
"""

from __future__ import annotations

from backends.memory.facts import Training
from backends.records import dataclass, replace
from backends.tpu import TpuSlice

PEAKS = (
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("GH200", 989.0),
    ("H200", 989.0),
    ("H100 NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("H800", 989.0),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("A40", 150.0),
    ("A30", 165.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("RTX 6000 Ada", 364.0),
    ("RTX A6000", 155.0),
    ("RTX 5090", 209.0),
    ("RTX 4090", 165.0),
    ("RTX 3090", 71.0),
)
"""Part of a device's name, as nvidia-smi has it -> TFLOP/s of dense bfloat16 products with sums in float32, by NVIDIA's data sheets. The
first that the name has counts."""
SHARES = {"compiled": 0.38, "fused": 0.30, "plain": 0.22}
"""How it computes -> share of the peak that trainings of a billion weights and more reach: compiled (XLA does always), with fused kernels, and without either.
Measured: 0.32 to 0.44, 0.33, 0.18 to 0.25."""


@dataclass(frozen=True)
class Reckoned:
    """A speed by arithmetic, with its factors."""

    tokens_per_second: float
    """Of all devices."""
    flops: float
    """Operations of a token."""
    peak: float
    """Of a device, in TFLOP/s."""
    share: float
    """Of the peak that is reached."""


def peak_of(device: str) -> float | None:
    """TFLOP/s in bfloat16 of a device by its name; None: it is not in the table."""
    words = f" {device.upper().replace('-', ' ').replace('_', ' ')} "
    for name, peak in PEAKS:
        if f" {name.upper()} " in words:
            return peak
    return None


def slice_peak(name: str) -> float:
    """TFLOP/s in bfloat16 of a JAX device of a TPU slice."""
    generation = TpuSlice.named(name).generation
    return generation.tflops / generation.devices


def flops_of_token(training: Training) -> float:
    """Operations that a token of a training costs.

    A product of a weight is a multiplication and an addition; the attention sees half of a row in the mean. Backwards the same again for what is
    handed on, and where all weights are trained once more for them (arXiv:2001.08361, 2.1); recomputed activations are one more way forward, and
    so is a frozen reference, or the switched-off adapter.
    """
    model = training.model
    looked_up = 0 if model.tied else model.vocab_size * model.hidden_size
    products = 2.0 * (model.active_parameters - looked_up)
    attention = 2.0 * model.layers * model.heads * model.head_dim * training.length
    passes = (3 if training.adapter == "none" else 2) + training.recomputes + (training.copies > 1)
    return passes * (products + attention)


def mfu(training: Training, tokens_per_second: float, peak: float) -> float | None:
    """Share of a device's peak that a training's own arithmetic takes (model FLOPs utilization, arXiv:2204.02311, B); None for float32, whose products
    have another peak. What is computed a second time to save memory does not count.

    Args:
        training: what is trained.
        tokens_per_second: of one device.
        peak: of the device, in TFLOP/s of bfloat16.
    """
    if training.precision == "fp32":
        return None
    return tokens_per_second * flops_of_token(replace(training, recomputes=False)) / (peak * 1e12)


def reckoned(training: Training, peak: float) -> Reckoned | None:
    """How fast it is, by arithmetic; None for float32, which devices multiply in too many ways.

    Args:
        training: what is trained.
        peak: of each device, in TFLOP/s.
    """
    if training.precision == "fp32":
        return None
    how = "compiled" if training.compiled or training.accelerator == "tpu" else "fused" if training.fused else "plain"
    flops, share = flops_of_token(training), SHARES[how]
    return Reckoned(training.devices * peak * 1e12 * share / flops, flops, peak, share)
