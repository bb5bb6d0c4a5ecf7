"""Budgets of the code itself: what house-keeping loses first."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = [
    path
    for top in ("backends", "orchestrator", "tunesmith.py")
    for path in ([ROOT / top] if top.endswith(".py") else sorted((ROOT / top).rglob("*.py")))
    if "shims" not in path.parts and "cluster" not in path.parts
]


def test_any_stands_where_a_native_config_holds_anything():
    """`Any` is rare outside the shims, in benchmarks and examples, too."""
    tops = ("backends", "orchestrator", "benchmarks", "recipes", "examples")
    paths = [ROOT / "tunesmith.py", *(path for top in tops for path in (ROOT / top).rglob("*.py") if "shims" not in path.parts)]
    assert sum(len(re.findall(r"\bAny\b", path.read_text("utf-8"))) for path in paths) <= 300


def test_a_plan_is_no_dictionary():
    """Behind the store's edge a plan is a Plan: nobody reads it by text keys."""
    found = [str(path) for path in CODE if re.search(r"plan\[\"", path.read_text("utf-8"))]
    assert found == []


TABLES = ("trainers/", "transports/base.py", "store/store.py")
"""A table of rows, and a contract, are read as one page: they may have 500 lines."""


def test_files_are_short():
    """A file has at most 330 lines, a table of rows or a contract 500."""
    sizes = {str(path.relative_to(ROOT)): path.read_text("utf-8").count("\n") for path in CODE if path.name != "tunesmith.py"}
    limits = {name: 500 if any(part in name for part in TABLES) else 330 for name in sizes}
    assert {name: size for name, size in sizes.items() if size > limits[name]} == {}


def test_functions_are_short():
    """A function has at most 55 lines, its docstring aside."""
    long = {}
    for path in CODE:
        for each in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(each, ast.FunctionDef):
                first = each.body[0]
                is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                doc = first.end_lineno - first.lineno + 1 if is_doc else 0
                if (size := each.end_lineno - each.lineno + 1 - doc) > 55:
                    long[f"{path.name}:{each.name}"] = size
    assert long == {}


def test_a_class_name_has_one_meaning():
    """No two classes of the code have the same name, so that a name in a message or a search means one thing."""
    homes = defaultdict(list)
    for path in CODE:
        for each in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(each, ast.ClassDef):
                homes[each.name].append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
