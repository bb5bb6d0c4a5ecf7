"""Names at once, values on first use."""

import pytest

from backends.lazy import Lazy


def test_nothing_is_made_before_it_is_asked_for():
    """Listing, counting and looking for names makes no value; each is made once."""
    asked, made = [], []
    table = Lazy(lambda: asked.append(1) or {"a": 1, "b": 2}, lambda place: made.append(place) or place * 10)
    assert asked == []
    assert (list(table), len(table), "a" in table, "c" in table, table.get("c")) == (["a", "b"], 2, True, False, None)
    assert (asked, made) == ([1], [])
    assert (table["b"], table["b"], table.get("b"), made) == (20, 20, 20, [2])
    assert next(iter(table.values())) == 10
    assert {**table} == {"a": 10, "b": 20}
    assert (asked, made) == ([1], [2, 1])
    with pytest.raises(KeyError, match="c"):
        table["c"]
