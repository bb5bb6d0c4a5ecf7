"""What the trainers' sides have in common: the rows, the learning rate, the optimizer, the cache.

Runs in the trainer's environment, from the job's folder. Importing it costs the standard library only: numpy and torch come
in where they are used, so that a step whose work lies in the cache already ends at once.
"""
# ruff: noqa: PLC0415 - what lies in the cache must be found without waiting for torch

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch

NO_LOSS = -100
"""Label of a token that carries no loss."""


class Rows:
    """The rows that the data step wrote: token ids and labels (unshifted), in one flat file each."""

    def __init__(self, folder: str, split: str = "train") -> None:
        import numpy as np

        base = Path(folder) / split
        self.ids = np.load(f"{base}.ids.npy", mmap_mode="r")
        self.labels = np.load(f"{base}.labels.npy", mmap_mode="r")
        self.starts = np.load(f"{base}.starts.npy")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> tuple[Any, Any]:
        """Ids and labels of one row, as int64 arrays of its own length."""
        place = slice(self.starts[number], self.starts[number + 1])
        return self.ids[place].astype("int64"), self.labels[place].astype("int64")

    def longest(self) -> int:
        """Tokens of the longest row."""
        return max((self.starts[1:] - self.starts[:-1]).tolist(), default=0)

    def learned(self) -> Any:
        """For each row, how many of its tokens carry loss."""
        import numpy as np

        spans = zip(self.starts[:-1], self.starts[1:], strict=True)
        return np.array([np.count_nonzero(self.labels[a:b] != NO_LOSS) for a, b in spans], dtype="int64")


def guarded(reason: str, act: Callable[[], None]) -> int:
    """Do a step of a plan. 0; or 1, with a message, and `{"reason", "detail"}` in reason.json."""
    try:
        act()
    except Exception as error:  # files that others wrote can be broken in any way, and each way has its exception
        detail = f"{error}" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        Path("reason.json").write_text(json.dumps({"reason": reason, "detail": detail}))
        print(f"{reason}: {detail}", file=sys.stderr)
        return 1
    return 0


def manifest(folder: str) -> dict[str, Any]:
    """What the data step says of its rows: `steps`, `batch` (rows an optimizer step), `pad_id`, and more."""
    return json.loads((Path(folder) / "manifest.json").read_text())


def order(folder: str) -> Any:
    """Which row comes when: `steps x batch` row numbers, all epochs unrolled."""
    import numpy as np

    return np.load(Path(folder) / "train.order.npy", mmap_mode="r")


EVEN = 64
"""Lengths of micro-batches are multiples of it on CUDA."""


def even(ids: torch.Tensor, labels: torch.Tensor, pad: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A micro-batch padded on to an even length where a GPU trains, but to no more than the longest row has.

    Of attention kernels torch prefers cuDNN's on an H100 or H200, which are 1.6 times as fast as the others there, but are planned
    anew for each length that was not seen before: 0.13 s on an H200 (torch 2.11), about a step of a small model.

    Args:
        ids: rows x tokens.
        labels: of the same shape.
        pad: the id of padding.
        longest: tokens of the longest row, for which models have their table of positions.
    """
    import torch

    length = ids.shape[1]
    more = min(-length % EVEN, longest - length)
    return longer(ids, labels, pad, more) if torch.cuda.is_available() else (ids, labels)


def longer(ids: torch.Tensor, labels: torch.Tensor, pad: int, more: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A micro-batch with so many tokens of padding after each row, without loss; of 0 or fewer none."""
    import torch

    wider = torch.nn.functional.pad
    return (wider(ids, (0, more), value=pad), wider(labels, (0, more), value=NO_LOSS)) if more > 0 else (ids, labels)


class OptimizerSteps:
    """What each optimizer step really used, whichever optimizer of torch's makes it: its learning rate, since a schedule has gone on to
    the next one's by the time a trainer logs the step, and the norm of its gradient, which some trainers do not report.
    """

    def __init__(self, *, has_norm: Callable[[], bool] = lambda: False) -> None:
        """`has_norm` says at each step whether this process may take the norm; see `gradient_norm`."""
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        self.rate = math.nan
        """Of the last step; NaN before the first."""
        self.grad_norm = math.nan
        """Before clipping, where `clipped` was told; NaN where it is not known."""
        self._has_norm = has_norm
        self._unclipped: float | None = None
        register_optimizer_step_pre_hook(self._note)

    def clipped(self, norm: float) -> None:
        """The next step's gradient had this norm before it was clipped."""
        self._unclipped = norm

    def _note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.rate = float(optimizer.param_groups[0]["lr"])
        if self._unclipped is not None:
            self.grad_norm, self._unclipped = self._unclipped, None
        elif self._has_norm():
            self.grad_norm = gradient_norm(optimizer)


def gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Those that a step is made of."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Norm of all gradients that a step is made of. Of weights that FSDP2 splits over processes it is that of the whole, and all
    processes have to ask; of other splits it is wrong.
    """
    import torch

    norm = torch.nn.utils.get_total_norm(gradients(optimizer))
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer takes the loss scale of fp16 away itself
    return float(whole) / (1.0 if scale is None else float(scale))


def adamw(params: Iterable[torch.nn.Parameter], *, decay_on: str = "all", **settings: Any) -> torch.optim.AdamW:
    """AdamW of torch; `decay_on="matrices"` spares every weight of fewer than two dimensions (norms, biases) from decay."""
    import torch

    return torch.optim.AdamW(_groups(list(params), decay_on), **settings)


def _groups(every: list[torch.nn.Parameter], decay_on: str) -> list[dict[str, Any]]:
    if decay_on == "all":
        return [{"params": every}]
    if decay_on != "matrices":
        raise ValueError(f"decay_on should be all or matrices, got {decay_on!r}")
    if _flattened(every):
        raise ValueError("decay_on: matrices cannot be told from vectors here, the weights arrive flattened; use all")
    matrices, spared = ([p for p in every if (p.ndim > 1) is matrix] for matrix in (True, False))
    return [{"params": matrices}, {"params": spared, "weight_decay": 0.0}]


def _flattened(every: list[torch.nn.Parameter]) -> bool:
    """FSDP1 hands out flat pieces; FSDP2, which LitGPT's LoRA and torchtune use, leaves shapes alone."""
    return all(p.ndim < 2 for p in every)


def identity(folder: str) -> str:
    """What a model folder is known by: its name within the cache, or the names, sizes and times of its files."""
    real = Path(folder).resolve()
    cache = Path("cache").resolve()
    if real.is_relative_to(cache):
        return str(real.relative_to(cache))
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in real.iterdir() if p.is_file())
    return json.dumps([str(real), files])


def key(*facts: Any) -> str:
    """Name in the cache for something made from these facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def cached(room: str, name: str, build: Callable[[Path], None], link: str) -> None:
    """Have `cache/<room>/<name>`, built by `build(folder)` unless it is there, and link it as `link` in the job's folder."""
    place = Path("cache", room, name)
    tune_cache.made_once(str(place), lambda aside: build(Path(aside)))
    point(link, place)


def point(link: str, place: Path) -> None:
    """Make `link` point at `place`, replacing an older link at once."""
    aside = Path(f"{link}.{os.getpid()}")
    aside.symlink_to(place)
    aside.replace(link)
