"""Words in, exit code out: the only room that prints or exits. stdout is data, stderr is talk.

Exit codes: 0 done; 1 the job or action failed; 2 the words or the recipe are wrong; 3 this backend cannot express the
recipe; 4 host or network trouble; 130 interrupted. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from orchestrator.cli.parser import parser as command_parser

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, FAILED, WRONG, INEXPRESSIBLE, TROUBLE, INTERRUPTED = 0, 1, 2, 3, 4, 130


class Stop(Exception):  # not an error: the end of a command, with its code
    """End the command with this exit code; the text, if any, goes to stderr."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


def run(words: Sequence[str]) -> int:
    """Run one command; its exit code."""
    said = command_parser(*words[:1]).parse_args(words)
    if not said.command:
        command_parser().print_help()
        return DONE
    module = __import__(f"orchestrator.cli.{said.module}", fromlist=[said.function])
    return int(getattr(module, said.function)(said) or DONE)


def main() -> NoReturn:
    """The commands `tune` and `tunesmith`."""
    code = FAILED
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except Stop as stop:
        code = stop.code
        if str(stop):
            print(str(stop), file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read us has enough: not an error of ours
        code = DONE
    except OSError as error:
        print(f"{error.filename or 'tune'}: {error.strerror or error}", file=sys.stderr)
        code = TROUBLE
    except Exception as error:
        from orchestrator.store import StoreError  # noqa: PLC0415  # not for --help

        if not isinstance(error, StoreError):
            raise
        print(error, file=sys.stderr)
        code = TROUBLE
    sys.exit(code)
