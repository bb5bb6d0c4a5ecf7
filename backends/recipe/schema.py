"""The recipe: what a training shall be, whoever does it. The meaning of every leaf is fixed here, not by a trainer."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Tries = Annotated[int, Field(ge=0, le=100)]


class Section(BaseModel):
    """A part of the recipe. Unknown keys are errors, values keep their type. What a field means stands below it; `schema` reads
    that, and only when it is asked for.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Whole(Section):
    """A mapping that crosses to a trainer as one value: it is one leaf."""


class Architecture(Whole):
    """Shape of a model with random weights and a byte-level tokenizer: for tests, rehearsals and races."""

    family: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    """`qwen2` has biases on query, key and value; `qwen3` norms on query and key."""
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
    """Inner width of an adapter: columns of B, rows of A. More is more to train and to store."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The product B A is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs dropped in training."""
    targets: Annotated[list[LoraTarget], Field(min_length=1)] = ["q", "k", "v", "o", "gate", "up", "down"]
    """Which linear layers get an adapter; `head` is the output embedding."""


class Preference(Section):
    """Of the kinds that learn from preferences: dpo, ipo, orpo, simpo, kto."""

    beta: Annotated[float, Field(gt=0)] | None = None
    """dpo, ipo, kto: how strongly the model is held near its start. simpo: scale of the rewards. orpo: weight of the odds ratio
    beside the loss of the chosen answer. Null means 0.1, for simpo 2.0."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """dpo: share of pairs that are taken to be labelled the wrong way round."""
    margin: Annotated[float, Field(ge=0)] = 0.5
    """simpo: by how much the chosen answer's reward should lead (gamma in the paper)."""
    desirable: Annotated[float, Field(gt=0)] = 1.0
    """kto: weight of the rows with a good verdict."""
    undesirable: Annotated[float, Field(gt=0)] = 1.0
    """kto: weight of the rows with a bad verdict."""


class Grpo(Section):
    """Of method.kind grpo: the model answers each prompt several times and learns from how its answers compare."""

    rewards: list[Annotated[str, Field(pattern=r"^(\.{1,2}/|/|~).*\.py:[A-Za-z_][A-Za-z0-9_]*$")]] = []
    """Functions that score answers, as `./rewards.py:function`: your own Python, which the trainer imports and calls."""
    generations: Annotated[int, Field(ge=2)] = 8
    """Answers per prompt."""
    max_new_tokens: Positive = 256
    """Tokens of an answer."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of sampling answers: the logits are divided by it."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the start model."""
    clip: Annotated[float, Field(gt=0)] = 0.2
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
    """`sft`: next-token loss on the answers. `pretrain`: next-token loss on plain text, from random or given weights. `dpo`,
    `ipo`, `orpo`, `simpo`: from pairs of a chosen and a rejected answer. `kto`: from single answers with a verdict. `reward`: a
    model that scores answers, from pairs. `grpo`: from the model's own answers. `distill`: sft beside a teacher."""
    adapter: Literal["none", "lora", "qlora", "dora"] = "none"
    """`none` trains all weights. `qlora`: LoRA over a base in 4 bits (NF4). `dora`: LoRA with a trained magnitude."""
    lora: Lora = Lora()
    preference: Preference = Preference()
    grpo: Grpo = Grpo()
    distill: Distill = Distill()
    qat: Qat = Qat()


class Columns(Section):
    """Names of the columns in the data files."""

    instruction: Word = "instruction"
    """Format instruct: what is asked."""
    input: Word = "input"
    """May be missing in a row."""
    output: Word = "output"
    """Format instruct: the answer."""
    messages: Word = "messages"
    """Format chat: a list of `{role, content}`; ShareGPT's `{from, value}` is understood."""
    text: Word = "text"
    """Format text."""
    prompt: Word = "prompt"
    """Formats completion, preference, rated, prompts: a text or a list of messages."""
    completion: Word = "completion"
    """Formats completion, rated: what follows the prompt."""
    chosen: Word = "chosen"
    """Format preference: the better answer, or the whole conversation with it."""
    rejected: Word = "rejected"
    """Format preference: the worse one."""
    label: Word = "label"
    """The verdict: true or false, or 1 or 0."""


class Part(Whole):
    """One of several data sets."""

    path: Word
    """As `data.train`."""
    split: Word = "train"
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often each of its rows comes in an epoch: 2.0 is twice; 0.5 is half of the rows, drawn anew each epoch."""


class Data(Section):
    """What it is trained on."""

    train: Word | Annotated[list[Part], Field(min_length=1, max_length=100)]
    """A file (.jsonl, .json, .parquet, .txt; relative to the recipe's file), a Hugging Face data set id (`org/name`), or a list
    of them: `[{path, split, weight}]`."""
    train_split: Word = "train"
    """Split of a Hugging Face data set; in a list each has its own."""
    eval: Word | None = None
    """Rows for evaluation, named like `train`; null: no evaluation."""
    eval_split: Word = "validation"
    """Split of a Hugging Face data set named in `eval`."""
    format: Literal["instruct", "chat", "text", "completion", "preference", "rated", "prompts"]
    """`instruct`: instruction, input, output. `chat`: a list of messages. `text`: plain text. `completion`: prompt, completion.
    `preference`: prompt, chosen, rejected, each a text or messages. `rated`: prompt, completion, label. `prompts`: prompt."""
    columns: Columns = Columns()
    template: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None
    """How a row becomes text. For instruct: `alpaca` (the default), `plain`, `chat` (the model's own chat template), or a
    text with {instruction} and maybe {input}, after which the output follows. Chat always uses the chat template."""
    loss_roles: Annotated[list[Literal["system", "user", "assistant", "tool"]], Field(min_length=1)] = ["assistant"]
    """Whose messages carry loss, with format chat."""
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
    """Sequences per optimizer step over all devices. The gradient is the mean over all tokens with loss in them. With
    method.kind grpo it counts prompts, each of which is answered method.grpo.generations times."""
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
    offload: bool = False
    """Keep the activations that the backward pass needs in main memory: less device memory, more time, the same result."""
    attention: Literal["auto", "eager", "sdpa", "flash"] = "auto"
    """Attention kernel; `auto` is the trainer's best for the accelerator. The same result but for rounding."""
    compile: bool | None = None
    """Compile the model. Null: where it pays, which is on CUDA in torchtune (1.7 times as fast on one H100)."""


class Optim(Section):
    """The optimizer and its learning rate. Step k (from 1) uses lr * f(k - 1): f(s) = s / W during the W warm-up steps, then the
    schedule from 1 down to min_lr / lr over the other N - W.
    """

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "muon", "sgd"] = "adamw"
    """`*_8bit`: state in 8 bits; `paged`: moved to main memory under pressure."""
    fused: bool | None = None
    """One kernel for the whole step; null: on CUDA. The same result."""
    lr: Annotated[float, Field(gt=0)]
    """Highest learning rate."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    """How slowly the means of gradients and of squared gradients forget, per step."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the mean squared gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled, per step, times the learning rate."""
    decay_on: Literal["all", "matrices"] = "all"
    """`matrices` spares norms and biases."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate goes after the warm-up: stays, falls in a line, or falls in half a cosine, to min_lr."""
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
    """How many of them to keep, the newest; null: all."""
    resume: bool = False
    """A retry goes on from the last complete checkpoint, in step, rate, optimizer state and place in the rows, if there is one."""


class Log(Section):
    """What is reported."""

    every: Positive = 1
    """Optimizer steps between points."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = []
    """Services that get the metrics besides tune itself. wandb wants WANDB_API_KEY, which then is a secret of the job."""
    project: Word | None = None
    """What the services call the project; null: `tunesmith`."""
    run: Word | None = None
    """What they call the run; null: the recipe's name."""
    mlflow_uri: Word | None = None
    """Address of the MLflow server; null: files in the job's folder."""


class Resources(Section):
    """What the job needs of a machine."""

    accelerator: Literal["any", "cpu", "cuda", "tpu"] = "any"
    """What the target must have."""
    devices: Positive = 1
    """Accelerators on each host."""
    hosts: Positive = 1
    """Machines that work together."""
    strategy: Literal["auto", "ddp", "fsdp", "zero1", "zero2", "zero3"] = "auto"
    """How several devices share the work. `ddp`: each has the whole model. `fsdp`, `zero3`: weights, gradients and optimizer
    state are split; `zero2`: gradients and state; `zero1`: state. `auto`: fsdp; nothing on one device."""
    tensor: Positive = 1
    """Devices that share each matrix product (tensor parallelism); divides all devices."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory that a device must have, in GiB."""


class Retry(Section):
    """How often a failed job is tried again by itself, by what went wrong; a request that is wrong (data, model, secret): never."""

    lost: Tries = 3
    """The host was preempted, rebooted or switched off, or somebody ended the processes."""
    hardware: Tries = 1
    """A device or the link between devices failed."""
    hang: Tries = 1
    """No step was taken for `hang_minutes`; the attempt is stopped then."""
    out_of_memory: Tries = 0
    """Of a device or of the host. The same needs the same, unless others shared the machine."""
    unknown: Tries = 0
    """None of these is recognised."""
    hang_minutes: Annotated[float, Field(gt=0)] | None = 60.0
    """Minutes without a step, an evaluation or a line in the log after which training hangs; null: never."""


class Recipe(Section):
    """One training, whoever does it."""

    version: Literal[1]
    """Of this schema."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """Of the job: letters, digits, `.`, `_`, `-`."""
    description: str | None = None
    """For people."""
    model: Model
    method: Method = Method()
    data: Data
    train: Train
    optim: Optim
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()
    resources: Resources = Resources()
    retry: Retry = Retry()
    secrets: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]] = []
    """Names of environment variables that the job needs and nobody may see."""
    native: dict[str, dict[str, Any]] = {}
    """Trainer -> keys of its config, set as they are over everything else; `~key: null` takes one away. All are in the report."""

    _written: frozenset[str] = PrivateAttr(default=frozenset())
    _base: str = PrivateAttr(default="")
    _source: tuple[str, str, tuple[str, ...]] = PrivateAttr(default=("", "<recipe>", ()))

    @property
    def written(self) -> frozenset[str]:
        """Leaves that the user wrote; the others are our defaults."""
        return self._written

    @property
    def base(self) -> str:
        """Folder (absolute) to which paths in the recipe are relative."""
        return self._base

    @property
    def source(self) -> tuple[str, str, tuple[str, ...]]:
        """The text that it was read from, how errors call that, and what was set over it: enough to read it again."""
        return self._source

    def flat(self) -> dict[str, Any]:
        """All leaves by dotted name, in the schema's order."""
        out: dict[str, Any] = {}
        _flatten(self, "", out)
        return out


@cache
def _names(section: type[Section]) -> tuple[tuple[str, str], ...]:
    """(field, what the recipe calls it)."""
    return tuple((name, info.alias or name) for name, info in section.model_fields.items())


def _flatten(section: Section, above: str, out: dict[str, Any]) -> None:
    values = section.__dict__
    for name, called in _names(type(section)):
        path, value = above + called, values[name]
        if isinstance(value, Whole):
            out[path] = value.model_dump(by_alias=True)
        elif isinstance(value, Section):
            _flatten(value, f"{path}.", out)
        elif isinstance(value, list) and value and isinstance(value[0], Whole):
            out[path] = [item.model_dump() for item in value]
        else:
            out[path] = value
