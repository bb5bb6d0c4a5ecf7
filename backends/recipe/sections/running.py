"""What is saved and reported, what the machine must have, and when a job is tried again."""

from typing import Annotated, Literal

from backends.recipe.section import Limits, Section
from backends.recipe.sections.base import Positive, Word

Tries = Annotated[int, Limits(ge=0, le=100)]


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
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = []
    """Services that get the metrics besides tune itself: see docs/trackers.md. wandb wants WANDB_API_KEY, which then is a secret of
    the job, unless it is offline."""
    project: Word | None = None
    """What the services call the project; null: `tunesmith`."""
    run: Word | None = None
    """What they call the run; null: the job's id."""
    mlflow_uri: Word | None = None
    """Address of the MLflow server; null: files in the job's folder."""
    wandb_mode: Literal["online", "offline"] = "online"
    """`offline`: wandb writes files in the job's folder, without a key or network; `tune sync` sends them."""


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
    state are split; `zero2`: gradients and state; `zero1`: state. `auto`: fsdp, or ddp where a trainer cannot split the
    model or an adapter leaves little to share; nothing on one device."""
    tensor: Positive = 1
    """Devices that share each matrix product (tensor parallelism); divides all devices."""
    memory_gib: Annotated[float, Limits(gt=0)] | None = None
    """Memory that a device must have, in GiB."""


class OutOfMemory(Section):
    """What the next attempt does otherwise after one that ran out of memory, of a device or of the host."""

    micro: Literal["keep", "halve"] = "keep"
    """`halve`: it takes half the sequences at once (`train.batch.micro`) and accumulates as much more, so that `train.batch.global` and
    the result stay; again and again, down to 1. An odd number goes down to its largest divisor. These attempts are not counted."""


class Retry(Section):
    """How often a failed job is tried again by itself, by what went wrong; a request that is wrong (data, model, secret): never."""

    lost: Tries = 3
    """The host was preempted, rebooted or switched off, or the processes were ended from outside."""
    hardware: Tries = 1
    """A device or the link between devices failed."""
    hang: Tries = 1
    """No step was taken for `hang_minutes`; the attempt is stopped then."""
    out_of_memory: Tries = 0
    """Of a device or of the host. The same needs the same, unless others shared the machine. With `oom.micro: halve`, how often the
    smallest micro-batch is tried again."""
    oom: OutOfMemory = OutOfMemory()
    unknown: Tries = 0
    """None of these is recognised."""
    hang_minutes: Annotated[float, Limits(gt=0)] | None = 60.0
    """Minutes without a step, an evaluation or a line in the log after which training hangs; null: never."""
    idle_minutes: Annotated[float, Limits(gt=0)] | None = None
    """Minutes for which an NVIDIA device of the job may be idle (used less than 1 % of the time at every look at it) while it trains;
    then training hangs, too. What nvidia-smi does not say is not idle. Null: for ever."""
    diverged_above: Annotated[float, Limits(gt=0)] | None = None
    """Loss above which training goes nowhere: when that of `diverged_steps` steps in a row is above it or no number, the run is ended
    as `diverged`, and not tried again. Null: no such limit."""
    diverged_steps: Positive = 3
    """Steps in a row."""
