"""Commands and their options. No heavy import: `tune --help` is the first thing that people see."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

ABOUT = "Write a fine-tune once; run it on any of several trainers; know exactly what was translated."


OTHER_NAMES = {
    **dict.fromkeys(("run", "train", "launch", "start", "create"), "submit"),
    **dict.fromkeys(("ls", "list", "ps", "jobs", "queue", "show"), "status"),
    **dict.fromkeys(("stop", "kill", "rm", "delete"), "cancel"),
    **dict.fromkeys(("download", "cp", "get"), "pull"),
    **dict.fromkeys(("convert", "compile"), "translate"),
    **dict.fromkeys(("compare",), "diff"),
    **dict.fromkeys(("hosts", "clusters", "nodes"), "targets"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("plot", "curves"), "metrics"),
    **dict.fromkeys(("deploy", "host", "api"), "serve"),
    **dict.fromkeys(("grid", "search", "hpo", "array"), "sweep"),
    **dict.fromkeys(("talk", "ask", "generate"), "chat"),
    **dict.fromkeys(("eval", "benchmark", "test"), "evaluate"),
    **dict.fromkeys(("check", "version"), "doctor"),
    **dict.fromkeys(("ui", "web", "board"), "dashboard"),
    "help": "--help",
}
"""What other tools call a command of ours."""


class _Parser(argparse.ArgumentParser):
    """The command itself, which names the nearest command for one that it does not have."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        if found := re.search(r"argument COMMAND: invalid choice: '(.*)' \(choose from", message):
            import difflib  # noqa: PLC0415  # not for --help

            known = (*COMPILING, *TRACKING, *FOLLOWING, *INSPECTING)
            near = [OTHER_NAMES[found[1]]] if found[1] in OTHER_NAMES else difflib.get_close_matches(found[1], known, n=1)
            hint = f"did you mean tune {near[0]}?" if near else "`tune --help` lists the commands"
            message = f"there is no command {found[1]!r}\n\nhint: {hint}"
        super().error(message)


class _CommandParser(argparse.ArgumentParser):
    """A command whose mistakes are told with its own options, and the nearest of them."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # what argparse calls for a command
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown and hasattr(parsed, "sets") and not any(arg.startswith("-") for arg in unknown):
            parsed.sets, unknown = [*parsed.sets, *unknown], []  # argparse takes a list of arguments only before the options
        if unknown:
            import difflib  # noqa: PLC0415  # not for --help

            found = difflib.get_close_matches(unknown[0].partition("=")[0], re.findall(r"--[\w-]+", self.format_usage()), n=1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"\n\nhint: did you mean {found[0]}?" if found else ""))
        return parsed, unknown


def parser(first: str = "") -> argparse.ArgumentParser:
    """All commands, or when the first argument is one, those of its group: making them all takes 15 ms. Each names the
    module below `orchestrator.cli` and the function that does it.
    """
    top = _Parser(
        prog="tune",
        description=ABOUT,
        allow_abbrev=False,
        epilog="exit codes: 0 done, 1 failed, 2 wrong arguments or recipe, 3 not expressible, 4 host trouble, 130 interrupted",
    )
    top.add_argument("--version", action="store_const", const="version", dest="command", help="print the version")
    top.set_defaults(module="doctor", function="version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_CommandParser)
    groups = ((_compiling, COMPILING), (_tracking, TRACKING), (_following, FOLLOWING), (_inspecting, INSPECTING))
    chosen = [add for add, names in groups if first in names] or [add for add, _ in groups]
    for add in chosen:
        add(commands)
    return top


COMPILING = ("submit", "sweep", "translate", "preview", "explain", "import", "diff", "race", "verify")
TRACKING = ("status", "logs", "metrics", "best", "pull", "wait", "cancel", "retry")
FOLLOWING = ("evaluate", "export", "serve", "chat")
INSPECTING = ("recipes", "targets", "dashboard", "schema", "doctor")
STATES = ("ACTIVE", "QUEUED", "PREPARING", "STARTING", "RUNNING", "READY", "STOPPING", "SUCCEEDED", "FAILED", "CANCELLED", "LOST")


def _command(commands: Any, name: str, module: str, about: str, function: str = "") -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False
    )
    made.set_defaults(module=module, function=function or name)
    return made


def _recipe(command: argparse.ArgumentParser, on: str = "local") -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a recipe file")
    command.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="replace a leaf: --set optim.lr=3e-4")
    command.add_argument(
        "--accept", action="append", default=[], metavar="LEAF", help="go on although the trainer cannot honour this leaf"
    )
    about = "local" if on else "a machine such as the recipe asks for"
    command.add_argument(
        "--on",
        default=on or None,
        metavar="TARGET",
        help=f"a target or group of clusters.yaml, or A,B: the first with room (default: {about})",
    )


def _compiling(commands: Any) -> None:
    submit = _command(commands, "submit", "submit", "plan a recipe and run it; prints the job's id")
    _recipe(submit)
    submit.add_argument("--id", metavar="ID", help="name the job yourself: the same id submitted twice runs once")
    _submitted(submit)
    submit.add_argument("--follow", action="store_true", help="show progress until the job ends; its end is the exit code")
    submit.add_argument("--verbose", action="store_true", help="with --dry-run: every leaf and every file in full")
    from orchestrator.cli.sweep_parser import add_sweep  # noqa: PLC0415  # a page of its own

    sweep = add_sweep(commands, _command)
    _recipe(sweep)
    _submitted(sweep)
    translate = _command(commands, "translate", "translate", "native config files, commands and the report of what crossed")
    _recipe(translate, on="")
    translate.add_argument("--to", default="all", metavar="TRAINER|all", help="default: all, side by side")
    translate.add_argument(
        "--as", dest="engine", metavar="ENGINE", help="a task file that skypilot, dstack, kubeflow or slurm runs by itself"
    )
    translate.add_argument("--out", metavar="DIR", help="write the files there, a folder a trainer; with --as the task file")
    translate.add_argument("--verbose", action="store_true", help="every leaf and every file in full")
    translate.add_argument("--json", action="store_true", help="one JSON document")
    preview = _command(commands, "preview", "preview", "rows as the model sees them, tokens with loss marked; runs nothing")
    _recipe(preview)
    preview.add_argument("--rows", type=int, default=3, metavar="N", help="how many (default: 3)")
    preview.add_argument("--json", action="store_true", help="one JSON document")
    explain = _command(commands, "explain", "explain", "one leaf in all trainers' spellings, or a recipe leaf by leaf")
    explain.add_argument("what", nargs="?", metavar="LEAF|RECIPE", help="optim.lr, or a recipe file")
    explain.add_argument("--matrix", action="store_true", help="what each trainer has: methods and leaves x trainers")
    explain.add_argument("--json", action="store_true", help="one JSON document")
    _importing(commands)
    _comparing(commands)
    _proving(commands)


def _submitted(command: argparse.ArgumentParser) -> None:
    """What all commands take that put jobs of a recipe into the queue."""
    command.add_argument("--to", metavar="TRAINER", help="the trainer (default: the first that can express the recipe)")
    command.add_argument(
        "--snapshot", action="store_true", help="keep a copy of each input; by default a changed one fails the job"
    )
    command.add_argument("--priority", type=int, default=0, metavar="N", help="higher starts earlier (default: 0)")
    command.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="find it by: tune status --label")
    command.add_argument("--dry-run", action="store_true", help="print what would be sent; nothing is written, nothing asked")
    command.add_argument("--json", action="store_true", help="one JSON document")


def _importing(commands: Any) -> None:
    native = _command(
        commands, "import", "importing", "a trainer's own config becomes a recipe; every key is accounted for", "native"
    )
    about = "a config of any trainer, or a shell script; a folder of them; - for standard input"
    native.add_argument("file", metavar="FILE|FOLDER", help=about)
    native.add_argument(
        "sets", nargs="*", default=(), metavar="KEY=VALUE", help="what the trainer's command line sets over the file"
    )
    native.add_argument("--from", dest="trainer", metavar="TRAINER", help="whose config it is (default: seen from its keys)")
    native.add_argument(
        "--line", type=int, default=0, metavar="N", help="the command in this line of a script (default: the first)"
    )
    native.add_argument(
        "-o", dest="output", metavar="RECIPE", help="write the recipe there (default: stdout); of a folder, one each"
    )
    native.add_argument("--explain", metavar="KEY", help="what one key of it means, and why")
    about = "writes nothing; exit code 3 where a config becomes no recipe or a key is not modelled, or -o has other recipes"
    native.add_argument("--check", action="store_true", help=about)
    native.add_argument("--verbose", action="store_true", help="every key, with what it became and why")
    native.add_argument("--strict", action="store_true", help="a key that the recipe does not say is an error (exit code 3)")
    native.add_argument("--json", action="store_true", help="one JSON document")


def _comparing(commands: Any) -> None:
    diff = _command(
        commands, "diff", "diff", "two recipes, native configs or jobs: the difference in meaning; 0 equal, 1 different"
    )
    diff.add_argument("a", metavar="A", help="a recipe, or a config of any trainer; or a job: its trainer beside its plan")
    diff.add_argument("b", metavar="B", nargs="?", help="another recipe, config or job")
    about = "whose config a native one is (default: seen from its keys); twice: of A, then of B"
    diff.add_argument("--from", dest="trainers", action="append", default=[], metavar="TRAINER", help=about)
    diff.add_argument("--json", action="store_true", help="one JSON document")


def _proving(commands: Any) -> None:
    race = _command(commands, "race", "race", "a few steps in every trainer, one after another: speed, memory, sameness")
    verify = _command(
        commands, "verify", "verify", "evidence that a recipe is the same training in every trainer, level by level"
    )
    for each in (race, verify):
        _recipe(each)
        each.add_argument("--to", default="all", metavar="all|A,B", help="trainers (default: all that can express the recipe)")
        each.add_argument("--steps", type=int, default=30, metavar="K", help="optimizer steps of each trainer (default: 30)")
        each.add_argument("--tolerance", type=float, metavar="NATS", help="on losses (default: as measured for the precision)")
        each.add_argument("--json", action="store_true", help="one JSON document")
    race.add_argument(
        "--rounds", type=int, default=2, metavar="N", help="runs of each trainer, every other in reverse order (default: 2)"
    )
    race.add_argument("--submit-winner", action="store_true", help="then the whole recipe to the fastest whose losses agree")
    verify.add_argument(
        "--level", type=int, default=6, metavar="N", help="only levels up to this one (default: 6); 1 runs nothing"
    )
    verify.add_argument("--html", metavar="FILE", help="write the report there too, with the curves overlaid")


def _tracking(commands: Any) -> None:
    status = _command(commands, "status", "status", "jobs and where they are")
    status.add_argument("jobs", nargs="*", metavar="JOB", help="ids, beginnings of ids, names, or latest (default: all)")
    status.add_argument("--watch", action="store_true", help="again and again")
    status.add_argument("--events", action="store_true", help="what happened to them, too")
    status.add_argument("--sweep", metavar="ID", help="each job of a sweep, which is one line otherwise")
    _filters(status)
    status.add_argument("--json", action="store_true", help="one JSON document")
    logs = _command(commands, "logs", "logs", "a job's output")
    logs.add_argument("job", metavar="JOB")
    logs.add_argument("-f", "--follow", action="store_true", help="until the job ends")
    logs.add_argument("--attempt", type=int, metavar="N", help="default: the latest")
    logs.add_argument("--host", type=int, default=0, metavar="I", help="of a job over several hosts (default: 0, the first)")
    logs.add_argument("--json", action="store_true", help="a JSON document a line")
    pull = _command(commands, "pull", "pull", "bring a job's results here: checkpoint, adapter, logs, metrics, the exact plan")
    pull.add_argument("job", metavar="JOB")
    pull.add_argument("--into", metavar="DIR", help="default: a folder called as the job")
    pull.add_argument("--file", action="append", default=[], metavar="PATH", help="also this file or folder of the job's folder")
    pull.add_argument("--all", action="store_true", help="the whole job's folder, of every host")
    pull.add_argument("--attempt", type=int, metavar="N", help="default: the latest")
    pull.add_argument("--json", action="store_true", help="one JSON document")
    metrics = _command(commands, "metrics", "metrics", "loss, learning rate, speed by optimizer step")
    metrics.add_argument("jobs", nargs="+", metavar="JOB")
    metrics.add_argument("--name", action="append", metavar="METRIC", help="only these (default: all; with --plot: loss)")
    metrics.add_argument("--last", type=int, default=20, metavar="N", help="steps in the table (default: 20; 0: all)")
    metrics.add_argument("--attempt", type=int, metavar="N", help="default: the latest")
    shape = metrics.add_mutually_exclusive_group()
    shape.add_argument("--plot", action="store_true", help="curves in the terminal")
    shape.add_argument("--json", action="store_true", help="one JSON document")
    shape.add_argument("--csv", action="store_true", help="all points as CSV")
    from orchestrator.cli.sweep_parser import add_best  # noqa: PLC0415  # a page of its own

    add_best(commands, _command)
    _acting(commands)


def _acting(commands: Any) -> None:
    wait = _command(commands, "wait", "act", "wait until jobs end; 0 when all SUCCEEDED")
    wait.add_argument("jobs", nargs="+", metavar="JOB", help="or a sweep")
    wait.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after so long (exit code 4)")
    wait.add_argument("--json", action="store_true", help="one JSON document, as of status")
    cancel = _command(commands, "cancel", "act", "end jobs, with all their processes")
    cancel.add_argument("jobs", nargs="*", metavar="JOB", help="or a sweep")
    cancel.add_argument(
        "--all-of",
        action="append",
        default=[],
        metavar="NAME",
        help="all jobs of this recipe name that have not ended; may hold *",
    )
    cancel.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="all jobs with this label (of several: all) at work"
    )
    cancel.add_argument(
        "--abandon",
        action="store_true",
        help="wait for no host that does not answer: the job ends now, and what still runs there when the host is seen again",
    )
    cancel.add_argument("--no-wait", action="store_true", help="only ask")
    cancel.add_argument("--json", action="store_true", help="one JSON document, as of status")
    retry = _command(commands, "retry", "act", "run an ended job again, as a new attempt")
    retry.add_argument("jobs", nargs="+", metavar="JOB")
    retry.add_argument("--from-checkpoint", action="store_true", help="go on from its newest complete checkpoint")
    retry.add_argument("--follow", action="store_true", help="show progress until the job ends")
    retry.add_argument("--json", action="store_true", help="one JSON document")


def _filters(command: argparse.ArgumentParser) -> None:
    """Which jobs: those that pass all kinds of filter given; of one kind given several times, any."""
    command.add_argument(
        "--state", action="append", type=str.upper, choices=STATES, metavar="STATE", help="RUNNING, ...; ACTIVE: not ended"
    )
    command.add_argument("--name", action="append", metavar="NAME", help="of the recipe; may hold *")
    command.add_argument("--on", action="append", metavar="TARGET", help="where they run or wait")
    command.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="as given to submit; all of several")
    command.add_argument("--limit", type=_count, metavar="N", help="the newest N of them")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"should be a whole number from 1, got {text}")
    return int(text)


def _following(commands: object) -> None:
    from orchestrator.cli.stage_parser import add_stages  # noqa: PLC0415  # a page of its own

    add_stages(commands, _command)


def _inspecting(commands: Any) -> None:
    recipes = _command(commands, "recipes", "recipes", "the recipes that come along")
    recipes.add_argument("action", nargs="?", choices=("ls", "show", "cp"), default="ls")
    recipes.add_argument("name", nargs="?", metavar="NAME", help="of show and cp")
    recipes.add_argument("folder", nargs="?", metavar="DIR", default=".", help="of cp (default: here)")
    recipes.add_argument("--json", action="store_true", help="of ls: one JSON document")
    targets = _command(commands, "targets", "targets", "where jobs can run, and what runs there")
    targets.add_argument(
        "names", nargs="*", metavar="[check] NAME", help="check: ask the hosts; targets or groups (default: all)"
    )
    targets.add_argument("--json", action="store_true", help="one JSON document")
    page = _command(commands, "dashboard", "dashboard", "the page: jobs, curves, machines in a browser; needs tunesmith[web]")
    page.add_argument("job", nargs="?", metavar="JOB", help="of --share")
    page.add_argument("--share", metavar="FILE", help="write a job as one HTML file that needs no server")
    page.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen at (default: this machine only)")
    page.add_argument("--port", type=int, default=8765, metavar="N", help="default: 8765; 0: any that is free")
    page.add_argument("--read-only", action="store_true", help="nobody may act")
    page.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME[:PORT]", help="the name that a reverse proxy is called by"
    )
    page.add_argument("--root-path", default="", metavar="PATH", help="the path under which a reverse proxy has the page")
    _command(commands, "schema", "doctor", "JSON Schema of recipes, for editors")
    doctor = _command(commands, "doctor", "doctor", "what this installation is and has")
    doctor.add_argument("--json", action="store_true", help="one JSON document")
