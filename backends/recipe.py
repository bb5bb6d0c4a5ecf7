"""The recipe: what a training shall be, whoever does it. The meaning of every leaf is fixed here, not by a trainer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class Section(BaseModel):
    """A part of the recipe. Unknown keys are errors, values keep their type. What a field means stands below it; `schema` reads
    that, and only when it is asked for.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Architecture(Section):
    """Shape of a model with random weights and a byte-level tokenizer: for tests, rehearsals and races."""

    family: Literal["llama", "qwen2"] = "llama"
    """`qwen2` has biases on query, key and value."""
    vocab_size: Annotated[int, Field(ge=261)] = 320
    """Ids. The tokenizer uses 261: 256 bytes and 5 special tokens."""
    hidden_size: Positive
    intermediate_size: Positive
    """Width of the MLP."""
    layers: Positive
    heads: Positive
    kv_heads: Positive
    """Key and value heads; `heads` must be a multiple."""
    head_dim: Positive | None = None
    """Width of a head; null means hidden_size / heads."""
    max_length: Positive = 2048
    """Longest sequence in tokens."""
    rope_theta: Annotated[float, Field(gt=0)] = 10000.0
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    tied: bool = False
    """Input and output embeddings are one matrix."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights: normal with standard deviation 0.02, norms 1."""


class Model(Section):
    """What is trained."""

    id: Word
    """A Hugging Face id (`org/name`), or a folder in Hugging Face layout: then it begins with `/`, `./`, `../` or `~` and is
    relative to the recipe's file. For a random model any name."""
    revision: Word | None = None
    """Branch, tag or commit of a Hugging Face id; null means `main` as it is when first downloaded."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Where the first weights come from."""
    architecture: Architecture | None = None
    """Shape of a random model; not for pretrained ones."""


LoraTarget = Literal["q", "k", "v", "o", "gate", "up", "down", "head"]


class Lora(Section):
    """Low-rank adapters. Every trainer starts from the same A (uniform, from train.seed) and B (zero)."""

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The product B A is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs dropped in training."""
    targets: Annotated[list[LoraTarget], Field(min_length=1)] = ["q", "k", "v", "o", "gate", "up", "down"]
    """Which linear layers get an adapter; `head` is the output embedding."""


class Method(Section):
    """How it is trained."""

    kind: Literal["sft"] = "sft"
    """`sft`: next-token loss on the answers."""
    adapter: Literal["none", "lora", "qlora", "dora"] = "none"
    """`none` trains all weights."""
    lora: Lora = Lora()


class Columns(Section):
    """Names of the columns in the data files."""

    instruction: Word = "instruction"
    input: Word = "input"
    """May be missing in a row."""
    output: Word = "output"
    messages: Word = "messages"
    text: Word = "text"


class Data(Section):
    """What it is trained on."""

    train: Word
    """A file (.jsonl, .json, .parquet, .txt; relative to the recipe's file) or a Hugging Face data set id (`org/name`)."""
    train_split: Word = "train"
    """Split of a Hugging Face data set."""
    eval: Word | None = None
    """Rows for evaluation, named like `train`; null: no evaluation."""
    eval_split: Word = "validation"
    format: Literal["instruct", "chat", "text"]
    """`instruct`: instruction, input, output. `chat`: a list of messages. `text`: plain text."""
    columns: Columns = Columns()
    template: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None
    """How a row becomes text. For instruct: `alpaca` (the default), `plain`, `chat` (the model's own chat template), or a
    text with {instruction} and maybe {input}, after which the output follows. Chat always uses the chat template."""
    system: str | None = None
    """System text put before each row that has none of its own."""
    rendering: Literal["shared", "native"] = "shared"
    """`shared`: rows become token ids once, on the host, and every trainer gets exactly those. `native`: each trainer reads
    the file in its own way; what then differs is in the report."""
    max_length: Positive = 2048
    """Tokens of a row; longer rows are cut at the end."""
    pack: bool = False
    """Join rows up to max_length, never splitting one. Rows in one sequence see each other."""
    train_on_prompt: bool = False
    """Prompt tokens carry loss too."""
    add_eos: bool = True
    """End each instruct or text row with the end-of-sequence token, which carries loss."""
    drop_empty: bool = False
    """Leave out rows in which no token carries loss (for example: the prompt alone fills max_length), instead of stopping."""
    shuffle: bool = True
    """A new order each epoch, from train.seed; otherwise the file's order."""


class Batch(Section):
    """Sequences per step."""

    global_: Positive = Field(alias="global")
    """Sequences per optimizer step over all devices. The gradient is the mean over all tokens with loss in them."""
    micro: Positive | None = None
    """Sequences that one device takes at once; null means all of its share. Changes memory and speed, not the result."""


class Train(Section):
    """How long, and with what care."""

    epochs: Positive | None = None
    """Passes over the data. Each has floor(rows / batch.global) optimizer steps; give this or `steps`."""
    steps: Positive | None = None
    """Optimizer steps; the data are gone through as often as needed."""
    batch: Batch
    precision: Literal["fp32", "bf16", "bf16-mixed", "fp16-mixed"] = "bf16"
    """`bf16`: weights, gradients and optimizer state in bfloat16; `*-mixed`: weights in fp32, arithmetic lower."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Of the order of rows, LoRA's start and dropout."""
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the whole gradient; null: no clipping."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time, the same result."""
    compile: bool = False
    """torch.compile the model."""


class Optim(Section):
    """The optimizer and its learning rate. Step k (from 1) uses lr * f(k - 1): f(s) = s / W during the W warm-up steps, then the
    schedule from 1 down to min_lr / lr over the other N - W.
    """

    name: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0)]
    """Highest learning rate."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled, per step, times the learning rate."""
    decay_on: Literal["all", "matrices"] = "all"
    """`matrices` spares norms and biases."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimizer steps; give this or `warmup_share`; neither means no warm-up."""
    warmup_share: Share | None = None
    """Share of all steps, rounded up."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate at the end of the schedule."""


class Eval(Section):
    """Loss on the evaluation rows."""

    every: Positive | None = None
    """Optimizer steps between evaluations; null: only at the end. Needs data.eval."""
    batches: Positive | None = None
    """Micro-batches per evaluation during training; null: all rows."""


class Checkpoint(Section):
    """What is saved besides the end result, which always is."""

    every: Positive | None = None
    """Optimizer steps between checkpoints; null: only the end."""
    keep: Positive | None = None
    """How many of them to keep; null: all."""
    resume: bool = False
    """A retry goes on from the last complete checkpoint instead of from the beginning."""


class Log(Section):
    """What is reported."""

    every: Positive = 1
    """Optimizer steps between points."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = []
    """Services that get the metrics besides tune itself."""


class Resources(Section):
    """What the job needs of a machine."""

    accelerator: Literal["any", "cpu", "cuda", "tpu"] = "any"
    devices: Positive = 1
    """Accelerators on each host."""
    hosts: Positive = 1
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory that a device must have, in GiB."""


class Recipe(Section):
    """One training, whoever does it."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    description: str | None = None
    model: Model
    method: Method = Method()
    data: Data
    train: Train
    optim: Optim
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()
    resources: Resources = Resources()
    secrets: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]] = []
    """Names of environment variables that the job needs and nobody may see."""
    native: dict[str, dict[str, Any]] = {}
    """Trainer -> keys of its own config to set as they are, over everything else. Always in the report."""

    _written: frozenset[str] = PrivateAttr(default=frozenset())
    _base: str = PrivateAttr(default="")

    @property
    def written(self) -> frozenset[str]:
        """Leaves that the user wrote; the others are our defaults."""
        return self._written

    @property
    def base(self) -> str:
        """Folder (absolute) to which paths in the recipe are relative."""
        return self._base

    def flat(self) -> dict[str, Any]:
        """All leaves by dotted name, in the schema's order."""
        out: dict[str, Any] = {}
        _flatten(self, "", out)
        return out


WHOLE = frozenset({"model.architecture", "native"})
"""Leaves that are mappings: they cross as one value."""


def leaves(section: type[Section] = Recipe, above: str = "") -> tuple[str, ...]:
    """Dotted names of all leaves, in the schema's order."""
    out: list[str] = []
    for name, info in section.model_fields.items():
        path = f"{above}{info.alias or name}"
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Section) and path not in WHOLE:
            out += leaves(kind, f"{path}.")
        else:
            out.append(path)
    return tuple(out)


def _flatten(section: Section, above: str, out: dict[str, Any]) -> None:
    for name, info in type(section).model_fields.items():
        path = f"{above}{info.alias or name}"
        value = getattr(section, name)
        if isinstance(value, Section):
            if path in WHOLE:
                out[path] = value.model_dump(by_alias=True)
            else:
                _flatten(value, f"{path}.", out)
        else:
            out[path] = value
