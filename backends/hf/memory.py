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
_MIXED = {  # the residual stream and the rotated queries in float32, and a copy in bf16 for each product that learns
    ("full", "bf16-mixed"): Layer(26, 8, 0, 8),
    ("adapter", "bf16-mixed"): Layer(18, 10, 0, 8, 14),
}
_FLOAT32 = {  # nothing is copied into another type
    ("full", "fp32"): Layer(24, 16, 0, 16),
    ("adapter", "fp32"): Layer(16, 16, 0, 16, 28),
}
_NORMS = {"bf16": 4.0, "bf16-mixed": 8.0, "fp32": 8.0}
_PLAIN = Footprint(
    layers=_LAYERS | _MIXED | _FLOAT32,
    # in float32: the logits, their logarithms, and the gradient
    logits=dict.fromkeys(_LAYERS | _MIXED | _FLOAT32, 12.0),
    dora={"bf16": 4.0, "bf16-mixed": 4.0, "fp32": 8.0},
    norms=_NORMS,
    # transformers/integrations/sdpa_attention.py hands over fewer heads of keys (enable_gqa), which in float32 only torch's plain products take
    scores={"fp32": 4.0},
    copies_whole=True,
    whole_each=whole_each,
)
_FUSED = {
    ("full", "bf16"): Layer(8, 4, 2, 6),
    ("adapter", "bf16"): Layer(8, 4, 2, 6, 14),
}
_FUSED_NORMS = {"bf16": 0.0}  # liger_kernel/ops/rms_norm.py keeps the input alone, whether or not the weights learn
LIGER = replace(_PLAIN, fused_layers=_FUSED, fused_kinds=("sft", "pretrain"), fused_head={"bf16": 8.0}, fused_norms=_FUSED_NORMS)
"""With Liger's kernels where weights are bfloat16, which keep neither logits nor the copies in float32 of norms, nor the product inside a
feed-forward block twice."""
TILED = replace(
    LIGER,
    fused_layers=_FUSED | _MIXED | _FLOAT32,
    fused_head={"bf16": 8.0, "bf16-mixed": 4.0, "fp32": 4.0},
    fused_norms=_NORMS | _FUSED_NORMS,
    fused_words=32768,
)
"""And with a loss of tokens that never has the logits of all of them, whatever the weights are (trl/trainer/utils.py, 1.16: `add_fused_lm_head`;
trl/kernels/chunked_logprob.py: the gradient of the head is summed up in float32)."""
