"""The section model: the folder that the model step makes ready."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from backends.mapping.data import DATA
from backends.mapping.rows import Context, Flat, Row, Value, Values, couple
from backends.recipe.leaves import REVISION
from backends.recipe.paths import is_hub

MODEL = "model.json"
"""The spec of the step that makes the model folder ready."""


def model_folder(init: str, name: str, revision: str | None, shape: Flat | None) -> str:
    """Where the job finds the model, relative to its folder. Random models are named by their content, hub models by id and
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
        return model_spec(folder, init, name, revision, shape), *own(folder), *to(folder, context)

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


def model_spec(folder: str, init: str, name: str, revision: str | None, shape: Flat | None) -> Flat:
    """What the model step does."""
    if init == "random" and shape is not None:
        architecture = {k: v for k, v in shape.items() if k != "seed"}
        return {"init": "random", "folder": folder, "seed": shape["seed"], "architecture": architecture}
    if is_hub(name):
        return {"init": "pretrained", "id": name, "revision": revision or REVISION, "folder": folder}
    return {"init": "folder", "folder": folder, "id": name}
