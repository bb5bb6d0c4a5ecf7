"""What is compared: a method, an adapter and a trainer, and a recipe in which no numeric leaf that the trainer claims has its default."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.flat import nest
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

STEPS = 5
RANK, ALPHA = 4, 8.0
FORMATS = {"kto": "rated", "pretrain": "text", "grpo": "prompts"}
FORMATS |= dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "reward"), "preference")
OPTIM = {
    "optim.lr": 1e-3,
    "optim.min_lr": 2e-4,
    "optim.betas": [0.8, 0.93],
    "optim.eps": 1e-3,
    "optim.weight_decay": 0.1,
    "optim.decay_on": "matrices",
    "optim.schedule": "linear",
    "optim.warmup_steps": 1,
    "train.grad_clip": 1.0,
    "train.neftune_alpha": 5.0,
}
"""With an epsilon that is small Adam would not see the size of a gradient, and clipping would have no effect."""
SETTINGS = {
    "dpo": {"beta": 0.3, "label_smoothing": 0.2},
    "ipo": {"beta": 0.3},
    "orpo": {"beta": 0.3},
    "simpo": {"beta": 1.5, "margin": 0.8},
    "kto": {"beta": 0.3, "desirable": 1.3, "undesirable": 0.7},
    "distill": {"ratio": 0.3},
    "grpo": {"generations": 4, "max_new_tokens": 8, "temperature": 0.7, "kl": 0.1, "clip": 0.1},
}
SECTIONS = {"distill": "distill", "grpo": "grpo"}
UP = {
    "optim.lr": ("lr", 2e-3),
    "optim.min_lr": ("schedule", {"min_ratio": 0.5}),
    "optim.betas": ("betas", [0.9, 0.95]),
    "optim.eps": ("eps", 1e-2),
    "optim.weight_decay": ("weight_decay", 1.0),
    "optim.decay_on": ("decay_on", "all"),
    "optim.schedule": ("schedule", {"kind": "constant"}),
    "optim.warmup_steps": ("schedule", {"warmup": 2}),
    "train.grad_clip": ("clip", 2.0),
    "train.neftune_alpha": ("neftune", {"alpha": 10.0}),
    "method.lora.alpha": ("adapter", {"alpha": 16.0}),
}
"""Leaf -> a key of truth.json, and another value of it."""


@dataclass(frozen=True)
class Cell:
    """A method in a trainer."""

    trainer: str
    kind: str
    adapter: str = "none"
    micro: int = 2
    devices: int = 1
    whole: tuple[str, ...] = ()
    """method.lora.train_fully."""
    tied: bool = False
    """Input and output embedding are one matrix."""
    untold: tuple[str, ...] = ()
    """Metrics that the trainer does not report."""
    unlike: dict = field(default_factory=dict)
    """What may differ by more: metric -> how far it may be from the truth."""

    def __str__(self):
        more = [*self.whole, *(["tied"] if self.tied else [])]
        return "-".join([self.trainer, self.kind, self.adapter, f"micro{self.micro}", f"{self.devices}process", *more])

    @property
    def settings(self):
        """Leaves of the method's own section."""
        return SETTINGS.get(self.kind, {})

    @property
    def section(self):
        """Where these stand."""
        return f"method.{SECTIONS.get(self.kind, 'preference')}"


MEANS = {"kl": 1e-3, "grad_norm": 1e-4}
"""TRL reports the divergence of grpo as a mean of its micro-batches' means; the loss has that over the step's tokens. The norm of the first
gradient was 5e-5 off, and nobody knows why yet.
"""
MIDDLES = {"loss": 1e-3, "grad_norm": 5e-3, "eval_loss": 1e-3, "checkpoint": 2e-2, "adapter": 2e-3}
MIDDLES |= dict.fromkeys(("rewards/chosen", "rewards/rejected", "rewards/margins"), 5e-3)
"""bitsandbytes rounds a scale that lies within 1e-5 of the middle of two levels to either, one in a thousand: docs/methods.md."""
ROUNDING = {"grad_norm": 3e-5}
"""What float32 alone makes of DPO over the wider model that NF4 wants. With weights that are off by at most half a unit in the last place
plain PyTorch's own norms spread by 4.5e-6 (standard deviation; 9e-6 at most in ten runs), with `lora` over the same model by 5.9e-6:
it is not NF4, whose weights are torchao's to the bit. Against plain PyTorch in float64 the trainer is 1.2e-5 off, and plain PyTorch in
float32 3.4e-6: two such roundings, 3e-5 is more than four standard deviations of their difference. The same where embeddings learn beside
an adapter, and the first gradient is 18: TRL and plain PyTorch in float32 are both 4.3e-6 from float64. torchtune's DPO of adapters with
clipping, micro-batches of 4, was 1e-7 off in its first two steps and 1.05e-5 in the fifth, which was not held against float64.
"""
ALL = ("litgpt", "torchtune", "axolotl", "maxtext", "trl", "unsloth")
WHOLE = ("litgpt", "torchtune", "axolotl", "trl", "unsloth")
"""Trainers that train modules whole beside adapters."""
CELLS = [
    Cell("torchtune", "distill", "lora"),
    Cell("torchtune", "sft", "qlora"),
    Cell("trl", "dpo"),
    Cell("trl", "sft", "lora", whole=("head", "norms"), tied=True),
]
"""These run where the trainers are: a trainer that has more than one way, and the methods that went wrong most often."""
OFTEN = [Cell("axolotl", "kto"), Cell("maxtext", "orpo")]
"""As those, in trainers that take two minutes to begin."""
MORE = [
    Cell("axolotl", "grpo", unlike=MEANS),
    Cell("axolotl", "dpo"),
    Cell("torchtune", "dpo", "lora", unlike=ROUNDING),
    Cell("maxtext", "dpo"),
    Cell("axolotl", "orpo"),
    Cell("maxtext", "distill"),
    Cell("litgpt", "sft", "lora"),
    Cell("trl", "orpo"),
    Cell("trl", "kto"),
    Cell("trl", "sft"),
    Cell("unsloth", "sft"),
    *(Cell(trainer, kind) for trainer in ("axolotl", "trl") for kind in ("ipo", "simpo", "reward")),
    *(Cell("trl", kind, micro=micro) for kind in ("orpo", "kto") for micro in (1, 4)),
    *(Cell("trl", kind, "lora") for kind in ("dpo", "orpo", "kto", "simpo")),
    *(Cell("maxtext", "orpo", micro=micro) for micro in (1, 4)),
    *(Cell("maxtext", "dpo", micro=micro) for micro in (1, 4)),
    *(Cell("axolotl", kind, micro=micro) for kind in ("orpo", "kto", "dpo") for micro in (1, 4)),
    *(Cell("axolotl", kind, micro=micro, devices=2) for kind in ("orpo", "kto") for micro in (1, 2)),
    *(Cell("axolotl", kind, devices=2) for kind in ("dpo", "simpo", "reward", "sft")),
    *(Cell("axolotl", kind, "lora") for kind in ("dpo", "ipo", "orpo", "kto", "simpo", "reward")),
    Cell("axolotl", "grpo", "lora", unlike=MEANS),
    *(Cell("axolotl", kind, "dora") for kind in ("sft", "dpo")),
    Cell("unsloth", "sft", "dora"),
    *(Cell("axolotl", kind, "qlora", unlike=MIDDLES) for kind in ("sft", "dpo")),
    Cell("torchtune", "dpo"),
    *(Cell("torchtune", "dpo", "lora", micro=micro, unlike=ROUNDING) for micro in (1, 4)),
    Cell("torchtune", "dpo", "lora", devices=2, unlike=ROUNDING),
    Cell("torchtune", "sft", "dora"),
    Cell("torchtune", "dpo", "dora", unlike=ROUNDING),
    Cell("torchtune", "dpo", "qlora", unlike=ROUNDING),
    *(Cell("torchtune", "distill", adapter, micro=micro) for adapter, micro in (("lora", 1), ("lora", 4), ("dora", 2))),
    *(Cell("maxtext", "distill", micro=micro) for micro in (1, 4)),
    Cell("maxtext", "sft", "qlora"),
    *(
        Cell(trainer, kind)
        for trainer in ALL
        for kind in ("sft", "pretrain")
        if kind != "sft" or trainer not in ("trl", "unsloth")
    ),
    *(Cell(trainer, "sft", "lora", whole=("embeddings", "head", "norms")) for trainer in WHOLE),
    *(Cell(trainer, "sft", "lora", whole=("embeddings", "norms"), tied=True) for trainer in WHOLE),
    *(Cell(trainer, "dpo", "lora", whole=("embeddings", "head", "norms"), unlike=ROUNDING) for trainer in ("axolotl", "trl")),
    Cell("axolotl", "sft", "lora", devices=2, whole=("embeddings", "head", "norms"), tied=False),
    Cell("axolotl", "reward", "lora", whole=("embeddings", "norms")),
    *(Cell(trainer, "sft", "lora", micro=micro) for trainer in ALL for micro in (1, 4)),
    *(Cell(trainer, "sft", "lora") for trainer in ALL if trainer != "litgpt"),
    *(Cell(trainer, "sft", "lora", devices=2) for trainer in ALL if trainer != "unsloth"),
]


def recipe(cell, model, teacher=None):
    """Five steps of four sequences, with evaluation rows where the trainer takes any, and all that it claims away from its default."""
    form = FORMATS.get(cell.kind, "completion")
    flat = {"version": 1, "name": "truth", "model.id": str(model), "method.kind": cell.kind, "method.adapter": cell.adapter}
    flat |= {f"{cell.section}.{name}": value for name, value in cell.settings.items()}
    if cell.adapter != "none":
        flat |= {"method.lora.rank": RANK, "method.lora.alpha": ALPHA, "method.lora.train_fully": list(cell.whole)}
    if cell.kind == "distill":
        flat["method.distill.teacher"] = str(teacher)
    if cell.kind == "grpo":
        flat["method.grpo.rewards"] = ["./rewards.py:score"]
    flat |= {"data.train": f"rows.{form}.jsonl", "data.eval": f"val.{form}.jsonl", "data.format": form, "data.max_length": 96}
    flat |= {"train.steps": STEPS, "train.batch.global": 4, "train.batch.micro": cell.micro, "train.precision": "fp32"}
    flat |= {"resources.devices": cell.devices, **OPTIM}
    if cell.kind != "sft":
        del flat["train.neftune_alpha"]
    if cell.kind == "grpo":  # rewards are paid for the answers of a run, and an evaluation has others
        del flat["data.eval"]
    return claimed(cell.trainer, flat)


def claimed(trainer, flat):
    """The recipe without what the trainer does not have."""
    for _ in range(4):
        try:
            plan(BACKENDS[trainer], parse(_yaml(flat), base="/x"), Target(devices=flat["resources.devices"]))
        except Inexpressible as error:
            lost = [line.leaf for line in error.report.lines if line.status == "lost"]
            assert not {"method.kind", "method.adapter", "method.lora.train_fully", "resources.devices"} & set(lost), lost
            flat = {leaf: value for leaf, value in flat.items() if leaf not in lost}
        else:
            return flat
    raise AssertionError(flat)


def _yaml(flat):
    import json  # noqa: PLC0415 - JSON is YAML

    return json.dumps(nest(copy.deepcopy(flat)))


NF4 = {"torchtune": "torchao", "axolotl": "bitsandbytes", "trl": "bitsandbytes", "unsloth": "bitsandbytes", "maxtext": "qwix"}
"""Trainer -> whose NF4 it has."""
_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def wish(cell, flat, model, work, teacher=None):
    """truth.json of a cell's job."""
    defaults = {"beta": 0.1, "label_smoothing": 0.0, "margin": 0.5, "desirable": 1.0, "undesirable": 1.0}
    adapter = None
    if cell.adapter != "none":
        adapter = {"kind": cell.adapter, "start": str(work / "lora" / "start.safetensors"), "alpha": ALPHA}
        adapter |= {"nf4": NF4.get(cell.trainer), "quantized": _LAYERS, "whole": list(cell.whole)}
    lr = flat["optim.lr"]
    exported = {"checkpoint": str(work / "checkpoint"), **({"adapter": str(work / "adapter")} if adapter else {})}
    return {
        **{"kind": cell.kind, "settings": {**defaults, **cell.settings}, "model": str(model), "data": str(work / "data")},
        **{"teacher": str(teacher) if teacher else None, "adapter": adapter, "lr": lr, "answers": None},
        **{"betas": flat["optim.betas"], "eps": flat["optim.eps"], "weight_decay": flat["optim.weight_decay"]},
        **{"decay_on": flat.get("optim.decay_on", "all"), "clip": flat.get("train.grad_clip")},
        "neftune": {"alpha": flat["train.neftune_alpha"], "seed": flat.get("train.seed", 42)}
        if "train.neftune_alpha" in flat
        else None,
        "schedule": {
            "kind": flat.get("optim.schedule", "cosine"),
            "warmup": flat.get("optim.warmup_steps", 0),
            "min_ratio": flat.get("optim.min_lr", 0.0) / lr,
        },
        **{"evaluates": "data.eval" in flat, "exported": exported, "variants": variants(cell, flat), "out": "truth.json"},
    }


def variants(cell, flat):
    """Each numeric leaf that the trainer claims, turned up."""
    own = {f"{cell.section}.{name}": ("settings", {name: _more(name, value)}) for name, value in cell.settings.items()}
    drawn = ("generations", "max_new_tokens")  # which answers there are; a run's are given
    found = {leaf: each for leaf, each in {**UP, **own}.items() if leaf in flat and leaf.rpartition(".")[2] not in drawn}
    less = {word: [each for each in cell.whole if each != word] for word in cell.whole}
    return [
        *({"leaf": leaf, "value": value, "change": {key: value}} for leaf, (key, value) in found.items()),
        *({"leaf": f"no {word}", "value": rest, "change": {"adapter": {"whole": rest}}} for word, rest in less.items()),
    ]


def _more(name, value):
    return 0.4 if name == "label_smoothing" else value * 2


HERE = Path(__file__).parent
