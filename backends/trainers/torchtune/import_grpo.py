"""What torchtune's recipe for GRPO, which its last release has under `dev` only, says in leaves. Part of import_keys.py.

Sources: https://github.com/pytorch/torchtune (recipes/dev/grpo_full_finetune_distributed.py, torchtune/dev/grpo/loss.py at main).
"""

from __future__ import annotations

from backends.dialect import REWARDS, ImportRow, Unfit, number, whole
from backends.mapping.rows import ABSENT, Flat, Value

_AT = "method.grpo."
_BOTH = 0.1
"""Of `epsilon` and `kl_coeff`, where a config does not say them."""


CLIP = ImportRow(("clip_grad_norm",), lambda norm: {} if norm in (ABSENT, None, "inf") else {"train.grad_clip": number(norm)})
"""Of recipes whose own key the rows do not write."""


def grpo() -> tuple[ImportRow, ...]:
    """Answers, their scores, and the loss."""
    return (
        ImportRow(("loss._component_",), _rewards),
        ImportRow(("grpo_samples",), lambda n: {} if n in (ABSENT, None) else {f"{_AT}generations": whole(n)}),
        ImportRow(("max_generated_tokens",), lambda n: {} if n in (ABSENT, None) else {f"{_AT}max_new_tokens": whole(n)}),
        ImportRow(("temperature",), lambda n: {} if n in (ABSENT, None) else {f"{_AT}temperature": number(n)}),
        ImportRow(
            ("loss.kl_coeff",), lambda n: {f"{_AT}kl": _BOTH if n in (ABSENT, None) else number(n)}, "0.1 where it is not said"
        ),
        ImportRow(
            ("loss.epsilon",), lambda n: {f"{_AT}clip": _BOTH if n in (ABSENT, None) else number(n)}, "0.1 where it is not said"
        ),
        CLIP,
        ImportRow(("num_steps",), _steps, "steps end the run"),
    )


def _rewards(path: Value) -> Flat:
    raise Unfit(
        f"{path}: how answers are scored is in torchtune's own code: name your functions in method.grpo.rewards",
        {f"{_AT}rewards": REWARDS},
    )


def _steps(count: Value) -> Flat:
    return {} if count in (ABSENT, None) else {"train.steps": whole(count)}
