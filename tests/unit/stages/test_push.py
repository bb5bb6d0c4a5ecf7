"""The plan of a push: what it takes from which stage, and what is refused before training."""

import json

import pytest

from backends.backend import Inexpressible
from backends.compile import plan as compiled
from backends.plan import HERE
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.stages.stage import bound
from backends.target import Target

RECIPE = """
version: 1
name: tiny
model: {id: ./model}
method: {adapter: lora}
data: {train: rows.jsonl, format: instruct}
train: {steps: 3, batch: {global: 2}}
optim: {lr: 1e-4, warmup_steps: 1}
after:
  evaluate: {tasks: [./q.jsonl]}
  export: {formats: [merged, gguf-q8_0]}
  push: {repo: me/tiny, what: export}
"""


def planned(text=RECIPE, accept=()):
    """The training's plan, by the preferred trainer."""
    return compiled(next(iter(BACKENDS.values())), parse(text, base="/here"), Target("local"), accept)


def test_a_push_takes_what_the_stages_before_it_left():
    """Forms from the export, figures from the evaluation, the card from the model: each is found once its own job is known, and the token
    is a name.
    """
    evaluated, exported, pushed = bound(planned(), "train", "jobs/a/1/work").after
    assert {each.path: each.made_by for each in pushed.inputs} == {
        "inputs/model": HERE,
        "inputs/export": "export",
        "inputs/evaluation.json": "evaluate",
    }
    later = bound(bound(pushed, "evaluate", "jobs/a.evaluate/1/work"), "export", "jobs/a.export/1/work")
    assert {each.path: each.source for each in later.inputs} == {
        "inputs/model": "jobs/a/1/work/checkpoint",
        "inputs/export": "jobs/a.export/1/work/export",
        "inputs/evaluation.json": "jobs/a.evaluate/1/work/summary.json",
    }
    assert (pushed.secrets, evaluated.secrets, exported.secrets) == (("HF_TOKEN",), (), ())
    spec = json.loads(next(file.text for file in pushed.files if file.path == "push.json"))
    assert (spec["folder"], spec["private"], spec["repo"]) == ("inputs/export", True, "me/tiny")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  export: {formats: [merged, gguf-q8_0]}\n", "", "nothing is exported before"),
        ("what: export", "what: adapter", "no adapter was trained"),
    ],
)
def test_what_cannot_be_pushed_is_said_before_training(old, new, said):
    """A push of what there will not be stops the plan, by its leaf."""
    text = RECIPE.replace(old, new)
    if "adapter" in new:
        text = text.replace("method: {adapter: lora}\n", "")
    with pytest.raises(Inexpressible) as caught:
        planned(text)
    [line] = caught.value.report.refused
    assert line.leaf == "after.push"
    assert said in line.why
