"""Budgets of the code itself: what house-keeping loses first."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = [
    path
    for top in ("backends", "orchestrator", "tunesmith.py")
    for path in ([ROOT / top] if top.endswith(".py") else sorted((ROOT / top).rglob("*.py")))
    if "shims" not in path.parts
]


def test_any_stands_where_a_native_config_holds_anything():
    """`Any` is rare outside the shims, which run where no types are checked."""
    assert sum(len(re.findall(r"\bAny\b", path.read_text("utf-8"))) for path in CODE) <= 300


def test_a_plan_is_no_dictionary():
    """Behind the store's edge a plan is a Plan: nobody reads it by text keys."""
    found = [str(path) for path in CODE if re.search(r"plan\[\"", path.read_text("utf-8"))]
    assert found == []
