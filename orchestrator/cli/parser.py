"""Commands and their options. No heavy import: `tune --help` is the first thing that people see."""

from __future__ import annotations

import argparse
from typing import Any

from orchestrator.cli.argument_parser import GroupedParser, maker

ABOUT = "Write a fine-tune once; run it on any of several trainers; know exactly what was translated."


def parser(first: str = "") -> argparse.ArgumentParser:
    """All commands, or when the first argument is one, those of its group, and only that one with its options: making them all
    takes 15 ms. When it is --help, none has options. Each names the module below `orchestrator.cli` and the function that does it.
    """
    top = GroupedParser(
        prog="tune",
        description=ABOUT,
        allow_abbrev=False,
        epilog="exit codes: 0 success, 1 the job failed, 2 invalid arguments or recipe, 3 recipe not supported by the trainer, "
        "4 host or network error, 130 interrupted. `tune COMMAND --help` has the options and two examples.",
    )
    top.add_argument("--version", action="store_const", const="version", dest="command", help="print the version")
    top.set_defaults(module="doctor", function="version")
    groups = ((_compiling, COMPILING), (_tracking, TRACKING), (_following, FOLLOWING), (_inspecting, INSPECTING))
    known = {name: add for add, names in groups for name in names}
    asked = () if first in ("-h", "--help") else (first,) if first in known else known
    commands = top.commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=maker(asked))
    for add in dict.fromkeys([known[first]] if first in known else known.values()):
        add(commands)
    return top


COMPILING = ("submit", "sweep", "fit", "translate", "preview", "explain", "import", "diff", "race", "verify")
TRACKING = ("status", "logs", "metrics", "best", "pull", "wait", "cancel", "retry", "hold", "release", "priority", "ssh")
FOLLOWING = ("evaluate", "export", "push", "serve", "chat")
TOOLS = ("recipes", "completion", "convert", "init", "mcp", "report", "sync")
INSPECTING = ("targets", "top", "dashboard", "schema", "doctor", "du", "prune", *TOOLS)
WORKING = ("ACTIVE", "QUEUED", "PREPARING", "STARTING", "RUNNING", "READY", "STOPPING", "KEPT")
STATES = (*WORKING, "SUCCEEDED", "FAILED", "CANCELLED", "LOST")


def _command(commands: Any, name: str, module: str, about: str, function: str = "") -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False
    )
    made.set_defaults(module=module, function=function or name)
    return made


def _recipe(command: argparse.ArgumentParser, on: str = "local") -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a recipe file")
    command.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override a setting: optim.lr=3e-4, or SECTION=null"
    )
    command.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="SETTING",
        help="run without this setting where the trainer does not support it; repeatable",
    )
    about = "local" if on else "a machine like the one that the recipe asks for"
    command.add_argument(
        "--on",
        default=on or None,
        metavar="TARGET",
        help=f"a target or group of clusters.yaml, or A,B: the first with room (default: {about})",
    )


def _compiling(commands: Any) -> None:
    from orchestrator.cli.queueing import add_waiting  # noqa: PLC0415  # pages of their own
    from orchestrator.cli.sweep_parser import add_sweep  # noqa: PLC0415

    submit = _command(commands, "submit", "submit", "plan a recipe and run it as a job; print the job's id")
    _recipe(submit)
    submit.add_argument("--id", metavar="ID", help="id of the job; the same id submitted twice runs once (default: a new one)")
    _submitted(submit)
    submit.add_argument("--fit", choices=("warn", "require", "off"), default="warn", help="if a device does not hold it")
    add_waiting(submit)
    submit.add_argument("--follow", action="store_true", help="show progress until the job ends; exit code 0 if it SUCCEEDED")
    submit.add_argument("--verbose", action="store_true", help="with --dry-run: every setting, and every file in full")
    sweep = add_sweep(commands, _command)
    _recipe(sweep)
    _submitted(sweep)
    fit = _command(commands, "fit", "fit", "tell whether a training fits, how long it takes and what it costs")
    _recipe(fit, on="")
    fit.add_argument("--to", metavar="A,B", help="trainers: the first that supports the recipe (default: of all)")
    for flag, about in (("no-compiler", "on a TPU slice, do not ask the compiler"), ("json", "print one JSON document")):
        fit.add_argument(f"--{flag}", action="store_true", help=about)
    translate = _command(
        commands, "translate", "translate", "convert a recipe to trainers' own configs and commands, with a translation report"
    )
    _recipe(translate, on="")
    translate.add_argument("--to", default="all", metavar="all|A,B", help="trainers, side by side (default: all)")
    translate.add_argument("--eject", metavar="FOLDER", help="write folders that train without tune, with a README")
    translate.add_argument(
        "--as", dest="engine", metavar="ENGINE", help="write a task file for skypilot, dstack, kubeflow or slurm"
    )
    translate.add_argument(
        "--out", metavar="DIR", help="write the files to DIR, one folder per trainer; with --as, the task file"
    )
    translate.add_argument("--verbose", action="store_true", help="every setting, and every file in full")
    translate.add_argument("--json", action="store_true", help="print one JSON document")
    preview = _command(commands, "preview", "preview", "show training rows as the model sees them, with loss tokens marked")
    _recipe(preview)
    preview.add_argument("--rows", type=int, default=3, metavar="N", help="how many rows (default: 3)")
    preview.add_argument("--json", action="store_true", help="print one JSON document")
    explain = _command(commands, "explain", "explain", "explain a setting, with each trainer's name for it, or a whole recipe")
    explain.add_argument("what", nargs="?", metavar="SETTING|RECIPE", help="a setting such as optim.lr, or a recipe file")
    explain.add_argument("--matrix", action="store_true", help="list which methods and settings each trainer supports")
    explain.add_argument("--json", action="store_true", help="print one JSON document")
    _importing(commands)
    _comparing(commands)
    _proving(commands)


def _submitted(command: argparse.ArgumentParser) -> None:
    """What all commands take that put jobs of a recipe into the queue."""
    command.add_argument("--to", metavar="A,B", help="trainers: the first that supports the recipe (default: of all)")
    command.add_argument(
        "--snapshot", action="store_true", help="copy the input files; without it, a job fails if one has changed"
    )
    command.add_argument("--priority", type=int, default=0, metavar="N", help="higher starts earlier (default: 0)")
    command.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="label the job, for tune status --label; repeatable"
    )
    command.add_argument("--dry-run", action="store_true", help="print what would run; write nothing, connect to nothing")
    command.add_argument("--json", action="store_true", help="print one JSON document")


def _importing(commands: Any) -> None:
    native = _command(
        commands, "import", "importing", "convert a trainer's own config to a recipe; every key is accounted for", "native"
    )
    about = "a trainer's config, or a shell script that runs a trainer; a folder of these; - for standard input"
    native.add_argument("file", metavar="FILE|FOLDER", help=about)
    native.add_argument("sets", nargs="*", default=(), metavar="KEY=VALUE", help="overrides, as on the trainer's command line")
    native.add_argument(
        "--from",
        dest="trainer",
        metavar="TRAINER[@RELEASE]",
        help="the trainer of the config (default: recognized from its keys)",
    )
    native.add_argument(
        "--line", type=int, default=0, metavar="N", help="read the command on this line of a script (default: the first)"
    )
    native.add_argument(
        "-o", dest="output", metavar="RECIPE", help="write the recipe to this file (default: stdout); for a folder, a folder"
    )
    native.add_argument("--explain", metavar="KEY", help="explain one key of the config")
    about = "write nothing; exit code 3 if a config or key has no recipe equivalent, or differs from the recipes in -o"
    native.add_argument("--check", action="store_true", help=about)
    native.add_argument("--verbose", action="store_true", help="list every key, with what it became and why")
    native.add_argument("--strict", action="store_true", help="fail on keys with no recipe equivalent (exit code 3)")
    native.add_argument("--json", action="store_true", help="print one JSON document")


def _comparing(commands: Any) -> None:
    diff = _command(commands, "diff", "diff", "compare two recipes, native configs or jobs; exit code 0 if equal, 1 if different")
    diff.add_argument(
        "a", metavar="A", help="a recipe, a trainer's config, or a job; a job alone: its plan and what the trainer read"
    )
    diff.add_argument("b", metavar="B", nargs="?", help="the other recipe, config or job")
    about = "the trainer of a native config (default: recognized from its keys); twice: of A, then of B"
    diff.add_argument("--from", dest="trainers", action="append", default=[], metavar="TRAINER", help=about)
    diff.add_argument("--json", action="store_true", help="print one JSON document")


def _proving(commands: Any) -> None:
    race = _command(commands, "race", "race", "run a few steps in each trainer: speed, memory, and whether the losses agree")
    verify = _command(commands, "verify", "verify", "check, level by level, that a recipe is the same training in each trainer")
    for each in (race, verify):
        _recipe(each)
        each.add_argument("--to", default="all", metavar="all|A,B", help="trainers (default: all that support the recipe)")
        each.add_argument("--steps", type=int, default=30, metavar="K", help="optimizer steps in each trainer (default: 30)")
        each.add_argument("--tolerance", type=float, metavar="NATS", help="of losses (default: as measured for the precision)")
        each.add_argument("--json", action="store_true", help="print one JSON document")
    about = "runs of each trainer, every second round in reverse order (default: 2)"
    race.add_argument("--rounds", type=int, metavar="N", help=about)
    about = "then submit the recipe to the fastest trainer whose losses agree"
    race.add_argument("--submit-winner", action="store_true", help=about)
    about = "seek each trainer's fastest micro-batch, recomputation and compilation instead"
    race.add_argument("--tune", action="store_true", help=about)
    about = "with --tune: begin no run that would end later (default: 20)"
    race.add_argument("--minutes", type=float, metavar="N", help=about)
    verify.add_argument("--level", type=int, default=6, metavar="N", help="stop at this level (default: 6); level 1 runs nothing")
    verify.add_argument("--html", metavar="FILE", help="also write an HTML report with the curves overlaid")


def _tracking(commands: Any) -> None:
    status = _command(commands, "status", "status", "list jobs and their state")
    status.add_argument("jobs", nargs="*", metavar="JOB", help="id, prefix of an id, recipe name, or latest (default: all)")
    status.add_argument("--watch", action="store_true", help="refresh until Ctrl-C")
    status.add_argument("--events", action="store_true", help="also list their events")
    status.add_argument("--sweep", metavar="ID", help="list each job of this sweep; without it, a sweep is one line")
    _filters(status)
    status.add_argument("--json", action="store_true", help="print one JSON document")
    logs = _command(commands, "logs", "logs", "show a job's output")
    logs.add_argument("job", metavar="JOB", help="id, prefix of an id, recipe name, or latest")
    logs.add_argument("-f", "--follow", action="store_true", help="keep printing until the job ends")
    logs.add_argument("--attempt", type=int, metavar="N", help="number of the attempt (default: the latest)")
    logs.add_argument("--host", type=int, default=0, metavar="I", help="rank of the host, for a job on several (default: 0)")
    logs.add_argument("--json", action="store_true", help="print one JSON document per line")
    pull = _command(commands, "pull", "pull", "download a job's results: checkpoint, adapter, logs, metrics, plan")
    pull.add_argument("job", metavar="JOB", help="id, prefix of an id, recipe name, or latest")
    pull.add_argument("--into", metavar="DIR", help="folder to write to (default: named like the job)")
    pull.add_argument("--file", action="append", default=[], metavar="PATH", help="another file or folder of the job; repeatable")
    pull.add_argument("--all", action="store_true", help="everything in the job's folder, from every host")
    pull.add_argument("--attempt", type=int, metavar="N", help="number of the attempt (default: the latest)")
    pull.add_argument("--json", action="store_true", help="print one JSON document")
    metrics = _command(commands, "metrics", "metrics", "show loss, learning rate and speed by optimizer step")
    metrics.add_argument("jobs", nargs="+", metavar="JOB", help="id, prefix of an id, recipe name, or latest")
    metrics.add_argument(
        "--name", action="append", metavar="METRIC", help="metric to show; repeatable (default: all; with --plot: loss)"
    )
    metrics.add_argument("--last", type=int, default=20, metavar="N", help="number of steps in the table (default: 20; 0: all)")
    metrics.add_argument("--attempt", type=int, metavar="N", help="number of the attempt (default: the latest)")
    shape = metrics.add_mutually_exclusive_group()
    shape.add_argument("--plot", action="store_true", help="plot curves in the terminal")
    shape.add_argument("--json", action="store_true", help="print one JSON document")
    shape.add_argument("--csv", action="store_true", help="print all points as CSV")
    from orchestrator.cli.sweep_parser import add_best  # noqa: PLC0415  # a page of its own

    add_best(commands, _command)
    _acting(commands)


def _acting(commands: Any) -> None:
    wait = _command(commands, "wait", "act", "wait until jobs end; exit code 0 if all SUCCEEDED")
    wait.add_argument("jobs", nargs="+", metavar="JOB", help="id, prefix of an id, recipe name, sweep, or latest")
    wait.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this time (exit code 4)")
    wait.add_argument("--json", action="store_true", help="print one JSON document, as status does")
    cancel = _command(commands, "cancel", "act", "stop jobs, with all their processes")
    cancel.add_argument("jobs", nargs="*", metavar="JOB", help="id, prefix of an id, recipe name, sweep, or latest")
    cancel.add_argument(
        "--all-of",
        action="append",
        default=[],
        metavar="NAME",
        help="all unfinished jobs of this recipe name; * matches any text",
    )
    cancel.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="all jobs with this label (of several: all) at work"
    )
    cancel.add_argument(
        "--abandon",
        action="store_true",
        help="do not wait for hosts that do not answer; what still runs there is stopped when the host is back",
    )
    cancel.add_argument("--no-wait", action="store_true", help="return at once")
    cancel.add_argument("--json", action="store_true", help="print one JSON document, as status does")
    from orchestrator.cli.queueing import add_queueing  # noqa: PLC0415  # a page of its own
    from orchestrator.cli.shell import add_shell  # noqa: PLC0415

    add_queueing(commands, _command)
    add_shell(commands, _command)
    retry = _command(commands, "retry", "act", "run an ended job again, as a new attempt")
    retry.add_argument("jobs", nargs="+", metavar="JOB", help="id, prefix of an id, recipe name, or latest")
    retry.add_argument("--from-checkpoint", action="store_true", help="resume from the newest complete checkpoint")
    retry.add_argument("--follow", action="store_true", help="show progress until the job ends")
    retry.add_argument("--json", action="store_true", help="print one JSON document")


def _filters(command: argparse.ArgumentParser) -> None:
    """Which jobs: those that pass all kinds of filter given; of one kind given several times, any."""
    command.add_argument(
        "--state",
        action="append",
        type=str.upper,
        choices=STATES,
        metavar="STATE",
        help="RUNNING, FAILED, ...; ACTIVE: all that have not ended; repeatable",
    )
    command.add_argument("--name", action="append", metavar="NAME", help="recipe name; * matches any text")
    command.add_argument("--on", action="append", metavar="TARGET", help="target where they run or wait")
    command.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="label given to submit; repeatable, all must match"
    )
    command.add_argument("--limit", type=_count, metavar="N", help="only the newest N")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"should be a whole number from 1, got {text}")
    return int(text)


def _following(commands: object) -> None:
    from orchestrator.cli.stage_parser import add_stages  # noqa: PLC0415  # a page of its own

    add_stages(commands, _command)


def _inspecting(commands: Any) -> None:
    targets = _command(
        commands, "targets", "targets", "list machines and what runs on them; check: connect to each; drain: start nothing there"
    )
    targets.add_argument(
        "names", nargs="*", metavar="[check|drain|undrain] NAME", help="targets or groups (default: all); drain: or machines"
    )
    targets.add_argument("--why", default="", metavar="TEXT", help="for drain: the reason, for others to see")
    targets.add_argument("--json", action="store_true", help="print one JSON document")
    page = _command(commands, "dashboard", "dashboard", "start the web dashboard: jobs, curves, machines (needs tunesmith[web])")
    page.add_argument("job", nargs="?", metavar="JOB", help="with --share: the job to write")
    page.add_argument("--share", metavar="FILE", help="write JOB as one self-contained HTML file, and start nothing")
    page.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)")
    page.add_argument("--port", type=int, default=8765, metavar="N", help="port to listen on (default: 8765; 0: any free one)")
    page.add_argument("--read-only", action="store_true", help="disable all actions")
    page.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME[:PORT]", help="host name of a reverse proxy in front of it"
    )
    page.add_argument("--root-path", default="", metavar="PATH", help="path prefix of a reverse proxy in front of it")
    from orchestrator.cli.storage_parser import add_storage  # noqa: PLC0415  # pages of their own
    from orchestrator.cli.tools_parser import add_tools  # noqa: PLC0415
    from orchestrator.cli.top import add_top  # noqa: PLC0415

    add_top(commands, _command)
    add_tools(commands, _command)
    add_storage(commands, _command, STATES)
    _command(commands, "schema", "doctor", "print the JSON Schema of recipes, for editors")
    doctor = _command(commands, "doctor", "doctor", "show versions, paths and environments")
    doctor.add_argument(
        "--notify", action="store_true", help="send a test notice to each service of notify.yaml, and the desktop"
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
