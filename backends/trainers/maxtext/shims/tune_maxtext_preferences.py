"""google-tunix 0.1.7's DPO and ORPO as losses of a whole step, a part of whose pairs is in memory at a time. Imported before MaxText's
train_dpo runs, when JAX may be.

https://github.com/google/tunix/blob/v0.1.7/tunix/sft/dpo/dpo_trainer.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tune_shared
from flax import nnx
from tunix.sft.dpo import dpo_trainer

_whole = dpo_trainer.compute_logps


def mend(wish: Mapping[str, Any]) -> None:
    """Put what is below in place of Tunix's own.

    Args:
        wish: maxtext.json: `parts` of a step, `kind`, `data` (null where MaxText reads the rows itself).
    """
    if wish["parts"] > 1:
        dpo_trainer.compute_logps = _by_parts(wish["parts"])
    if wish["kind"] == "orpo":
        dpo_trainer.DPOTrainer = partial(_orpo_trainer, dpo_trainer.DPOTrainer, wish["data"])


def _by_parts(parts: int) -> Any:
    """Log-probabilities of chosen and of rejected answers, a part of the rows at a time. Tunix's accumulation has means of parts in
    place of the step's: of gradient norms, of all metrics, and of a loss that counts tokens.
    """

    @partial(nnx.jit, static_argnums=(4,))
    def logps(model: Any, ids: Any, positions: Any, attention: Any, keep: int, mask: Any, images: Any = None) -> Any:
        if ids.shape[0] % parts:  # an evaluation's batch is as small as a part already
            return _whole(model, ids, positions, attention, keep, mask, images=images)
        graph, state = nnx.split(model)

        @jax.checkpoint
        def of(state: Any, rows: Any) -> Any:
            ids, positions, attention, mask = rows
            return _sums(nnx.merge(graph, state), ids, positions, attention, keep, mask)

        pieces = [each.reshape(-1, parts, *each.shape[1:]).swapaxes(0, 1) for each in (ids, positions, attention, mask)]
        _, sums = jax.lax.scan(lambda none, rows: (none, of(state, rows)), None, pieces)
        sums = sums.swapaxes(0, 1).reshape(-1)
        return sums[: len(sums) // 2], sums[len(sums) // 2 :]

    return logps


def _sums(model: Any, ids: Any, positions: Any, attention: Any, keep: int, mask: Any) -> Any:
    """Log-probability of each row's answer."""
    each = dpo_trainer.common.get_per_token_logps(
        model, input_tokens=ids, positions=positions, attn_mask=attention, logits_to_keep=keep
    )
    return (each * mask).sum(-1)


def _orpo_trainer(trainer: Any, folder: str | None, *args: Any, **kw: Any) -> Any:
    """Tunix's trainer with ORPO's own loss. Each batch of an evaluation counts by its tokens."""
    made = trainer(*args, **kw)
    made.with_loss_fn(orpo, has_aux=True)
    made.eval_loss_fn = partial(orpo, evaluated=_evaluated(folder)) if folder else orpo
    return made


def _evaluated(folder: str) -> float | None:
    """Tokens of a chosen answer of the evaluation, on average."""
    if not tune_shared.manifest(folder)["eval"]:
        return None
    with Path(folder, "eval.pairs.jsonl").open(encoding="utf-8") as file:
        lengths = [len(json.loads(line)["chosen_ids"]) for line in file]
    return sum(lengths) / len(lengths)


def orpo(
    model: Any,
    train_example: Any,
    algorithm: str = "orpo",  # noqa: ARG001 - Tunix calls it so
    lambda_orpo: float = 0.1,
    label_smoothing: float = 0.0,  # noqa: ARG001
    evaluated: float | None = None,
) -> Any:
    """arXiv:2403.07691, eq. 6: the loss of the chosen answers, a mean over all their tokens, and lambda times that of the odds ratio,
    whose probabilities are means over an answer's tokens. Tunix's are those of whole answers: their odds are next to 0, and their
    ratio is tens of nats.
    """
    one = train_example
    sums = dpo_trainer.compute_logps(
        model, one.input_ids, one.positions, one.attention_mask, one.logits_to_keep, one.completion_mask, images=one.images
    )
    half = one.completion_mask.shape[0] // 2
    lengths = [jnp.maximum(each.sum(-1), 1) for each in (one.completion_mask[:half], one.completion_mask[half:])]
    chosen, rejected = (total / length for total, length in zip(sums, lengths, strict=True))
    odds = [each - jnp.log1p(-jnp.exp(each)) for each in (chosen, rejected)]
    ratio = -jax.nn.log_sigmoid(odds[0] - odds[1]).mean()
    loss = -sums[0].sum() / (lengths[0].sum() if evaluated is None else evaluated * half)
    rewards = lambda_orpo * chosen, lambda_orpo * rejected
    return loss + lambda_orpo * ratio, {
        "rewards/chosen": rewards[0].mean(),
        "rewards/rejected": rewards[1].mean(),
        "rewards/margin": (rewards[0] - rewards[1]).mean(),
        "rewards/accuracy": (rewards[0] > rewards[1]).mean(),
        "log_probs/chosen": chosen.mean(),
        "log_probs/rejected": rejected.mean(),
        "odds_ratio": jnp.exp(odds[0] - odds[1]).mean(),
    }
