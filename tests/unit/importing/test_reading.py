"""The law of reading: a key that is called modelled is one whose change changes the recipe."""

import os
import posixpath
import random
import re
from collections import Counter

import pytest

from backends.dialect import ImportRow, Refused, idle, unmodelled
from backends.importing import shell
from backends.importing.convert import _Import
from backends.importing.recognise import opened
from backends.native_config import Unreadable
from backends.recording import Recording, plain
from backends.registry import importer
from tests.unit.importing.conftest import COUNTS

COUNT = int(os.environ.get("TUNE_MUTATIONS", "600"))
"""Keys that are changed, one at a time, over all corpora; 20000 are all of them."""


def test_what_was_looked_at():
    """Looking a value up is reading; asking for names is not; a copy knows nothing of it."""
    values = Recording({"a": {"b": 1, "c": 2}, "d": 3, "e": 4})
    assert values["a"].get("b") == 1
    assert list(values) == ["a", "d", "e"]
    assert "d" in values
    assert plain(values) == {"a": {"b": 1, "c": 2}, "d": 3, "e": 4}
    assert "a.b" in values.read
    assert values.read.isdisjoint({"a.c", "d", "e"})
    assert dict(values.items())["e"] == 4
    assert {"d", "e"} <= values.read


def test_a_parameter_that_nobody_reads():
    """A key whose parameter begins with an underscore is not read, nor are those that `*_` swallows."""
    assert ImportRow(("a", "b"), lambda a, _b: {"x": a}).unread == {"b"}
    assert ImportRow(("a", "b"), lambda *_: {}).unread == {"a", "b"}
    assert ImportRow(("a", "b"), lambda *values: {"x": values}).unread == frozenset()
    assert idle("a", "why") != unmodelled("a", "why")


def others(value):
    """Other values of the same kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value * 2 + 1, value + 3]
    if isinstance(value, list):
        return [[*value, "x"], value[1:], []]
    return [3, "x", True] if value is None else [f"{value}x", "x"]


def result(dialect, config):
    """What becomes of a config that is opened already; None where it is refused."""
    try:
        return _Import(dialect, importer(dialect.name), config).run("x", "")
    except Refused:
        return None


def is_read(dialect, config, found, key, value):
    """Whether the recipe is another one, or the key no longer modelled, when the key has another value."""
    for other in others(value):
        made = result(dialect, config.but({**config.keys, key: other}))
        fate = next((each.fate for each in made.entries if each.key == key), "") if made else ""
        if made is None or made.values != found.values or fate != "modelled":
            return True
    return False


def configs(corpus):
    """Every config of every corpus: its dialect, its keys, what became of it."""
    for trainer in COUNTS:
        texts = corpus(trainer)
        for path, text in texts.files.items():
            for line in [each.line for each in shell.commands(text) if shell.is_script(text)] or [0]:
                try:
                    dialect, config, _ = opened(text, "", texts.beside(path), (), line)
                except (Refused, Unreadable):
                    continue
                if found := result(dialect, config):
                    yield posixpath.basename(path), dialect, config, found


@pytest.mark.long
def test_what_is_called_modelled_is_read(corpus):
    """Each modelled key of each corpus, with another value, gives another recipe, or is no longer called modelled."""
    keys = []
    for path, dialect, config, found in configs(corpus):
        said = [each for each in found.entries if each.fate == "modelled" and each.value != "***"]
        keys += [(path, dialect, config, found, each) for each in said]
    chosen = random.Random(11).sample(keys, min(COUNT, len(keys)))
    left = Counter(
        (dialect.name, re.sub(r"\.\d+\.", ".N.", each.key), path)
        for path, dialect, config, found, each in chosen
        if not is_read(dialect, config, found, each.key, each.value)
    )
    print(f"\n{len(chosen)} of {len(keys)} modelled keys with another value; not read: {sum(left.values())}")
    assert not left, left.most_common(20)


@pytest.mark.long
def test_no_modelled_key_says_nothing(corpus):
    """A modelled key says a leaf, or chose the method; a secret says nothing but that it is left out."""
    for path, dialect, config, found in configs(corpus):
        looked = Recording(config.keys)
        dialect.shape(looked)
        for each in found.entries:
            assert each.fate != "modelled" or each.leaves or each.key in looked.read or each.value == "***", (path, each)
