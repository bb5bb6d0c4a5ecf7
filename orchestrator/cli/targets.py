"""`tune targets`: where jobs can run and what runs there, from what is known; `check` asks the hosts themselves."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, TROUBLE
from orchestrator.cli.arguments import terminal_width
from orchestrator.client.draining import drain, undrain
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.target_status import target_status
from orchestrator.render.targets import check_table, targets_json, targets_table

if TYPE_CHECKING:
    import argparse


def targets(args: argparse.Namespace) -> int:
    """Targets, machine by machine; `check` also asks each whether it can be used."""
    if args.names[:1] in (["drain"], ["undrain"]):
        return _drain(args)
    check = args.names[:1] == ["check"]
    names = args.names[1:] if args.names[:1] in (["check"], ["ls"]) else args.names
    found = target_status(names, check=check)
    if args.json:
        print(json.dumps(targets_json(found.candidates, found.rows, found.groups, checked=check), indent=1))
    elif check:
        print(check_table(found.rows, width=terminal_width()))
    else:
        print(targets_table(found.rows, found.groups, time.time(), width=terminal_width()))
    return DONE if found.usable else TROUBLE


def _drain(args: argparse.Namespace) -> int:
    """Take machines out of use, or back."""
    action, *names = args.names
    if not names:
        raise InvalidRequest(f"{action} what? name machines or targets: `tune targets` lists them")
    found = drain(names, args.why) if action == "drain" else undrain(names)
    if args.json:
        print(json.dumps([{"machine": name, "drained": action == "drain"} for name in found], indent=1))
    else:
        for name in found:
            print(f"{name} {action}ed")
    return DONE
