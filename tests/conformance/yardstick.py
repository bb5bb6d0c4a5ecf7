"""The yardstick: a plain PyTorch training loop over the plain model of tune_truth_model.py. It shares no code with what it measures.

`python yardstick.py run.json out.json`, in an environment with torch, numpy and safetensors. run.json:

    model, data         a Hugging Face folder; the data step's folder
    lr, betas, eps, weight_decay, decay_on (all|matrices)
    schedule            {kind: constant|linear|cosine, warmup (steps), min_ratio}
    micro               rows of a micro-batch; the loss is the mean over the tokens of the whole batch all the same
    lora                null or {start, alpha}: A and B as in `start` are trained, everything else is frozen
    clip                null or the largest norm of the gradient
    adamw               torch (if not there), or optax: its order of operations, each in the weights' type, constants too
    dtype               of weights, gradients, optimizer and products: float32 (if not there) or bfloat16. Norms, the softmax of
                        attention and the loss are computed in float32 all the same, as Hugging Face's models do
    eval_every          null or steps between evaluations, of the first `eval_rows` rows
    eval_last           one after the last step too, whatever eval_every divides
    eval_on_start       one before the first step too, at step 0
    save                null or a file for the final weights (LoRA merged), in Hugging Face names

out.json: `loss`, `lr` (that of the step itself) and `batches` (a hash of ids and labels), one a step, and `eval` by step.
`python yardstick.py diff a.safetensors FOLDER` prints the largest difference between weights, and what is in one alone.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "backends" / "shims"))
from tune_truth import factor
from tune_truth_model import Adapter, Model, read_model


class Data:
    """One split of the data step's folder."""

    def __init__(self, folder, split):
        self.ids, self.labels, self.starts = (np.load(f"{folder}/{split}.{x}.npy") for x in ("ids", "labels", "starts"))
        self.pad = json.loads(Path(folder, "manifest.json").read_text())["pad_id"]

    def batch(self, rows):
        """Ids and labels of these rows, padded on the right."""
        spans = [slice(self.starts[r], self.starts[r + 1]) for r in rows]
        columns = (([self.ids[s] for s in spans], self.pad), ([self.labels[s] for s in spans], -100))
        width = max(s.stop - s.start for s in spans)
        padded = [[np.pad(x, (0, width - len(x)), constant_values=fill) for x in column] for column, fill in columns]
        return [torch.from_numpy(np.stack(column).astype(np.int64)) for column in padded]


def digest(ids, labels):
    """Hash of a padded batch."""
    return hashlib.sha256(ids.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16]


def evaluate(model, data, rows):
    """Mean loss of a token over the first rows of a split."""
    total = count = 0
    with torch.no_grad():
        for row in range(rows):
            ids, labels = data.batch([row])
            total += model.loss_sum(ids, labels).item()
            count += (labels[:, 1:] != -100).sum().item()
    return total / count


class Optax(torch.optim.Optimizer):
    """AdamW as optax computes it. JAX brings the constants of a product to the type of the array: in bfloat16 0.9 is 0.8984."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                self.one(p, self.state[p], **group)

    def one(self, p, state, *, lr, betas, eps, weight_decay, **_):
        """A step of one weight."""

        def own(number):
            return torch.tensor(number).to(p.dtype).item()

        count = state["count"] = state.get("count", 0) + 1
        hats = []
        for beta, name, x in zip(betas, ("mean", "square"), (p.grad, p.grad * p.grad), strict=True):
            state[name] = own(1 - beta) * x + own(beta) * state.get(name, torch.zeros_like(p))
            hats.append(state[name] / own(1 - beta**count))
        update = hats[0] / (hats[1].sqrt() + own(eps)) + own(weight_decay) * p
        p.add_(-own(lr) * update)


def optimizer(wish, params):
    """AdamW, its decay on all weights or on matrices only."""
    every = {"lr": wish["lr"], "betas": wish["betas"], "eps": wish["eps"]}
    spared = [p for p in params if p.ndim < 2 and wish["decay_on"] == "matrices"]
    rest = [p for p in params if not any(p is s for s in spared)]
    groups = [{"params": rest, "weight_decay": wish["weight_decay"]}, {"params": spared, "weight_decay": 0.0}]
    used = [g for g in groups if g["params"]]
    return Optax(used, every) if wish.get("adamw") == "optax" else torch.optim.AdamW(used, **every)


def train(wish):
    """The loop. Returns the curves."""
    dtype = getattr(torch, wish.get("dtype", "float32"))
    facts, weights = read_model(wish["model"], dtype)
    lora = {name: value.to(dtype) for name, value in load_file(wish["lora"]["start"]).items()} if wish.get("lora") else {}
    params = list((lora or weights).values())
    for p in params:
        p.requires_grad_()
    rank = next(iter(lora.values())).shape[0] if lora else 1
    model = Model(facts, weights, Adapter(lora, wish["lora"]["alpha"] / rank if lora else 1.0))
    data, order = Data(wish["data"], "train"), np.load(f"{wish['data']}/train.order.npy")
    plan = json.loads(Path(wish["data"], "manifest.json").read_text())
    opt = optimizer(wish, params)
    out = {"loss": [], "lr": [], "batches": [], "eval": {}}
    if wish.get("eval_on_start"):
        out["eval"][0] = evaluate(model, Data(wish["data"], "eval"), wish["eval_rows"])
    for step, rows in enumerate(order.reshape(plan["steps"], plan["batch"])):
        lr = wish["lr"] * factor(step, plan["steps"], **wish["schedule"])
        for group in opt.param_groups:
            group["lr"] = lr
        micros = [data.batch(rows[n : n + wish["micro"]]) for n in range(0, len(rows), wish["micro"])]
        tokens = sum((labels[:, 1:] != -100).sum() for _, labels in micros)
        losses = [model.loss_sum(*micro) / tokens for micro in micros]
        sum(losses).backward()
        if wish.get("clip"):
            torch.nn.utils.clip_grad_norm_(params, wish["clip"])
        opt.step()
        opt.zero_grad()
        out["loss"].append(sum(x.item() for x in losses))
        out["lr"].append(lr)
        out["batches"] += [digest(*micro) for micro in micros]
        if wish.get("eval_every") and (
            (step + 1) % wish["eval_every"] == 0 or (wish.get("eval_last") and step + 1 == plan["steps"])
        ):
            out["eval"][step + 1] = evaluate(model, Data(wish["data"], "eval"), wish["eval_rows"])
    if wish.get("save"):
        save_file({k: v.contiguous() for k, v in model.merged().items()}, wish["save"])
    return out


def diff(one, folder):
    """Largest difference between the weights of a file and those of a folder, and the names that only one has."""
    first, (_, second) = load_file(one), read_model(folder)
    both = first.keys() & second.keys()
    largest = max((first[name] - second[name]).abs().max().item() for name in both)
    return {"largest": largest, "alone": sorted(first.keys() ^ second.keys())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "diff":
        print(json.dumps(diff(*sys.argv[2:4])))
    else:
        Path(sys.argv[2]).write_text(json.dumps(train(json.loads(Path(sys.argv[1]).read_text()))))
