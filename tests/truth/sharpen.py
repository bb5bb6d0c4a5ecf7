"""Make the weights of a random model ten times as large, so that losses and gradients differ from row to row:
`python sharpen.py FOLDER [head]`. `head` adds a reward model's.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

file = Path(sys.argv[1], "model.safetensors")
weights = {name: value * 10 if value.ndim > 1 else value for name, value in load_file(file).items()}
if sys.argv[2:] == ["head"]:
    width = weights["model.norm.weight"].shape[0]
    weights["score.weight"] = torch.randn(1, width, generator=torch.Generator().manual_seed(3)) * 0.2
save_file(weights, file, {"format": "pt"})
