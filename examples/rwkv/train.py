"""Trains a small RWKV on the bytes of a file of texts, with transformers' own model; exit code 1 if its two forms are not the same.

`python train.py ROWS SHAPE LENGTH BATCH STEPS RATE SEED [...]`: ROWS are JSON lines with `text`, SHAPE is the recipe's
model.architecture. The model (https://arxiv.org/abs/2305.13048) is transformers' `RwkvForCausalLM`: it reads a text at once, as
it is trained, or token by token from a state of fixed size, as it generates.
"""

import json
import random
import sys
from pathlib import Path

import torch
from transformers import RwkvConfig, RwkvForCausalLM

TOLERANCE = 1e-4


@torch.no_grad()
def apart(model: RwkvForCausalLM, ids: torch.Tensor) -> float:
    """The largest difference of a logit between the text at once and token by token."""
    model.eval()
    whole, state, largest = model(ids).logits, None, 0.0
    for place in range(ids.shape[1]):
        said = model(ids[:, place : place + 1], state=state, use_cache=True)
        state = said.state
        largest = max(largest, (said.logits[:, 0] - whole[:, place]).abs().max().item())
    return largest


def main(rows: str, shape: str, *numbers: str) -> int:
    """Train, check, save."""
    length, batch, steps, rate, seed = (json.loads(each) for each in numbers[:5])
    sizes = json.loads(shape)
    torch.manual_seed(seed)
    draw = random.Random(seed)  # noqa: S311 - which rows come first is no secret
    text = b"\n".join(json.loads(line)["text"].encode() for line in Path(rows).read_text().splitlines())
    config = RwkvConfig(
        vocab_size=256,
        context_length=length,
        hidden_size=sizes["hidden_size"],
        attention_hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        num_hidden_layers=sizes["layers"],
        bos_token_id=0,
        eos_token_id=0,
    )
    model = RwkvForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    for step in range(1, steps + 1):
        starts = [draw.randrange(len(text) - length) for _ in range(batch)]
        ids = torch.tensor([list(text[start : start + length]) for start in starts])
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.4f}", flush=True)
    difference = apart(model, torch.tensor([list(text[:length])]))
    print(f"at once and token by token are within {difference:.1e}")
    if difference > TOLERANCE:
        return 1
    model.save_pretrained("checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
