"""Parsers that group commands in the help, give examples, and name what was probably meant. No heavy import."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

GROUPS = {
    "run": ("submit", "sweep", "wait", "cancel", "retry", "hold", "release", "priority"),
    "use": ("evaluate", "export", "push", "serve", "chat"),
    "look": ("status", "logs", "metrics", "report", "pull", "sync", "ssh", "dashboard", "mcp"),
    "compare": ("best", "diff", "race", "verify"),
    "translate": ("init", "translate", "import", "explain", "preview", "fit", "recipes", "schema", "convert"),
    "machines": ("targets", "top", "du", "prune", "doctor", "completion"),
}
"""Commands as the help lists them."""
OTHER_NAMES = {
    **dict.fromkeys(("run", "train", "launch", "start", "create"), "submit"),
    **dict.fromkeys(("ls", "list", "ps", "jobs", "queue", "show"), "status"),
    **dict.fromkeys(("stop", "kill", "rm", "delete"), "cancel"),
    **dict.fromkeys(("exec", "shell", "attach", "enter"), "ssh"),
    **dict.fromkeys(("pause", "suspend"), "hold"),
    **dict.fromkeys(("unhold", "resume", "continue"), "release"),
    **dict.fromkeys(("nice", "renice", "prioritize"), "priority"),
    **dict.fromkeys(("download", "cp", "get"), "pull"),
    **dict.fromkeys(("compile", "emit"), "translate"),
    **dict.fromkeys(("compare",), "diff"),
    **dict.fromkeys(("hosts", "clusters", "nodes"), "targets"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("plot", "curves"), "metrics"),
    **dict.fromkeys(("deploy", "host", "api"), "serve"),
    **dict.fromkeys(("upload", "publish"), "push"),
    **dict.fromkeys(("grid", "search", "hpo", "array"), "sweep"),
    **dict.fromkeys(("memory", "vram", "estimate", "cost"), "fit"),
    **dict.fromkeys(("talk", "ask", "generate"), "chat"),
    **dict.fromkeys(("eval", "benchmark", "test"), "evaluate"),
    **dict.fromkeys(("check", "version"), "doctor"),
    **dict.fromkeys(("ui", "web", "board"), "dashboard"),
    **dict.fromkeys(("htop", "gpus", "nvidia-smi", "nvtop", "usage"), "top"),
    **dict.fromkeys(("disk", "df"), "du"),
    **dict.fromkeys(("clean", "gc", "purge"), "prune"),
    **dict.fromkeys(("new", "quickstart"), "init"),
    **dict.fromkeys(("agent", "agents"), "mcp"),
    "help": "--help",
}
"""What other tools call a command of ours."""


def columns(otherwise: int = 80) -> int:
    """Of the terminal: as `shutil.get_terminal_size` finds them, which brings what unpacks archives."""
    if (told := os.environ.get("COLUMNS", "")).isdecimal() and int(told):
        return int(told)
    try:
        return (os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ else 0) or otherwise
    except (OSError, ValueError):  # it is none, or closed
        return otherwise


class _Formatter(argparse.HelpFormatter):
    """As wide as the terminal. argparse makes one for each argument that a command takes."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)


class MessageParser(argparse.ArgumentParser):
    """Its errors are messages as all others: in plain words, with a hint, an object under `--json`, and broken between words."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **kw})
        self._positionals.title = "arguments"

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        text, _, hint = _plain(message).partition("\n\nhint: ")
        if "--json" in sys.argv[1:]:
            from orchestrator.cli.arguments import print_error  # noqa: PLC0415  # not for --help

            print_error("InvalidRequest", what=text, hint=hint)
        super().error(f"{text}\n\nhint: {hint}" if hint else text)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End, with a message on stderr."""
        if message:
            from orchestrator.cli.arguments import say  # noqa: PLC0415  # not for --help

            say(message, end="")
        super().exit(status)


def _plain(message: str) -> str:
    """A message of argparse in the words of our own."""
    if found := re.fullmatch(r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
        import difflib  # noqa: PLC0415  # not for --help

        known = re.findall(r"[^', ]+", found[3])
        near = difflib.get_close_matches(found[2], known, n=1)
        hint = f"\n\nhint: did you mean {near[0]}?" if near else ""
        return f"argument {found[1]}: should be one of {', '.join(known)}, got {found[2]}{hint}"
    if found := re.fullmatch(r"argument (.+?): invalid (int|float) value: '(.*)'", message):
        return f"argument {found[1]}: should be a {'whole number' if found[2] == 'int' else 'number'}, got {found[3]}"
    return message


class GroupedParser(MessageParser):
    """The command itself: its help lists commands by group, and an unknown command gets the nearest one as a hint."""

    commands: Any

    def format_help(self) -> str:
        """Usage, then the commands by group."""
        shown = {each.dest: each for each in self.commands._choices_actions}
        form = self._get_formatter()
        form.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        form.add_text(self.description)
        for group, names in GROUPS.items():
            form.start_section(group)
            form.add_arguments([shown[name] for name in names if name in shown])
            form.end_section()
        form.start_section("options")
        form.add_arguments([each for each in self._actions if each is not self.commands])
        form.end_section()
        form.add_text(self.epilog)
        return form.format_help()

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        if found := re.search(r"argument COMMAND: invalid choice: '(.*)' \(choose from", message):
            import difflib  # noqa: PLC0415  # not for --help

            known = [name for names in GROUPS.values() for name in names]
            near = [OTHER_NAMES[found[1]]] if found[1] in OTHER_NAMES else difflib.get_close_matches(found[1], known, n=1)
            hint = f"did you mean tune {near[0]}?" if near else "`tune --help` lists the commands"
            message = f"there is no command {found[1]!r}\n\nhint: {hint}"
        super().error(message)


class NamedCommand:
    """In place of a command where only its name and what it does are wanted: it takes no options, which take their time."""

    def __init__(self, **_: object) -> None:
        pass

    def add_argument(self, *_: object, **_kw: object) -> None:
        """Nothing."""

    def set_defaults(self, **_: object) -> None:
        """Nothing."""

    def add_mutually_exclusive_group(self, **_: object) -> NamedCommand:
        """Takes no options either."""
        return self


class CommandParser(MessageParser):
    """One command: examples in its help, and the nearest of its options where one is unknown."""

    def format_help(self) -> str:
        """The usual help, then examples."""
        from orchestrator.cli.examples import EXAMPLES  # noqa: PLC0415  # only for help

        lines = EXAMPLES.get(self.prog.partition(" ")[2], ())
        return super().format_help() + ("\n" + "\n".join(["examples:", *(f"  {line}" for line in lines)]) + "\n" if lines else "")

    def parse_known_args(  # type: ignore[override]  # what argparse calls for a command
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[Any, list[str]]:
        """Arguments before and after options; an unknown one ends with exit code 2."""
        parsed, unknown = super().parse_known_args(args, namespace)
        more = next((name for name in ("sets", "words") if hasattr(parsed, name)), "")
        if unknown and more and (unknown[0] == "--" or not any(arg.startswith("-") for arg in unknown)):
            # argparse takes a list of arguments only before the options
            setattr(parsed, more, [*getattr(parsed, more), *unknown[unknown[0] == "--" :]])
            unknown = []
        if unknown:
            import difflib  # noqa: PLC0415  # not for --help

            found = difflib.get_close_matches(unknown[0].partition("=")[0], re.findall(r"--[\w-]+", self.format_usage()), n=1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"\n\nhint: did you mean {found[0]}?" if found else ""))
        return parsed, unknown


def maker(asked: Collection[str]) -> Any:
    """What argparse is to make commands with: those that are asked for get their options, which take their time, the others have
    names alone.
    """
    return lambda **how: CommandParser(**how) if str(how["prog"]).partition(" ")[2] in asked else NamedCommand()
