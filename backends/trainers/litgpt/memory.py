"""What LitGPT's models and its cross entropy keep in a device's memory.

Fabric turns logits into float32 (lightning/fabric/plugins/precision/half.py, convert_output), and the training loop holds them until the
backward pass has ended (litgpt/finetune/lora.py, fit). Keys and values are expanded to the heads of the queries (litgpt/model.py).
"""

from backends.mapping.launch import Sharing
from backends.memory.footprint import Footprint, Layer


def whole_each(sharing: Sharing) -> bool:
    """Whether `auto` gives each of several devices the whole model: FSDP of all weights runs on CUDA only, and splits no tied ones."""
    return sharing.small if sharing.adapted else sharing.accelerator == "cpu" or sharing.tied


_COMPILED = Layer(8, 8, 0, 6, 14)

FOOTPRINT = Footprint(
    layers={
        ("full", "bf16"): Layer(20, 10, 0, 8),
        ("adapter", "bf16"): Layer(12, 10, 0, 8, 14),
        ("qlora", "bf16"): Layer(12, 10, 0, 10, 14),
        ("full", "bf16-mixed"): Layer(22, 8, 0, 8),
        ("adapter", "bf16-mixed"): Layer(14, 8, 0, 8, 14),
        ("full", "fp32"): Layer(24, 18, 12, 16),
        ("adapter", "fp32"): Layer(16, 18, 12, 16, 28),
    },
    # in float32 the logits and their logarithms, in bf16 the gradients of all, and besides in float32 the gradient of one chunk
    logits={(how, word): 10.0 for how in ("full", "adapter") for word in ("bf16", "bf16-mixed", "fp32")},
    chunk=128,
    compiled_layers={
        ("full", "bf16"): _COMPILED,
        ("adapter", "bf16"): _COMPILED,
        ("adapter", "bf16-mixed"): Layer(10, 8, 0, 6, 14),
    },
    compiled_logits={("full", "bf16"): 10.0, ("adapter", "bf16"): 10.0, ("adapter", "bf16-mixed"): 10.0},
    norms={"bf16": 8.0, "bf16-mixed": 8.0, "fp32": 8.0},
    compiled_norms={"bf16": 0.0, "bf16-mixed": 0.0},  # the input and its mean square, which are there without it
    unties=True,
    compiles=("none", "lora", "dora"),
    whole_each=whole_each,
)
