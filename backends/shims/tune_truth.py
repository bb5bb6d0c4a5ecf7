"""The training that a recipe means, in plain PyTorch: `python tune_truth.py truth.json`, in an environment with torch, numpy and
safetensors. It shares no code with the trainers and shims that it is held against.

truth.json:

    kind, settings      method.kind, and the leaves of method.preference, method.distill or method.grpo that matter to it
    model, data         a Hugging Face folder; the data step's folder
    teacher             null or the folder of distill's teacher
    answers             null or a file with a line for each step of grpo: its answers, see tune_truth_losses.grpo
    adapter             null or {kind: lora|qlora|dora, start, alpha, nf4 (a library), quantized (ends of layers' names), whole (words of
                        method.lora.train_fully)}: A and B begin as in `start`, everything but `whole` is frozen
    qat                 null or {group}: linear layers round their inputs and weights, those of the reference too, as torchao does for axolotl
    optimizer           adamw (if not there), sgd or muon
    seed                of a reward model's head that the base has not got
    lr, betas, eps, weight_decay, decay_on (all|matrices), clip (null or the largest norm of the gradient)
    neftune             null or {alpha, seed} of the noise on embeddings (arXiv:2310.05914)
    schedule            {kind: constant|linear|cosine, warmup (steps) or share, min_ratio}
    evaluates           whether the evaluation rows are looked at after the last step
    reference           start, or policy: what a divergence is from
    variants            [{leaf, value, change: keys of this file with other values}]: what the curves would be with another value
    variant_steps       how many steps of each
    exported            null or {checkpoint, adapter}: folders whose models are compared with the trained one
    out                 the file to write

out: `loss`, `grad_norm` (before clipping) and what the method reports, each a list with a value a step, `eval_loss`; `variants`, the same
for each of them; `exported`, the largest difference of a logit; `answered`, of grpo, what its answers look like (see `answered`).
Or `{"error": reason}`: it never ends the job that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from tune_truth_losses import DEVICE, METHODS, Models, tensor
from tune_truth_model import Adapter, Model, Weights, nf4, read_model
from tune_truth_steps import optimizer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LISTS = {"dpo": "pairs", "ipo": "pairs", "orpo": "pairs", "simpo": "pairs", "reward": "pairs", "kto": "rated"}
"""Kind -> the file of the data step that has its rows; the others' are arrays of ids and labels."""
_SHOWN = 4
"""Rows by which exported models are compared."""


def main(path: str) -> int:
    """Write what is asked for; 0 in any case."""
    wish = json.loads(Path(path).read_text())
    if DEVICE == "cpu":
        torch.set_num_threads(1)  # rows one by one are small: threads would wait for each other most of the time
    try:
        found = train(wish)
        if wish.get("answers"):
            found["answered"] = answered(_lines(Path(wish["answers"])), wish)
        steps = wish.get("variant_steps")
        found["variants"] = [
            {"leaf": each["leaf"], "value": each["value"], **train(changed(wish, each["change"]), steps)}
            for each in wish.get("variants") or ()
        ]
    except Exception as error:  # whatever a model's folder may hold
        found = {"error": f"{type(error).__name__}: {error}"}
    Path(wish["out"]).write_text(json.dumps(found))
    return 0


def changed(wish: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A wish with some values changed, mappings key by key; nothing is evaluated or compared."""
    out = {**wish, "evaluates": False, "exported": None}
    for key, value in change.items():
        out[key] = {**out[key], **value} if isinstance(value, dict) else value
    return out


def rows_of(folder: str, split: str, kind: str) -> list[Any]:
    """All rows of a split, in file order."""
    if kind in LISTS:
        return _lines(Path(folder, f"{split}.{LISTS[kind]}.jsonl"))
    ids, labels, starts = (np.load(f"{folder}/{split}.{name}.npy") for name in ("ids", "labels", "starts"))
    spans = [slice(*each) for each in pairwise(starts)]
    return [(ids[span].tolist(), labels[span].tolist()) for span in spans]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def factor(step: int, steps: int, kind: str, warmup: int = 0, share: float | None = None, min_ratio: float = 0.0) -> float:
    """The learning rate's factor of step `step` (from 0)."""
    warm = warmup if share is None else math.ceil(round(share * steps, 9))
    if step < warm:
        return step / warm
    done = (step - warm) / (steps - warm)
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[kind]
    return left if kind == "constant" else min_ratio + (1 - min_ratio) * left


def adapter_of(wish: dict[str, Any], weights: Weights) -> Adapter | None:
    """A and B of the start; DoRA's lengths are those of the rows of the base."""
    if not wish:
        return None
    parts = {name: value.to(DEVICE) for name, value in load_file(wish["start"]).items()}
    rank = next(iter(parts.values())).shape[0]
    if wish["kind"] == "dora":
        for name in {key.rsplit(".lora_", 1)[0] for key in parts}:
            parts[f"{name}.lora_magnitude_vector"] = weights[f"{name}.weight"].norm(dim=1)
    return Adapter(parts, wish["alpha"] / rank)


def whole_of(words: Sequence[str], weights: Weights) -> list[str]:
    """Names of the weights that learn whole beside an adapter; of tied embeddings there is one."""
    head = "lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"
    ends = {"embeddings": "model.embed_tokens.weight", "head": head, "norms": "norm.weight"}
    return [name for name in weights if name.endswith(tuple(ends[word] for word in words))]


def base_of(wish: dict[str, Any]) -> tuple[dict[str, Any], Weights]:
    """The model before the first step, rounded to NF4 where an adapter is trained over that."""
    facts, weights = read_model(wish["model"])
    if wish["kind"] == "reward":
        weights.pop("lm_head.weight", None)
        weights.setdefault("score.weight", head_of(facts, wish.get("seed") or 0))
    adapter = wish["adapter"] or {}
    if adapter.get("kind") == "qlora":
        ends = tuple(f"{end}.weight" for end in adapter["quantized"])
        weights = {name: nf4(value, adapter["nf4"]) if name.endswith(ends) else value for name, value in weights.items()}
    return facts, {name: value.to(DEVICE) for name, value in weights.items()}


def head_of(facts: dict[str, Any], seed: int) -> torch.Tensor:
    """The head that a reward model begins with, where its base has none: normal, as wide as config.json says."""
    drawn = np.random.Generator(np.random.PCG64(seed)).normal(
        0.0, facts.get("initializer_range", 0.02), (1, facts["hidden_size"])
    )
    return torch.from_numpy(drawn.astype(np.float32))


def models_of(wish: dict[str, Any]) -> tuple[Models, Weights]:
    """The models of a run, and what of them is trained."""
    facts, weights = base_of(wish)
    adapter = adapter_of(wish["adapter"], weights)
    params = dict(adapter.weights if adapter else weights)
    if adapter and "score.weight" in weights:
        params["score.weight"] = weights["score.weight"]  # PEFT trains the head of a reward model beside its adapter
    if adapter:
        params |= {name: weights[name] for name in whole_of(wish["adapter"].get("whole") or (), weights)}
    start = Model(facts, {name: value.clone() for name, value in weights.items()})
    for p in params.values():
        p.requires_grad_()
    policy = Model(facts, weights, adapter)
    policy.group = start.group = (wish.get("qat") or {}).get("group")
    taught = wish["teacher"] and read_model(wish["teacher"])
    teacher = Model(taught[0], {name: value.to(DEVICE) for name, value in taught[1].items()}) if taught else None
    return Models(policy, policy if wish.get("reference") == "policy" else start, teacher), params


def train(wish: dict[str, Any], most: int | None = None) -> dict[str, Any]:
    """All steps, or `most` of them; the evaluation; the exported models."""
    loss_of, settings = METHODS[wish["kind"]], wish["settings"]
    models, named = models_of(wish)
    params = list(named.values())
    batches, steps = batches_of(wish)
    noise = wish.get("neftune")
    pad = json.loads(Path(wish["data"], "manifest.json").read_text())["pad_id"] if noise else None
    optimizer = optimizer_of(wish, named)
    out: dict[str, Any] = {"loss": [], "grad_norm": []}
    for step, rows in enumerate(batches[:most]):
        if noise:
            models.policy.noise = partial(noise_of, step=step, pad=pad, **noise)
        loss, told = loss_of(models, rows, settings)
        found = torch.autograd.grad(loss, params, allow_unused=True)
        slopes = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(params, found, strict=True)]
        norm = torch.stack([slope.norm() for slope in slopes]).norm().item()
        if wish["clip"] and norm > wish["clip"]:
            slopes = [slope * (wish["clip"] / norm) for slope in slopes]
        optimizer.step(wish["lr"] * factor(step, steps, **wish["schedule"]), slopes)
        for name, value in {"loss": loss.item(), "grad_norm": norm, **told}.items():
            out.setdefault(name, []).append(value)
    with torch.no_grad():
        if wish["evaluates"]:
            out["eval_loss"] = loss_of(models, rows_of(wish["data"], "eval", wish["kind"]), settings)[0].item()
        if wish.get("exported"):
            out["exported"] = compared(models.policy, wish, [ids_of(row) for row in batches[0][:_SHOWN]])
    return out


def batches_of(wish: dict[str, Any]) -> tuple[list[list[Any]], int]:
    """The rows of each step, and how many steps there are."""
    if wish.get("answers"):
        steps = _lines(Path(wish["answers"]))
        return steps, len(steps)
    rows = rows_of(wish["data"], "train", wish["kind"])
    plan = json.loads(Path(wish["data"], "manifest.json").read_text())
    order = np.load(f"{wish['data']}/train.order.npy").reshape(plan["steps"], plan["batch"])
    return [[rows[n] for n in numbers] for numbers in order], plan["steps"]


def answered(steps: list[list[dict[str, Any]]], wish: dict[str, Any]) -> dict[str, Any]:
    """Of the answers of grpo: `groups`, how many stand together for one prompt; `longest`, in tokens; `cut`, the lengths of those that end
    with no token that ends a text, null where the model names none.
    """
    lengths = [len(row["completion_ids"]) for rows in steps for row in rows]
    groups = {len(list(same)) for rows in steps for _, same in groupby(rows, key=itemgetter("prompt_ids"))}
    ends: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        file = Path(wish["model"], name)
        end = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
        ends |= set(end if isinstance(end, list) else [] if end is None else [end])
    cut = {len(row["completion_ids"]) for rows in steps for row in rows if row["completion_ids"][-1] not in ends}
    return {"groups": sorted(groups), "longest": max(lengths), "cut": sorted(cut) if ends else None}


def noise_of(ids: torch.Tensor, width: int, *, step: int, pad: int, alpha: float, seed: int) -> torch.Tensor:
    """arXiv:2310.05914, algorithm 1: uniform noise within +-alpha / sqrt(tokens x width), for one row at a step, from 0. Drawn from both and
    the seed; tokens at the row's end that are the same as padding do not count.
    """
    tokens = ids[0].tolist()
    while tokens and tokens[-1] == pad:
        tokens.pop()
    start = hashlib.sha256(f"{seed}:{step}:{','.join(str(token) for token in tokens)}".encode()).hexdigest()[:14]
    dice = torch.Generator(DEVICE).manual_seed(int(start, 16))
    drawn = torch.rand((len(tokens), width), generator=dice, device=DEVICE) * 2 - 1
    out = torch.zeros((1, ids.shape[1], width), device=DEVICE)
    out[0, : len(tokens)] = drawn * alpha / math.sqrt(max(1, len(tokens)) * width)
    return out


def ids_of(row: Any) -> list[int]:
    """The tokens of a row, of a pair those of the chosen answer."""
    if not isinstance(row, dict):
        return row[0]
    return row["prompt_ids"] + (row["chosen_ids"] if "chosen_ids" in row else row["completion_ids"])


def compared(trained: Model, wish: dict[str, Any], rows: list[list[int]]) -> dict[str, float]:
    """Name of an exported folder -> largest difference of one of its model's logits, of the largest logit where that is above 1."""
    out = {}
    for name, folder in wish["exported"].items():
        if name == "checkpoint":
            facts, weights = read_model(folder)
            model = Model(facts, {key: value.to(DEVICE) for key, value in weights.items()})
        else:
            facts, weights = base_of(wish)
            adapter, whole = _peft(folder)
            model = Model(facts, {**weights, **whole}, adapter)
        model.group = trained.group
        pairs = [(model.logits(tensor([ids])), trained.logits(tensor([ids]))) for ids in rows]
        out[name] = max(((one - other).abs().max() / other.abs().max().clamp(min=1)).item() for one, other in pairs)
    return out


def _peft(folder: str) -> tuple[Adapter, Weights]:
    """An adapter in PEFT's form, and the weights that were trained in full beside it."""
    facts = json.loads(Path(folder, "adapter_config.json").read_text())
    stored = load_file(Path(folder, "adapter_model.safetensors"))
    parts = {name.removeprefix("base_model.model."): value.to(DEVICE).float() for name, value in stored.items()}
    whole = {name: parts.pop(name) for name in list(parts) if ".lora_" not in name}
    return Adapter(parts, facts["lora_alpha"] / facts["r"]), whole


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
