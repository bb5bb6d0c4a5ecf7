"""Classes of `backends.records` are those that the standard library makes of the same text, in all that we rely on."""

import copy
import dataclasses
import pickle
from functools import cached_property

import pytest

from backends import records


def made(how, field):
    """The same classes, by one of the two."""

    @how(frozen=True)
    class Inner:
        name: str
        sizes: tuple[int, ...] = ()

        def __post_init__(self):
            if not self.name:
                raise ValueError("a name is wanted")

    @how(frozen=True)
    class Outer:
        inner: Inner
        words: dict[str, list[int]] = field(default_factory=dict, hash=False)
        note: str = field(default="", repr=False)
        at: float = field(default=0.0, compare=False)
        more: tuple[Inner, ...] = ()

        @cached_property
        def size(self):
            return len(self.words)

    @how
    class Open:
        last: int = 0
        kept: dict[str, int] = field(default_factory=dict)

    @how(frozen=True, eq=False)
    class Alone:
        name: str

    return Inner, Outer, Open, Alone


OURS = made(records.dataclass, records.field)
LIBRARY = made(dataclasses.dataclass, dataclasses.field)
BOTH = pytest.mark.parametrize("classes", [OURS, LIBRARY], ids=["ours", "library"])


def each(make):
    """What a function answers, or the kind of its error, for our classes and for the library's."""
    answers = []
    for classes in (OURS, LIBRARY):
        try:
            answers.append(make(*classes))
        except Exception as error:  # whichever it is, both are to raise it
            answers.append(type(error))
    return answers


@pytest.mark.parametrize(
    "make",
    [
        lambda i, o, *_: repr(o(i("a", (1,)), {"b": [1]}, "hidden", 2.0)),
        lambda i, *_: repr(i(sizes=(3,), name="n")),
        lambda i, o, *_: hash(o(i("a"), {"b": [1]}, "x", 1.0)) == hash(o(i("a"), {"c": [1]}, "x", 2.0)),
        lambda i, o, *_: o(i("a"), {"b": [1]}, at=1.0) == o(i("a"), {"b": [1]}, at=2.0),
        lambda i, o, *_: o(i("a"), {"b": [1]}) == o(i("a"), {"b": [2]}),
        lambda i, *_: i("a") == ("a", ()),
        lambda i, *_: i("a") in {i("a"), i("b")},
        lambda *all_: all_[3]("a") == all_[3]("a"),
        lambda *all_: len({all_[3]("a"), all_[3]("a")}),
        lambda _i, _o, changing, _a: hash(changing()),
        lambda _i, _o, changing, _a: changing(1) == changing(1, {}),
        lambda _i, _o, changing, _a: changing().kept is changing().kept,
        lambda i, *_: i(),
        lambda i, *_: i("a", (), 3),
        lambda i, *_: i("a", name="b"),
        lambda i, *_: i("a", size=1),
        lambda i, *_: i(""),
        lambda i, *_: setattr(i("a"), "name", "b"),
        lambda i, *_: setattr(i("a"), "other", "b"),
        lambda i, *_: delattr(i("a"), "name"),
        lambda i, o, *_: dataclasses.asdict(o(i("a", (1, 2)), {"b": [1]}, more=(i("c"),))),
        lambda i, o, *_: vars(o(i("a"), note="n"))["note"],
        lambda i, o, *_: list(vars(o(note="n", inner=i("a"))))[1:],
        lambda i, o, *_: (o(i("a"), {"x": []}).size, i.__match_args__, i.sizes),
        lambda _i, o, *_: o.words,
        lambda _i, o, *_: [(f.name, f.compare, f.repr, f.hash) for f in dataclasses.fields(o) if f.name != "inner"][1:3],
        lambda i, *_: dataclasses.replace(i("a"), sizes=(1,)).sizes,
        lambda i, *_: dataclasses.replace(i("a"), name=""),
        lambda i, *_: dataclasses.is_dataclass(i) and dataclasses.is_dataclass(i("a")),
        lambda i, o, *_: copy.deepcopy(o(i("a"), {"b": [1]})) == o(i("a"), {"b": [1]}),
    ],
)
def test_as_the_library(make):
    """Whatever is done with a class or a value of it has the same outcome, errors too."""
    ours, library = each(make)
    assert ours == library


def test_our_own_functions():
    """`replace` and `asdict` do with our values what the library's do; copies that change leave the value as it was."""
    inner, outer, *_ = OURS
    value = outer(inner("a", (1, 2)), {"b": [1]}, more=(inner("c"),))
    assert records.asdict(value) == dataclasses.asdict(value)
    records.asdict(value)["words"]["b"].append(2)
    assert value.words == {"b": [1]}
    assert records.replace(value, note="n") == dataclasses.replace(value, note="n") != value
    for wrong in (lambda: records.replace(value, nothing=1), lambda: dataclasses.replace(value, nothing=1)):
        with pytest.raises(TypeError, match="nothing"):
            wrong()
    theirs = LIBRARY[0]("a")
    assert records.replace(theirs, name="b") == LIBRARY[0]("b")


def test_a_plan_outlives_pickle():
    """Values go through pickle, as between processes."""
    from backends.plan import Input, Step  # noqa: PLC0415

    for value in (Input("a", "b"), Step("train", ("a", "b"), everywhere=False)):
        assert pickle.loads(pickle.dumps(value)) == value
