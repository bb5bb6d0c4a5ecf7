"""`tune evaluate`, `tune export`, `tune push` and `tune serve`: stages by hand, over any job that has trained or a folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.client.session import wake_early

if TYPE_CHECKING:
    import argparse


def evaluate(args: argparse.Namespace) -> int:
    """Figures of a model, and gates."""
    names = ("engine", "shots", "limit", "batch", "seed", "model", "dtype")
    settings = {name: value for name in names if (value := getattr(args, name)) is not None}
    tasks = [_task(text) for text in args.task]
    return _run("evaluate", args, {**settings, "tasks": tasks, "gates": args.gate, "baseline": args.baseline, "chat": args.chat})


def _task(text: str) -> str | dict[str, str]:
    """`NAME`, `FILE`, or `FILE,like=NAME,kind=KIND,name=NAME`."""
    path, *more = text.split(",")
    return {"path": path, **dict(each.partition("=")[::2] for each in more)} if more else path


def _run(stage: str, args: argparse.Namespace, settings: dict[str, object]) -> int:
    """Plan it, and unless it is a dry run submit it; prints the job's id."""
    if not args.dry_run:
        wake_early()
    from orchestrator.cli.arguments import say  # noqa: PLC0415
    from orchestrator.client import submit as client  # noqa: PLC0415  # pydantic is heavy
    from orchestrator.client.stages import plan_stage  # noqa: PLC0415

    client.check_id(args.id)
    planned = plan_stage(stage, args.what, settings, on=args.on, attempt=args.attempt, ask=not args.dry_run, say=say)
    if args.dry_run:
        print(json.dumps(planned.job.plan.as_dict(), indent=1) if args.json else str(planned.job))
        return DONE
    found = client.submit(planned.job, id=args.id or client.new_id(planned.stem), labels=planned.labels, say=say)
    print(json.dumps({**found._asdict(), "stage": stage, "target": planned.job.target}) if args.json else found.id, flush=True)
    if args.follow:
        from orchestrator.cli.follow import follow_one  # noqa: PLC0415  # rich is heavy

        return follow_one(found.id)
    return DONE


def serve(args: argparse.Namespace) -> int:
    """An OpenAI-compatible server of a model."""
    names = ("engine", "gguf", "port", "replicas", "key_name", "max_length", "dtype")
    settings = {name: value for name in names if (value := getattr(args, name)) is not None}
    return _run(
        "serve",
        args,
        {
            **settings,
            "prefix_cache": not args.no_prefix_cache,
            "check": args.check,
            "expose": args.expose,
            "adapters": not args.no_adapters,
        },
    )


def export(args: argparse.Namespace) -> int:
    """The model in other forms."""
    names = ("dtype", "prompts", "tokens")
    settings = {name: value for name in names if (value := getattr(args, name)) is not None}
    return _run("export", args, {**settings, **({"formats": args.format} if args.format else {})})


def push(args: argparse.Namespace) -> int:
    """The model on a hub."""
    given = {"what": args.part, "token_name": args.token_name, "branch": args.branch}
    settings = {name: value for name, value in given.items() if value is not None}
    return _run("push", args, {**settings, "repo": args.repo, "private": not args.public})
