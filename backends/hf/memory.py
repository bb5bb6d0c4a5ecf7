"""What models of transformers with PEFT's adapters keep in a device's memory, through the Trainer.

Sources: transformers/models/llama/modeling_llama.py, loss/loss_utils.py (ForCausalLMLoss: logits in float32), peft/tuners/lora/layer.py.
Rows without padding: a mask of scores, where there is one, is not counted.
"""

from backends.memory.footprint import Footprint, Layer

FOOTPRINT = Footprint(
    layers={
        ("full", "bf16"): Layer(16, 8, 0, 8),
        ("adapter", "bf16"): Layer(12, 8, 0, 8, 14),
    },
    # in float32: the logits, their logarithms, and the gradient
    logits={("full", "bf16"): 12.0, ("adapter", "bf16"): 12.0},
)
