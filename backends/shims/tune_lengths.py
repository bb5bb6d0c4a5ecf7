"""Layers that are compiled once for rows of any length, where micro-batches have many lengths.

torch compiles a layer for the lengths that it sees first, and for any length once it sees others: two compilations before the second
micro-batch is through, twice the wait for the first step (torch 2.13 on a CPU, four small layers of torchtune with LoRA: 4 graphs, of
which 2 serve the first micro-batch alone). `dynamic=True` would have all sizes be of any length, the width of the model too.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import tune_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def compile_once(layers: Iterable[torch.nn.Module], folder: str) -> None:
    """Have modules, where a trainer compiles them (`Module.compile`), be compiled as `compiled_once` does."""
    for layer in layers:
        layer.compile = functools.partial(_compile, layer, folder)  # type: ignore[method-assign]


def _compile(layer: torch.nn.Module, folder: str, **words: Any) -> None:
    torch.nn.Module.compile(layer, **words)
    # what `Module.__call__` calls in place of itself (torch 2.11 and 2.13, nn/modules/module.py: compile)
    layer._compiled_call_impl = compiled_once(layer._compiled_call_impl, folder)


def compiled_once(run: Callable[..., Any], folder: str) -> Callable[..., Any]:
    """What was compiled, told at each call that the tokens of a row (the second size of the first argument, rows x tokens x width, and of
    all others of three sizes that have it) may be any number, unless most micro-batches of the data step's rows in `folder` have one.
    """
    many: bool | None = None

    @functools.wraps(run)
    def called(*args: Any, **more: Any) -> Any:
        nonlocal many
        wide = [each for each in args if isinstance(each, torch.Tensor) and each.ndim == 3]
        if many is None:
            many = bool(wide) and many_lengths(folder, wide[0].shape[0])
        if many:
            for each in wide:
                if each.shape[1] == wide[0].shape[1]:
                    torch._dynamo.maybe_mark_dynamic(each, 1)
        return run(*args, **more)

    return called


@functools.cache
def many_lengths(folder: str, micro: int) -> bool:
    """Whether no length is that of most micro-batches of `micro` rows. Of pairs it is taken for granted."""
    if not Path(folder, "train.starts.npy").exists():
        return True
    rows, order = tune_shared.Rows(folder), tune_shared.order(folder)
    lengths = np.diff(rows.starts)[order[: len(order) // micro * micro]].reshape(-1, micro).max(1)
    if torch.cuda.is_available():
        lengths = np.minimum(-(-lengths // tune_shared.EVEN) * tune_shared.EVEN, rows.longest())
    return bool(np.unique(lengths, return_counts=True)[1].max(initial=0) * 2 <= len(lengths))
