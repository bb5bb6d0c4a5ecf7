"""`tune submit`."""

from __future__ import annotations

import json
import textwrap
import time
from typing import TYPE_CHECKING

from orchestrator.cli import DONE

if TYPE_CHECKING:
    import argparse

    from orchestrator.client.plan import PlannedJob


def submit(args: argparse.Namespace) -> int:
    """Plan a recipe and run it; prints the job's id."""
    if not args.dry_run:
        from orchestrator.client.session import wake_early  # noqa: PLC0415  # a dry run needs no store

        wake_early()
    from orchestrator.cli.arguments import labels, recipe, say  # noqa: PLC0415  # after the controller is woken
    from orchestrator.client.plan import plan  # noqa: PLC0415

    wanted, tags = recipe(args), labels(args.label)
    if args.id is not None:
        from orchestrator.client.submit import check_id  # noqa: PLC0415

        check_id(args.id)
    job = plan(wanted, to=args.to, on=args.on, accept=args.accept, ask=not args.dry_run, say=say)
    if args.fit != "off":
        from orchestrator.client.fit import check_fit  # noqa: PLC0415

        check_fit(wanted, job, require=args.fit == "require", say=say)
    if args.dry_run:
        _show(job, args)
        return DONE
    from orchestrator.client import submit as client  # noqa: PLC0415  # as above

    queued = {"priority": args.priority, "hold": args.hold, "after": args.after, "keep": args.keep_on_failure}
    found = client.submit(job, id=args.id, labels=tags, snapshot=args.snapshot, say=say, **queued)
    if not args.to:
        say(f"trainer: {job.trainer} (chosen automatically; --to selects another)")
    if not found.new:
        say(f"{found.id} was submitted before; nothing new is started")
    if args.json:
        print(json.dumps({**found._asdict(), "trainer": job.trainer, "target": job.target, "digest": job.digest}))
    else:
        print(found.id, flush=True)
    if args.follow:
        from orchestrator.cli.follow import follow  # noqa: PLC0415  # rich is heavy

        code = follow(found.id)
        if args.json:
            from orchestrator.client.jobs import get  # noqa: PLC0415
            from orchestrator.render.status import status_json  # noqa: PLC0415

            print(json.dumps(status_json([get(found.id)], time.time())[0]))
        return code
    return DONE


def _show(job: PlannedJob, args: argparse.Namespace) -> None:
    from orchestrator.render.plan import plan_text  # noqa: PLC0415

    if args.json:
        print(json.dumps(job.plan.as_dict(), indent=1))
    else:
        print(plan_text(job.plan, verbose=args.verbose))
        for name, text in job.scripts.items():
            print(f"\nscript of {name}\n" + textwrap.indent(text, "  ").rstrip())
