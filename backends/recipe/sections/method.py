"""How it is trained: the loss, and which weights."""

from typing import Annotated, Literal

from backends.recipe.section import Limits, Section
from backends.recipe.sections.base import Positive, Share, Word

LoraTarget = Literal["q", "k", "v", "o", "gate", "up", "down", "head"]
WholeModule = Literal["embeddings", "head", "norms"]


class Lora(Section):
    """Low-rank adapters. Every trainer starts from the same A (uniform, from train.seed) and B (zero)."""

    rank: Positive = 16
    """Inner width of an adapter: columns of B, rows of A. More is more to train and to store."""
    alpha: Annotated[float, Limits(gt=0)] = 32.0
    """The product B A is scaled by alpha / rank."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732): a larger rank then keeps its share of the update."""
    dropout: Annotated[float, Limits(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs dropped in training."""
    targets: Annotated[list[LoraTarget], Limits(min_length=1)] = ["q", "k", "v", "o", "gate", "up", "down"]
    """Which linear layers get an adapter; `head` is the output embedding."""
    train_fully: list[WholeModule] = []
    """Modules that learn whole beside the adapters, with the same optimizer: `embeddings` of the input, `head` (the output embedding; of a
    reward model the score, which always learns), `norms` (all of them). Where input and output embedding are tied they are one matrix,
    which either word trains and which stays one. The adapter's folder has these weights too (PEFT's modules_to_save)."""


class Preference(Section):
    """Of the kinds that learn from preferences: dpo, ipo, orpo, simpo, kto."""

    beta: Annotated[float, Limits(gt=0)] | None = None
    """dpo, ipo, kto: how strongly the model is held near its start. simpo: scale of the rewards. orpo: weight of the odds ratio
    beside the loss of the chosen answer. Null means 0.1, for simpo 2.0."""
    label_smoothing: Annotated[float, Limits(ge=0, lt=0.5)] = 0.0
    """dpo: share of pairs that are taken to be labelled the wrong way round."""
    margin: Annotated[float, Limits(ge=0)] = 0.5
    """simpo: by how much the chosen answer's reward should lead (gamma in the paper)."""
    desirable: Annotated[float, Limits(gt=0)] = 1.0
    """kto: weight of the rows with a good verdict."""
    undesirable: Annotated[float, Limits(gt=0)] = 1.0
    """kto: weight of the rows with a bad verdict."""


class Grpo(Section):
    """Of method.kind grpo: the model answers each prompt several times and learns from how its answers compare."""

    rewards: list[Annotated[str, Limits(pattern=r"^(\.{1,2}/|/|~).*\.py:[A-Za-z_][A-Za-z0-9_]*$")]] = []
    """Functions that score answers, as `./rewards.py:function`: your own Python, which the trainer imports and calls."""
    generations: Annotated[int, Limits(ge=2)] = 8
    """Answers per prompt."""
    max_new_tokens: Positive = 256
    """Tokens of an answer."""
    temperature: Annotated[float, Limits(gt=0)] = 1.0
    """Of sampling answers: the logits are divided by it."""
    kl: Annotated[float, Limits(ge=0)] = 0.0
    """Weight of the divergence from the start model."""
    clip: Annotated[float, Limits(gt=0)] = 0.2
    """How far the probability ratio may move in one step."""


class Distill(Section):
    """Of method.kind distill: the loss looks at a teacher's token probabilities too."""

    teacher: Word | None = None
    """A Hugging Face id or a folder, written like model.id."""
    ratio: Share = 0.5
    """Share of the teacher in the loss: (1 - ratio) x cross entropy + ratio x forward KL, both a mean over tokens with loss."""


class Qat(Section):
    """Quantization-aware training: the forward pass sees rounded numbers."""

    scheme: Literal["none", "int8-int4"] = "none"
    """`int8-int4`: activations int8 per token, weights int4 per group."""
    group: Positive = 32
    """Weights that share one scale."""


Kind = Literal["sft", "pretrain", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo", "distill"]


class Method(Section):
    """How it is trained."""

    kind: Kind = "sft"
    """`sft`: next-token loss on the answers, a mean over all tokens with loss of the step. `pretrain`: the same on plain text, from
    random or given weights. From pairs of a chosen and a rejected answer, a mean over pairs: `dpo` (arXiv:2305.18290, eq. 7;
    smoothed as conservative DPO is), `ipo` (arXiv:2310.12036, eq. 17, with log-ratios that are means over an answer's tokens), `orpo`
    (arXiv:2403.07691, eq. 6: loss of the chosen answers, a mean over all their tokens of the step, and the odds ratio's) and `simpo`
    (arXiv:2405.14734, eq. 6). `kto`: from single answers with a verdict (arXiv:2402.01306, eq. 8, a mean over rows, its divergence
    that of the step). `reward`: a model that scores answers, from pairs (arXiv:2203.02155, eq. 1). `grpo`: from the model's own
    answers (arXiv:2402.03300; a mean over all tokens of the step's answers, as in arXiv:2503.14476). `distill`: sft beside a
    teacher (arXiv:1503.02531 at temperature 1)."""
    adapter: Literal["none", "lora", "qlora", "dora"] = "none"
    """`none` trains all weights. `qlora`: LoRA over a base in 4 bits (NF4). `dora`: LoRA with a trained magnitude."""
    lora: Lora = Lora()
    preference: Preference = Preference()
    grpo: Grpo = Grpo()
    distill: Distill = Distill()
    qat: Qat = Qat()
