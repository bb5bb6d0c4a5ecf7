"""Whether a GRPO run had anything to learn from: an answer is seen against the others of its prompt, so answers that all score the
same teach nothing (https://arxiv.org/abs/2402.03300, section 4.1.2: the advantage is 0), while steps go by and the job succeeds.
"""

from __future__ import annotations

import json
from pathlib import Path

SAME = "frac_reward_zero_std"
"""TRL's (trl/trainer/grpo_trainer.py): share of a step's prompts whose answers all have one score."""
MANY = 0.9
"""Share of a run's prompts from which on it is told."""


def warnings(metrics: Path) -> list[str]:
    """A line for a run of which most prompts taught nothing; none for others, and for what has no scores.

    Args:
        metrics: metrics.jsonl, a line for each step.
    """
    if not metrics.is_file():
        return []
    rows = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    shares = [row[SAME] for row in rows if SAME in row and "loss" in row]
    if not shares or (mean := sum(shares) / len(shares)) < MANY:
        return []
    scores = [row["reward"] for row in rows if "reward" in row]
    level = f" (mean score {sum(scores) / len(scores):.3g})" if scores else ""
    what = "none of them" if mean == 1 else f"only {1 - mean:.1%} of them"
    return [
        f"of the {len(shares):,} steps' prompts, {what} had answers that score differently{level}, and nothing is learned from answers "
        "that all score the same: rewards that grade by degrees, easier or harder prompts, more method.grpo.generations, or a higher "
        "method.grpo.temperature give a difference"
    ]
