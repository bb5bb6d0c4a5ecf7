"""What is said of the trainers is computed from their tables, and the page in docs/ says the same."""

import difflib
from pathlib import Path

import pytest

from backends.analysis.capabilities import ADAPTERS, KINDS, VARIANTS, Loss, Spelling, has, matters, spelling
from backends.analysis.matrix import cell, document, grade, methods, page, when
from backends.mapping.rows import Variant
from backends.recipe.flat import leaves
from backends.registry import BACKENDS

PAGE = Path(__file__).parents[2] / "docs" / "support-matrix.md"
SHARED = [shape for shape in VARIANTS if not shape.native]


def test_the_page_is_current():
    """docs/support-matrix.md is what the tables say: `python -m backends.analysis.matrix > docs/support-matrix.md` writes it."""
    stale = list(difflib.unified_diff(PAGE.read_text().splitlines(), page(BACKENDS.values()).splitlines(), lineterm="", n=0))
    assert not stale, "\n".join(stale)


def test_it_is_computed_from_the_tables():
    """The matrix has every leaf, every method and every trainer, each with one of the grades."""
    found = document(BACKENDS.values())
    assert [each["leaf"] for each in found["leaves"]] == list(leaves())
    assert [(each["kind"], each["adapter"]) for each in found["methods"]] == [(k, a) for k in KINDS for a in ADAPTERS]
    grades = {each["trainers"][name]["support"] for each in found["leaves"] for name in BACKENDS}
    assert grades <= {"", "same", "converted", "approximated", "partly", "todo", "waiting", "never"}
    for method in found["methods"]:
        assert {each["support"] for each in method["trainers"].values()} <= {"yes", "todo", "waiting", "never"}


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_leaf_is_asked_with_another_value(name):
    """A leaf that is lost for all but its default is found out: each is asked with a value that asks for something."""
    shape = next(each for each in SHARED if has(BACKENDS[name], each) is None)
    for leaf in leaves():
        if matters(leaf, shape) and leaf not in ("method.kind", "method.adapter", "version", "release", "native"):
            found = spelling(BACKENDS[name], leaf, shape)
            assert found.is_supported or found.losses, leaf


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_trainer_has_some_method(name):
    """Each trainer trains all weights and adapters on instructions, and what it lacks is named."""
    found = methods([BACKENDS[name]])
    assert found["sft", "none"][name] is None
    assert found["sft", "lora"][name] is None
    for (kind, adapter), row in found.items():
        loss = row[name]
        assert loss is None or (loss.kind and loss.why), (kind, adapter)


def test_a_cell_says_where_it_differs():
    """LitGPT has one spelling of the rank, and a schedule that is never anything but cosine; torchtune has all three."""
    assert {case.spelling.keys for case in cell(BACKENDS["litgpt"], "method.lora.rank", SHARED).cases} == {("lora_r",)}
    lost = cell(BACKENDS["litgpt"], "optim.schedule", [Variant()])
    assert lost.support == "partly"
    assert [(loss.value, loss.kind) for loss in lost.cases[0].spelling.losses] == [("constant", "never"), ("linear", "never")]
    assert cell(BACKENDS["torchtune"], "optim.schedule", [Variant()]).support == "same"
    assert cell(BACKENDS["torchtune"], "data.eval", [Variant()]).support == "never"
    assert cell(BACKENDS["litgpt"], "method.grpo.clip", SHARED).support == ""


def test_shapes_in_words():
    """Which shapes is said by what tells them from the others, and not at all when they are all."""
    assert when(VARIANTS, VARIANTS) == ""
    assert when([s for s in SHARED if s.kind in ("dpo", "ipo")], SHARED) == "dpo ipo"
    assert when([s for s in SHARED if s.adapter == "lora"], SHARED) == "adapter lora"
    assert when([s for s in VARIANTS if s.native], VARIANTS) == "rendering native"
    assert when([Variant("sft", "lora"), Variant("dpo", "none")], SHARED) == "sft, adapter lora; or dpo, adapter none"
    uneven = [
        Variant("sft", "none", True),
        Variant("sft", "none"),
        Variant("sft", "lora"),
        Variant("dpo", "lora"),
        Variant("kto", "none", True),
    ]
    assert when([s for s in uneven if not s.native], uneven) == "sft, rendering shared; or dpo"
    assert when(uneven[:1] + uneven[2:3], uneven[:3]) == "adapter lora rendering shared and adapter none rendering native"


def test_a_grade_is_the_worst_that_a_reader_must_know():
    """No loss: how it crosses. Some words lost: partly. All that asks for something lost: what is in the way."""
    loss = (Loss(True, "waiting", "", ""),)
    assert grade(Spelling((), "same", "", "", True, ())) == "same"
    assert grade(Spelling((), "same", "", "", True, loss)) == "partly"
    assert grade(Spelling((), "same", "", "", False, loss)) == "waiting"


def test_what_matters_is_what_the_parser_lets_through():
    """A leaf that the parser refuses in a shape is not asked for there."""
    assert not matters("method.lora.rank", Variant("sft", "none"))
    assert not matters("method.preference.margin", Variant("dpo", "none"))
    assert matters("method.preference.margin", Variant("simpo", "none"))
    assert not matters("data.columns.chosen", Variant("sft", "none"))
    assert not matters("data.pack", Variant("dpo", "none"))
