"""Trains a small RetNet on the bytes of a file of texts, and ends with exit code 1 if its three forms are not the same.

`python train.py ROWS SHAPE LENGTH BATCH STEPS RATE SEED [...]`: ROWS are JSON lines with `text`, SHAPE is the recipe's model.architecture.
"""

import json
import random
import sys
from pathlib import Path

import torch
from retnet import RetNet, apart
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

TOLERANCE = 1e-5


def main(rows: str, shape: str, *numbers: str) -> int:
    """Train, check, save."""
    length, batch, steps, rate, seed = (json.loads(each) for each in numbers[:5])
    sizes = json.loads(shape)
    torch.manual_seed(seed)
    draw = random.Random(seed)  # noqa: S311 - which rows come first is no secret
    text = b"\n".join(json.loads(line)["text"].encode() for line in Path(rows).read_text().splitlines())
    model = RetNet(256, sizes["hidden_size"], sizes["intermediate_size"], sizes["layers"], sizes["heads"])
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    for step in range(1, steps + 1):
        starts = [draw.randrange(len(text) - length) for _ in range(batch)]
        ids = torch.tensor([list(text[start : start + length + 1]) for start in starts])
        logits, _ = model(ids[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.4f}", flush=True)
    ids = torch.tensor([list(text[: 2 * length])])
    difference = apart(model, ids)
    print(
        f"parallel, recurrent and chunkwise are within {difference:.1e}; {bytes(model.generate(ids[:, :32], 32)[0].tolist())!r}"
    )
    if difference > TOLERANCE:
        return 1
    Path("checkpoint").mkdir(exist_ok=True)
    save_file(model.state_dict(), "checkpoint/model.safetensors")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
