"""`tune doctor`, `schema` and `--version`: what this installation is and has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, TROUBLE
from orchestrator.client import doctor as client

if TYPE_CHECKING:
    import argparse


def version(_args: argparse.Namespace) -> int:
    """The version of this installation."""
    print(f"tunesmith {client.version()}")
    return DONE


def schema(_args: argparse.Namespace) -> int:
    """JSON Schema of recipes."""
    print(json.dumps(client.schema(), indent=1))
    return DONE


def doctor(args: argparse.Namespace) -> int:
    """One fact a line, then which `tune` is which."""
    if args.notify:
        return _try_notices(json_wanted=args.json)
    found = client.doctor()
    if args.json:
        programs = [{"path": path, "owner": owner} for path, owner in found.programs]
        print(json.dumps({"facts": found.facts, "programs": programs}, indent=1))
        return DONE
    for name, value in found.facts.items():
        print(f"{name:14} {value}")
    for n, (path, owner) in enumerate(found.programs):
        print(f"{'tune' if n == 0 else '':14} {path} ({owner}){' <- this runs' if n == 0 else ''}")
    return DONE


def _try_notices(*, json_wanted: bool) -> int:
    """A message to each service; one line each."""
    from orchestrator.client.notices import try_notices  # noqa: PLC0415
    from orchestrator.home import Home  # noqa: PLC0415

    found = try_notices(Home.find())
    if json_wanted:
        print(json.dumps([{"service": each.service, "delivered": not each.why, "reason": each.why} for each in found], indent=1))
    else:
        for each in found:
            print(f"{each.service}: {f'not delivered: {each.why}' if each.why else 'delivered'}")
    return TROUBLE if any(each.why for each in found) else DONE
