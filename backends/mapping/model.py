"""The section model: the folder that the model step makes ready."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from backends.mapping.data import DATA
from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value, Values, couple
from backends.recipe.leaves import REVISION
from backends.recipe.paths import is_hub

MODEL = "model.json"
"""The spec of the step that makes the model folder ready."""


START = "start"
"""Where the job finds the model with model.tokens in it: a link to a folder that the model step makes."""


def model_folder(init: str, name: str, revision: str | None, shape: Flat | None) -> str:
    """Where the job finds the model as it is, relative to its folder. Random models are named by their content, hub models by id and
    revision; a folder of the user's is linked.
    """
    if init == "random":
        key = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
        return f"cache/models/random-{key}"
    if is_hub(name):
        return f"cache/models/{name.replace('/', '--')}@{(revision or REVISION).replace('/', '--')}"
    return "inputs/model"


def model(*, theirs: Sequence[str], to: Callable[[str, Context], Values], shared: bool = True, absent: Sequence[str] = ()) -> Row:
    """The model section: a spec for the model step, and what the trainer needs to find the result.

    Args:
        theirs: the trainer's keys.
        to: (model folder, context) -> their values.
        shared: the data step needs the folder too, for its tokenizer.
        absent: of their keys, those not written for every model.
    """
    keys = (f"{DATA}:tokenizer",) if shared else ()

    def own(folder: str) -> Sequence[str]:
        return (folder,) * len(keys)

    def forward(name: str, revision: str | None, init: str, shape: Flat | None, context: Context) -> Values:
        folder = model_folder(init, name, revision, shape)
        spec = model_spec(folder, init, name, revision, shape)
        if context.tokens:
            spec, folder = {**spec, "base": folder, "folder": START}, START
        return spec, *own(folder), *to(folder, context)

    def back(spec: Flat, *_: Value) -> Values:
        if spec["init"] == "random":
            return "random", None, "random", {**spec["architecture"], "seed": spec["seed"]}
        revision = spec.get("revision")
        return spec["id"], None if revision == REVISION else revision, "pretrained", None

    return couple(
        ("model.id", "model.revision", "model.init", "model.architecture"),
        (f"{MODEL}:", *keys, *theirs),
        forward,
        back,
        why="a folder in Hugging Face layout, made, downloaded or linked by the model step",
        absent=absent,
    )


def adds_tokens(recipe: Flat) -> bool:
    """The recipe has model.tokens or model.special_tokens."""
    return bool(recipe["model.tokens"] or recipe["model.special_tokens"])


def trained_from(recipe: Flat) -> str:
    """The folder that training starts from."""
    return (
        START
        if adds_tokens(recipe)
        else model_folder(*(recipe[f"model.{name}"] for name in ("init", "id", "revision", "architecture")))
    )


def tokens(lora: bool, *, lacks: str = "", see: str = "") -> Row:
    """model.tokens and model.special_tokens, for the model step.

    Args:
        lora: an adapter is trained.
        lacks: why the trainer cannot have them, where it reads rows with a tokenizer of its own.
        see: upstream's word on that.
    """
    leaves, keys = ("model.tokens", "model.special_tokens"), (f"{MODEL}:tokens", f"{MODEL}:special_tokens")

    def to(ordinary: list[str], special: list[str], _: Context) -> Values:
        if lacks and (ordinary or special):
            raise Unsupported(leaves[0 if ordinary else 1], lacks, see=see, fallback=dict.fromkeys(keys, ABSENT))
        return ordinary or ABSENT, special or ABSENT

    beside = ": beside an adapter they stay so, unless method.lora.train_fully has embeddings (and head, where it is apart)"
    return couple(
        leaves,
        keys,
        to,
        lambda ordinary, special, _: tuple([] if each is ABSENT else each for each in (ordinary, special)),
        status="same",
        absent=keys,
        why=f"the model step adds them; the new rows begin as the mean of the old ones{beside if lora else ''}",
    )


def model_spec(folder: str, init: str, name: str, revision: str | None, shape: Flat | None) -> Flat:
    """What the model step does."""
    if init == "random" and shape is not None:
        architecture = {k: v for k, v in shape.items() if k != "seed"}
        return {"init": "random", "folder": folder, "seed": shape["seed"], "architecture": architecture}
    if is_hub(name):
        return {"init": "pretrained", "id": name, "revision": revision or REVISION, "folder": folder}
    return {"init": "folder", "folder": folder, "id": name}
