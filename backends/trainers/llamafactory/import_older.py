"""LLaMA-Factory's older spellings, as the release whose configs are read says them. Part of dialect.py.

What earlier releases called a key (hparams/*_args.py, 0.5 to 0.9.4) and transformers' own renames.
"""

from __future__ import annotations

from backends.mapping.rows import Flat, Value

RENAMED = {
    "dpo_beta": "pref_beta",
    "kto_beta": "pref_beta",
    "orpo_beta": "pref_beta",
    "dpo_loss": "pref_loss",
    "dpo_ftx": "pref_ftx",
    "kto_ftx": "pref_ftx",
    "sft_packing": "packing",
    "name_module_trainable": "freeze_trainable_modules",
    "num_layer_trainable": "freeze_trainable_layers",
    "evaluation_strategy": "eval_strategy",
}
"""Old name -> the key of today, with the same values."""

WORDS: dict[str, dict[Value, Value]] = {
    "quantization_method": {"bitsandbytes": "bnb"},
    "flash_attn": {True: "fa2", False: "disabled"},
    "pref_loss": {"kto": "kto_pair"},
}
"""Key -> old word -> today's."""


def today(keys: Flat, lines: dict[str, int]) -> tuple[Flat, list[str]]:
    """Old names as the new ones, and what to tell of it. A new key that is there as well wins, and the old one stays, as not modelled."""
    out, notes = dict[str, Value](), list[str]()
    for key, value in keys.items():
        name = RENAMED.get(key, key)
        if name != key and name in keys:
            name = key
        if name != key:
            notes.append(f"{key} is an older name of {name}")
            lines |= {name: lines[key]} if key in lines else {}
        words = WORDS.get(name, {})
        known = isinstance(value, str | bool) and value in words
        if known:
            notes.append(f"{name} = {value} is an older way to say {words[value]}")
        out[name] = words[value] if known else value
    if out.get("stage") == "orpo":
        notes.append("stage = orpo is an older way to say stage: dpo with pref_loss: orpo")
        out |= {"stage": "dpo", "pref_loss": "orpo"}
    return out, notes
