"""A cell's recipe, in which no numeric leaf that the trainer claims has its default, and what plain PyTorch is asked for."""

import copy
import json

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.flat import nest
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from tests.truth.cells import NF4, STEPS

RANK, ALPHA = 4, 8.0
FORMATS = {"kto": "rated", "pretrain": "text", "grpo": "prompts"}
FORMATS |= dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "reward"), "preference")
OPTIM = {
    "optim.lr": 1e-3,
    "optim.min_lr": 2e-4,
    "optim.betas": [0.8, 0.93],
    "optim.eps": 1e-3,
    "optim.weight_decay": 0.1,
    "optim.decay_on": "matrices",
    "optim.schedule": "linear",
    "optim.warmup_steps": 1,
    "train.grad_clip": 1.0,
    "train.neftune_alpha": 5.0,
}
"""With an epsilon that is small Adam would not see the size of a gradient, and clipping would have no effect."""
UP = {
    "optim.lr": ("lr", 2e-3),
    "optim.min_lr": ("schedule", {"min_ratio": 0.5}),
    "optim.betas": ("betas", [0.9, 0.95]),
    "optim.eps": ("eps", 1e-2),
    "optim.weight_decay": ("weight_decay", 1.0),
    "optim.decay_on": ("decay_on", "all"),
    "optim.schedule": ("schedule", {"kind": "constant"}),
    "optim.warmup_steps": ("schedule", {"warmup": 2}),
    "optim.warmup_share": ("schedule", {"share": 0.4}),
    "train.grad_clip": ("clip", 2.0),
    "train.neftune_alpha": ("neftune", {"alpha": 10.0}),
    "method.lora.alpha": ("adapter", {"alpha": 16.0}),
    "method.qat.group": ("qat", {"group": 32}),
}
"""Leaf -> a key of truth.json, and another value of it."""
_GIVEN = (
    "cells have another value than its default, and plain PyTorch is given what comes of it: the curves are those of that value"
)
_RENDERED = "it acts in the data step, before any trainer, whose rows plain PyTorch reads too"
ELSEWHERE = {
    "method.lora.rank": f"{_GIVEN}. A and B of another rank are refused (tune_hf_trainer.py and its siblings, `_preset`)",
    "method.lora.dropout": "it draws other numbers in each trainer: no curve is the right one (tests/conformance/test_resume.py)",
    "method.grpo.generations": f"{_GIVEN}, by the answers that a run gave",
    "method.grpo.max_new_tokens": f"{_GIVEN}, by the answers that a run gave",
    "data.eval_share": f"{_RENDERED} (tests/unit/shims/test_tune_data.py)",
    "data.max_length": f"{_RENDERED} (tests/unit/shims/test_tune_data.py)",
    "train.epochs": "it says how many steps there are, as train.steps does, and nothing of any one",
    "train.steps": f"{_GIVEN}: there are as many losses, and the schedule ends with the last",
    "train.batch.global": f"{_GIVEN}: each loss and gradient is of so many rows",
    "train.seed": "it is no size: another order, A and B, noise (tests/conformance/test_sameness.py)",
    "eval.patience": "it ends a training and changes no step (tests/unit/trainers/test_early_end.py)",
}
"""Numeric leaves that decide the result and have no other value among the variants, and why that is enough."""
SILENT = {"method.grpo.clip": "answers are learned from once, so that the ratio is 1 wherever it is clipped"}
"""Leaves whose other value has no effect by the truth either."""


def recipe(cell, model, teacher=None):
    """Five steps of four sequences, with evaluation rows where the trainer takes any, and all that it claims away from its default."""
    form = FORMATS.get(cell.kind, "completion")
    flat = {"version": 1, "name": "truth", "model.id": str(model), "method.kind": cell.kind, "method.adapter": cell.adapter}
    flat |= {f"{cell.section}.{name}": value for name, value in cell.settings.items()}
    if cell.adapter != "none":
        flat |= {"method.lora.rank": RANK, "method.lora.alpha": ALPHA, "method.lora.train_fully": list(cell.whole)}
    if cell.group:
        flat |= {"method.qat.scheme": "int8-int4", "method.qat.group": cell.group}
    if cell.kind == "distill":
        flat["method.distill.teacher"] = str(teacher)
    if cell.kind == "grpo":
        flat["method.grpo.rewards"] = ["./rewards.py:score"]
    flat |= {"data.train": f"rows.{form}.jsonl", "data.eval": f"val.{form}.jsonl", "data.format": form, "data.max_length": 96}
    flat |= {"train.steps": STEPS, "train.batch.global": 4, "train.batch.micro": cell.micro, "train.precision": "fp32"}
    flat |= {"resources.devices": cell.devices, **OPTIM}
    if cell.kind != "sft":
        del flat["train.neftune_alpha"]
    if cell.kind == "pretrain":
        del flat["optim.warmup_steps"]
        flat["optim.warmup_share"] = 1 / STEPS
    if cell.kind == "grpo":  # rewards are paid for the answers of a run, and an evaluation has others
        del flat["data.eval"]
    return claimed(cell.trainer, flat)


def claimed(trainer, flat):
    """The recipe without what the trainer does not have."""
    for _ in range(4):
        try:
            planned(trainer, flat)
        except Inexpressible as error:
            lost = [line.leaf for line in error.report.lines if line.status == "lost"]
            assert not {"method.kind", "method.adapter", "method.lora.train_fully", "resources.devices"} & set(lost), lost
            flat = {leaf: value for leaf, value in flat.items() if leaf not in lost}
        else:
            return flat
    raise AssertionError(flat)


def planned(trainer, flat):
    """The plan of a recipe's leaves; raises `Inexpressible`."""
    return plan(BACKENDS[trainer], parse(_yaml(flat), base="/x"), Target(devices=flat["resources.devices"]))


def _yaml(flat):
    return json.dumps(nest(copy.deepcopy(flat)))


_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def wish(cell, flat, model, work, teacher=None):
    """truth.json of a cell's job."""
    defaults = {"beta": 0.1, "label_smoothing": 0.0, "margin": 0.5, "desirable": 1.0, "undesirable": 1.0}
    adapter = None
    if cell.adapter != "none":
        adapter = {"kind": cell.adapter, "start": str(work / "lora" / "start.safetensors"), "alpha": ALPHA}
        adapter |= {"nf4": NF4.get(cell.trainer), "quantized": _LAYERS, "whole": list(cell.whole)}
    lr = flat["optim.lr"]
    exported = {"checkpoint": str(work / "checkpoint"), **({"adapter": str(work / "adapter")} if adapter else {})}
    return {
        **{"kind": cell.kind, "settings": {**defaults, **cell.settings}, "model": str(model), "data": str(work / "data")},
        **{"teacher": str(teacher) if teacher else None, "adapter": adapter, "lr": lr, "answers": None},
        **{"betas": flat["optim.betas"], "eps": flat["optim.eps"], "weight_decay": flat["optim.weight_decay"]},
        **{"decay_on": flat.get("optim.decay_on", "all"), "clip": flat.get("train.grad_clip")},
        "neftune": {"alpha": flat["train.neftune_alpha"], "seed": flat.get("train.seed", 42)}
        if "train.neftune_alpha" in flat
        else None,
        "qat": {"group": cell.group} if cell.group else None,
        "schedule": {
            "kind": flat.get("optim.schedule", "cosine"),
            "warmup": flat.get("optim.warmup_steps", 0),
            "share": flat.get("optim.warmup_share"),
            "min_ratio": flat.get("optim.min_lr", 0.0) / lr,
        },
        **{"evaluates": "data.eval" in flat, "exported": exported, "variants": variants(cell, flat), "out": "truth.json"},
    }


def variants(cell, flat):
    """Each numeric leaf that the trainer claims, turned up."""
    own = {f"{cell.section}.{name}": ("settings", {name: _more(name, value)}) for name, value in cell.settings.items()}
    drawn = ("generations", "max_new_tokens")  # which answers there are; a run's are given
    found = {leaf: each for leaf, each in {**UP, **own}.items() if leaf in flat and leaf.rpartition(".")[2] not in drawn}
    less = {word: [each for each in cell.whole if each != word] for word in cell.whole}
    return [
        *({"leaf": leaf, "value": value, "change": {key: value}} for leaf, (key, value) in found.items()),
        *({"leaf": f"no {word}", "value": rest, "change": {"adapter": {"whole": rest}}} for word, rest in less.items()),
    ]


def _more(name, value):
    return 0.4 if name == "label_smoothing" else value * 2
