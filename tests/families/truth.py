"""What transformers itself makes of a job's rows: `python truth.py wish.json`, in an environment with transformers.

wish.json: `{"model": folder, "data": the data step's folder, "exported": folder, "lr": ..., "betas": ..., "eps": ..., "out": file}`. The
model class of config.json is trained in float32 with the plain attention, all weights, by torch's AdamW without decay, the rate a
cosine after one step of warm-up; a step's loss is the mean over the tokens of its rows. `out` has `loss` by step and `checkpoint`, the largest difference between
the weights then and those of `exported`, which transformers loads.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM


def load(folder):
    """A model in float32, by its config.json."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train()


def main(wish):
    """Train, and compare."""
    base = Path(wish["data"])
    ids, labels, starts, order = (np.load(base / f"train.{name}.npy") for name in ("ids", "labels", "starts", "order"))
    plan = json.loads((base / "manifest.json").read_text())
    model = load(wish["model"])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=wish["lr"], betas=tuple(wish["betas"]), eps=wish["eps"], weight_decay=0.0
    )
    losses = []
    for step in range(plan["steps"]):
        spans = [slice(starts[r], starts[r + 1]) for r in order[step * plan["batch"] : (step + 1) * plan["batch"]]]
        rows = [(torch.from_numpy(ids[s].astype(np.int64)), torch.from_numpy(labels[s].astype(np.int64))) for s in spans]
        count = sum(int((wanted[1:] != -100).sum()) for _, wanted in rows)
        total = 0.0
        for row, wanted in rows:  # one by one: nothing is padded
            loss = cross_entropy(model(row[None]).logits[0, :-1], wanted[1:], reduction="sum") / count
            loss.backward()
            total += loss.item()
        done = (step - 1) / (plan["steps"] - 1)
        optimizer.param_groups[0]["lr"] = wish["lr"] * (0.5 * (1 + math.cos(math.pi * done)) if step else 0.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    there = load(wish["exported"]).state_dict()
    mine = model.state_dict()
    apart = max(float((mine[name] - there[name]).abs().max()) for name in mine)
    Path(wish["out"]).write_text(json.dumps({"loss": losses, "checkpoint": apart, "alone": sorted(mine.keys() ^ there.keys())}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
