"""What a trainer does with each leaf, found out by asking its rows: each leaf with its default and several other values, in
every shape of recipe. Pure, and nothing is written down twice: the tables are the only source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from backends.backend import Backend
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import Context, Flat, Row, Variant, translate, variant_of
from backends.models import MODELS
from backends.recipe.schema import FORMATS, PREFERENCE, Architecture, Kind, Recipe, Section, leaves
from backends.report import Kind as Lack
from backends.report import Line, Status

KINDS: tuple[str, ...] = get_args(Kind)
ADAPTERS = ("none", "lora", "qlora", "dora")
SHAPES = tuple(Variant(kind, adapter, native) for kind in KINDS for adapter in ADAPTERS for native in (False, True))


class Loss(NamedTuple):
    """A value that does not cross."""

    value: Any
    kind: Lack
    why: str
    see: str


class Spelling(NamedTuple):
    """What becomes of a leaf in one shape of recipe."""

    keys: tuple[str, ...]
    """The trainer's; none where the leaf crosses without one, or not at all."""
    status: Status
    """Of the values that cross; `lost` when none does."""
    why: str
    see: str
    crosses: bool
    """Some value crosses that asks for something."""
    losses: tuple[Loss, ...]


def spelling(backend: Backend, leaf: str, variant: Variant) -> Spelling:
    """Ask the row that reads a leaf, with its default and every other value worth asking for."""
    row = _row(backend, leaf, variant)
    crossed: list[tuple[Any, Line]] = []
    losses: list[Loss] = []
    for wish in ({}, *_wishes(leaf, variant)):
        flat = {**_base(variant), **wish}
        line = _line(backend, leaf, flat, wish)
        if line.status != "lost":
            crossed.append((flat[leaf], line))
        elif all(loss.value != flat[leaf] for loss in losses):
            losses.append(Loss(flat[leaf], line.kind, line.why, line.see))
    nothing = (None, False, [], "auto", "none") if leaf in _choices_of_words() else (_base(variant)[leaf],)
    asked = any(value not in nothing for value, _ in crossed)
    status: Status = crossed[-1][1].status if crossed else "lost"
    return Spelling(_theirs(row), status, row.why, row.see, asked, tuple(losses))


def _theirs(row: Row) -> tuple[str, ...]:
    """The trainer's own keys; where there are none, those of our steps' files. What becomes a command line has no key."""
    keys = [key for key in row.theirs if not key.startswith(f"{LAUNCH}:")]
    return tuple(key for key in keys if ":" not in key) or tuple(keys)


def _choices_of_words() -> tuple[str, ...]:
    """Leaves that have a vocabulary."""
    return tuple(leaf for leaf, words in _choices().items() if words)


def _row(backend: Backend, leaf: str, variant: Variant) -> Row:
    return next(row for row in backend.table(variant) if leaf in row.ours)


def _line(backend: Backend, leaf: str, flat: Flat, wish: Mapping[str, Any]) -> Line:
    """What is said of a leaf; where another leaf that the wish needs is lost, that loss."""
    rows = {id(row): row for row in (_row(backend, name, variant_of(flat)) for name in (leaf, *wish))}
    lines = translate(rows.values(), flat, _scene(backend, flat), written=flat).lines
    own = next(line for line in lines if line.leaf == leaf)
    others = (line for line in lines if line.leaf in wish and line.status == "lost")
    return own if own.status == "lost" else next(others, own)


def _scene(backend: Backend, flat: Flat) -> Context:
    """A machine as the recipe asks for, with a GPU where the trainer runs on one."""
    entry = MODELS.get(flat["model.id"])
    hosts = flat["resources.hosts"]
    return Context(
        "cuda" if "cuda" in backend.accelerators else backend.accelerators[0],
        flat["resources.devices"] * hosts,
        hosts,
        entry._asdict() if entry and flat["model.init"] == "pretrained" else {},
        flat["train.steps"],
        flat["data.eval"] is not None,
        variant_of(flat),
    )


@cache
def has(backend: Backend, variant: Variant) -> Loss | None:
    """What keeps a trainer from a method and a rendering; None when it has them."""
    flat = _base(variant)
    lines = translate(backend.table(variant), flat, _scene(backend, flat), written=flat).lines
    for line in lines:
        if line.leaf in ("method.kind", "method.adapter", "data.rendering", "data.format") and line.status == "lost":
            return Loss(flat[line.leaf], line.kind, line.why, line.see)
    return None


def matters(leaf: str, variant: Variant) -> bool:
    """Whether a recipe of this shape may hold the leaf: the parser refuses what has no effect."""
    section, _, name = leaf.rpartition(".")
    formats = FORMATS[variant.kind]
    if section == "method.lora":
        return variant.lora
    if section == "method.preference":
        return variant.kind in _PREFERENCE.get(name, PREFERENCE)
    if section in ("method.grpo", "method.distill"):
        return variant.kind == section.rpartition(".")[2]
    if section == "data.columns":
        return any(name in _COLUMNS[form] for form in formats)
    if name == "loss_roles":
        return "chat" in formats
    return name not in ("pack", "train_on_prompt") or formats.isdisjoint({"preference", "rated", "prompts"})


_PREFERENCE = {"label_smoothing": {"dpo"}, "margin": {"simpo"}, "desirable": {"kto"}, "undesirable": {"kto"}}
_COLUMNS = {
    "instruct": ("instruction", "input", "output"),
    "chat": ("messages",),
    "text": ("text",),
    "completion": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "rated": ("prompt", "completion", "label"),
    "prompts": ("prompt",),
}


@cache
def _base(variant: Variant) -> Flat:
    """The least that a recipe of this shape says."""
    least: dict[str, Any] = {
        "version": 1,
        "name": "x",
        "model": {"id": "meta-llama/Llama-3.1-8B"},
        "method": {"kind": variant.kind, "adapter": variant.adapter, **_NEEDS.get(variant.kind, {})},
        "data": {"train": "rows.jsonl", "format": _FORMAT.get(variant.kind, "preference")},
        "train": {"steps": 12, "batch": {"global": 8}},
        "optim": {"lr": 1e-4, "warmup_steps": 2},
    }
    least["data"]["rendering"] = "native" if variant.native else "shared"
    return Recipe.model_validate(least).flat()


_FORMAT = {"sft": "instruct", "distill": "instruct", "pretrain": "text", "kto": "rated", "grpo": "prompts"}
_NEEDS: Mapping[str, dict[str, Any]] = {
    "grpo": {"grpo": {"rewards": ["./rewards.py:score"]}},
    "distill": {"distill": {"teacher": "meta-llama/Llama-3.2-3B"}},
}


def _wishes(leaf: str, variant: Variant) -> tuple[Flat, ...]:
    """Values besides the default, each with the leaves that it needs."""
    if leaf == "data.format":
        return tuple({leaf: form} for form in sorted(FORMATS[variant.kind]))
    if leaf in ("method.kind", "method.adapter"):  # they are the shape
        return ()
    if leaf in _OTHER:
        return tuple(each if isinstance(each, dict) and leaf in each else {leaf: each} for each in _OTHER[leaf])
    return tuple({leaf: each} for each in _choices()[leaf])


@cache
def _choices() -> Mapping[str, tuple[Any, ...]]:
    """All words of the leaves that have a vocabulary."""
    out = {}
    for leaf in leaves():
        section: type[Section] = Recipe
        for part in leaf.split("."):
            info = next(info for name, info in section.model_fields.items() if part == (info.alias or name))
            if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
                section = info.annotation
        out[leaf] = tuple(word for kind in (info.annotation, *get_args(info.annotation)) for word in _words(kind))
    return out


def _words(kind: Any) -> tuple[Any, ...]:
    if kind is bool:
        return (False, True)
    return get_args(kind) if get_origin(kind) is Literal else ()


_RANDOM = Architecture(hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2).model_dump(by_alias=True)
_SEVERAL = {"resources.devices": 2}
_EVALUATED = {"data.eval": "val.jsonl"}
_TRACKED = {"log.trackers": ["wandb"]}

_OTHER: Mapping[str, tuple[Any, ...]] = {
    "version": (1,),
    "name": ("another",),
    "description": ("for people",),
    "model.id": ("Qwen/Qwen2.5-0.5B", "./model"),
    "model.revision": ("v1",),
    "model.init": ({"model.init": "random", "model.architecture": _RANDOM},),
    "model.architecture": ({"model.init": "random", "model.architecture": _RANDOM},),
    "method.lora.rank": (7,),
    "method.lora.alpha": (7.0, 7.5),
    "method.lora.dropout": (0.1,),
    "method.lora.targets": (["q", "v"], ["q", "k", "v", "o"], ["gate"], ["q", "head"]),
    "method.preference.beta": (0.3,),
    "method.preference.label_smoothing": (0.1,),
    "method.preference.margin": (0.7,),
    "method.preference.desirable": (1.5,),
    "method.preference.undesirable": (1.5,),
    "method.grpo.rewards": (["./rewards.py:one", "./rewards.py:two"],),
    "method.grpo.generations": (4,),
    "method.grpo.max_new_tokens": (64,),
    "method.grpo.temperature": (0.7,),
    "method.grpo.kl": (0.1,),
    "method.grpo.clip": (0.1,),
    "method.distill.teacher": ("./teacher",),
    "method.distill.ratio": (0.3,),
    "method.qat.group": ({"method.qat.scheme": "int8-int4", "method.qat.group": 64},),
    "data.train": ("rows.parquet", "org/name", [{"path": "a.jsonl", "split": "train", "weight": 1.0}] * 2),
    "data.train_split": ({"data.train": "org/name", "data.train_split": "other"},),
    "data.eval": ("val.jsonl",),
    "data.eval_split": ({"data.eval": "org/name", "data.eval_split": "test"},),
    **{f"data.columns.{name}": ("another",) for name in {each for names in _COLUMNS.values() for each in names}},
    "data.template": ("plain", "chat"),
    "data.loss_roles": ({"data.format": "chat", "data.loss_roles": ["assistant", "user"]},),
    "data.system": ("Be brief.",),
    "data.max_length": (512,),
    "train.epochs": ({"train.epochs": 3, "train.steps": None},),
    "train.steps": (24,),
    "train.batch.global": (16,),
    "train.batch.micro": (2,),
    "train.seed": (7,),
    "train.grad_clip": (1.0,),
    "train.offload": (True, {"train.offload": True, "train.activation_checkpointing": True}),
    "optim.lr": (3e-4,),
    "optim.betas": ([0.8, 0.99],),
    "optim.eps": (1e-6,),
    "optim.weight_decay": (0.1,),
    "optim.warmup_steps": (0, 3),
    "optim.warmup_share": ({"optim.warmup_share": 0.25, "optim.warmup_steps": None},),
    "optim.min_lr": (1e-5,),
    "eval.every": ({"eval.every": 4, **_EVALUATED},),
    "eval.batches": ({"eval.batches": 4, **_EVALUATED},),
    "checkpoint.every": (4, 5),
    "checkpoint.keep": ({"checkpoint.keep": 2, "checkpoint.every": 4},),
    "checkpoint.resume": ({"checkpoint.resume": True, "checkpoint.every": 4},),
    "log.every": (4,),
    "log.trackers": (["tensorboard"], ["wandb"], ["mlflow"]),
    "log.project": ({"log.project": "another", **_TRACKED},),
    "log.run": ({"log.run": "another", **_TRACKED},),
    "log.mlflow_uri": ({"log.mlflow_uri": "http://localhost:5000", "log.trackers": ["mlflow"]},),
    "resources.devices": (2,),
    "resources.hosts": (2,),
    "resources.strategy": tuple({"resources.strategy": each, **_SEVERAL} for each in ("ddp", "fsdp", "zero1", "zero2", "zero3")),
    "resources.tensor": ({"resources.tensor": 2, **_SEVERAL},),
    "resources.memory_gib": (40.0,),
    **{f"retry.{name}": (2,) for name in ("lost", "hardware", "hang", "out_of_memory", "unknown", "hang_minutes")},
    "secrets": (["NAME"],),
    "native": ({},),
}
"""Leaf -> values besides the default; a mapping that holds the leaf is a value with what it needs beside it."""
