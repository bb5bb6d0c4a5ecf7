"""`tune report`: one job as a page, for those who were not there."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say
from orchestrator.client.report import report as collected
from orchestrator.render.report import report_markdown


def report(args: argparse.Namespace) -> int:
    """Markdown, printed or written; with --html the page of `tune dashboard --share`."""
    if args.html:
        from orchestrator.cli.dashboard import dashboard  # noqa: PLC0415  # an extra

        return dashboard(argparse.Namespace(job=args.job, share=args.html))
    text = report_markdown(*collected(args.job))
    if args.out:
        Path(args.out).write_text(text, "utf-8")
        say(f"wrote {args.out}")
    else:
        print(text, end="")
    return DONE
