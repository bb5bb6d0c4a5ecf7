"""Two runs side by side, for a reader: what decides what is learnt first, then the same result by other means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backends.mapping.rows import ABSENT
from orchestrator.render.plan import brief
from orchestrator.render.text import visible

if TYPE_CHECKING:
    from backends.analysis.diff import Apart, Difference, Side, Unsaid

_SAYS: dict[str, tuple[dict[Any, str], str]] = {
    "data.train_on_prompt": ({True: "trains on the prompt too", False: "masks the prompt"}, ""),
    "data.pack": ({True: "packs rows into one sequence", False: "gives each row a sequence of its own"}, ""),
    "data.shuffle": ({True: "shuffles the rows", False: "keeps the order of the file"}, ""),
    "data.add_eos": ({True: "ends rows with the end token", False: "leaves the end token out"}, ""),
    "data.rendering": ({"native": "reads the rows in its trainer's own way", "shared": "has them rendered once for all"}, ""),
    "method.adapter": ({"none": "trains all weights"}, "trains an adapter ({})"),
    "train.grad_clip": ({None: "does not clip the gradient"}, "clips the gradient at {}"),
    "optim.schedule": ({"constant": "keeps the rate"}, "lowers the rate, {}"),
    "optim.weight_decay": ({0.0: "does not decay weights"}, "decays weights by {}"),
    "optim.decay_on": ({"all": "decays norms and biases too", "matrices": "spares norms and biases"}, ""),
}
"""Leaf -> what a run with a value does, in words; of a value without words, the text that it is put into."""


def diff_text(found: Difference, *, width: int = 100) -> str:
    """The whole comparison.

    Args:
        found: what differs.
        width: columns of the terminal.
    """
    learnt = [each for each in found.leaves if each.decides]
    other = [each for each in found.leaves if not each.decides]
    blocks = [
        "\n".join(visible(f"{sign}: {side.file} ({side.because})") for sign, side in (("A", found.a), ("B", found.b))),
        _block("what is learnt", (line for each in learnt for line in _leaf(found, each, width))),
        _block("keys with no recipe equivalent", (line for each in found.keys if each.decides for line in _key(each, width))),
        _block("each in its own way", _ways(found, width)),
        _block("how it runs: the same result", (line for each in other for line in _values(found, each))),
        _block("keys for how it runs", (line for each in found.keys if not each.decides for line in _key(each, width))),
        _verdict(found),
    ]
    return "\n\n".join(filter(None, blocks))


def _block(title: str, lines: Iterator[str]) -> str:
    body = list(lines)
    return "\n".join([f"{title}:", *body]) if body else ""


def _verdict(found: Difference) -> str:
    leaves, keys = (sum(each.decides for each in group) for group in (found.leaves, found.keys))
    if found.equal:
        return "equal in meaning"
    ways = sum(map(len, found.ways))
    counts = ((leaves, "in settings"), (keys, "in keys with no recipe equivalent"), (ways, "in a trainer's own ways"))
    return "different: " + ", ".join(f"{count} {what}" for count, what in counts if count)


def _leaf(found: Difference, each: Apart, width: int) -> Iterator[str]:
    """Both values with where they come from, the difference in words, and what the leaf means."""
    from backends.recipe.docs import about  # noqa: PLC0415  # the schema is only wanted where something differs

    yield from _values(found, each)
    for text in (sentence(found, each), about(each.leaf)["meaning"]):
        yield from _wrapped(text, width)


def _values(found: Difference, each: Apart) -> Iterator[str]:
    """The leaf, and a line for each side."""
    yield f"  {each.leaf}"
    for sign, value, side in (("A", each.a, found.a), ("B", each.b, found.b)):
        place = _origin(side, each.leaf) if value is not ABSENT else "no effect here"
        yield visible(f"    {sign}  {_shown(value)}  ({place})")


def _shown(value: object) -> str:
    return "-" if value is ABSENT else brief(value)


def _origin(side: Side, leaf: str) -> str:
    """Who says the value."""
    keys = side.spelled.get(leaf)
    if not side.trainer:
        return "said" if keys else "the recipe's default"
    if keys is None:
        return "the config as a whole" if leaf in ("method.kind", "method.adapter") else "no key says it"
    return ", ".join(keys[:3]) + (", ..." if keys[3:] else "") or f"{side.trainer}'s default"


def sentence(found: Difference, each: Apart) -> str:
    """`axolotl masks the prompt, litgpt trains on the prompt too`; empty where there are no words for it."""
    named = found.a.trainer and found.b.trainer and found.a.trainer != found.b.trainer
    names = (found.a.trainer, found.b.trainer) if named else ("A", "B")
    said = [_phrase(each.leaf, value) for value in (each.a, each.b)]
    return ", ".join(f"{name} {text}" for name, text in zip(names, said, strict=True)) if all(said) else ""


def _phrase(leaf: str, value: object) -> str:
    words, otherwise = _SAYS.get(leaf, ({}, ""))
    if isinstance(value, str | bool | int | float | None) and value in words:
        return words[value]
    return otherwise.format(value) if value is not ABSENT else ""


def _key(each: Unsaid, width: int) -> Iterator[str]:
    """A native key: `axolotl: flash_optimum  A true  B -`."""
    yield visible(f"  {each.trainer}: {each.key}  A {_shown(each.a)}  B {_shown(each.b)}")
    yield from _wrapped(each.why, width)


def _ways(found: Difference, width: int) -> Iterator[str]:
    for side, lines in zip((found.a, found.b), found.ways, strict=True):
        for line in lines:
            yield f"  {side.trainer}: {line.leaf}"
            yield from _wrapped(line.why.partition("; ")[0] + (f" (see {line.see})" if line.see else ""), width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(visible(text), width, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False)


def document(found: Difference) -> dict[str, object]:
    """The same as one JSON document. A side without `value` has none: there the leaf has no effect, or the key is not set."""
    return {
        "equal": found.equal,
        "a": _side(found.a),
        "b": _side(found.b),
        "leaves": [_apart(found, each) for each in found.leaves],
        "keys": [
            {"trainer": e.trainer, "key": e.key, "a": _one(e.a), "b": _one(e.b), "why": e.why, "decides": e.decides}
            for e in found.keys
        ],
        "ways": [
            {"trainer": side.trainer, "leaf": line.leaf, "why": line.why, "see": line.see}
            for side, lines in zip((found.a, found.b), found.ways, strict=True)
            for line in lines
        ],
    }


def _side(side: Side) -> dict[str, str]:
    return {"file": side.file, "trainer": side.trainer, "because": side.because}


def _apart(found: Difference, each: Apart) -> dict[str, object]:
    from backends.recipe.docs import about  # noqa: PLC0415  # as above

    sides = ((each.a, found.a), (each.b, found.b))
    values = [_one(value) | ({} if value is ABSENT else {"from": _origin(side, each.leaf)}) for value, side in sides]
    return {
        "leaf": each.leaf,
        "decides": each.decides,
        "a": values[0],
        "b": values[1],
        "says": sentence(found, each),
        "meaning": about(each.leaf)["meaning"],
    }


def _one(value: object) -> dict[str, object]:
    return {} if value is ABSENT else {"value": value}
