"""What went wrong with an attempt, told from how it ended and from its last lines. Pure.

A class decides how often the job is tried again (the recipe's section retry). Words of the log are compared with what the
libraries under each trainer are known to write; the first line that is known decides, since later ones follow from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from backends.records import dataclass

Class = Literal["wrong_request", "out_of_memory", "hardware", "lost", "hang", "unknown"]
"""`wrong_request` would fail again; of the others the recipe's section retry says what each means."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended that did not succeed."""

    backend: str
    """The trainer's name."""
    reason: str
    """The reason's word: of the job's state, or what the failing step left in reason.json."""
    rc: int | None = None
    """Exit code of the step that ended last."""
    signal: int | None = None
    """Signal that ended it."""
    tail: str = ""
    """Last lines of the log."""
    evidence: str = ""
    """What speaks against a kill by the kernel for want of memory, where a step was killed; empty: nothing is known."""


class Failure(NamedTuple):
    """What it was."""

    kind: Class
    why: str
    """By which it was recognised: a line of the log, or words of ours."""


class Sign(NamedTuple):
    """Words of a log."""

    kind: Class
    words: str
    """A regular expression, found anywhere in a line."""
    see: str
    """Where they are written."""


_PYTHON = "https://docs.python.org/3/library/exceptions.html"
_ERRNO = "https://man7.org/linux/man-pages/man3/errno.3.html"
_CUDA = "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html"
_TORCH = "https://github.com/pytorch/pytorch/blob/v2.9.1/"
_NCCL = _TORCH + "torch/csrc/distributed/c10d/"
_ELASTIC = _TORCH + "torch/distributed/elastic/multiprocessing/errors/__init__.py"
_GLOO = "https://github.com/pytorch/gloo/tree/main/gloo/transport/tcp"
_HUB = "https://huggingface.co/docs/huggingface_hub/package_reference/utilities"
_XLA = "https://github.com/openxla/xla/blob/main/xla/tsl/"
_JAX = "https://github.com/jax-ml/jax/blob/jax-v0.11.0/jax/_src/xla_bridge.py"

EVERYWHERE = (
    Sign("out_of_memory", r"^MemoryError\b|_ArrayMemoryError", _PYTHON),
    Sign("out_of_memory", r"\[Errno 12\] Cannot allocate memory", _ERRNO),
    Sign("hardware", r"\[Errno (5|121)\] (Input/output|Remote I/O) error", _ERRNO),
    Sign("wrong_request", r"^ModuleNotFoundError: ", _PYTHON),
)
"""Whatever the trainer."""

CUDA = (
    Sign("out_of_memory", r"CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory", _CUDA),
    Sign("hardware", r"uncorrectable ECC error|CUDA_ERROR_ECC_UNCORRECTABLE", _CUDA),
    Sign("hardware", r"hardware stack error|GPU is lost|fallen off the bus|uncorrectable NVLink error", _CUDA),
    Sign("hardware", r"CUDA-capable device\(s\) is/are busy or unavailable|CUDA error: unknown error", _CUDA),
)
"""Of the driver, through torch and JAX alike."""

TORCH = (
    *CUDA,
    Sign("out_of_memory", r"OutOfMemoryError|CUDA out of memory\. Tried to", _TORCH + "c10/cuda/CUDACachingAllocator.cpp"),
    Sign("out_of_memory", r"you tried to allocate \d+ bytes", _TORCH + "c10/core/impl/alloc_cpu.cpp"),
    Sign("out_of_memory", r"exitcode\s*: -9 ", _ELASTIC),
    Sign("lost", r"exitcode\s*: -15 ", _ELASTIC),
    Sign("hang", r"Watchdog caught collective operation timeout", _NCCL + "ProcessGroupNCCL.cpp"),
    Sign("hardware", r"nccl(RemoteError|SystemError|UnhandledCudaError): ", _NCCL + "NCCLUtils.cpp"),
    Sign("hang", r"gloo/transport/tcp/\S+\] Timed out waiting", _GLOO),
    Sign("hardware", r"gloo/transport/tcp/\S+\] Connection (closed|reset) by peer", _GLOO),
    Sign("wrong_request", r"GatedRepoError|RepositoryNotFoundError", _HUB),
)
"""Of torch and what comes with it."""

JAX = (
    *CUDA,
    Sign(
        "out_of_memory", r"RESOURCE_EXHAUSTED: .*(Out of memory|out of memory|allocat|hbm)", _XLA + "framework/bfc_allocator.cc"
    ),
    Sign("lost", r"The tasks have crashed|heartbeat timeout", _XLA + "distributed_runtime/coordination/coordination_service.cc"),
    Sign("hardware", r"Unable to initialize backend 'tpu'|TPU initialization failed", _JAX),
)
"""Of JAX and XLA."""

_REASONS: dict[str, Class] = {
    **dict.fromkeys(
        ("host_rebooted", "supervisor_died", "folder_gone", "abandoned", "allocation_ended", "node_gone", "slice_gone"), "lost"
    ),
    **dict.fromkeys(("time_limit", "node_failed", "preempted", "requeued", "interrupted"), "lost"),  # by a batch system
    **dict.fromkeys(("bad_data", "no_data", "gated_data", "bad_model", "no_model", "no_template", "bad_spec"), "wrong_request"),
    **dict.fromkeys(
        (
            "missing_secret",
            "no_loss_tokens",
            "no_stop_token",
            "no_backend",
            "drift",
            "resume_astray",
            "input_changed",
            "diverged",
        ),
        "wrong_request",
    ),
    **dict.fromkeys(("bad_tasks", "gate", "export_differs", "served_differs", "port_in_use"), "wrong_request"),
    "hang": "hang",
    "out_of_memory": "out_of_memory",
    "disk_full": "wrong_request",  # the same needs the same room
}
"""Reasons that say by themselves what it was."""

_SIGNALS: dict[int, Failure] = {
    9: Failure("out_of_memory", "killed by signal 9, as the kernel does when the host's memory is full"),
    **dict.fromkeys(
        (1, 2, 15, 30), Failure("lost", "asked to end by somebody else than us, as a host does that is switched off")
    ),
    7: Failure("hardware", "ended by signal 7: memory or a mapped file could not be read"),
}
"""HUP, INT, TERM and PWR; KILL; BUS."""

_KILL = 9
_USAGE = 2
"""Exit code of programs that do not take their words."""


def classify(ended: Ended, signs: Iterable[Sign]) -> Failure:
    """What went wrong: by the reason, if it says so; by the log; by the signal; by the exit code."""
    if kind := _REASONS.get(ended.reason):
        return Failure(kind, ended.reason.replace("_", " "))
    if found := _recognised(ended.tail.splitlines(), signs):
        return found
    number = ended.signal or (ended.rc - 128 if ended.rc and 128 < ended.rc < 192 else 0)
    if number == _KILL and ended.evidence:
        return Failure("lost", f"killed by signal {number} by somebody else than us: {ended.evidence}")
    if number in _SIGNALS:
        return _SIGNALS[number]
    if ended.rc == _USAGE:
        return Failure("wrong_request", "exit code 2: the program did not take its words")
    return Failure("unknown", ended.reason.replace("_", " "))


def _recognised(lines: Iterable[str], signs: Iterable[Sign]) -> Failure | None:
    """The first line that is known, without what stands before it in every line."""
    compiled = [(sign.kind, re.compile(sign.words)) for sign in signs]
    for line in lines:
        said = re.sub(r"^\s*(\[rank\d+\]:|[\w./-]+:)?\s*", "", line[:_LONGEST]) or line[:_LONGEST]
        for kind, words in compiled:
            if words.search(said) or words.search(line[:_LONGEST]):
                return Failure(kind, line.strip()[:_SHOWN])
    return None


_LONGEST = 4000
"""Characters of a line that are looked at: a log may have lines of any length."""
_SHOWN = 300
