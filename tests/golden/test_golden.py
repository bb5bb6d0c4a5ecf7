"""Whole plans, compared whole. A change of one is a change of what users get: look at it, then `python tests/golden/test_golden.py`."""

import json
from pathlib import Path

import pytest

from backends.bundle import LOCKS, SHIMS
from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/*/recipe.yaml"))


def made(case):
    """The case's plan as JSON text. Our scripts and the locks have tests of their own: here their names stand for them."""
    recipe = parse((case / "recipe.yaml").read_text(), base="/golden")
    accelerator = "cuda" if case.name == "native" else "cpu"
    values = plan(BACKENDS[case.parent.name], recipe, Target("golden", accelerator)).as_dict()
    values["files"] = {f["path"]: f["text"].splitlines() if f["path"] not in SHIMS else "ours" for f in values["files"]}
    values["environment"]["lock"] = next(name for name, text in LOCKS.items() if text == values["environment"]["lock"])
    return json.dumps(values, indent=1) + "\n"


def test_every_backend_has_its_cases():
    """Folders, registry and cases belong together: none is forgotten."""
    assert {case.parent.name for case in CASES} == set(BACKENDS)
    assert len(CASES) == 19


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_the_plan_is_what_it_was(case):
    """The same recipe and target give the same plan, to the letter."""
    assert made(case) == (case / "plan.json").read_text()


if __name__ == "__main__":
    for each in CASES:
        (each / "plan.json").write_text(made(each))
