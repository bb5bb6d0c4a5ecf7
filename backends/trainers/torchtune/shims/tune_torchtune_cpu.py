"""`python tune_torchtune_cpu.py run RECIPE --config FILE`: torchtune 0.6.1's own command, for its distributed recipes on a CPU.

They take a GPU for granted in three places, which do not change what is computed: the process group asks for NCCL beside
gloo, the memory of the device is logged, and its cache is emptied (recipes/lora_finetune_distributed.py, training/memory.py).
With a GPU torchtune is started as it is.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import distributed
from torchtune import training

_init = distributed.init_process_group


def _gloo(_backend: Any = None, **settings: Any) -> None:
    _init("gloo", **settings)


def _nothing(*_: Any, **__: Any) -> dict[str, float]:
    return {}


def main() -> None:
    """Start torchtune's command, which reads sys.argv itself."""
    distributed.init_process_group = _gloo
    training.get_memory_stats = training.log_memory_stats = _nothing
    torch.cpu.empty_cache = torch.cpu.reset_peak_memory_stats = _nothing
    from torchtune._cli.tune import main as tune  # noqa: PLC0415 - looks at what has just been set

    tune()


if __name__ == "__main__":
    sys.exit(main())
