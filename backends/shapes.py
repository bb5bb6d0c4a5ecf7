"""The named couples: batch, schedule, data, model. Written once, used by several backends."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from backends.rows import Flat, Lost, Row, Scene, couple, kept, same


def rate(step: int, steps: int, *, lr: float, schedule: str, warmup: int, min_lr: float) -> float:
    """Learning rate that optimizer step `step` (from 1) of `steps` uses."""
    s = step - 1
    if s < warmup:
        return lr * s / warmup
    if schedule == "constant":
        return lr
    gone = (s - warmup) / max(1, steps - warmup)
    left = 1 - gone if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * gone))
    return min_lr + (lr - min_lr) * left


def warmup_steps(steps: int | None, count: int | None, share: float | None) -> int | None:
    """Warm-up in optimizer steps; None when the share of an unknown number of steps."""
    if share is None or share == 0:
        return count or 0
    return None if steps is None else math.ceil(round(share * steps, 9))  # 0.07 of 100 is 7, whatever binary says


def batch_per_device(size: str, accumulation: str, *also: str) -> Row:
    """Trainers that count sequences per device and accumulate: global = size x accumulation x devices. `also` are keys that
    get the global batch.
    """

    def to(total: int, micro: int | None, scene: Scene) -> Sequence[Any]:
        one, times = _split(total, micro, scene)
        return one, times, *(total for _ in also)

    return couple(
        ("train.batch.global", "train.batch.micro"),
        (size, accumulation, *also),
        to,
        lambda one, times, *rest: (one * times * rest[-1].devices, one),
        why=f"{size} x {accumulation} x devices = train.batch.global",
    )


def batch_global(size: str, micro_size: str, *also: str) -> Row:
    """Trainers that count sequences per step over all devices and derive the accumulation."""

    def to(total: int, micro: int | None, scene: Scene) -> Sequence[Any]:
        return total, _split(total, micro, scene)[0], *(total for _ in also)

    return couple(
        ("train.batch.global", "train.batch.micro"),
        (size, micro_size, *also),
        to,
        lambda total, one, *_: (total, one),
        why=f"{micro_size} is per device; unset means the whole share of a device",
    )


def _split(total: int, micro: int | None, scene: Scene) -> tuple[int, int]:
    """Sequences that a device takes at once, and how often per step."""
    if total % scene.devices:
        raise Lost("train.batch.global", f"{total} sequences cannot be split over {scene.devices} devices")
    share = total // scene.devices
    one = micro or share
    if share % one:
        raise Lost("train.batch.micro", f"{one} does not divide the {share} sequences of each device")
    return one, share // one


DATA = "data.json"
"""The spec of the step that renders rows to tokens."""


def suffix(name: str) -> str:
    """`.jsonl` and friends; a path without one is taken as JSON lines."""
    dot = name.rsplit("/", 1)[-1].rfind(".")
    return name.rsplit("/", 1)[-1][dot:] if dot > 0 else ".jsonl"


def shared_data(*lengths: str) -> tuple[Row, ...]:
    """The data section, rendered once: rows into the data step's spec. The trainer then sees only token ids. `lengths` are
    native keys that get data.max_length too.
    """
    return (
        _rows_from("data.train", "data.train_split", "train"),
        _rows_from("data.eval", "data.eval_split", "eval"),
        couple(
            ("data.format", "data.template"),
            (f"{DATA}:format", f"{DATA}:template"),
            lambda form, text, _: (form, text or TEMPLATES[form]),
            lambda form, text, _: (form, None if text == TEMPLATES[form] else text),
            why="unset means alpaca for instruct rows and the model's chat template for chat rows",
        ),
        *(same(f"data.columns.{c}", f"{DATA}:columns.{c}") for c in ("instruction", "input", "output", "messages", "text")),
        same("data.system", f"{DATA}:system"),
        kept("data.rendering", "rows become tokens once, in the data step, the same for every trainer", "shared"),
        everywhere("data.max_length", f"{DATA}:max_length", *lengths),
        same("data.pack", f"{DATA}:pack"),
        same("data.train_on_prompt", f"{DATA}:train_on_prompt"),
        same("data.add_eos", f"{DATA}:add_eos"),
        same("data.drop_empty", f"{DATA}:drop_empty"),
        same("data.shuffle", f"{DATA}:shuffle"),
        same("train.epochs", f"{DATA}:epochs"),
        same("train.steps", f"{DATA}:steps"),
    )


TEMPLATES = {"instruct": "alpaca", "chat": "chat", "text": "plain"}
"""Template of a format when the recipe names none."""


def _rows_from(leaf: str, split: str, key: str) -> Row:
    """A source of rows: a file of the user's, linked into the job's folder, or a data set of the hub."""

    def to(name: str | None, part: str, _: Scene) -> Sequence[Any]:
        if name is None:
            return (None,)
        return (
            ({"hub": name, "split": part},) if is_hub(name) else ({"path": input_path(leaf, name), "name": name, "split": part},)
        )

    def back(spec: Flat | None, _: Scene) -> Sequence[Any]:
        if spec is None:
            return None, "validation"
        return spec.get("hub", spec.get("name")), spec["split"]

    return couple(
        (leaf, split), (f"{DATA}:{key}",), to, back, why="a file is brought to the host, a hub data set downloaded there"
    )


def input_path(leaf: str, name: str) -> str:
    """Where the job finds a data file of the user's, relative to its folder."""
    return f"inputs/{'train' if leaf == 'data.train' else 'val'}{suffix(name)}"


def everywhere(leaf: str, *keys: str) -> Row:
    """One value in several places of the plan."""
    return couple((leaf,), keys, lambda v, _: (v,) * len(keys), lambda *values: (values[0],), status="same")


def is_hub(name: str) -> bool:
    """A hub id rather than a file, by how it is written (see `parse.is_file`)."""
    return not name.startswith(("/", "./", "../", "~")) and not name.endswith((".jsonl", ".json", ".parquet", ".txt"))


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
        return f"cache/models/{name.replace('/', '--')}@{(revision or 'main').replace('/', '--')}"
    return "inputs/model"


def model(
    *, theirs: Sequence[str], to: Callable[[str, Scene], Sequence[Any]], shared: bool = True, absent: Sequence[str] = ()
) -> Row:
    """The model section: a spec for the model step, and what the trainer needs to find the result.

    Args:
        theirs: the trainer's keys.
        to: (model folder, scene) -> their values.
        shared: the data step needs the folder too, for its tokenizer.
        absent: of their keys, those not written for every model.
    """
    keys = (f"{DATA}:tokenizer",) if shared else ()

    def own(folder: str) -> Sequence[str]:
        return (folder,) * len(keys)

    def crossing(name: str, revision: str | None, init: str, shape: Flat | None, scene: Scene) -> Sequence[Any]:
        folder = model_folder(init, name, revision, shape)
        if init == "random" and shape is not None:
            spec: Flat = {
                "init": "random",
                "folder": folder,
                "seed": shape["seed"],
                "architecture": {k: v for k, v in shape.items() if k != "seed"},
            }
        elif is_hub(name):
            spec = {"init": "pretrained", "id": name, "revision": revision or "main", "folder": folder}
        else:
            spec = {"init": "folder", "folder": folder, "id": name}
        return spec, *own(folder), *to(folder, scene)

    def back(spec: Flat, *_: Any) -> Sequence[Any]:
        if spec["init"] == "random":
            return "random", None, "random", {**spec["architecture"], "seed": spec["seed"]}
        revision = spec.get("revision")
        return spec["id"], None if revision == "main" else revision, "pretrained", None

    return couple(
        ("model.id", "model.revision", "model.init", "model.architecture"),
        (f"{MODEL}:", *keys, *theirs),
        crossing,
        back,
        why="a folder in Hugging Face layout, made, downloaded or linked by the model step",
        absent=absent,
    )


def lora_idle() -> tuple[Row, ...]:
    """The LoRA leaves of a recipe that trains all weights."""
    why = "no adapter: all weights are trained"
    return (
        kept("method.lora.rank", why, 16),
        kept("method.lora.alpha", why, 32.0),
        kept("method.lora.dropout", why, 0.0),
        kept("method.lora.targets", why, ["q", "k", "v", "o", "gate", "up", "down"]),
    )


def identity() -> tuple[Row, ...]:
    """What belongs to the job, not to the trainer."""
    return (
        kept("version", "of the recipe's schema", 1),
        kept("name", "names the job"),
        kept("description", "for people"),
    )


def resources(devices: str, hosts: str = "") -> tuple[Row, ...]:
    """What the machine must have: matched by us when the job is placed. One device of one host in this version."""
    why = "several devices are not translated yet in this version"

    def one(leaf: str, key: str) -> Row:
        def to(count: int, _: Scene) -> Sequence[Any]:
            if count != 1:
                raise Lost(leaf, why, kind="todo", instead={key: 1} if key else {})
            return (1,) if key else ()

        return couple((leaf,), (key,) if key else (), to, (lambda v, _: (v,)) if key else (lambda _: (1,)), status="same")

    return (
        kept("resources.accelerator", "matched when the job is placed", "any"),
        one("resources.devices", devices),
        one("resources.hosts", hosts),
        kept("resources.memory_gib", "matched when the job is placed"),
        kept("secrets", "into the environment of the steps, by the runner's standard input", []),
        kept("native", "written over everything else; one line a key", {}),
    )
