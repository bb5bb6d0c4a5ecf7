"""data.chat_template: a file of the user's, or one of those that come along."""

import pytest

from backends.bundle import CHAT_TEMPLATES
from backends.recipe.leaves import CHAT_TEMPLATES as NAMES
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError

RECIPE = """
version: 1
name: chat
model: {id: org/name}
data: {train: rows.jsonl, format: %s, chat_template: %s}
train: {steps: 4, batch: {global: 4}}
optim: {lr: 1e-3}
"""


def test_the_shipped_templates_are_those_that_are_named():
    """Each name that the recipe may use is a file that comes along."""
    assert tuple(CHAT_TEMPLATES) == NAMES


@pytest.mark.parametrize(
    ("form", "name", "says"),
    [
        ("chat", "chatlm", "should be a file (./NAME.jinja) or one of chatml"),
        ("text", "chatml", "has no effect unless rows go through a chat template"),
        ("instruct", "./mine.jinja", "has no effect unless rows go through a chat template"),
    ],
)
def test_names_that_do_not_serve(form, name, says):
    """A mistyped name, and a template that no row goes through, are refused."""
    with pytest.raises(RecipeError) as caught:
        parse(RECIPE % (form, name))
    assert [says in each.rule for each in caught.value.problems] == [True]


@pytest.mark.parametrize(
    "template",
    ["{instruction}{output}", "{{instruction}} {instruction}", "{{ instruction }} {instruction}", "{instruction} {Input}"],
)
def test_words_in_braces_that_nothing_replaces(template):
    """A text in data.template does not hold words in braces that would be learned as they stand."""
    with pytest.raises(RecipeError) as caught:
        parse(RECIPE.replace("chat_template: %s", "template: '%s'") % ("instruct", template))
    assert ["would be left as text" in each.rule for each in caught.value.problems] == [True]
