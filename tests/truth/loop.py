"""The training that a recipe means: `python loop.py run.json out.json`, in an environment with torch, numpy and safetensors.

run.json:

    kind, settings      method.kind, and the leaves of method.preference or method.distill that matter to it
    model, data         a Hugging Face folder; the data step's folder
    teacher             null or the folder of distill's teacher
    lora                null or {start, alpha}: A and B as in `start` are trained, everything else is frozen
    lr, betas, eps, weight_decay, decay_on (all|matrices), clip (null or the largest norm of the gradient)
    schedule            {kind: constant|linear|cosine, warmup (steps), min_ratio}
    evaluates           whether the evaluation rows are looked at after the last step

out.json: `loss`, `grad_norm` (before clipping) and what the method reports, each a list with a value a step, and `eval_loss`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from losses import METHODS, Models
from yardstick import Data, Model, factor, read_model

LISTS = {"dpo": "pairs", "ipo": "pairs", "orpo": "pairs", "simpo": "pairs", "reward": "pairs", "kto": "rated"}
"""Kind -> the file of the data step that has its rows; the others' are arrays of ids and labels."""


def rows_of(folder, split, kind):
    """All rows of a split, in file order."""
    if kind in LISTS:
        return [json.loads(line) for line in Path(folder, f"{split}.{LISTS[kind]}.jsonl").open()]
    data = Data(folder, split)
    spans = [slice(*each) for each in zip(data.starts[:-1], data.starts[1:], strict=True)]
    return [(data.ids[span].tolist(), data.labels[span].tolist()) for span in spans]


class AdamW:
    """arXiv:1711.05101, algorithm 2: the decay is decoupled and times the learning rate."""

    def __init__(self, params, betas, eps, weight_decay, decay_on):
        self.params, self.betas, self.eps = params, betas, eps
        self.decays = [weight_decay if decay_on == "all" or p.ndim > 1 else 0.0 for p in params]
        self.means, self.squares, self.count = ([torch.zeros_like(p) for p in params] for _ in range(2)), None, 0
        self.means, self.squares = self.means

    @torch.no_grad()
    def step(self, lr, slopes):
        """Move the weights."""
        self.count += 1
        one, two = self.betas
        for p, decay, mean, square, slope in zip(self.params, self.decays, self.means, self.squares, slopes, strict=True):
            mean.lerp_(slope, 1 - one)
            square.mul_(two).add_(slope * slope, alpha=1 - two)
            p.mul_(1 - lr * decay)
            p.sub_(lr * (mean / (1 - one**self.count)) / ((square / (1 - two**self.count)).sqrt() + self.eps))


def models_of(wish):
    """The models of a run, and what of them is trained."""
    facts, weights = read_model(wish["model"])
    if facts["tie_word_embeddings"]:
        weights.pop("lm_head.weight", None)
    if wish["kind"] == "reward":
        weights.pop("lm_head.weight", None)
    lora = load_file(wish["lora"]["start"]) if wish["lora"] else {}
    start = Model(facts, {name: value.clone() for name, value in weights.items()})
    params = list((lora or weights).values())
    for p in params:
        p.requires_grad_()
    rank = next(iter(lora.values())).shape[0] if lora else 1
    policy = Model(facts, weights, lora, wish["lora"]["alpha"] / rank if lora else 1.0)
    teacher = Model(*read_model(wish["teacher"])) if wish["teacher"] else None
    return Models(policy, start, teacher), params


def train(wish):
    """All steps, and the evaluation."""
    loss_of, settings = METHODS[wish["kind"]], wish["settings"]
    models, params = models_of(wish)
    rows = rows_of(wish["data"], "train", wish["kind"])
    plan = json.loads(Path(wish["data"], "manifest.json").read_text())
    order = np.load(f"{wish['data']}/train.order.npy").reshape(plan["steps"], plan["batch"])
    optimizer = AdamW(params, wish["betas"], wish["eps"], wish["weight_decay"], wish["decay_on"])
    out = {"loss": [], "grad_norm": []}
    for step, numbers in enumerate(order):
        loss, told = loss_of(models, [rows[n] for n in numbers], settings)
        slopes = torch.autograd.grad(loss, params, allow_unused=True)
        slopes = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(params, slopes, strict=True)]
        norm = torch.stack([slope.norm() for slope in slopes]).norm().item()
        if wish["clip"] and norm > wish["clip"]:
            slopes = [slope * (wish["clip"] / norm) for slope in slopes]
        optimizer.step(wish["lr"] * factor(step, len(order), **wish["schedule"]), slopes)
        for name, value in {"loss": loss.item(), "grad_norm": norm, **told}.items():
            out.setdefault(name, []).append(value)
    if wish["evaluates"]:
        with torch.no_grad():
            out["eval_loss"] = loss_of(models, rows_of(wish["data"], "eval", wish["kind"]), settings)[0].item()
    return out


def sharpen(folder, head):
    """Make the weights of a random model ten times as large, so that losses and gradients differ from row to row; `head` adds a reward
    model's.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - of this alone

    file = Path(folder, "model.safetensors")
    weights = {name: value * 10 if value.ndim > 1 else value for name, value in load_file(file).items()}
    width = weights["model.norm.weight"].shape[0]
    if head:
        weights["score.weight"] = torch.randn(1, width, generator=torch.Generator().manual_seed(3)) * 0.2
    save_file(weights, file, {"format": "pt"})


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "sharpen":
        sharpen(sys.argv[2], head=sys.argv[3:] == ["head"])
    else:
        Path(sys.argv[2]).write_text(json.dumps(train(json.loads(Path(sys.argv[1]).read_text()))))
