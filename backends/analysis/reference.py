"""docs/recipe.md: every setting of a recipe with its type, default and meaning, out of the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby

from backends.recipe.docs import about
from backends.recipe.flat import Value, leaves


def page() -> Iterator[str]:
    """The page, part by part."""
    yield "# Recipe reference\n"
    yield (
        "Made from the schema by `python -m backends.analysis.reference`. `tune explain SETTING` says the same, and how each trainer "
        "spells it; [support-matrix.md](support-matrix.md) says which trainers have it; `tune schema` is the JSON Schema for editors.\n"
    )
    for section, names in groupby(leaves(), key=lambda leaf: leaf.partition(".")[0] if "." in leaf else ""):
        yield f"## {section or 'Top level'}\n"
        yield "| setting | type | default | meaning |\n|---|---|---|---|"
        yield "\n".join(_line(name) for name in names) + "\n"


def _line(leaf: str) -> str:
    found = about(leaf)
    default = found["default"]
    shown = default if default == "required" else f"`{json.dumps(default, ensure_ascii=False)}`"
    return f"| `{leaf}` | {_cell(found['type'])} | {_cell(shown)} | {_cell(found['meaning'])} |"


def _cell(text: Value) -> str:
    """A text in a cell of a table."""
    return str(text).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    import sys

    sys.stdout.write("\n".join(page()))
