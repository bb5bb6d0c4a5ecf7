"""`tune fit`: memory, time and cost before anything is submitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED
from orchestrator.cli.arguments import recipe, say
from orchestrator.client.fit import fit as told
from orchestrator.render.fit import fit_json, fit_text

if TYPE_CHECKING:
    import argparse


def fit(args: argparse.Namespace) -> int:
    """The parts and the verdict; 1 where it does not fit."""
    found = told(recipe(args), to=args.to, on=args.on, accept=args.accept, compiler=not args.no_compiler, say=say)
    print(json.dumps(fit_json(found), indent=1) if args.json else fit_text(found))
    return FAILED if found.fits is False else DONE
