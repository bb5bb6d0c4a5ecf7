"""Runs a whole plan on one node, for engines that run the task file of `tune translate --as`: its folder, environment and steps.

What only the engine knows comes through its environment variables, which the document names. There is no supervisor here: to end
what a step has started, to try again and to keep results is the engine's affair. Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path

from orchestrator.agent import provision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from orchestrator.agent.files import Json

FOLDER = "TUNE_TASK_FOLDER"
"""Names another folder than the document's for the job's files, such as one on a volume."""
OTHERS = ("PET_",)
"""Beginnings of variables by which an engine sets up launchers of its own: the plan has its launcher, with all arguments."""


def say(text: str) -> None:
    """A line of ours among those of the steps."""
    print("=== tune: %s" % text, flush=True)


def fail(text: str, code: int = 1) -> NoReturn:
    """End, and say why."""
    say(text)
    sys.exit(code)


def placed(document: Json) -> dict[str, str]:
    """What the engine says of this node: token of the plan -> value."""
    engine = document["engine"]
    rank = os.environ.get(engine["rank"]) or "0"
    heads = (os.environ.get(engine["heads"]) or "").split()
    if document["hosts"] > 1 and not (rank.isdigit() and heads):
        fail("%s and %s should say which node this is, and which is the first" % (engine["rank"], engine["heads"]), 2)
    return {
        "@RANK@": rank,
        "@HEAD@": heads[0] if heads else "127.0.0.1",
        "@PORT@": str(document["port"]),
        "@JOB@": document["job"],
    }


def filled(text: str, values: Mapping[str, str]) -> str:
    """A word of the plan with what is known now."""
    for token, value in values.items():
        text = text.replace(token, value)
    return text


def uv_program(folder: Path) -> str:
    """A uv program: on the PATH, where its installer puts it, or in a small environment made for it."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.expanduser("~/.local/bin"), str(folder / "uv/bin")])
    import shutil  # noqa: PLC0415 (the standard library's, and slow)

    if found := shutil.which("uv", path=places):
        return found
    say("there is no uv here: installing it")
    python = str(folder / "uv/bin/python")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "uv")], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv>=0.9,<1"], check=True)
    return str(folder / "uv/bin/uv")


def prepare(document: Json, folder: Path) -> Path:
    """The job's folder with its files, inputs, cache and environment."""
    work = folder / "work"
    for name, text in document["files"].items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    links = {"cache": folder / "cache"}
    links["cache"].mkdir(parents=True, exist_ok=True)
    for name, place in document["inputs"].items():
        links[name] = Path(os.path.abspath(os.path.expanduser(place)))
        if not links[name].exists():
            fail("%s: the plan's input %s is not there" % (links[name], name), 2)
    if document["environment"]["lock"]:
        wanted = provision.LockedEnvironment(**document["environment"])
        links["env"] = provision.build(folder / "envs", wanted, uv_program(folder))
    for name, target in links.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        path.symlink_to(target)
    return work


def run(document: Json, work: Path, values: Mapping[str, str]) -> None:
    """The steps in their order; the first that fails ends it with its exit code."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    env = {**own, **{name: filled(value, values) for name, value in document["env"]}}
    steps = [step for step in document["steps"] if step["everywhere"] or values["@RANK@"] == "0"]
    for number, step in enumerate(steps, 1):
        if number < len(steps) and step["made"] and (work / step["made"]).exists():
            continue
        argv = [filled(word, values) for word in step["argv"]]
        say("step %d/%d %s: %s" % (number, len(steps), step["name"], " ".join(argv)))
        code = subprocess.call(argv, cwd=str(work), env=env, stdin=subprocess.DEVNULL)
        if code:
            fail("step %s ended with exit code %d" % (step["name"], code), code if 0 < code < 256 else 1)


def missing(document: Json, work: Path) -> list[str]:
    """Promised files that are not there, or are empty."""
    root = glob.escape(str(work))
    return [each for each in document["promised"] if not any(os.path.getsize(path) for path in glob.glob("%s/%s" % (root, each)))]


def main(document: Json) -> int:
    """Run the plan of a document; the exit code. Exit code 0 of the trainer is not enough: what was promised has to be there."""
    values = placed(document)
    folder = Path(os.path.abspath(os.path.expanduser(os.environ.get(FOLDER) or document["folder"])))
    try:
        work = prepare(document, folder)
    except (OSError, subprocess.SubprocessError, provision.ProvisionError) as error:
        fail(str(error), 2)
    run(document, work, values)
    if values["@RANK@"] == "0" and (lacking := missing(document, work)):
        fail("ended without %s" % ", ".join(lacking))
    say("done: %s" % work)
    return 0
