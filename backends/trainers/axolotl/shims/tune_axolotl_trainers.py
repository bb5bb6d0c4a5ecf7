"""axolotl's trainers, made to do what the recipe means: the `trainer_cls` of an axolotl.yaml.

Each is a class of axolotl's (core/trainers, 0.19 and 0.21) or TRL's with one of tune_hf_trainer.py before it.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
import tune_hf_losses
import tune_shared
from axolotl.core.trainers import AxolotlCPOTrainer, AxolotlKTOTrainer, AxolotlORPOTrainer, AxolotlRewardTrainer, AxolotlTrainer
from axolotl.core.trainers.dpo import AxolotlDPOTrainer
from axolotl.core.trainers.grpo.trainer import AxolotlGRPOTrainer
from torchao.quantization.qat import FakeQuantizedLinear
from tune_hf_answers import Answering
from tune_hf_heads import Scoring
from tune_hf_trainer import Prepared, Ready, TokenMean

__all__ = ["Dpo", "Grpo", "Kto", "Orpo", "Reward", "Sft", "Simpo"]


class Sft(TokenMean, AxolotlTrainer):
    """Next-token loss, a mean over all tokens with loss: of the micro-batches of a step, of the processes, of an evaluation."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        # Rows have no attention mask, which lets torch take its fastest kernel; padding then has to come behind the tokens
        kw["processing_class"].padding_side = "right"
        super().__init__(*args, **kw)
        _check(self.model)
        # axolotl looks for num_items_in_batch by name in the inner model's forward, does not find it in Llama's, and lets
        # micro-batches count alike, whatever their tokens (core/trainers/base.py)
        self.model_accepts_loss_kwargs = True
        self.seen = None if self.wish["rows"] else 0  # axolotl's own count has the padding in it

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kw: Any) -> torch.Tensor:
        """Tokens are counted, padding is not: what is packed has masks of 1, 2, 3, and padding 0."""
        if self.seen is not None:
            mask = inputs.get("attention_mask")
            self.seen += inputs["input_ids"].numel() if mask is None else int((mask != 0).sum())
        return super().training_step(model, inputs, *args, **kw)

    def counted(self, labels: torch.Tensor) -> tuple[int, int]:
        """Of all processes: transformers makes the loss a mean over them."""
        here = torch.tensor([int((labels != tune_shared.NO_LOSS).sum()), len(labels)], device=self.args.device)
        tokens, rows = self.accelerator.reduce(here).tolist()
        return tokens, rows


class Unrouted:
    """A mixture trains without the loss of its router, which no other trainer adds unasked. TRL 1.9 adds it to DPO, KTO and GRPO with a
    weight of 0.001 (trl/trainer/dpo_config.py and its siblings), and axolotl has no key for that.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        kw["args"].router_aux_loss_coef = 0.0
        super().__init__(*args, **kw)


class Rounded:
    """With quantization-aware training the reference rounds as the policy does, so that both are the same before the first step. axolotl
    rounds that of dpo and ipo, which it loads itself (loaders/model.py, _configure_qat); those of kto and grpo are loaded by TRL.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        own = next((layer for layer in self.model.modules() if isinstance(layer, FakeQuantizedLinear)), None)
        for layer in self.ref_model.modules() if own and self.ref_model else ():
            if type(layer) is torch.nn.Linear:  # changed in place: FSDP knows its layers by identity
                layer.__class__ = FakeQuantizedLinear
                layer.activation_fake_quantizer = copy.deepcopy(own.activation_fake_quantizer)
                layer.weight_fake_quantizer = copy.deepcopy(own.weight_fake_quantizer)


class Dpo(Unrouted, Prepared, AxolotlDPOTrainer):
    """dpo and ipo."""

    def training_step(self, *args: Any, **kw: Any) -> torch.Tensor:
        """Without axolotl's garbage collection after every micro-batch, which takes longer than a small one itself."""
        return super(AxolotlDPOTrainer, self).training_step(*args, **kw)


class Kto(Rounded, Unrouted, tune_hf_losses.StepKto, Prepared, AxolotlKTOTrainer):
    """kto."""


class Reward(Scoring, AxolotlRewardTrainer):
    """reward: takes chosen_ids and rejected_ids as they are."""


class Orpo(tune_hf_losses.StepOrpo, Ready, AxolotlORPOTrainer):
    """orpo."""


class Simpo(Ready, AxolotlCPOTrainer):
    """simpo."""


class Grpo(Rounded, Unrouted, Answering, AxolotlGRPOTrainer):
    """grpo."""


def _check(model: torch.nn.Module) -> None:
    """The model's loss can be told how many tokens the whole step has.

    Raises:
        ValueError: it cannot, so that micro-batches would count alike.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    known = inspect.signature(inner.forward).parameters
    if "num_items_in_batch" not in known and all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in known.values()):
        raise ValueError(f"{type(inner).__name__} takes no num_items_in_batch: its loss cannot be a mean over the whole batch")
