"""What went wrong is told from how an attempt ended, and from words that the libraries really write."""

import re

import pytest

from backends.log_signs import Ended, Failure, classify
from backends.registry import BACKENDS, reader

OOM_CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB"
OOM_CPU = (
    "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
OOM_JAX = "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 400000000000000 bytes."
OOM_NUMPY = "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.11 PiB for an array with shape (1000000000000000,)"
ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
REMOTE = "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."
GLOO = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4711"
WATCHDOG = "[rank1]:[E ProcessGroupNCCL.cpp:683] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=21)"
TORCHRUN = "  exitcode  : -9 (pid: 4711)"


def failure(ended: Ended) -> Failure:
    """What went wrong, by the signs of the trainer that ended."""
    return classify(ended, reader(ended.backend).signs)


@pytest.mark.parametrize(
    ("backend", "line", "kind"),
    [
        ("torchtune", OOM_CUDA, "out_of_memory"),
        ("litgpt", f"[rank0]: {OOM_CUDA}", "out_of_memory"),
        ("litgpt", OOM_CPU, "out_of_memory"),
        ("axolotl", "MemoryError", "out_of_memory"),
        ("axolotl", TORCHRUN, "out_of_memory"),
        ("maxtext", OOM_JAX, "out_of_memory"),
        ("maxtext", OOM_NUMPY, "out_of_memory"),
        ("maxtext", "XlaRuntimeError: INTERNAL: CUDA_ERROR_ECC_UNCORRECTABLE", "hardware"),
        ("maxtext", "Training stopped: Job received termination signal (SIGTERM).", "lost"),
        ("torchtune", ECC, "hardware"),
        ("axolotl", REMOTE, "hardware"),
        ("litgpt", "OSError: [Errno 5] Input/output error: 'data/train.ids.npy'", "hardware"),
        ("litgpt", GLOO, "hardware"),
        ("torchtune", WATCHDOG, "hang"),
        ("litgpt", "ModuleNotFoundError: No module named 'rewards'", "wrong_request"),
        ("a trainer of another package", OOM_JAX, "out_of_memory"),
        ("litgpt", "ValueError: micro_batch_size must be greater than 0", "unknown"),
        ("litgpt", "Step 3 | loss: 2.5, all is well", "unknown"),
    ],
)
def test_a_log_says_what_it_was(backend, line, kind):
    """A known line decides, whichever follow; an unknown one decides nothing."""
    tail = f"Epoch 1 | iter 4\n{line}\nTraceback (most recent call last):\n  File 'x.py', line 1"
    found = failure(Ended(backend, "exit_code", 1, None, tail))
    assert found.kind == kind
    assert kind == "unknown" or found.why == line.strip()


@pytest.mark.parametrize(
    ("ended", "kind"),
    [
        (Ended("litgpt", "host_rebooted"), "lost"),
        (Ended("litgpt", "abandoned"), "lost"),
        (Ended("litgpt", "supervisor_died"), "lost"),
        (Ended("litgpt", "bad_data", 1, tail=OOM_CUDA), "wrong_request"),
        (Ended("litgpt", "missing_secret"), "wrong_request"),
        (Ended("litgpt", "hang", tail=OOM_CUDA), "hang"),
        (Ended("litgpt", "signal", 0, 9), "out_of_memory"),
        (Ended("litgpt", "signal", 0, 15), "lost"),
        (Ended("litgpt", "exit_code", 137), "out_of_memory"),
        (Ended("litgpt", "signal", 0, 9, evidence="oom_kill 3 -> 3"), "lost"),
        (Ended("litgpt", "exit_code", 137, evidence="oom_kill 3 -> 3"), "lost"),
        (Ended("litgpt", "out_of_memory", 0, 9), "out_of_memory"),
        (Ended("litgpt", "disk_full", 1, tail=OOM_CUDA), "wrong_request"),
        (Ended("litgpt", "exit_code", 143), "lost"),
        (Ended("litgpt", "signal", 0, 11), "unknown"),
        (Ended("litgpt", "exit_code", 2), "wrong_request"),
        (Ended("litgpt", "exit_code", 1), "unknown"),
        (Ended("litgpt", "nan_loss"), "unknown"),
        (Ended("torchtune", "signal", 0, 15, tail=OOM_CUDA), "out_of_memory"),
    ],
)
def test_an_end_says_what_it_was(ended, kind):
    """Reasons of ours come first, then the log, then the signal or what a shell makes of one, then the exit code."""
    assert failure(ended).kind == kind


def test_the_first_known_line_decides():
    """One process runs out of memory, the others then lose it: the cause is the former."""
    assert failure(Ended("axolotl", "exit_code", 1, tail=f"{OOM_CUDA}\n{REMOTE}\n{TORCHRUN}")).kind == "out_of_memory"
    assert failure(Ended("axolotl", "exit_code", 1, tail=f"{REMOTE}\n{OOM_CUDA}")).kind == "hardware"


def test_a_log_of_any_size_is_looked_through():
    """Neither a line of megabytes nor what looks like a pattern holds it up."""
    tail = "\n".join(
        ["exitcode " * 200_000, "[" * 100_000, *["gloo/transport/tcp/" * 300, "1" * 5000] * 50, "\x00\ufffd", OOM_CPU]
    )
    assert failure(Ended("litgpt", "exit_code", 1, tail=tail)).kind == "out_of_memory"


def test_every_trainer_has_its_signs():
    """Each of ours is known, each sign says where its words are written, and each can be found in itself."""
    assert all(backend.signs for backend in BACKENDS.values())
    for sign in {sign for backend in BACKENDS.values() for sign in backend.signs}:
        assert sign.see.startswith("https://")
        assert re.compile(sign.words).groups >= 0
