"""MaxText's configs in the wild: a chain of `base_config` files, and files of models that win over what a config says.

The bases and models that come with MaxText are in the table of its defaults, by their path; a base of the user's own is read from
beside the file. What keys mean is in import_keys.py, what becomes of the others in maxtext_rules.py. Sources:
https://github.com/AI-Hypercomputer/maxtext (src/maxtext/configs/pyconfig.py, base.yml).
"""

from __future__ import annotations

from functools import cache

from backends.dialect import Beside, Dialect, Refused
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.native_config import NativeConfig, Unreadable, read
from backends.records import replace
from backends.trainers.maxtext.command_line import LAUNCHER
from backends.trainers.maxtext.defaults import DEFAULTS
from backends.trainers.maxtext.import_keys import reads
from backends.trainers.maxtext.import_older import mesh, today
from backends.trainers.maxtext.import_rules import RULES

NAME = "maxtext"
DEEPEST = 8
"""Files in a chain of bases."""
LONGEST = 250
"""Characters of a file's name."""
_TRAINS = ("steps", "learning_rate", "per_device_batch_size", "num_batches", "dataset_type", "hf_path", "use_sft", "use_dpo")
"""Keys of which a training config says one at least."""
_OF_MODULE = {
    ".distillation.": "post_train/distillation.yml",
    ".dpo.": "post_train/dpo.yml",
    ".rl.": "post_train/rl.yml",
    ".sft.": "post_train/sft.yml",
}
"""Part of a program's name -> the config that it takes when its command names none (pyconfig.py, _CONFIG_FILE_MAPPING)."""


def sure(keys: Flat) -> str:
    """A base, or keys that MaxText alone has."""
    if str(keys.get("base_config", "")).endswith(".yml"):
        return f"base_config = {keys['base_config']}"
    if "trainer_devices_fraction" in keys:
        return f"trainer_devices_fraction = {keys['trainer_devices_fraction']}"
    named = [key for key in ("per_device_batch_size", "ici_fsdp_parallelism", "max_target_length", "base_emb_dim") if key in keys]
    return f"{named[0]} and {named[1]}" if len(named) > 1 else ""


def resolve(config: NativeConfig, beside: Beside) -> NativeConfig:
    """The user's own bases below the file's keys, and the model's file over them.

    Raises:
        Refused: it stands on a config for inference.
        Unreadable: a base that is not there, or a chain of them without end.
    """
    keys, lines, older = today(config.keys, dict(config.lines))
    config, notes = replace(config, lines=lines), [*config.notes, *older]
    keys = {**mesh(keys), **keys}
    if keys.get("base_config") == "job.yml":
        raise Refused("tune wrote this itself (base_config): take the recipe that it is from")
    base = str(keys.get("base_config") or _of_module(str(keys.get("launch:module", ""))) or _of_class(keys))
    for _ in range(DEEPEST):
        place = _place(base)
        if place in FIRST:
            keys["launch:base"] = place
        if place in FIRST or base in ("", OWN):
            return NativeConfig(*_over(keys, config.lines, notes), config.text)
        if place.startswith("inference/") or place == ANSWERS:
            raise Refused("this is not a training config: it is for inference")
        below = _below(base, place, beside, config.line("base_config"))
        notes.append(f"{place or base} is read as the base of this file: {len(below)} keys")
        keys = {**below, **keys}
        base = str(below.get("base_config") or "")
    raise Unreadable("is a chain of bases without end", key="base_config", line=config.line("base_config"))


def _below(base: str, place: str, beside: Beside, line: int | None) -> Flat:
    """The keys of a base: the user's own beside the file, else MaxText's own. A script names files from where it is started, so
    that they are looked for by the last parts of their path, too.
    """
    parts = base.split("/") if len(base) <= LONGEST else []
    texts = (beside("/".join(parts[n:])) for n in range(len(parts)) if n == 0 or not place)
    text = next((each for each in texts if each is not None), None)
    if text is not None:
        return read(text).keys
    if not place:
        rule = f"names {base[:LONGEST]} as its base, which is neither beside it nor among MaxText's own"
        raise Unreadable(rule, key="base_config", line=line, hint="put it beside the file")
    start = f"{place}:"
    return {key.removeprefix(start): value for key, value in DEFAULTS.table.items() if key.startswith(start)}


RL = "post_train/rl.yml"
FIRST = ("base.yml", "post_train/sft.yml", "post_train/dpo.yml", RL)
"""MaxText's own configs on which the others stand: what they say is a default."""
ANSWERS = "post_train/rl_mt_jt.yml"
"""How the model that answers is spread over devices, beside the one that learns (experimental/rl/grpo_trainer.py)."""
OWN = "job.yml"
"""The base of a config that tune wrote."""


def _of_module(module: str) -> str:
    """The config that a program takes when its command names none; empty for a file."""
    return next((base for part, base in _OF_MODULE.items() if part in module), "base.yml") if module else ""


def _of_class(keys: Flat) -> str:
    """What a config without a base stands on, where MaxText has a class of its own for it."""
    return RL if "trainer_devices_fraction" in keys else ""


def _shipped(base: str) -> str:
    """Its path below MaxText's own configs."""
    return base.rpartition("maxtext/configs/")[2].rpartition("MaxText/configs/")[2].lstrip("./")


def _place(base: str) -> str:
    """MaxText's own config that is meant, by its path, or by its name where only one has it: upstream has moved them more than
    once. Empty when there is none.
    """
    path = _shipped(base)
    found = [place for place in _places() if place.rpartition("/")[2] == path.rpartition("/")[2]]
    return path if path in _places() else found[0] if len(found) == 1 else ""


@cache
def _places() -> frozenset[str]:
    """MaxText's own configs that others can stand on."""
    named = (key.removesuffix(":base_config") for key in DEFAULTS.table if key.endswith(":base_config"))
    return frozenset((*FIRST, *named))


def _over(keys: Flat, lines: Value, notes: list[str]) -> tuple[Flat, Value, tuple[str, ...]]:
    """The model's file wins over a key of the YAML, in silence; a word of the command line wins over both. How to train, which
    some files of models say too, is read like a base.
    """
    overrides, table = set(keys.get("launch:overrides") or ()), DEFAULTS.table
    place = f"{_model_file(keys)}:"
    won = {key: value for key, value in keys.items() if key not in overrides and _differs(key, value, place)}
    notes += [
        f"{key} = {value!r} has no effect: MaxText's own file of the model says {table[place + key]!r}"
        for key, value in won.items()
    ]
    out = {key: table[place + key] if key in won else value for key, value in keys.items() if key != "launch:overrides"}
    return (
        {**out, **{key: table[place + key] for key in OF_MODELS if key not in out and place + key in table}},
        lines,
        tuple(notes),
    )


OF_MODELS = ("fused_qkv", "load_balance_loss_weight", "opt_type", "target_eval_loss", "use_iota_embed")
"""Keys of training in MaxText's own files of models, as far as no row asks for their default."""


def _differs(key: str, value: Value, place: str) -> bool:
    return bool(DEFAULTS.table.get(place + key, value) != value)


def _model_file(keys: Flat) -> str:
    """MaxText's own file of the model; instruction-tuned models share that of their base."""
    return f"models/{str(keys.get('model_name')).replace('-Instruct', '')}.yml"


def shape(keys: Flat) -> Variant:
    """Kind and adapter.

    Raises:
        Refused: nothing in the config trains.
    """
    is_known = "launch:module" in keys or keys.get("launch:base") in FIRST[1:]
    if not is_known and not any(key in keys for key in _TRAINS):
        what = "sizes of a model" if "base_emb_dim" in keys else "no steps, no learning rate and no data"
        raise Refused(f"this is not a training config: it has {what}")
    kind, adapter = _kind(keys), "none"
    if kind != "grpo" and _value(keys, "lora.enable_lora") is True:
        adapter = "qlora" if _value(keys, "lora.lora_weight_qtype") not in (None, "", ABSENT) else "lora"
    return Variant(kind, adapter, native=True)


def _kind(keys: Flat) -> str:
    if "rl_algorithm" in keys or "trainer_devices_fraction" in keys or _value(keys, "use_grpo") is True:
        return "grpo"
    if keys.get("launch:base") == RL or ".rl." in str(keys.get("launch:module")):
        return "grpo"
    if any(key.startswith("teacher_overrides") for key in keys):
        return "distill"
    if _value(keys, "use_dpo") is True:
        return "orpo" if _value(keys, "dpo.algo") == "orpo" else "dpo"
    return "sft" if _value(keys, "use_sft") is True else "pretrain"


def _value(keys: Flat, key: str) -> Value:
    return keys.get(key, default(keys, key))


def default(keys: Flat, key: str) -> Value:
    """Of the model's file, then of the config that this one stands on, then of base.yml."""
    table = DEFAULTS.table
    places = (*(() if key in OF_MODELS else (_model_file(keys),)), keys.get("launch:base"))
    return next((table[f"{place}:{key}"] for place in places if f"{place}:{key}" in table), table.get(key, ABSENT))


DIALECT = Dialect(NAME, sure, resolve, shape, reads, RULES, default, LAUNCHER)
