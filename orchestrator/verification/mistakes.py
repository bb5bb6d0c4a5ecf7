"""Other values of a recipe's leaves that are worth trying where a run's figures are not those of plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from backends.recipe.needs import meaning_of

if TYPE_CHECKING:
    from backends.mapping.rows import Flat, Value

_REFERENCE = ("dpo", "ipo", "kto")
"""Kinds with a reference. For grpo one that is the trained model itself is the same as method.grpo.kl: 0."""


class Mistake(NamedTuple):
    """Another value of a leaf."""

    leaf: str
    value: Value
    change: Flat
    """Keys of truth.json."""


def settings_of(recipe: Flat) -> Flat:
    """By their names; `paid`: which of the reward functions count, all."""
    own = {leaf.rpartition(".")[2]: meaning_of(leaf, recipe) for leaf in recipe if leaf.startswith("method.preference.")}
    own |= {name: recipe[f"method.grpo.{name}"] for name in ("generations", "temperature", "kl", "clip")}
    return {**own, "ratio": recipe["method.distill.ratio"], "paid": None}


def alpha_of(recipe: Flat) -> float:
    """Over the rank it is the scale of B A."""
    root = math.sqrt(recipe["method.lora.rank"]) if recipe["method.lora.rank_stabilized"] else 1.0
    return float(recipe["method.lora.alpha"] * root)


def changes(recipe: Flat) -> list[Mistake]:
    """Mistakes worth trying: each setting of the method and the optimizer doubled, halved, or as if it were not there."""
    kind, out = recipe["method.kind"], list(_of_method(recipe))
    if kind == "reward":  # its head is drawn; rows, A and B are those of the recipe anyway
        out += [Mistake("train.seed", seed, {"seed": seed}) for seed in (recipe["train.seed"] + 1, 0, 42)]
    if kind in _REFERENCE:
        out.append(Mistake("method.kind (the model that it is held near)", "the trained model itself", {"reference": "policy"}))
    if recipe["method.adapter"] != "none":
        alpha, stable = recipe["method.lora.alpha"], "method.lora.rank_stabilized"
        other = {**recipe, stable: not recipe[stable]}
        out += [Mistake("method.lora.alpha", alpha * n, {"adapter": {"alpha": alpha_of(recipe) * n}}) for n in (2, 0.5)]
        out.append(Mistake(stable, other[stable], {"adapter": {"alpha": alpha_of(other)}}))
        whole = recipe["method.lora.train_fully"]
        others = ([each for each in whole if each != word] for word in whole)
        out += [Mistake("method.lora.train_fully", other, {"adapter": {"whole": other}}) for other in others]
    if noise := recipe["train.neftune_alpha"]:
        out += [Mistake("train.neftune_alpha", noise * 2, {"neftune": {"alpha": noise * 2}})]
        out += [Mistake("train.neftune_alpha", None, {"neftune": None})]
    out += [Mistake("optim.lr", value, {"lr": value}) for value in (recipe["optim.lr"] * 2, recipe["optim.lr"] / 2)]
    decay, eps = recipe["optim.weight_decay"], recipe["optim.eps"]
    out += [Mistake("optim.weight_decay", value, {"weight_decay": value}) for value in {0.0, decay * 2} if value != decay]
    out += [Mistake("optim.eps", value, {"eps": value}) for value in (eps * 10, eps / 10)]
    out += [
        Mistake("optim.betas", value, {"betas": value}) for value in ([0.9, 0.999], [0.9, 0.95]) if value != recipe["optim.betas"]
    ]
    out += [Mistake("optim.decay_on", word, {"decay_on": word}) for word in ("all", "matrices")]
    out += [Mistake("train.grad_clip", value, {"clip": value}) for value in (None, 1.0)]
    out += [Mistake("optim.schedule", word, {"schedule": {"kind": word}}) for word in ("constant", "linear", "cosine")]
    out += [Mistake("optim.warmup_steps", value, {"schedule": {"warmup": value, "share": None}}) for value in (0, 1)]
    out.append(Mistake("optim.min_lr", 0.0, {"schedule": {"min_ratio": 0.0}}))
    return [each for each in out if recipe.get(each.leaf, each) != each.value]


_MATTERS = {
    "dpo": ("beta", "label_smoothing"),
    "ipo": ("beta",),
    "orpo": ("beta",),
    "simpo": ("beta", "margin"),
    "kto": ("beta", "desirable", "undesirable"),
    "distill": ("ratio",),
    "grpo": ("kl", "temperature", "generations"),
}
_OFF = {"label_smoothing": 0.0, "margin": 0.0, "desirable": 1.0, "undesirable": 1.0, "ratio": 0.0, "kl": 0.0}
_OWN = {"distill": "distill", "grpo": "grpo"}
"""Kind -> its section of the recipe, where that is not method.preference."""


def _of_method(recipe: Flat) -> Iterator[Mistake]:
    kind, settings = recipe["method.kind"], settings_of(recipe)
    for name in _MATTERS.get(kind, ()):
        value = settings[name]
        halved = value // 2 if isinstance(value, int) else value / 2
        for other in dict.fromkeys((value * 2, halved, _OFF.get(name, value))):
            if other != value and _possible(name, other, recipe):
                yield Mistake(f"method.{_OWN.get(kind, 'preference')}.{name}", other, {"settings": {name: other}})
    functions = recipe["method.grpo.rewards"] if kind == "grpo" else []
    for left, function in enumerate(functions if len(functions) > 1 else []):
        paid = [n for n in range(len(functions)) if n != left]
        yield Mistake("method.grpo.rewards", f"all but {function}", {"settings": {"paid": paid}})


def _possible(name: str, value: Value, recipe: Flat) -> bool:
    """A group of answers has two or more, and those of a step are whole groups."""
    answers = recipe["train.batch.global"] * recipe["method.grpo.generations"]
    return bool({"ratio": value <= 1, "generations": value > 1 and answers % max(1, value) == 0}.get(name, True))
