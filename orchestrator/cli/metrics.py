"""`tune metrics`: points of jobs as a table, curves, JSON or CSV."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.client.output import points
from orchestrator.render.points import metrics_csv, metrics_json, metrics_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from orchestrator.store import PointRow


def metrics(args: argparse.Namespace) -> int:
    """In the form that is asked for."""
    names = args.name or (["loss"] if args.plot else None)
    found = points(args.jobs, attempt=args.attempt, metrics=names)
    if args.plot:
        print(_plot(found, names or ["loss"]))
    elif args.json:
        documents = [metrics_json(id, each) for id, each in found.items()]
        print(json.dumps(documents[0] if len(documents) == 1 else documents))
    elif args.csv:
        print(metrics_csv(found))
    else:
        for id, each in found.items():
            print(f"{id}\n{metrics_table(each, names, args.last or None)}" if each else f"{id}\nno metrics yet")
    return DONE


def _plot(found: dict[str, list[PointRow]], names: Iterable[str]) -> str:
    from orchestrator.render.plot import metrics_plot  # noqa: PLC0415
    from orchestrator.render.text import may_colour  # noqa: PLC0415

    size = shutil.get_terminal_size((100, 30))
    colour = may_colour(sys.stdout.isatty(), os.environ)
    return "\n\n".join(metrics_plot(found, name, size.columns, min(24, max(10, size.lines - 6)), colour=colour) for name in names)
