"""What torchtune's models and its chunked cross entropy keep in a device's memory.

Sources: torchtune/modules/transformer.py, attention.py, feed_forward.py, peft/lora.py, loss/ce_chunked_output_loss.py. Keys and values
are expanded to the heads of the queries before the attention, so that they count as queries.
"""

from backends.memory.footprint import Footprint, Layer

_COMPILED = Layer(8, 8, 0, 6, 14)

FOOTPRINT = Footprint(
    layers={
        ("full", "bf16"): Layer(18, 10, 0, 8),
        ("adapter", "bf16"): Layer(10, 10, 0, 8, 14),
        ("full", "fp32"): Layer(20, 20, 0, 16),
        ("adapter", "fp32"): Layer(16, 20, 0, 16, 28),
    },
    # float32 logarithms of all tokens, gradients of the logits in bf16, and of one of eight chunks in float32
    logits={("full", "bf16"): 6.5, ("adapter", "bf16"): 6.5, ("full", "fp32"): 9.0, ("adapter", "fp32"): 9.0},
    dora={"bf16": 4.0, "fp32": 8.0},
    norms={"bf16": 8.0, "fp32": 8.0},
    compiled_layers={
        ("full", "bf16"): Layer(8, 8, 0, 7),
        ("adapter", "bf16"): _COMPILED,
        ("qlora", "bf16"): Layer(8, 8, 0, 8, 14),
        ("dora", "bf16"): Layer(6, 8, 0, 2, 14),
    },
    compiled_norms={"bf16": 0.0},  # the input and its mean square, which are there without it
    compiled_logits={("full", "bf16"): 2.25, ("adapter", "bf16"): 2.25},
    compiles=("none", "lora", "qlora", "dora"),
)
