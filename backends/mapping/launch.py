"""What starts the processes, what the machine must have, and what a retry goes on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from backends.mapping.rows import Context, Row, Unsupported, Values, cannot, handled_by_us, idle
from backends.plan import HEAD, PORT, RANK
from backends.report import Kind as Lack

ROUNDED = {"TORCHINDUCTOR_EMULATE_PRECISION_CASTS": "1"}
"""Environment of trainers on torch: a compiled model rounds where the same model does that is not compiled. Without it compiled adapters
in bf16 train otherwise (docs/races.md), and DPO's first loss is not ln 2, since with gradients and without a compiled model rounds at different
places (torch 2.11 and 2.13, torch/_inductor/config.py: emulate_precision_casts).
"""
LAUNCH = "launch"
"""Rows write what becomes a command, not a config key, under `launch:`."""


class Sharing(NamedTuple):
    """What decides how several devices share a training where resources.strategy is `auto`."""

    adapted: bool
    """Only an adapter is trained."""
    small: bool
    """The frozen weights take at most a quarter of a device."""
    tied: bool
    """One matrix is the input's embedding and the output's head."""
    accelerator: str


BYTES = 2
"""Of a frozen weight, in bf16."""
SMALLEST = 16.0
"""GiB of a device whose memory is not known."""


def is_small(parameters: int | None, memory_gib: float | None) -> bool:
    """Whether frozen weights take at most a quarter of a device. Then several need not split a model of which only an adapter is trained.

    Args:
        parameters: of the model; None where only the host can count them, which is not small.
        memory_gib: of a device; None: not known, taken for 16.
    """
    return 0 < (parameters or 0) * BYTES / 2**30 <= (memory_gib or SMALLEST) / 4


def sharing(adapted: bool, context: Context) -> Sharing:
    """What a trainer decides by how several devices share a training.

    Args:
        adapted: only an adapter is trained.
        context: the machine and the model.
    """
    return Sharing(adapted, is_small(context.parameters, context.memory_gib), context.tied, context.accelerator)


def identity() -> tuple[Row, ...]:
    """What belongs to the job, not to the trainer."""
    return (
        handled_by_us("version", "of the recipe's schema"),
        handled_by_us("name", "names the job"),
        handled_by_us("description", "for people"),
    )


def resume(cannot: Callable[[Context], tuple[Lack, str, str] | None], *, over_hosts: bool = False) -> Row:
    """checkpoint.resume. What goes on is a retry, whose plan differs by a few keys (backends/checkpoints.py).

    Args:
        cannot: what is in the way of that on a machine, if anything: kind of loss, reason, upstream's word.
        over_hosts: the first of several hosts has all that the others need (`Backend.resumes_over_hosts`).
    """

    def to(wanted: bool, context: Context) -> Values:
        apart: tuple[Lack, str, str] = ("todo", "the checkpoint lies on the first host only, and the others need it too", "")
        if wanted and (lack := cannot(context) or (apart if context.hosts > 1 and not over_hosts else None)):
            raise Unsupported("checkpoint.resume", lack[1], kind=lack[0], see=lack[2])
        return ()

    return Row(
        ("checkpoint.resume",), (), to, lambda _: (False,), "same", "a retry is told the checkpoint, which it finds as resume"
    )


def resources(*between: Row) -> tuple[Row, ...]:
    """What the machine must have: matched by us when the job is placed. `between` are the trainer's rows for devices, hosts,
    strategy and tensor.
    """
    return (
        handled_by_us("resources.accelerator", "matched when the job is placed"),
        *between,
        handled_by_us("resources.memory_gib", "matched when the job is placed"),
        *idle("retry", "read by whoever runs the job"),
        *idle("after", "a job of its own, once this one has succeeded"),
        handled_by_us("secrets", "into the environment of the steps, by the runner's standard input"),
        handled_by_us("release", "chooses the trainer's table, its keys and its environment"),
        handled_by_us("native", "written over everything else; one line a key"),
    )


def one_device(see: str, why: str = "several devices are not translated yet", kind: Lack = "todo") -> tuple[Row, ...]:
    """For shapes of recipe that run on one device only."""
    return (
        cannot("resources.devices", why, kind=kind, see=see),
        cannot("resources.hosts", why, kind=kind, see=see),
        handled_by_us("resources.strategy", "one device shares with no other"),
        cannot("resources.tensor", why, kind=kind, see=see),
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
        cannot("log.trackers", why, kind=kind, see=see),
        handled_by_us("log.project", "only with trackers"),
        handled_by_us("log.run", "only with trackers"),
        handled_by_us("log.mlflow_uri", "only with trackers"),
        handled_by_us("log.wandb_mode", "only with trackers"),
    )


OFFLINE = handled_by_us("log.wandb_mode", "WANDB_MODE of the job's environment")
