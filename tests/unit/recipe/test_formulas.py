"""What `tune explain method.kind` says of a loss is what tune_truth_losses.py computes."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from backends.recipe.docs import about
from backends.recipe.sections.method import Kind

LOSSES = Path(__file__).parents[3] / "backends" / "shims" / "tune_truth_losses.py"
TRUTH = {node.name: ast.get_docstring(node) for node in ast.parse(LOSSES.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("kind", [kind for kind in get_args(Kind) if kind not in ("sft", "pretrain")])
def test_each_kind_names_the_paper_that_its_truth_is_written_from(kind):
    """The arXiv ids of the independent loss stand in the text of method.kind, between this kind and the next."""
    ids = re.findall(r"arXiv:[0-9.]+[0-9]", TRUTH[kind])
    part = about("method.kind")["meaning"].partition(f"`{kind}`")[2].partition("`")[0]
    assert ids
    assert [each for each in ids if each not in part] == []
