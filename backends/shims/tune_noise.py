"""NEFTune (arXiv:2310.05914, algorithm 1): while it trains, noise on the embeddings of a row, uniform within +-alpha / sqrt(L d), where L
counts the row's tokens and d the numbers of an embedding.

The noise is drawn from train.seed, the optimizer step and the row's own ids, so that it is the same in every trainer, however a step is cut
into micro-batches and spread over devices, and after a resume. Padding at the end of a row does not count, and neither does an end that is
the same token as padding. A device's own generator draws: CPU and CUDA have other numbers.

transformers draws from the global generator, and counts padding in L (integrations/neftune.py, 5.x).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import torch
import tune_checkpoints
import tune_shared
from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from collections.abc import Collection


def put_on(embedding: torch.nn.Module, alpha: float, folder: str = "data", also: Collection[int] = ()) -> None:
    """Have an embedding add the noise whenever it trains.

    Args:
        embedding: ids to vectors, called as a module.
        alpha: of the paper; 5 to 15 there.
        folder: of the data step, which knows the seed and the padding.
        also: other ids that the trainer pads with.
    """
    facts = tune_shared.manifest(folder)
    # on the CPU by name: a trainer may build its model on the meta device, where tensors have no numbers
    pads = torch.tensor(sorted({facts["pad_id"], *also}), device="cpu")
    taken = [tune_checkpoints.begun()]

    def step_taken(*_: Any) -> None:
        taken[0] += 1

    @torch.compiler.disable
    def noisy(module: torch.nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        if not (module.training and torch.is_grad_enabled()):
            return out
        noise = torch.zeros(out.shape, dtype=torch.float32, device=out.device)
        ids = given[0].full_tensor() if hasattr(given[0], "full_tensor") else given[0]
        for place, row in zip(noise, ids.cpu(), strict=True):
            if length := _length(row, pads):
                generator = torch.Generator(out.device).manual_seed(_seed(facts["seed"], taken[0], row[:length]))
                drawn = torch.rand((length, out.shape[-1]), generator=generator, device=out.device)
                place[:length] = (2 * drawn - 1) * (alpha / math.sqrt(length * out.shape[-1]))
        return out + noise.to(out.dtype)

    register_optimizer_step_post_hook(step_taken)
    embedding.register_forward_hook(noisy)


def _length(row: torch.Tensor, pads: torch.Tensor) -> int:
    """Tokens up to the last that is no padding."""
    own = torch.isin(row, pads, invert=True).nonzero()
    return int(own[-1]) + 1 if len(own) else 0


def _seed(seed: int, step: int, ids: torch.Tensor) -> int:
    text = f"{seed}:{step}:{','.join(map(str, ids.tolist()))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
