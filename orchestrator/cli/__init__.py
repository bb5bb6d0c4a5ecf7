"""The command line: parse, call `orchestrator.client`, render; the only room that prints or exits. stdout is data, stderr is talk.

Exit codes: 0 done; 1 the job or action failed; 2 the arguments or the recipe are wrong; 3 this backend cannot express the
recipe; 4 host or network trouble; 130 interrupted. `main` alone turns errors into them. Heavy modules are imported by the
command that needs them.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from orchestrator.cli.arguments import message_width, print_error, say
from orchestrator.cli.parser import parser as command_parser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.client.errors import NotExpressible

DONE, FAILED, WRONG, INEXPRESSIBLE, TROUBLE, INTERRUPTED = 0, 1, 2, 3, 4, 130


def run(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    args = command_parser(*argv[:1]).parse_args(argv)
    if not args.command:
        command_parser("--help").print_help()
        return DONE
    module = __import__(f"{__name__}.{args.module}", fromlist=[args.function])
    return int(getattr(module, args.function)(args) or DONE)


def main() -> NoReturn:
    """The commands `tune` and `tunesmith`."""
    code = FAILED
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how a line may go on: see `tune completion`
        from orchestrator.cli.completion import complete  # noqa: PLC0415  # only then

        complete()
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8 shows `?` for what it cannot
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read us has enough: not an error of ours
        code = DONE
    except OSError as error:
        say(f"{error.filename or 'tune'}: {error.strerror or error}")
        code = TROUBLE
    except Exception as error:
        code = _explained(error)
    sys.exit(code)


def _explained(error: Exception) -> int:
    """Print an error that a user can do something about; its exit code. Others are mistakes of ours, and keep their trace."""
    from orchestrator.client import errors  # noqa: PLC0415  # not for --help

    if not isinstance(error, errors.TunesmithError):
        raise error
    say(_refusals(error) if isinstance(error, errors.NotExpressible) and error.reports else error.text(_as_option))
    if "--json" in sys.argv[1:]:
        print_error(type(error).__name__, what=error.what, rule=error.rule, argument=error.argument, hint=error.hint)
    codes = {errors.NotExpressible: INEXPRESSIBLE, errors.InvalidRequest: WRONG, errors.Unreachable: TROUBLE}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), FAILED)


def _refusals(error: NotExpressible) -> str:
    """What each trainer cannot honour, as wide as the terminal."""
    from orchestrator.client.plan import refusal  # noqa: PLC0415

    return "\n\n".join(refusal(name, report, width=message_width() or 100) for name, report in error.reports.items())


def _as_option(argument: str, what: str) -> str:
    """An argument as the command line writes it: `--all-of sweep`; one letter: `-o FILE`."""
    return f"{_SHORT.get(argument) or '--' + argument.replace('_', '-')} {what}".rstrip()


_SHORT = {"output": "-o"}
"""Arguments whose option is one letter."""
