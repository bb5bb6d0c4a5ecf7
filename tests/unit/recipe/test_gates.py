"""Gates: what is read of one, and how a wrong one is told."""

import pytest

from backends.recipe.gates import gate
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError

RECIPE = """
version: 1
name: gated
model: {id: org/name}
data: {train: rows.jsonl, format: instruct}
train: {steps: 3, batch: {global: 2}}
optim: {lr: 1e-4}
after:
  evaluate:
    tasks: [wmdp_bio]
    gates: [%s]
"""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("wmdp_bio.acc <= 0.30", ("wmdp_bio", "acc", "<=", 0.3, False)),
        (" mmlu.acc>=base-0.01 ", ("mmlu", "acc", ">=", -0.01, True)),
        ("a-b.bits_per_byte < base", ("a-b", "bits_per_byte", "<", 0.0, True)),
        ("a.acc > base + 2e-3", ("a", "acc", ">", 0.002, True)),
        ("a.x > -1.5", ("a", "x", ">", -1.5, False)),
    ],
)
def test_a_gate_is_read(text, parts):
    """Task, metric, comparison and bound, absolute or from the start model's figure, however much room is between them."""
    assert gate(text)[1:] == parts


@pytest.mark.parametrize(
    "text", ["acc <= 0.3", "a.acc = 0.3", "a.acc <= half", "a.acc <= base * 2", "a.acc <=", "a.acc <= 0.3; rm"]
)
def test_another_text_is_no_gate(text):
    """What is no comparison of one figure is refused in the recipe, by its place and with the form it should have."""
    with pytest.raises(RecipeError) as caught:
        parse(RECIPE % f'"{text}"')
    [problem] = caught.value.problems
    assert problem.path == "after.evaluate.gates.0"
    assert "TASK.METRIC" in problem.rule
    assert problem.line == 11
