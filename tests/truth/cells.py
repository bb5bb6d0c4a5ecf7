"""What is compared: a method, an adapter and a trainer."""

from dataclasses import dataclass

STEPS = 5
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
    group: int = 0
    """method.qat.group; 0: nothing rounds."""

    def __str__(self):
        more = [*self.whole, *(["tied"] if self.tied else []), *(["qat"] if self.group else [])]
        return "-".join([self.trainer, self.kind, self.adapter, f"micro{self.micro}", f"{self.devices}process", *more])

    @property
    def settings(self):
        """Leaves of the method's own section."""
        return SETTINGS.get(self.kind, {})

    @property
    def section(self):
        """Where these stand."""
        return f"method.{SECTIONS.get(self.kind, 'preference')}"

    @property
    def unlike(self):
        """What may differ by more than anything else: metric -> how far it may be from the truth."""
        if self.group:
            return LEVELS
        if self.adapter == "qlora" and NF4[self.trainer] == "bitsandbytes":
            return SCORED if self.kind == "reward" else MIDDLES
        if self.kind == "grpo":
            return SIGNED
        if self.kind == "kto" and self.adapter != "none":
            return {"kl": 3e-5}  # a sum of log-ratios, as in ROUNDING; 1.5e-5 with `dora` in TRL
        rounded = self.trainer == "torchtune" or self.whole
        return ROUNDING if self.kind == "dpo" and self.adapter != "none" and rounded else {}


LEVELS = {"loss": 3e-2, "grad_norm": 1e-1, "eval_loss": 5e-2, "checkpoint": 0.2, "kl": 5e-2, "rewards/accuracies": 0.25}
LEVELS |= dict.fromkeys(("rewards/chosen", "rewards/rejected", "rewards/margins", "reward"), 1e-1)
"""Of training that rounds: what lies within 1e-7 of the middle between two levels goes to either. Plain PyTorch's own curves, its weights off
by at most half a unit in the last place, spread in five steps by 2.7e-2 (reward), 1.2e-2 (dpo), 7e-3 (kto) and 1e-3 (grpo) in the loss, by 7e-2
of itself in the norm, by 3e-2 in eval_loss; axolotl's are no farther off (rewards by 6e-2, of ipo). Of the first step, which no other went before, the losses are within
3e-7 and the norms within 5e-4 of themselves: that step is held to SAME and FIRST.
"""
FIRST = {"grad_norm": 1e-3}
"""What may differ in the first step of training that rounds."""
SIGNED = {"grad_norm": 1e-4}
"""Of grpo: the first norm was 5e-5 off once, and nobody knows why yet; six steps of another model were within 2e-7 (axolotl)."""
MIDDLES = {
    "loss": 1e-3,
    "class_loss": 1e-3,
    "kd_loss": 1e-3,
    "grad_norm": 5e-3,
    "eval_loss": 1e-3,
    "checkpoint": 2e-2,
    "adapter": 2e-3,
}
MIDDLES |= dict.fromkeys(("rewards/chosen", "rewards/rejected", "rewards/margins", "kl"), 5e-3)
"""bitsandbytes rounds a scale that lies within 1e-5 of the middle of two levels to either, one in a thousand: docs/methods.md."""
SCORED = {**MIDDLES, "loss": 1e-2, "grad_norm": 1e-2, "eval_loss": 5e-3}
"""A score of one token has no other tokens to average with: 5e-3 in TRL, which is not explained further."""
ROUNDING = {"grad_norm": 3e-5}
"""What float32 alone makes of DPO over the wider model that NF4 wants. With weights that are off by at most half a unit in the last place
plain PyTorch's own norms spread by 4.5e-6 (standard deviation; 9e-6 at most in ten runs), with `lora` over the same model by 5.9e-6:
it is not NF4, whose weights are torchao's to the bit. Against plain PyTorch in float64 the trainer is 1.2e-5 off, and plain PyTorch in
float32 3.4e-6: two such roundings, 3e-5 is more than four standard deviations of their difference. The same where embeddings learn beside
an adapter, and the first gradient is 18: TRL and plain PyTorch in float32 are both 4.3e-6 from float64.
Most of it is one sum. Trainers add up an answer's log-probabilities, 100 and more, before they take the reference's away; plain PyTorch
takes them away token by token. As long as policy and reference are the same both give 0, in the first two steps here, and after that the
order counts: over `lora`, micro-batches of 4, plain PyTorch is 2.9e-6 from float64 at the fifth step, and 6.5e-6 once it adds up as torchtune
does (1.5e-6 to 3.3e-6, and 1.7e-6 to 6.5e-6, in seven runs with weights half a unit in the last place off). torchtune's 1.05e-5 from plain
PyTorch is such sums alone: trained in float64, it has plain PyTorch's losses and norms to 14 digits.
"""
NF4 = {"torchtune": "torchao", "axolotl": "bitsandbytes", "trl": "bitsandbytes", "unsloth": "bitsandbytes", "maxtext": "qwix"}
"""Trainer -> whose NF4 it has."""
_LM = ("sft", "pretrain")
_PEFT = ("none", "lora", "dora", "qlora")
_HF = ("sft", "pretrain", "dpo", "ipo", "orpo", "simpo", "reward", "kto", "grpo")
CLAIMED = {
    "litgpt": dict.fromkeys(_LM, ("none", "lora")),
    "torchtune": {**dict.fromkeys((*_LM, "dpo"), _PEFT), "distill": ("lora", "dora", "qlora")},
    "axolotl": dict.fromkeys(_HF, _PEFT),
    "maxtext": {**dict.fromkeys(_LM, ("none", "lora", "qlora")), **dict.fromkeys(("distill", "dpo", "orpo"), ("none",))},
    "trl": dict.fromkeys((*_HF, "distill"), _PEFT),
    "unsloth": dict.fromkeys(_LM, _PEFT),
}
"""Trainer -> method -> adapters that it claims; tests/laws/test_effect.py holds it to what is planned."""
SHARED = {
    "litgpt": ("sft lora",),
    "torchtune": ("sft lora", "dpo lora", "distill lora"),
    "axolotl": ("sft lora", "orpo none", "kto none", "dpo none"),
    "maxtext": ("sft lora", "orpo none", "dpo none", "distill none"),
    "trl": ("sft lora", "orpo none", "kto none", "distill lora"),
    "unsloth": ("sft lora",),
}
"""Cells that are also held with micro-batches of 1 and of 4: of each loss that a trainer has, whatever the adapter."""
SPREAD = {
    "litgpt": ("sft lora",),
    "torchtune": ("sft lora", "dpo lora"),
    "axolotl": ("sft lora", "sft none", "orpo none", "kto none", "dpo none", "simpo none", "reward none"),
    "maxtext": ("sft lora",),
    "trl": ("sft lora", "distill lora"),
}
"""Those also held with two processes."""
WHOLE = ("litgpt", "torchtune", "axolotl", "trl", "unsloth")
"""Trainers that train modules whole beside adapters."""


def _named(groups):
    return [(trainer, *words.split()) for trainer, each in groups.items() for words in each]


CELLS = [
    Cell("torchtune", "distill", "lora"),
    Cell("torchtune", "sft", "qlora"),
    Cell("trl", "dpo"),
    Cell("trl", "sft", "lora", whole=("head", "norms"), tied=True),
]
"""These run where the trainers are: a trainer that has more than one way, and the methods that went wrong most often."""
OFTEN = [Cell("axolotl", "kto"), Cell("maxtext", "orpo")]
"""As those, in trainers that take two minutes to begin."""
_ALL = [
    *(Cell(trainer, kind, each) for trainer, kinds in CLAIMED.items() for kind, adapters in kinds.items() for each in adapters),
    *(Cell(*each, micro=micro) for each in _named(SHARED) for micro in (1, 4)),
    *(Cell(*each, devices=2) for each in _named(SPREAD)),
    *(Cell("axolotl", kind, micro=1, devices=2) for kind in ("orpo", "kto")),
    *(Cell(trainer, "sft", "lora", whole=("embeddings", "head", "norms")) for trainer in WHOLE),
    *(Cell(trainer, "sft", "lora", whole=("embeddings", "norms"), tied=True) for trainer in WHOLE),
    *(Cell(trainer, "dpo", "lora", whole=("embeddings", "head", "norms")) for trainer in ("axolotl", "trl")),
    Cell("torchtune", "distill", "lora", whole=("embeddings", "head", "norms")),
    Cell("torchtune", "distill", "lora", whole=("embeddings", "norms"), tied=True),
    Cell("axolotl", "sft", "lora", devices=2, whole=("embeddings", "head", "norms")),
    Cell("axolotl", "reward", "lora", whole=("embeddings", "norms")),
    *(Cell("axolotl", kind, group=16) for kind in _HF),
]
MORE = [each for each in _ALL if each not in (*CELLS, *OFTEN)]
