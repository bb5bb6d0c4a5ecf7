"""What models of transformers with PEFT's adapters keep in a device's memory, through the Trainer.

Sources: transformers/models/llama/modeling_llama.py, loss/loss_utils.py (ForCausalLMLoss: logits in float32), peft/tuners/lora/layer.py.
Rows without padding: a mask of scores, where there is one, is not counted. The counts of fused losses were solved from the peaks that
one H200 had (tests/unit/memory/peaks_h200.json).
"""

from backends.mapping.launch import Sharing
from backends.memory.footprint import Footprint, Layer
from backends.records import replace


def whole_each(sharing: Sharing) -> bool:
    """Whether `auto` gives each of several devices the whole model.

    An adapter leaves little to share but the frozen weights, which FSDP gathers in each step: on two H200 axolotl trained Llama 3.2 1B's shape with
    LoRA at 129,700 tokens/s by DDP and at 42,100 by FSDP (docs/races.md).
    """
    return sharing.accelerator != "cuda" or (sharing.adapted and sharing.small)


_LAYERS = {
    ("full", "bf16"): Layer(16, 8, 0, 8),
    ("adapter", "bf16"): Layer(12, 8, 0, 8, 14),
}
_FLOAT32 = {  # nothing is copied into another type
    ("full", "fp32"): Layer(24, 16, 0, 16),
    ("adapter", "fp32"): Layer(16, 16, 0, 16, 28),
}
_PLAIN = Footprint(
    layers=_LAYERS | _FLOAT32,
    # in float32: the logits, their logarithms, and the gradient
    logits=dict.fromkeys(_LAYERS | _FLOAT32, 12.0),
    whole_each=whole_each,
)
FUSED = replace(_PLAIN, fused_layers=_LAYERS, fused_kinds=("sft", "pretrain"))
"""Of a trainer whose loss of tokens never has the logits of all of them (trl/trainer/sft_trainer.py, 1.16: `fused_lm_head`)."""
LIGER = replace(
    _PLAIN,
    fused_layers={
        ("full", "bf16"): Layer(8, 4, 2, 6),
        ("adapter", "bf16"): Layer(8, 4, 2, 6, 14),
    },
    fused_kinds=("sft", "pretrain"),
)
"""With Liger's kernels, which keep neither logits nor the copies in float32 of norms, nor the product inside a feed-forward block twice."""
