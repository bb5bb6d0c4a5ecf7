"""How many graphs torch makes of torchtune's layers: `python lengths_by_hand.py MODEL ROW...`, in torchtune's environment, where `data` says
that the rows have those numbers of tokens. Prints the graphs after micro-batches of two rows of 40, 33 and 21 tokens, and the largest
difference of logits from layers that are not compiled.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path.cwd()))
import tune_torchtune
from torch._dynamo.utils import counters
from torchtune.modules.peft import get_adapter_params, set_trainable_params

MODULES = ["q_proj", "k_proj", "v_proj", "output_proj"]


def main(path, *rows):
    """Count."""
    starts = np.cumsum([0, *map(int, rows)])
    for name, values in {"ids": starts[-1:], "labels": starts[-1:], "starts": starts, "order": np.arange(len(rows))}.items():
        np.save(f"data/train.{name}.npy", values)
    model = tune_torchtune.lora_model(path=path, lora_rank=8, lora_alpha=16, lora_attn_modules=MODULES, apply_lora_to_mlp=True)
    set_trainable_params(model, get_adapter_params(model))
    batches = [torch.randint(3, 250, (2, length)) for length in (40, 33, 21)]
    wanted = [model(ids).detach() for ids in batches]
    for layer in model.layers:
        layer.compile(backend="aot_eager", fullgraph=True)
    gap = 0.0
    for ids, want in zip(batches, wanted, strict=True):
        logits = model(ids)
        logits.sum().backward()
        gap = max(gap, float((logits.detach() - want).abs().max()))
    print(json.dumps({"graphs": counters["stats"]["unique_graphs"], "logits": gap}))


if __name__ == "__main__":
    main(*sys.argv[1:])
