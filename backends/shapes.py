"""The named couples: batch, schedule, data, model. Written once, used by several backends."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.plan import HEAD, PORT, RANK
from backends.report import Kind as Lack
from backends.rows import Flat, Lost, Row, Scene, cannot, couple, kept, same


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
        one, times = split(total, micro, scene)
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
        return total, split(total, micro, scene)[0], *(total for _ in also)

    return couple(
        ("train.batch.global", "train.batch.micro"),
        (size, micro_size, *also),
        to,
        lambda total, one, *_: (total, one),
        why=f"{micro_size} is per device; unset means the whole share of a device",
    )


def split(total: int, micro: int | None, scene: Scene) -> tuple[int, int]:
    """Sequences that a device takes at once, and how often per step."""
    if total % scene.devices:
        raise Lost("train.batch.global", f"{total} sequences cannot be split over {scene.devices} devices")
    share = total // scene.devices
    one = micro or share
    if share % one:
        raise Lost("train.batch.micro", f"{one} does not divide the {share} sequences of each device")
    return one, share // one


LAUNCH = "launch"
"""Rows write what becomes a command, not a config key, under `launch:`."""

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
        *(same(f"data.columns.{c}", f"{DATA}:columns.{c}") for c in COLUMNS),
        same("data.loss_roles", f"{DATA}:loss_roles"),
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


COLUMNS = ("instruction", "input", "output", "messages", "text", "prompt", "completion", "chosen", "rejected", "label")

TEMPLATES = {
    "instruct": "alpaca",
    "chat": "chat",
    "text": "plain",
    **dict.fromkeys(("completion", "preference", "rated", "prompts"), "plain"),
}
"""Template of a format when the recipe names none. Rows that are lists of messages always use the chat template."""


def _rows_from(leaf: str, split: str, key: str) -> Row:
    """A source of rows: files of the user's, linked into the job's folder, or data sets of the hub."""

    def to(wish: Wish, part: str, _: Scene) -> Sequence[Any]:
        specs = sources(leaf, wish, part)
        return (specs if isinstance(wish, list) else specs[0] if specs else None,)

    def back(spec: list[Flat] | Flat | None, _: Scene) -> Sequence[Any]:
        if spec is None:
            return None, "validation"
        if isinstance(spec, list):
            return [{"path": _source_name(s), "split": s["split"], "weight": s["weight"]} for s in spec], "train"
        return _source_name(spec), spec["split"]

    return couple(
        (leaf, split), (f"{DATA}:{key}",), to, back, why="a file is brought to the host, a hub data set downloaded there"
    )


Wish = str | list[Flat] | None
"""Value of `data.train` or `data.eval`."""


def sources(leaf: str, wish: Wish, split: str) -> list[Flat]:
    """Each source of a leaf: `{"hub", "split"}` or `{"path": where the job finds it, "name": as written, "split"}`, in a list
    also `weight`.
    """
    if wish is None:
        return []
    if isinstance(wish, str):
        return [{"hub": wish, "split": split} if is_hub(wish) else {"path": input_path(leaf, wish), "name": wish, "split": split}]
    return [
        {
            **({"hub": s["path"]} if is_hub(s["path"]) else {"path": input_path(leaf, s["path"], f"-{n}"), "name": s["path"]}),
            "split": s["split"],
            "weight": s["weight"],
        }
        for n, s in enumerate(wish)
    ]


def _source_name(spec: Flat) -> str:
    return str(spec.get("hub", spec.get("name")))


def input_path(leaf: str, name: str, number: str = "") -> str:
    """Where the job finds a data file of the user's, relative to its folder."""
    return f"inputs/{'train' if leaf == 'data.train' else 'val'}{number}{suffix(name)}"


def reward_files(rewards: Sequence[str]) -> dict[str, str]:
    """Where the job finds the files with reward functions -> the files as written. Each keeps no name of its own: what is
    imported is ours to name.
    """
    files = dict.fromkeys(each.rpartition(":")[0] for each in rewards)
    return {f"tune_rewards_{n}.py": file for n, file in enumerate(files)}


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


def idle(section: str, why: str, defaults: Flat) -> tuple[Row, ...]:
    """Leaves of a section that has no effect in this shape of recipe; the parser lets nobody write them then."""
    return tuple(kept(f"{section}.{leaf}", why, value) for leaf, value in defaults.items())


def preference_idle() -> tuple[Row, ...]:
    """method.preference, for other kinds."""
    usual = {"beta": None, "label_smoothing": 0.0, "margin": 0.5, "desirable": 1.0, "undesirable": 1.0}
    return idle("method.preference", "not learning from preferences", usual)


def grpo_idle() -> tuple[Row, ...]:
    """method.grpo, for other kinds."""
    usual = {"rewards": [], "generations": 8, "max_new_tokens": 256, "temperature": 1.0, "kl": 0.0, "clip": 0.2}
    return idle("method.grpo", "no answers of its own are scored", usual)


def distill_idle() -> tuple[Row, ...]:
    """method.distill, for other kinds."""
    return idle("method.distill", "no teacher", {"teacher": None, "ratio": 0.5})


def no_qat(kind: Lack, why: str, see: str = "") -> tuple[Row, ...]:
    """method.qat, of a trainer that has none for this shape."""
    return (
        cannot("method.qat.scheme", why, unless="none", kind=kind, see=see),
        kept("method.qat.group", "only with a scheme", 32),
    )


def beta(kind: str, value: float | None) -> float:
    """method.preference.beta, with what null means."""
    return (2.0 if kind == "simpo" else 0.1) if value is None else value


def preferring(*matter: Row) -> tuple[Row, ...]:
    """method.preference for a kind that learns from preferences: rows of what matters to it; the other leaves have no effect."""
    table = {row.ours[0]: row for row in matter}
    return tuple(table.get(row.ours[0], row) for row in preference_idle())


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


def resume(cannot: Callable[[Scene], tuple[Lack, str, str] | None]) -> Row:
    """checkpoint.resume. What goes on is a retry, whose plan differs by a few keys (backends/resuming.py).

    Args:
        cannot: what is in the way of that on a machine, if anything: kind of loss, reason, upstream's word.
    """

    def to(wanted: bool, scene: Scene) -> Sequence[Any]:
        apart: tuple[Lack, str, str] = ("todo", "the checkpoint lies on the first host only, and the others need it too", "")
        if wanted and (lack := cannot(scene) or (apart if scene.hosts > 1 else None)):
            raise Lost("checkpoint.resume", lack[1], kind=lack[0], see=lack[2])
        return ()

    return Row(
        ("checkpoint.resume",), (), to, lambda _: (False,), "same", "a retry is told the checkpoint, which it finds as resume"
    )


RETRYING: Flat = {"lost": 3, "hardware": 1, "hang": 1, "out_of_memory": 0, "unknown": 0, "hang_minutes": 60.0}
"""Leaves of the section retry, which whoever runs the job reads, and their defaults."""


def resources(*between: Row) -> tuple[Row, ...]:
    """What the machine must have: matched by us when the job is placed. `between` are the trainer's rows for devices, hosts,
    strategy and tensor.
    """
    return (
        kept("resources.accelerator", "matched when the job is placed", "any"),
        *between,
        kept("resources.memory_gib", "matched when the job is placed"),
        *idle("retry", "read by whoever runs the job", RETRYING),
        kept("secrets", "into the environment of the steps, by the runner's standard input", []),
        kept("native", "written over everything else; one line a key", {}),
    )


def one_device(see: str, why: str = "several devices are not translated yet", kind: Lack = "todo") -> tuple[Row, ...]:
    """For shapes of recipe that run on one device only."""
    return (
        cannot("resources.devices", why, unless=1, kind=kind, see=see),
        cannot("resources.hosts", why, unless=1, kind=kind, see=see),
        kept("resources.strategy", "one device shares with nobody", "auto"),
        cannot("resources.tensor", why, unless=1, kind=kind, see=see),
    )


def torchrun(python: str, devices: int, hosts: int) -> tuple[str, ...]:
    """What starts one process per device on each host, before `-m MODULE` or a script. One device needs no launcher.

    Static rendezvous, so that host 0 has rank 0 and what rank 0 writes lies there.
    """
    if devices * hosts == 1:
        return (python,)
    where = (
        ("--nnodes", str(hosts), "--node-rank", RANK, "--master-addr", HEAD, "--master-port", PORT)
        if hosts > 1
        else ("--standalone",)
    )
    return (python, "-m", "torch.distributed.run", "--nproc-per-node", str(devices), *where)


def no_trackers(kind: Lack, why: str, see: str = "") -> tuple[Row, ...]:
    """The trackers, of a trainer or shape without them."""
    return (
        cannot("log.trackers", why, unless=[], kind=kind, see=see),
        kept("log.project", "only with trackers"),
        kept("log.run", "only with trackers"),
        kept("log.mlflow_uri", "only with trackers"),
    )


def kinds(*has: str, lacks: Mapping[str, tuple[Lack, str, str]], why: str = "") -> Row:
    """method.kind, where the rest of the table says how each kind crosses.

    Args:
        has: kinds that this trainer has.
        lacks: the other kinds: what is in the way, the reason, upstream's word on it.
        why: said in the report.
    """

    def to(kind: str, _: Scene) -> Sequence[Any]:
        if kind not in has:
            lack, reason, see = lacks[kind]
            raise Lost("method.kind", reason, kind=lack, see=see, instead={f"{LAUNCH}:kind": "sft"})
        return (kind,)

    return couple(("method.kind",), (f"{LAUNCH}:kind",), to, lambda kind, _: (kind,), status="same", why=why)
