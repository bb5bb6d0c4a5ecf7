"""Recipes are built without pydantic, and are the ones that it would give: `building.py` takes nothing that `judging.py` refuses."""

import math
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.recipe.building import Unsure, build
from backends.recipe.facts import Also
from backends.recipe.flat import REQUIRED, choices, defaults, leaves
from backends.recipe.judging import judge
from backends.recipe.leaves import facts
from backends.recipe.schema import Recipe
from backends.recipe.yaml_source import read

ROOT = Path(__file__).parents[3]
QUICKSTART = read((ROOT / "recipes" / "quickstart.yaml").read_text()).values
NUMBERS = [True, False, 0, 1, -1, 2**70, 10**400, 0.0, 0.5, 1.0, -0.5, 1e308, math.inf, math.nan]
TEXTS = [
    "",
    "a",
    "x\n",
    "é",
    "A²",
    "a" * 300,
    "none",
    "me/tiny",
    "me/tíny",
    "me/tiny\n",
    "./rewards.py:score",
    "./rewárds.py:score",
]
LISTS = [[], [0.9], [0.9, 0.95], [0.9, 1], [1, "a"], ["HF_TOKEN\n"], ["./é.py:score"], ["mmlu", {"path": "x.jsonl"}], (1,)]
PARTS = [[{"path": "x", "weight": 2}], [{"path": "x", "wieght": 2}], [{"weight": 2}], [{"path": "x", "split": 1}]]
MAPPINGS = [{}, {"a": 1}, {"a": {"b": 1}}, {"path": "x"}, {"tasks": ["mmlu"], "batch": 0}, {"tasks": ["mmlu"], "batch": 2}]
ODD = st.sampled_from([None, *NUMBERS, *TEXTS, *LISTS, *PARTS, *MAPPINGS])


def own(leaf):
    """Values that a leaf is made for."""
    values = [each.value if isinstance(each, Also) else each for each in facts(leaf).samples]
    return [*values, *choices(leaf), *([] if defaults()[leaf] is REQUIRED else [defaults()[leaf]])]


def recipes():
    """A recipe with one to three leaves of any value, and at times a key that nobody knows."""
    one = st.sampled_from(leaves()).flatmap(
        lambda leaf: st.tuples(st.just(leaf), st.one_of(ODD, st.sampled_from(own(leaf) or [1])))
    )
    unknown = st.tuples(
        st.sampled_from(["optim.rate", "trian", "method.lora.Rank", "train.batch", "model", "train.batch.global_"]), ODD
    )
    return st.lists(st.one_of(one, one, one, unknown), min_size=1, max_size=3)


def with_values(changes):
    """The quickstart's values, with others."""
    values = deepcopy(QUICKSTART)
    for path, value in changes:
        *above, last = path.split(".")
        place = values
        for part in above:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[last] = deepcopy(value)
    return values


@settings(max_examples=400)
@given(recipes())
def test_what_is_built_is_what_pydantic_gives(changes):
    """The same values of the same types, and nothing that it refuses. What it takes is left to it for letters beyond ASCII and for
    `version: true` alone.
    """
    values = with_values(changes)
    judged, errors = judge(Recipe, deepcopy(values))
    try:
        built = build(Recipe, values)
    except Unsure:
        assert errors or not str(changes).isascii() or any(leaf == "version" for leaf, _ in changes), (
            "it is right, and was not taken"
        )
        return
    assert not errors
    assert repr(built) == repr(judged)
    assert built == judged
    assert built.flat() == judged.flat()


def test_each_leaf_takes_its_own_values():
    """Its samples, choices and default are built where they are right, so that a good recipe never waits for pydantic."""
    for leaf in leaves():
        for value in own(leaf):
            if not judge(Recipe, values := with_values([(leaf, value)]))[1]:
                build(Recipe, values)


def test_the_library_is_read_without_pydantic():
    """Each shipped recipe is certainly right."""
    for path in (ROOT / "recipes").rglob("*.yaml"):
        build(Recipe, read(path.read_text()).values)


def test_a_section_is_fixed():
    """No value of it can be set; `replace` gives another one, which knows where it comes from, and shares no list with the defaults."""
    recipe = build(Recipe, deepcopy(QUICKSTART)).read_from(("text", "name", ()), frozenset({"name"}), "/base")
    with pytest.raises(AttributeError, match="replace"):
        recipe.name = "other"
    other = recipe.replace(name="other")
    assert (other.name, recipe.name, other.base, other.written) == ("other", QUICKSTART["name"], "/base", {"name"})
    assert other != recipe
    assert other.replace(name=recipe.name) == recipe
    recipe.method.lora.targets.append("head")
    assert "head" not in build(Recipe, deepcopy(QUICKSTART)).method.lora.targets
    with pytest.raises(TypeError, match="has no nmae"):
        recipe.replace(nmae="x")


def test_planning_needs_no_pydantic():
    """It takes longer to load than all else that a plan needs."""
    code = (
        "import sys; from pathlib import Path; from backends.compile import plan; from backends.recipe.parse import parse; "
        "from backends.registry import find; from backends.target import Target; "
        "plan(find('litgpt'), parse(Path('recipes/quickstart.yaml').read_text(), base='/'), Target('there', 'cpu', 1)); "
        "print('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"
