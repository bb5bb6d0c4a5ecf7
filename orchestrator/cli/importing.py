"""`tune import`: a native config of any trainer becomes a recipe, and every key is accounted for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, INEXPRESSIBLE
from orchestrator.cli.arguments import message_width, say, width
from orchestrator.client import importing as client
from orchestrator.client.errors import NotFound, did_you_mean
from orchestrator.render.imported import document, explained, imported_text, summary

if TYPE_CHECKING:
    import argparse


def native(args: argparse.Namespace) -> int:
    """The recipe to stdout or a file, the report to stderr."""
    if args.file != client.STDIN and Path(args.file).is_dir():
        return _folder(args)
    text = _standard_input() if args.file == client.STDIN else None
    made = client.import_config(args.file, trainer=args.trainer, sets=args.sets, line=args.line, text=text)
    if args.explain:
        return _explain(made, args.explain)
    if args.output and not args.check:
        say(f"wrote {client.save(made.text, args.output, args.file)}")
    if args.json:
        print(json.dumps(document(made.found, made.moves), indent=1))
    else:
        if not (args.output or args.check):
            print(made.text, end="")
        report = imported_text if args.verbose else summary
        say(report(made.found, made.moves, width=message_width() or width()))
    wrong = args.output and args.check and (not Path(args.output).is_file() or Path(args.output).read_text("utf-8") != made.text)
    if wrong:
        say(f"--check: {args.output} is not what import makes of {args.file}")
    if (args.strict or args.check) and made.unmodelled:
        say(f"{'--check' if args.check else '--strict'}: not modelled: {', '.join(made.unmodelled)}")
    return INEXPRESSIBLE if wrong or ((args.strict or args.check) and made.unmodelled) else DONE


def _explain(made: client.ImportedConfig, key: str) -> int:
    """One key of the config."""
    entry = next((each for each in made.found.entries if each.key == key), None)
    if entry is None:
        keys = [each.key for each in made.found.entries]
        raise NotFound(key, f"is no key of {made.source}", argument="explain", hint=did_you_mean(key, keys))
    print(explained(made.found, entry, width=width()))
    return DONE


def _folder(args: argparse.Namespace) -> int:
    """A table of all configs; their recipes into a folder."""
    from orchestrator.client import import_folder as folders  # noqa: PLC0415  # only for a folder
    from orchestrator.render.import_folder import folder_document, folder_text  # noqa: PLC0415  # as above

    made = folders.import_folder(args.file, trainer=args.trainer)
    if not made.entries:
        raise NotFound(args.file, "has no file that may be a config", hint=f"their names end in {', '.join(client.ENDINGS)}")
    if args.output and not args.check:
        say(f"wrote {len(folders.write(made, args.output))} recipes into {args.output}")
    if args.json:
        print(json.dumps(folder_document(made), indent=1))
    else:
        print(folder_text(made, width=width(), verbose=args.verbose))
    wrong = [each.file for each in made.failed]
    if args.strict or args.check:
        wrong += [each.file for each in made.recipes if each.unmodelled]
    if args.check and args.output:
        wrong += folders.outdated(made, args.output)
    if wrong and (args.check or args.strict):
        say(
            f"{'--check' if args.check else '--strict'}: {len(dict.fromkeys(wrong))} to look at: {', '.join(dict.fromkeys(wrong))}"
        )
        return INEXPRESSIBLE
    return DONE


def _standard_input() -> str:
    """What comes through a pipe."""
    found = sys.stdin.buffer.read(client.MOST + 1)
    if len(found) > client.MOST:
        raise client.too_large(client.STDIN)
    return client.decoded(found, client.STDIN)
