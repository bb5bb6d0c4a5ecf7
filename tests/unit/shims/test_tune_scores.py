"""Whether a GRPO run had anything to learn from."""

import json

import pytest
import tune_scores


def write(folder, shares):
    """metrics.jsonl as the trainer's side writes it, with an evaluation between."""
    rows = [{"step": n, "loss": 0.0, "reward": 0.25, "frac_reward_zero_std": each} for n, each in enumerate(shares, 1)]
    file = folder / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"step": len(rows), "eval_loss": 0.0}]))
    return file


@pytest.mark.parametrize(
    ("shares", "words"),
    [([1.0] * 4, "none of them had answers that score differently (mean score 0.25)"), ([1.0] * 19 + [0.0], "only 5.0% of them")],
)
def test_answers_that_score_the_same_are_told(tmp_path, shares, words):
    """A run of which nearly all prompts taught nothing says so, with the share and what would give a difference."""
    [line] = tune_scores.warnings(write(tmp_path, shares))
    assert words in line
    assert "method.grpo.generations" in line


def test_others_are_not(tmp_path):
    """Scores that differ, a run without scores, and none at all: no word."""
    assert tune_scores.warnings(write(tmp_path, [1.0, 0.5, 0.5])) == []
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n")
    assert tune_scores.warnings(tmp_path / "metrics.jsonl") == []
    assert tune_scores.warnings(tmp_path / "none.jsonl") == []
