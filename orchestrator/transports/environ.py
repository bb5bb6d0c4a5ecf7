"""Which variables a job on this machine has: a fixed set of its submitter's, and what its target says; never those of whoever
happened to start the controller. On another host they are that host's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_PASSED = re.compile(r"HOME|USER|LOGNAME|SHELL|PATH|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|XDG_(CACHE|CONFIG|DATA)_HOME|PYENV_ROOT")
"""Who runs it, where programs lie, and in which language they speak: what a session over SSH begins with."""

_MACHINE = re.compile(
    r"(?i:(https?|ftp|all|no)_proxy)|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|LD_LIBRARY_PATH|(PIP|UV)_\w+|XDG_CONFIG_DIRS"
)
"""How this machine reaches the network, its package indexes and its drivers. They may hold a password, so they are never written
into the store: a job gets those of the controller's process.
"""

_MATTERS = re.compile(
    r"(HF|HUGGINGFACE|TRANSFORMERS|DATASETS|TOKENIZERS|TORCH|PYTORCH|TORCHINDUCTOR|TRITON|CUDA|CUBLAS|NCCL|GLOO|NVIDIA|OMP|MKL"
    r"|OPENBLAS|KMP|XLA|JAX|TPU|LIBTPU|WANDB|MLFLOW|COMET|TENSORBOARD|ACCELERATE|DEEPSPEED)_\w+|PYTHON(PATH|HASHSEED)"
)
"""What people set for a training."""

_NO_SETTING = frozenset({"CUDA_HOME", "CUDA_PATH", "CUDA_VERSION", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"})
"""Matters by its name, and is set by images and module systems for compilers and containers."""


def passed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a submitter that go with a job on this machine."""
    return {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}


def of_machine(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the controller's process with which attempts on this machine begin; the submitter's come over them."""
    return {name: value for name, value in environ.items() if name in ("HOME", "PATH") or _MACHINE.fullmatch(name)}


def not_passed(environ: Mapping[str, str], set_otherwise: Iterable[str] = ()) -> list[str]:
    """Names of variables that a user has set for a training and that no job has, sorted.

    Args:
        environ: of the process that submits.
        set_otherwise: those that the plan, the target or a secret sets.
    """
    left = _NO_SETTING | set(set_otherwise)
    return sorted(name for name, value in environ.items() if value and name not in left and _MATTERS.fullmatch(name))
