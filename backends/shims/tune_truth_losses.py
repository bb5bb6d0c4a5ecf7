"""Every method's loss over the rows of one step, as its paper has it. No trainer and no other shim is imported, and rows go through
the model one by one, so that nothing is padded and no micro-batch exists.

Each function takes `Models`, the step's rows as the data step wrote them, and the settings of the recipe (method.preference,
method.distill), and returns the loss, which has a gradient, and what is reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import logsigmoid
from tune_truth_model import Model

Settings = Mapping[str, Any]
Rows = Sequence[Any]
Found = tuple[torch.Tensor, dict[str, float | None]]
Tokens = list[int]


class Models(NamedTuple):
    """What a loss looks at."""

    policy: Model
    """The model that is trained."""
    start: Model
    """The same before the first step: the reference of dpo, ipo, kto and grpo."""
    teacher: Model | None = None
    """Of distill."""


def tensor(values: Any) -> torch.Tensor:
    """On the device that is used."""
    return torch.tensor(values, device=DEVICE)


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def logps(model: Model, prompt: Tokens, answer: Tokens, temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of each token of an answer to a prompt."""
    logits = model.logits(tensor([prompt + answer]))[0, len(prompt) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(-1, tensor(answer)[:, None])[:, 0]


def ratios(models: Models, prompt: Tokens, answer: Tokens) -> torch.Tensor:
    """Log of policy over reference, for each token of an answer."""
    with torch.no_grad():
        before = logps(models.start, prompt, answer)
    return logps(models.policy, prompt, answer) - before


def pair(row: Any) -> tuple[tuple[Tokens, Tokens], tuple[Tokens, Tokens]]:
    """Prompt and answers of a pair: `(prompt, chosen), (prompt, rejected)`."""
    return (row["prompt_ids"], row["chosen_ids"]), (row["prompt_ids"], row["rejected_ids"])


def reported(sides: Sequence[Sequence[torch.Tensor]]) -> dict[str, float | None]:
    """Means over the pairs of the step, of rewards of chosen and rejected answers."""
    chosen, rejected = torch.stack([torch.stack(list(side)) for side in sides]).detach().T
    return {
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
        "rewards/accuracies": (chosen > rejected).float().mean().item(),
    }


def sft(models: Models, rows: Rows, settings: Settings) -> Found:  # noqa: ARG001 - as the others
    """Mean over all tokens with loss in the step. pretrain is the same over other labels."""
    total, count = tensor(0.0), 0
    for ids, labels in rows:
        total = total + models.policy.loss_sum(tensor([ids]), tensor([labels]))
        count += sum(label != -100 for label in labels[1:])
    return total / count, {}


def dpo(models: Models, rows: Rows, settings: Settings) -> Found:
    """arXiv:2305.18290, eq. 7, a mean over pairs; with label smoothing its section 4 of the appendix (conservative DPO)."""
    beta, smoothing = settings["beta"], settings["label_smoothing"]
    sides = [[beta * ratios(models, *one).sum() for one in pair(row)] for row in rows]
    losses = [-(1 - smoothing) * logsigmoid(c - r) - smoothing * logsigmoid(r - c) for c, r in sides]
    return torch.stack(losses).mean(), reported(sides)


def ipo(models: Models, rows: Rows, settings: Settings) -> Found:
    """arXiv:2310.12036, eq. 17, with log-ratios that are means over an answer's tokens, a mean over pairs."""
    beta = settings["beta"]
    each = [[ratios(models, *one) for one in pair(row)] for row in rows]
    losses = [(c.mean() - r.mean() - 1 / (2 * beta)) ** 2 for c, r in each]
    return torch.stack(losses).mean(), reported([[beta * x.sum() for x in one] for one in each])


def orpo(models: Models, rows: Rows, settings: Settings) -> Found:
    """arXiv:2403.07691, eq. 6: loss of the chosen answers, a mean over all their tokens in the step, plus beta times the odds
    ratio's, whose probabilities are means over an answer's tokens (eq. 2), a mean over pairs. The prompt carries no loss.
    """
    each = [[logps(models.policy, *one) for one in pair(row)] for row in rows]
    nll = -torch.cat([c for c, _ in each]).mean()
    odds = [[x.mean() - torch.log1p(-x.mean().exp()) for x in one] for one in each]
    ratio = torch.stack([-logsigmoid(c - r) for c, r in odds]).mean()
    beta = settings["beta"]
    return nll + beta * ratio, reported([[beta * x.mean() for x in one] for one in each])


def simpo(models: Models, rows: Rows, settings: Settings) -> Found:
    """arXiv:2405.14734, eq. 6: rewards are beta times means over an answer's tokens, a mean over pairs."""
    beta, margin = settings["beta"], settings["margin"]
    sides = [[beta * logps(models.policy, *one).mean() for one in pair(row)] for row in rows]
    return torch.stack([-logsigmoid(c - r - margin) for c, r in sides]).mean(), reported(sides)


def kto(models: Models, rows: Rows, settings: Settings) -> Found:
    """arXiv:2402.01306, eq. 8, a mean over rows. The divergence is taken over the whole step, from each prompt with the answer of the
    row before it, and is not below 0.
    """
    answers = [row["completion_ids"] for row in rows]
    with torch.no_grad():
        apart = [ratios(models, row["prompt_ids"], answers[n - 1]).sum() for n, row in enumerate(rows)]
    divergence = torch.stack(apart).mean().clamp(min=0)
    each = [(row["label"], ratios(models, row["prompt_ids"], row["completion_ids"]).sum()) for row in rows]
    beta, good, bad = (settings[name] for name in ("beta", "desirable", "undesirable"))
    losses = [
        good * (1 - torch.sigmoid(beta * (x - divergence))) if label else bad * (1 - torch.sigmoid(beta * (divergence - x)))
        for label, x in each
    ]
    sides = {
        "chosen": [beta * x.item() for label, x in each if label],
        "rejected": [beta * x.item() for label, x in each if not label],
    }
    told = {f"rewards/{side}": sum(values) / len(values) if values else None for side, values in sides.items()}
    return torch.stack(losses).mean(), {**told, "kl": divergence.item()}


def reward(models: Models, rows: Rows, settings: Settings) -> Found:  # noqa: ARG001 - as the others
    """arXiv:2203.02155, eq. 1 with K = 2: the score is read at the last token, a mean over pairs."""
    sides = [[models.policy.logits(tensor([prompt + answer]))[0, -1, 0] for prompt, answer in pair(row)] for row in rows]
    return torch.stack([-logsigmoid(c - r) for c, r in sides]).mean(), {}


def distill(models: Models, rows: Rows, settings: Settings) -> Found:
    """(1 - ratio) x cross entropy + ratio x KL(teacher || model), arXiv:1503.02531 at temperature 1, both means over all tokens with
    loss in the step.
    """
    hard, soft, count, teacher = tensor(0.0), tensor(0.0), 0, models.teacher or models.start
    for ids, labels in rows:
        target = tensor(labels)[1:]
        learned = target != -100
        given = models.policy.logits(tensor([ids]))[0, :-1][learned].float().log_softmax(-1)
        with torch.no_grad():
            wanted = teacher.logits(tensor([ids]))[0, :-1][learned].float().log_softmax(-1)
        hard = hard - given.gather(-1, target[learned][:, None]).sum()
        soft = soft + (wanted.exp() * (wanted - given)).sum()
        count += int(learned.sum())
    ratio = settings["ratio"]
    told = {"class_loss": (hard / count).item(), "kd_loss": (soft / count).item()}
    return ((1 - ratio) * hard + ratio * soft) / count, told


def grpo(models: Models, rows: Rows, settings: Settings) -> Found:
    """arXiv:2402.03300, eq. 3 and 4, with the clipped ratio of each token and a mean over all tokens of the step's answers, as
    arXiv:2503.14476 (DAPO, eq. 8) has it. A row: prompt_ids, completion_ids, rewards (of each function; their sum counts); the answers of a
    prompt stand together. Answers are learned from once, by the model that gave them, so that the ratio is 1 and clipping it changes nothing.
    """
    paid = [[row["rewards"][n] for n in settings.get("paid") or range(len(row["rewards"]))] for row in rows]
    rewards = tensor([sum(each, 0.0) for each in paid]).view(-1, settings["generations"])
    spread = rewards.std(1, keepdim=True) + 1e-4  # of the sample
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / spread).flatten()
    total, apart, count = tensor(0.0), 0.0, 0
    for row, advantage in zip(rows, advantages, strict=True):
        now = logps(models.policy, row["prompt_ids"], row["completion_ids"], settings["temperature"])
        ratio, clip = (now - now.detach()).exp(), settings["clip"]
        total = total - torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).sum()
        with torch.no_grad():
            before = logps(models.start, row["prompt_ids"], row["completion_ids"], settings["temperature"])
        divergence = ((before - now).exp() - (before - now) - 1).sum()
        total, apart = total + settings["kl"] * divergence, apart + divergence.item()
        count += len(row["completion_ids"])
    return total / count, {"reward": rewards.mean().item(), **({"kl": apart / count} if settings["kl"] else {})}


METHODS: dict[str, Callable[[Models, Rows, Settings], Found]] = {
    each.__name__: each for each in (sft, dpo, ipo, orpo, simpo, kto, reward, distill, grpo)
}
METHODS["pretrain"] = sft
