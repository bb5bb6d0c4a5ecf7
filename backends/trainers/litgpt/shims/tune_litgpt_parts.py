"""What takes the place of parts of LitGPT 0.5.13 that have no way in, and how it is put there. tune_litgpt.py says when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import tune_noise
from lightning.fabric.strategies import DDPStrategy
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def own(module: ModuleType | type, name: str) -> Any:
    """What LitGPT has under this name.

    Raises:
        RuntimeError: it has nothing there: this is another release.
    """
    if not hasattr(module, name):
        raise RuntimeError(f"{module.__name__} has no {name}: this is not LitGPT 0.5.13, for which this file is written")
    return getattr(module, name)


def replace(module: ModuleType | type, name: str, new: Any) -> None:
    """Put something of ours there.

    Raises:
        RuntimeError: see `own`.
    """
    own(module, name)
    setattr(module, name, new)


def recomputed(forward: Any) -> Any:
    """A block's forward pass that keeps its inputs only; weights and their names stay what they are."""

    def again(block: torch.nn.Module, *args: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return forward(block, *args)
        return checkpoint(forward, block, *args, use_reentrant=False)

    return again


def by_products(layer: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`LoRAQKVLinear.conv1d` (lora.py) without a convolution, which torch compiles anew for every length of the rows.

    Seen in torch 2.13 on a CPU: four lengths made four graphs, and two with products. Beyond eight torch compiles no more.
    """
    parts = zip(x.chunk(sum(layer.enable_lora), dim=1), weight.split(layer.qkv_shapes), strict=True)
    return torch.cat([torch.nn.functional.linear(part.mT, b.squeeze(-1)).mT for part, b in parts], dim=1)


class Ddp(DDPStrategy):
    """In place of LitGPT's own strategy for several devices, whatever that is told."""

    def __init__(self, **_: Any) -> None:
        super().__init__()


def no_example(*_: Any, **__: Any) -> None:
    """In place of generating a text after each evaluation."""


def keeping(load: Any) -> Any:
    """LitGPT's `load_checkpoint`, after which the optimizer still holds the weights that are trained.

    With several devices it puts new parameters in place of the old (utils.py, load_from_full_model_state_dict: assign=True),
    also for the A and B that our checkpoint begins with; the optimizer, built before, would train the old ones in vain.
    """

    def loaded(fabric: Any, model: torch.nn.Module, *args: Any, **kw: Any) -> None:
        held = [(m, n, p) for m in model.modules() for n, p in m.named_parameters(recurse=False) if p.requires_grad]
        load(fabric, model, *args, **kw)
        for module, name, mine in held:
            with torch.no_grad():
                mine.to_local().copy_(getattr(module, name).to_local())
            setattr(module, name, mine)

    return loaded


def noisy(forward: Any, alpha: float, folder: str) -> Any:
    """A model's forward pass with NEFTune's noise behind its embedding. `litgpt.lora.GPT` has its parent's, which is noisy already."""
    if hasattr(forward, "tune_noisy"):
        return forward

    def again(model: torch.nn.Module, *args: Any, **kw: Any) -> Any:
        embedding = model.transformer.wte
        if not hasattr(embedding, "tune_noisy"):
            embedding.tune_noisy = True
            tune_noise.put_on(embedding, alpha, folder)
        return forward(model, *args, **kw)

    again.tune_noisy = True
    return again


def one_embedding(base: type) -> type:
    """The model class with one matrix for input and output embedding, as in the checkpoint it comes from."""

    class Tied(base):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            if self.lm_head.weight.is_meta:  # FSDP1 would make two matrices of it when it allocates them
                raise RuntimeError("tied embeddings cannot be trained in full by FSDP: use resources.strategy: ddp, or LoRA")
            self.lm_head.weight = self.transformer.wte.weight

    return Tied


class TokenMean:
    """The loss, where each micro-batch's mean is weighed by its share of the tokens of the whole batch.

    LitGPT averages the means of the micro-batches (finetune/full.py and lora.py, `fit`: a running mean for the log, the same
    factor for the gradient), and over processes. A mean times n_i x count / sum(n) makes both that average and the gradient
    those of the mean over all tokens. The loader announces the weight with the batch it hands out.
    """

    def __init__(self, mean: Any, world: int) -> None:
        self._mean, self._world = mean, world
        self.weight = 1.0
        self.taken: Callable[[], None] = lambda: None
        """Called before each loss that is trained on: the batch handed out last is not left lying."""

    def __call__(self, *args: Any, **kw: Any) -> torch.Tensor:
        """In place of `chunked_cross_entropy`."""
        if torch.is_grad_enabled():
            self.taken()
        loss = self._mean(*args, **kw) * self.weight
        if self._world == 1 or loss.is_meta:  # pre-training counts floating-point operations on such a model
            return loss
        shown = loss.detach().clone()  # LitGPT logs the value of the first process alone: give it that of all
        torch.distributed.all_reduce(shown)
        return loss + (shown / self._world - loss).detach()
