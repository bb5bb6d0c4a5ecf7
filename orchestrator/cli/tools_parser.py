"""Options of the commands for shells, for agents, and for whoever begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.cli.stage_parser import Command


def add_tools(commands: object, command: Command) -> None:
    """`tune recipes`, `tune completion`, `tune convert`, `tune init`, `tune mcp`, `tune report` and `tune sync`.

    Args:
        commands: of the parser.
        command: makes one of them.
    """
    _recipes(commands, command)
    shells = command(commands, "completion", "completion", "print the script that completes commands, jobs and names with TAB")
    shells.add_argument(
        "shell",
        choices=("bash", "zsh", "fish"),
        metavar="bash|zsh|fish",
        help="your shell; its start-up file evaluates the script",
    )
    fewer = command(
        commands,
        "convert",
        "convert",
        "write a model with fewer key and value heads, each the mean of a group (needs tunesmith[convert])",
    )
    fewer.add_argument("model", metavar="MODEL", help="folder in Hugging Face layout, weights in safetensors")
    fewer.add_argument(
        "--kv-heads",
        type=int,
        required=True,
        metavar="N",
        help="number of key and value heads to leave, a divisor of the present one",
    )
    fewer.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    fewer.add_argument("--json", action="store_true", help="print one JSON document")
    first = command(commands, "init", "init", "write a first recipe for a data file; asks for what is not given")
    first.add_argument("--data", metavar="FILE", help="the rows: .jsonl, .json or .txt")
    first.add_argument("--goal", choices=("task", "style", "facts"), help="what the model should learn (default: task)")
    first.add_argument("--model", metavar="MODEL", help="hub id or folder of the base model (default: Qwen/Qwen2.5-0.5B)")
    first.add_argument("--accelerator", choices=("cpu", "cuda"), help="what to train on (default: cuda)")
    first.add_argument("--name", default="", metavar="NAME", help="name of the recipe (default: after the data file)")
    first.add_argument("--out", metavar="FILE", help="recipe file to write (default: recipe.yaml)")
    first.add_argument("--json", action="store_true", help="print one JSON document")
    agents = command(
        commands, "mcp", "mcp", "serve tools for agents over stdio, by the Model Context Protocol (needs tunesmith[mcp])"
    )
    agents.add_argument("--allow-actions", action="store_true", help="also tools that submit and cancel (default: only look)")
    page = command(
        commands, "report", "report", "write a report of a job: outcome, metrics, settings, translation, inputs, events"
    )
    page.add_argument("job", metavar="JOB", help="id, prefix of an id, recipe name, or latest")
    form = page.add_mutually_exclusive_group()
    form.add_argument("--out", metavar="FILE", help="write Markdown to FILE (default: print it)")
    form.add_argument("--html", metavar="FILE", help="write one self-contained HTML file with curves (needs tunesmith[web])")
    offline = command(commands, "sync", "sync", "send runs that wandb wrote offline to its server, once their jobs have ended")
    offline.add_argument("jobs", nargs="+", metavar="JOB", help="id, prefix of an id, recipe name, sweep, or latest")
    offline.add_argument("--json", action="store_true", help="print one JSON document")


def _recipes(commands: object, command: Command) -> None:
    recipes = command(commands, "recipes", "recipes", "list, show or copy the recipes that come with tunesmith")
    recipes.add_argument(
        "action", nargs="?", choices=("ls", "show", "cp"), default="ls", metavar="ls|show|cp", help="what to do (default: ls)"
    )
    recipes.add_argument("name", nargs="?", metavar="NAME", help="the recipe, for show and cp")
    recipes.add_argument("folder", nargs="?", metavar="DIR", default=".", help="where to, for cp (default: .)")
    recipes.add_argument(
        "--for", dest="fits", metavar="MEMORY", help="for ls: recipes that fit a device with this much memory, such as 24GB"
    )
    about = "for ls: recipes about this: tools, grpo, ...; repeatable, all must match"
    recipes.add_argument("--task", action="append", default=[], metavar="WORD", help=about)
    recipes.add_argument("--json", action="store_true", help="for ls: print one JSON document")
