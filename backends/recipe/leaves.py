"""Every fact of a leaf and of a section, once. What the schema says itself (default, meaning, choices, type) is read from there.

A law (tests/laws/test_leaves.py) names what is missing here for a leaf of the schema. Until it is given, such a leaf decides what is
learnt, always has an effect, and is asked for with its choices alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from backends.recipe.facts import Also, Leaf, Needs, never_with, only_from_hub, only_given, only_with
from backends.recipe.flat import Flat, defaults

PREFERENCE = ("dpo", "ipo", "orpo", "simpo", "kto")
"""Kinds that method.preference belongs to."""

_PAIRS = ("preference", "rated", "prompts")
FORMATS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("sft", "distill"), ("instruct", "chat", "text", "completion")),
    "pretrain": ("text",),
    **dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "reward"), ("preference",)),
    "kto": ("rated",),
    "grpo": ("prompts",),
}
"""Kind -> formats of data that it can learn from."""

CHAT_TEMPLATES = ("chatml", "gemma", "llama-3", "mistral", "plain", "zephyr")
"""Names of the shipped chat templates."""

TEMPLATES = ("alpaca", "plain", "chat")
"""Names that data.template may hold besides a text."""

_TEMPLATE = {"instruct": "alpaca", "chat": "chat"}
_BETA = {"simpo": 2.0}


REVISION = "main"
"""What null stands for in model.revision."""

PROJECT = "tunesmith"
"""What null stands for in log.project."""


def template_for_null(form: str) -> str:
    """What null stands for in data.template. Rows that are lists of messages always use the chat template."""
    return _TEMPLATE.get(form, "plain")


def beta_for_null(kind: str) -> float:
    """What null stands for in method.preference.beta."""
    return _BETA.get(kind, 0.1)


def _whole_share(recipe: Flat) -> int:
    """All sequences of a device."""
    total, devices, hosts = (int(recipe[f]) for f in ("train.batch.global", "resources.devices", "resources.hosts"))
    return max(1, total // (devices * hosts))


def _column(*formats: str) -> Leaf:
    return Leaf("result", ("another",), needs=(only_with("data.format", *formats, refused=False),))


_SEVERAL = Needs(
    ("resources.devices", "resources.hosts"), lambda devices, hosts: devices * hosts > 1, "has no effect with one device"
)
_EVALUATES = Needs(
    ("data.eval", "data.eval_share"),
    lambda rows, share: bool(rows or share),
    "has no effect without data.eval or data.eval_share",
)
_ON_THE_WAY = Needs(
    ("eval.every", "eval.every_share"),
    lambda steps, share: bool(steps or share),
    "has no effect without eval.every or eval.every_share",
)
_KNOWN_TO_TEACHER = Needs(
    ("method.kind",),
    lambda kind: kind != "distill",
    "should not be there with method.kind: {}: the teacher has not these tokens",
    hint="train them into both models first, or leave them out",
)
_RANDOM = {
    **{"family": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 4, "kv_heads": 2},
    **{"head_dim": None, "max_length": 2048, "rope_theta": 10000.0, "norm_eps": 1e-5, "tied": False, "seed": 0},
}

_EVALUATE = {
    **{
        "tasks": ["wmdp_bio"],
        "engine": "hf",
        "shots": 0,
        "limit": None,
        "batch": 8,
        "seed": 1234,
        "chat": False,
        "model": "merged",
    },
    **{"dtype": "auto", "baseline": False, "gates": ["wmdp_bio.acc <= 0.30"]},
}
_SERVE = {
    **{"engine": "auto", "port": None, "expose": False, "key_name": None, "adapters": True, "replicas": 1},
    **{"max_length": None, "gguf": "auto", "prefix_cache": True, "check": 0, "dtype": "auto"},
}
_PUSH = {"repo": "me/tiny", "what": "model", "private": True, "token_name": "HF_TOKEN", "branch": None}

_THROUGH_TEMPLATE = Needs(
    ("data.format", "data.template"),
    lambda form, template: form not in ("instruct", "text", "completion") or (form == "instruct" and template == "chat"),
    "has no effect unless rows go through a chat template (data.template: chat)",
)

SECTIONS: Mapping[str, tuple[Needs, ...]] = {
    "method": (),
    "method.lora": (
        only_with(
            "method.adapter",
            "lora",
            "qlora",
            "dora",
            hint="set method.adapter: lora, or leave the section out: --set method.lora=null",
        ),
    ),
    "method.preference": (only_with("method.kind", *PREFERENCE),),
    "method.grpo": (only_with("method.kind", "grpo"),),
    "method.distill": (only_with("method.kind", "distill"),),
    "method.qat": (),
    "model": (),
    "data": (),
    "data.columns": (),
    "optim": (),
    "train": (),
    "train.batch": (),
    "resources": (),
    "eval": (),
    "checkpoint": (),
    "log": (),
    "retry": (),
    "retry.oom": (),
    "after": (),
}
"""All sections, with what each needs; in the order in which differences are told: by how much they change what is learnt."""

LEAVES: Mapping[str, Leaf] = {
    "version": Leaf("label", (1,)),
    "name": Leaf("label", ("another",)),
    "description": Leaf("label", ("for people",), "nothing"),
    "model.id": Leaf("result", ("Qwen/Qwen2.5-0.5B", "./model")),
    "model.revision": Leaf("result", ("v1",), lambda _: REVISION, (only_from_hub("model.id"),)),
    "model.init": Leaf("result", ("random",)),
    "model.architecture": Leaf("result", (_RANDOM,), "nothing", (only_with("model.init", "random"),), required=True),
    "model.tokens": Leaf("result", (["<call>", "</call>"],), needs=(_KNOWN_TO_TEACHER,)),
    "model.special_tokens": Leaf("result", (["<|call|>"],), needs=(_KNOWN_TO_TEACHER,)),
    "method.kind": Leaf("result"),
    "method.adapter": Leaf("result"),
    "method.lora.rank": Leaf("result", (7,)),
    "method.lora.alpha": Leaf("result", (7.0, 7.5)),
    "method.lora.rank_stabilized": Leaf("result", (True,)),
    "method.lora.dropout": Leaf("result", (0.1,)),
    "method.lora.targets": Leaf("result", (["q", "v"], ["q", "k", "v", "o"], ["gate"], ["q", "head"]), unordered=True),
    "method.lora.train_fully": Leaf(
        "result", (["embeddings"], ["head"], ["norms"], ["embeddings", "head", "norms"]), unordered=True
    ),
    "method.preference.beta": Leaf("result", (0.3,), lambda recipe: beta_for_null(recipe["method.kind"])),
    "method.preference.label_smoothing": Leaf("result", (0.1,), needs=(only_with("method.kind", "dpo"),)),
    "method.preference.margin": Leaf("result", (0.7,), needs=(only_with("method.kind", "simpo"),)),
    "method.preference.desirable": Leaf("result", (1.5,), needs=(only_with("method.kind", "kto"),)),
    "method.preference.undesirable": Leaf("result", (1.5,), needs=(only_with("method.kind", "kto"),)),
    "method.grpo.rewards": Leaf("result", (["./rewards.py:score"], ["./rewards.py:one", "./rewards.py:two"]), required=True),
    "method.grpo.generations": Leaf("result", (4,)),
    "method.grpo.max_new_tokens": Leaf("result", (64,)),
    "method.grpo.temperature": Leaf("result", (0.7,)),
    "method.grpo.kl": Leaf("result", (0.1,)),
    "method.grpo.clip": Leaf("result", (0.1,)),
    "method.distill.teacher": Leaf("result", ("meta-llama/Llama-3.2-3B", "./teacher"), "nothing", required=True),
    "method.distill.ratio": Leaf("result", (0.3,)),
    "method.qat.scheme": Leaf("result"),
    "method.qat.group": Leaf("result", (64,), needs=(never_with("method.qat.scheme", "none"),)),
    "data.train": Leaf("result", ("rows.parquet", "org/name", [{"path": "a.jsonl", "split": "train", "weight": 1.0}] * 2)),
    "data.train_split": Leaf(
        "result",
        ("other",),
        needs=(
            Needs(
                ("data.train",),
                lambda train: not isinstance(train, list),
                "has no effect with a list in data.train: each has its own split",
            ),
            only_from_hub("data.train"),
        ),
    ),
    "data.eval": Leaf("run", ("val.jsonl", "org/name"), "nothing"),
    "data.eval_split": Leaf("run", ("test",), needs=(only_from_hub("data.eval"),)),
    "data.eval_share": Leaf("result", (0.1,), "nothing", (only_with("data.eval", None),)),
    "data.format": Leaf("result"),
    "data.columns.instruction": _column("instruct"),
    "data.columns.input": _column("instruct"),
    "data.columns.output": _column("instruct"),
    "data.columns.messages": _column("chat"),
    "data.columns.text": _column("text"),
    "data.columns.prompt": _column("completion", "preference", "rated", "prompts"),
    "data.columns.completion": _column("completion", "rated"),
    "data.columns.chosen": _column("preference"),
    "data.columns.rejected": _column("preference"),
    "data.columns.label": _column("rated"),
    "data.template": Leaf(
        "result",
        ("plain", "chat"),
        lambda recipe: template_for_null(recipe["data.format"]),
        (never_with("data.format", "text"),),
    ),
    "data.loss_roles": Leaf(
        "result",
        (["assistant", "user"],),
        needs=(only_with("data.format", "chat"), never_with("data.train_on_prompt", True)),
        unordered=True,
    ),
    "data.system": Leaf("result", ("Be brief.",), "nothing", (never_with("data.format", "text"),)),
    "data.rendering": Leaf("result"),
    "data.max_length": Leaf("result", (512,)),
    "data.pack": Leaf("result", needs=(never_with("data.format", *_PAIRS),)),
    "data.train_on_prompt": Leaf("result", needs=(never_with("data.format", *_PAIRS),)),
    "data.add_eos": Leaf("result"),
    "data.drop_empty": Leaf("result"),
    "data.chat_template": Leaf("result", (Also("chatml", {"data.template": "chat"}),), "nothing", (_THROUGH_TEMPLATE,)),
    "data.ignore": Leaf("result", (["tools"],), unordered=True),
    "data.require_stop": Leaf("job"),
    "data.shuffle": Leaf("result"),
    "train.epochs": Leaf("result", (3,), "nothing", (only_with("train.steps", None, refused=False),)),
    "train.steps": Leaf("result", (24,), "nothing", (only_with("train.epochs", None, refused=False),)),
    "train.batch.global": Leaf("result", (16,)),
    "train.batch.micro": Leaf("run", (2,), _whole_share),
    "train.precision": Leaf("result"),
    "train.seed": Leaf("result", (7,)),
    "train.grad_clip": Leaf("result", (1.0,), "nothing"),
    "train.neftune_alpha": Leaf("result", (5.0,), "nothing", (only_with("method.kind", "sft"),)),
    "train.activation_checkpointing": Leaf("run"),
    "train.offload": Leaf("run", (True, Also(True, {"train.activation_checkpointing": True}))),
    "train.attention": Leaf("run"),
    "train.compile": Leaf("run", (), "choose"),
    "optim.name": Leaf("result"),
    "optim.fused": Leaf("run", (), "choose"),
    "optim.lr": Leaf("result", (3e-4,)),
    "optim.betas": Leaf("result", ([0.8, 0.99],)),
    "optim.eps": Leaf("result", (1e-6,)),
    "optim.weight_decay": Leaf("result", (0.1,)),
    "optim.decay_on": Leaf("result", needs=(never_with("optim.weight_decay", 0.0, refused=False),)),
    "optim.schedule": Leaf("result"),
    "optim.warmup_steps": Leaf("result", (0, 3), "nothing"),
    "optim.warmup_share": Leaf("result", (0.25,), "nothing", (only_with("optim.warmup_steps", None),)),
    "optim.min_lr": Leaf("result", (1e-5,), needs=(never_with("optim.schedule", "constant", refused=False),)),
    "eval.every": Leaf("run", (4,), "nothing", (_EVALUATES,)),
    "eval.every_share": Leaf("run", (0.25,), "nothing", (_EVALUATES, only_with("eval.every", None))),
    "eval.batches": Leaf("run", (4,), "nothing", (_EVALUATES,)),
    "eval.patience": Leaf("result", (3,), "nothing", (_EVALUATES, _ON_THE_WAY)),
    "eval.on_start": Leaf("run", needs=(_EVALUATES,)),
    "checkpoint.every": Leaf("run", (4, 5), "nothing"),
    "checkpoint.keep": Leaf("run", (2,), "nothing", (only_given("checkpoint.every", refused=False),)),
    "checkpoint.resume": Leaf(
        "run",
        needs=(
            Needs(("checkpoint.every",), bool, "has no effect without checkpoint.every: there is nothing else to go on from"),
        ),
    ),
    "log.every": Leaf("run", (4,)),
    "log.trackers": Leaf("run", (["wandb"], ["tensorboard"], ["mlflow"], ["trackio"]), unordered=True),
    "log.project": Leaf("run", ("another",), lambda _: PROJECT, (only_given("log.trackers"),)),
    "log.run": Leaf("run", ("another",), "choose", (only_given("log.trackers"),)),
    "log.mlflow_uri": Leaf(
        "run",
        ("http://localhost:5000",),
        "nothing",
        (Needs(("log.trackers",), lambda services: "mlflow" in services, "has no effect without mlflow in log.trackers"),),
    ),
    "log.wandb_mode": Leaf(
        "run",
        ("offline",),
        needs=(Needs(("log.trackers",), lambda services: "wandb" in services, "has no effect without wandb in log.trackers"),),
    ),
    "resources.accelerator": Leaf("run"),
    "resources.devices": Leaf("run", (2,)),
    "resources.hosts": Leaf("run", (2,)),
    "resources.strategy": Leaf("run", ("ddp", "fsdp", "zero1", "zero2", "zero3"), needs=(_SEVERAL,)),
    "resources.tensor": Leaf("run", (2,), needs=(_SEVERAL._replace(refused=False),)),
    "resources.memory_gib": Leaf("run", (40.0,), "nothing"),
    "retry.lost": Leaf("job", (2,)),
    "retry.hardware": Leaf("job", (2,)),
    "retry.hang": Leaf("job", (2,)),
    "retry.out_of_memory": Leaf("job", (2,)),
    "retry.oom.micro": Leaf("job"),
    "retry.unknown": Leaf("job", (2,)),
    "retry.hang_minutes": Leaf("job", (2.0,), "nothing"),
    "retry.idle_minutes": Leaf("job", (20.0,), "nothing"),
    "retry.diverged_above": Leaf("job", (8.0,), "nothing"),
    "retry.diverged_steps": Leaf("job", (5,), needs=(only_given("retry.diverged_above"),)),
    "after.evaluate": Leaf("job", (_EVALUATE,), "nothing"),
    "after.export": Leaf("job", ({"formats": ["adapter"], "dtype": "auto", "prompts": 4, "tokens": 16},), "nothing"),
    "after.push": Leaf("job", (_PUSH,), "nothing"),
    "after.serve": Leaf("job", (_SERVE,), "nothing"),
    "secrets": Leaf("label", (["NAME"],), unordered=True),
    "release": Leaf("run", ({},)),
    "native": Leaf("label", ({},)),
}
"""All leaves, in the schema's order."""

_UNKNOWN = Leaf("result")


def facts(leaf: str) -> Leaf:
    """What this module says of a leaf."""
    return LEAVES.get(leaf, _UNKNOWN)


def decides(leaf: str) -> bool:
    """Whether it decides what is learnt."""
    return facts(leaf).effect == "result"


def rank(leaf: str) -> tuple[int, int]:
    """Where a leaf stands when differences are told: by its section, then as in the schema."""
    order, section = tuple(SECTIONS), leaf.partition(".")[0]
    places = {each: place for place, each in enumerate(defaults())}
    return order.index(section) if section in order else len(order), places.get(leaf, len(places))
