"""`tune dashboard`: the page, or one job of it as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say
from orchestrator.client.errors import InvalidRequest

if TYPE_CHECKING:
    import argparse

EXTRA = {"jinja2", "starlette", "uvicorn"}
"""Packages of the extra `web`."""


def dashboard(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; with --share write one file."""
    if args.share and not args.job:
        raise InvalidRequest("--share FILE needs a job: tune dashboard JOB --share FILE")
    if args.job and not args.share:
        raise InvalidRequest(args.job, "a job goes with --share FILE; without it, the page shows all jobs")
    try:
        if args.share:
            from orchestrator.web.share import share  # noqa: PLC0415  # an extra

            Path(args.share).write_text(share(args.job), "utf-8")
            say(f"{args.share}: open it in any browser, with no network")
            return DONE
        from orchestrator.web.serve import serve  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise InvalidRequest(f"the page needs {error.name}", hint="pip install 'tunesmith[web]'") from None

    def opened(address: str) -> None:
        print(address, flush=True)
        say("Ctrl-C ends the page, and no job")

    serve(args.host, args.port, say=opened, read_only=args.read_only, allow_hosts=args.allow_host, root_path=args.root_path)
    return DONE
