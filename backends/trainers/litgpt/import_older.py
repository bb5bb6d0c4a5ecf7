"""LitGPT's older keys, as the pinned release says them. Part of dialect.py.

Until 0.3 the optimizer's settings were keys of `train` (litgpt/args.py of 0.3.1); 0.4 gave the optimizer a section of its own.
"""

from __future__ import annotations

from backends.mapping.rows import ABSENT, Flat

_AT = "optimizer.init_args."
_LR = "train.learning_rate"
_OLD = {_LR: f"{_AT}lr", "train.weight_decay": f"{_AT}weight_decay"}
_BETAS = {"train.beta1": 0.9, "train.beta2": 0.95}
_WEIGHT_DECAY = {"pretrain": 0.1}
"""Command of 0.3.1 -> its decay where it is not 0.02."""
_RATES = {"finetune_lora": 3e-4, "finetune_full": 3e-3, "finetune_adapter": 1e-3, "finetune_adapter_v2": 1e-3, "pretrain": 4e-4}
"""Command of 0.3.1 -> its rate, where a config says none (litgpt/finetune, litgpt/pretrain.py)."""


def today(keys: Flat, lines: dict[str, int]) -> tuple[Flat, list[str]]:
    """A config of 0.3 or before with the keys of today, and a note for each. What it leaves out is what that release took then,
    which is not what LitGPT takes today.
    """
    older = [key for key in (*_OLD, *_BETAS) if key in keys]
    if not older or any(key.startswith("optimizer") for key in keys):
        return keys, []
    first, second = (keys.get(key, usual) for key, usual in _BETAS.items())
    made: Flat = {
        f"{_AT}lr": keys.get(_LR, _RATES.get(str(keys.get("launch:command")), ABSENT)),
        f"{_AT}weight_decay": keys.get("train.weight_decay", _WEIGHT_DECAY.get(str(keys.get("launch:command")), 0.02)),
        f"{_AT}betas": [first, second],
    }
    where: set[str] = set()
    for key, old in (*((_OLD[old], old) for old in _OLD), (f"{_AT}betas", "train.beta1"), (f"{_AT}betas", "train.beta2")):
        if old in keys:
            where.add(key)
            lines |= {key: lines[old]} if old in lines else {}
    names = ", ".join(key.removeprefix("train.") for key in older)
    assumed = [key.removeprefix(_AT) for key in made if key not in where]
    notes = [f"train.{names}: as LitGPT had them until 0.3; they are optimizer.init_args.lr, weight_decay and betas today"]
    if assumed:
        notes.append(f"{', '.join(assumed)}: what LitGPT 0.3 took where a config says nothing, which is not what it takes today")
    rest = {key: value for key, value in keys.items() if key not in older}
    return {**rest, **{key: value for key, value in made.items() if value is not ABSENT}}, notes
