"""What is written as YAML or JSON is read as what it was."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.emit import as_json, as_yaml

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs",))),
    st.sampled_from(
        [
            "yes",
            "On",
            "NULL",
            "~",
            "1e-5",
            "0x1",
            "a: b",
            "a #b",
            "- a",
            ".inf",
            "2026-11-23",
            "1:30",
            "<<",
            "=",
            "{x}",
            "\u2028",
            "\U0001f600\n",
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda some: (
        st.lists(some, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), some, max_size=4)
    ),
    max_leaves=12,
)
mappings = st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30), values, max_size=6)


@given(mappings)
@settings(deadline=None, max_examples=300)
def test_yaml_comes_back(spec):
    """PyYAML's loaders, in Python and in C, read the values that were written, whatever they are."""
    text = as_yaml(spec)
    assert yaml.load(text, yaml.SafeLoader) == spec
    assert yaml.load(text, yaml.CSafeLoader) == spec
    assert json.loads(as_json(spec)) == spec


def test_it_looks_as_people_write_it():
    """Blocks, lists in brackets, quotes where they are needed, numbers that stay numbers."""
    spec = {"model": {"path": "cache/x", "sizes": [1, 2.5]}, "lr": 1e-05, "note": "a: b", "off": "off", "none": None, "empty": {}}
    assert as_yaml(spec) == (
        'model:\n  path: cache/x\n  sizes: [1, 2.5]\nlr: 1.0e-05\nnote: "a: b"\n"off": "off"\nnone: null\nempty: {}\n'
    )


def test_what_is_not_plain_is_refused():
    """A marker that no row should have left is never written as if it were a value."""
    with pytest.raises(TypeError, match="plain values"):
        as_yaml({"a": [object()]})
