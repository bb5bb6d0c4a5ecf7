"""Every method's loss over the rows of one step, as its paper has it. No trainer is imported, and rows go through the model one by
one, so that nothing is padded and no micro-batch exists.

Each function takes `Models`, the step's rows as the data step wrote them, and the settings of the recipe (method.preference,
method.distill), and returns the loss, which has a gradient, and what is reported beside it.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.nn.functional import logsigmoid


class Models(NamedTuple):
    """What a loss looks at."""

    policy: object
    """The model that is trained."""
    start: object = None
    """The same before the first step: the reference of dpo, ipo, kto and grpo."""
    teacher: object = None
    """Of distill."""


def logps(model, prompt, answer):
    """Log-probability of each token of an answer to a prompt."""
    logits = model.logits(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]


def ratios(models, prompt, answer):
    """Log of policy over reference, for each token of an answer."""
    with torch.no_grad():
        before = logps(models.start, prompt, answer)
    return logps(models.policy, prompt, answer) - before


def pair(row):
    """Prompt and answers of a pair: `(prompt, chosen), (prompt, rejected)`."""
    return (row["prompt_ids"], row["chosen_ids"]), (row["prompt_ids"], row["rejected_ids"])


def reported(chosen, rejected):
    """Means over the pairs of the step."""
    chosen, rejected = (torch.stack(each).detach() for each in (chosen, rejected))
    return {
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
        "rewards/accuracies": (chosen > rejected).float().mean().item(),
    }


def sft(models, rows, settings):
    """Mean over all tokens with loss in the step. pretrain is the same over other labels."""
    total, count = 0.0, 0
    for ids, labels in rows:
        total = total + models.policy.loss_sum(torch.tensor([ids]), torch.tensor([labels]))
        count += sum(label != -100 for label in labels[1:])
    return total / count, {}


def dpo(models, rows, settings):
    """arXiv:2305.18290, eq. 7, a mean over pairs; with label smoothing its section 4 of the appendix (conservative DPO)."""
    beta, smoothing = settings["beta"], settings["label_smoothing"]
    sides = [[beta * ratios(models, *one).sum() for one in pair(row)] for row in rows]
    losses = [-(1 - smoothing) * logsigmoid(c - r) - smoothing * logsigmoid(r - c) for c, r in sides]
    return sum(losses) / len(rows), reported(*zip(*sides, strict=True))


def ipo(models, rows, settings):
    """arXiv:2310.12036, eq. 17, with log-ratios that are means over an answer's tokens, a mean over pairs."""
    beta = settings["beta"]
    each = [[ratios(models, *one) for one in pair(row)] for row in rows]
    losses = [(c.mean() - r.mean() - 1 / (2 * beta)) ** 2 for c, r in each]
    return sum(losses) / len(rows), reported(*zip(*[[beta * x.sum() for x in one] for one in each], strict=True))


def orpo(models, rows, settings):
    """arXiv:2403.07691, eq. 6: loss of the chosen answers, a mean over all their tokens in the step, plus beta times the odds
    ratio's, whose probabilities are means over an answer's tokens (eq. 2), a mean over pairs. The prompt carries no loss.
    """
    each = [[logps(models.policy, *one) for one in pair(row)] for row in rows]
    nll = -sum(c.sum() for c, _ in each) / sum(len(c) for c, _ in each)
    odds = [[x.mean() - torch.log1p(-x.mean().exp()) for x in one] for one in each]
    ratio = sum(-logsigmoid(c - r) for c, r in odds) / len(rows)
    beta = settings["beta"]
    return nll + beta * ratio, reported(*zip(*[[beta * x.mean() for x in one] for one in each], strict=True))


def simpo(models, rows, settings):
    """arXiv:2405.14734, eq. 6: rewards are beta times means over an answer's tokens, a mean over pairs."""
    beta, margin = settings["beta"], settings["margin"]
    sides = [[beta * logps(models.policy, *one).mean() for one in pair(row)] for row in rows]
    return sum(-logsigmoid(c - r - margin) for c, r in sides) / len(rows), reported(*zip(*sides, strict=True))


def kto(models, rows, settings):
    """arXiv:2402.01306, eq. 8, a mean over rows. The divergence is taken over the whole step, from each prompt with the answer of the
    row before it, and is not below 0.
    """
    answers = [row["completion_ids"] for row in rows]
    with torch.no_grad():
        apart = [ratios(models, row["prompt_ids"], answers[n - 1]).sum() for n, row in enumerate(rows)]
    divergence = (sum(apart) / len(rows)).clamp(min=0)
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
    return sum(losses) / len(rows), {**told, "kl": divergence.item()}


def reward(models, rows, settings):
    """arXiv:2203.02155, eq. 1 with K = 2: the score is read at the last token, a mean over pairs."""

    def score(prompt, answer):
        return F.linear(models.policy.hidden(torch.tensor([prompt + answer]))[0, -1], models.policy.weights["score.weight"])[0]

    sides = [[score(*one) for one in pair(row)] for row in rows]
    return sum(-logsigmoid(c - r) for c, r in sides) / len(rows), {}


def distill(models, rows, settings):
    """(1 - ratio) x cross entropy + ratio x KL(teacher || model), arXiv:1503.02531 at temperature 1, both means over all tokens with
    loss in the step.
    """
    hard, soft, count = 0.0, 0.0, 0
    for ids, labels in rows:
        target = torch.tensor(labels)[1:]
        learned = target != -100
        given = models.policy.logits(torch.tensor([ids]))[0, :-1][learned].float().log_softmax(-1)
        with torch.no_grad():
            wanted = models.teacher.logits(torch.tensor([ids]))[0, :-1][learned].float().log_softmax(-1)
        hard = hard - given.gather(-1, target[learned][:, None]).sum()
        soft = soft + (wanted.exp() * (wanted - given)).sum()
        count += int(learned.sum())
    ratio = settings["ratio"]
    return ((1 - ratio) * hard + ratio * soft) / count, {"kd_loss": (soft / count).item()}


def grpo(models, rows, settings):
    """arXiv:2402.03300, eq. 3 and 4, with the clipped ratio of each token and a mean over all tokens of the step's answers, as
    arXiv:2503.14476 (DAPO, eq. 8) has it. A row: prompt_ids, completion_ids, old (log-probabilities when it was sampled), advantage.
    """
    total, count = 0.0, 0
    for row in rows:
        now = logps(models.policy, row["prompt_ids"], row["completion_ids"])
        ratio, clip = (now - torch.tensor(row["old"])).exp(), settings["clip"]
        total = total - torch.minimum(ratio * row["advantage"], ratio.clamp(1 - clip, 1 + clip) * row["advantage"]).sum()
        if settings["kl"]:
            with torch.no_grad():
                apart = logps(models.start, row["prompt_ids"], row["completion_ids"])
            total = total + settings["kl"] * ((apart - now).exp() - (apart - now) - 1).sum()
        count += len(row["completion_ids"])
    return total / count, {}


METHODS = {each.__name__: each for each in (sft, dpo, ipo, orpo, simpo, kto, reward, distill, grpo)}
METHODS["pretrain"] = sft
