"""How long, with what optimizer, and what is evaluated on the way."""

from typing import Annotated, Literal

from backends.recipe.section import Limits, Section
from backends.recipe.sections.base import Positive, Share


class Batch(Section):
    """Sequences per step."""

    global_: Positive
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
    seed: Annotated[int, Limits(ge=0, lt=2**32)] = 42
    """Of the order of rows, LoRA's start and dropout."""
    grad_clip: Annotated[float, Limits(gt=0)] | None = None
    """Largest norm of the whole gradient; null: no clipping."""
    neftune_alpha: Annotated[float, Limits(gt=0)] | None = None
    """NEFTune (arXiv:2310.05914): noise on the embeddings while training, uniform within +-alpha / sqrt(tokens of the row x width of the
    model); 5 to 15 are usual. Drawn from train.seed, the step and the row, so that it is the same in every trainer. Null: none."""
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
    """`*_8bit`: state in 8 bits; `paged`: moved to main memory under pressure. `muon`: for the matrices inside the layers, with steps of
    the size of AdamW's (arXiv:2502.16982), and AdamW for the rest.
    """
    fused: bool | None = None
    """One kernel for the whole step; null: on CUDA. The same result."""
    lr: Annotated[float, Limits(gt=0)]
    """Highest learning rate."""
    betas: Annotated[list[Annotated[float, Limits(ge=0, lt=1)]], Limits(min_length=2, max_length=2)] = [0.9, 0.95]
    """How slowly the means of gradients and of squared gradients forget, per step."""
    eps: Annotated[float, Limits(gt=0)] = 1e-8
    """Added to the root of the mean squared gradient."""
    weight_decay: Annotated[float, Limits(ge=0)] = 0.0
    """Decoupled, per step, times the learning rate."""
    decay_on: Literal["all", "matrices"] = "all"
    """`matrices` spares norms and biases."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate goes after the warm-up: stays, falls in a line, or falls in half a cosine, to min_lr."""
    warmup_steps: Annotated[int, Limits(ge=0)] | None = None
    """Optimizer steps; give this or `warmup_share`; neither means no warm-up."""
    warmup_share: Share | None = None
    """Share of all steps, rounded up."""
    min_lr: Annotated[float, Limits(ge=0)] = 0.0
    """Learning rate at the end of the schedule."""


class Eval(Section):
    """Loss on the evaluation rows."""

    every: Positive | None = None
    """Optimizer steps between evaluations; null: none on the way. After the last step there is one of all rows in any case. Needs
    data.eval or data.eval_share."""
    every_share: Annotated[float, Limits(gt=0, lt=1)] | None = None
    """Share of the run between evaluations, in place of `every`: of all its optimizer steps, rounded up."""
    batches: Positive | None = None
    """Micro-batches per evaluation on the way, from the first row; null: all rows."""
    patience: Positive | None = None
    """Evaluations in a row without a lower loss than the lowest before, after which training ends, with its weights as they are then; an
    evaluation of all rows follows. Null: it goes on to the last step."""
    on_start: bool = False
    """An evaluation of all rows before the first step too, at step 0: what the model knows as it comes. A run that goes on from a
    checkpoint has none."""
