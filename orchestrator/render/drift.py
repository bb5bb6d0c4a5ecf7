"""A job's trainer beside its plan: what it reads otherwise, leaf by leaf."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from backends.mapping.rows import ABSENT
from orchestrator.monitoring.drift import shown
from orchestrator.render.text import visible

if TYPE_CHECKING:
    from orchestrator.monitoring.drift import Drift


def drift_text(job: str, trainer: str, found: Sequence[Drift], *, width: int = 100) -> str:
    """Each leaf with its keys, what was planned and what the trainer resolved, and what the leaf means; then how many."""
    head = f"{visible(job)}: what {trainer} resolved, beside the plan"
    blocks = [_block(leaf, list(group), width) for leaf, group in groupby(found, key=lambda each: each.leaf)]
    count = f"{len(found)} {'key is' if len(found) == 1 else 'keys are'} not as planned" if found else "as planned"
    return "\n\n".join([head, *blocks, count])


def _block(leaf: str, group: Sequence[Drift], width: int) -> str:
    from backends.recipe.docs import about  # noqa: PLC0415  # the schema is only wanted where something differs

    lines = [f"  {leaf or 'no recipe equivalent'}"]
    for each in group:
        taken = "  (accepted)" if each.accepted else ""
        lines.append(visible(f"    {each.key}  planned {shown(each.planned)}  resolved {shown(each.resolved)}{taken}"))
    meaning = about(leaf)["meaning"] if leaf and not leaf.startswith("native.") else ""
    return "\n".join([*lines, *textwrap.wrap(meaning, width, initial_indent=" " * 6, subsequent_indent=" " * 6)])


def document(job: str, trainer: str, found: Sequence[Drift]) -> dict[str, object]:
    """The same for programs. Without `planned` or `resolved` there is no such key on that side; `leaf` is null where none says it."""
    keys = [
        {
            "leaf": each.leaf or None,
            "key": each.key,
            **{side: value for side, value in (("planned", each.planned), ("resolved", each.resolved)) if value is not ABSENT},
            "accepted": each.accepted,
        }
        for each in found
    ]
    return {"job": job, "trainer": trainer, "equal": not found, "drift": keys}
