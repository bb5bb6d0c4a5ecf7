"""Which attempts are in Slurm's queue, under which numbers. Standard library of CPython 3.8 or newer.

Beside the attempts' folders, HOME/jobs/JOB/slurm/ATTEMPT has what a job of Slurm is made of: job.sbatch, document.json, `id`, and
slurm.out. Attempts that went into the queue together are tasks of one array: `array` has its name and the number of the task, and
HOME/arrays/NAME has its script, tasks.json with a list of [job, attempt, name in the queue], a link for each to its folder, by the
task's number from 1, and numbers.json with Slurm's number of each task that sbatch has taken.
"""

from __future__ import annotations

import os
import re

from orchestrator.agent.files import ignore_errors, read_json, read_part, remove, write_text
from orchestrator.agent.slurm_command import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.agent.files import Json

FIELDS = "%i|%T|%r|%S|%e|%N|%j"  # of squeue: number, state, reason, start, end, nodes, name
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
ARRAY = NAME + r"\.array-[0-9a-f]{6}\.[0-9a-f]{6}"  # no attempt's name ends so


def place(home: str, request: Json) -> str:
    """Where an attempt has what its job is made of."""
    job, attempt = str(request["job"]), int(request["attempt"])
    if not re.fullmatch(NAME, job):
        raise ValueError("%r: a job is named by letters, digits, `.`, `_` and `-`" % job)
    return "%s/jobs/%s/slurm/%d" % (home, job, attempt)


def array_place(home: str, name: str) -> str:
    """Where an array has its script."""
    if not re.fullmatch(ARRAY, name):
        raise ValueError("%r: is not the name of an array of tune's" % name)
    return "%s/arrays/%s" % (home, name)


def membership(folder: str) -> tuple[str, int]:
    """The array with which an attempt went into the queue, or was to, and the number of its task; `("", 0)` where it is a job alone."""
    told = read_json(folder + "/array")
    return (str(told["name"]), int(told["task"])) if told else ("", 0)


def kept(home: str, folder: str) -> str:
    """Slurm's number of an attempt as it was written down; empty where none was."""
    number = read_part(folder + "/id", 0, 64).decode().strip()
    if not number:
        array, task = membership(folder)
        number = (read_json(array_place(home, array) + "/numbers.json") or {}).get(str(task), "") if array else ""
    return number


def forget(home: str, request: Json) -> None:
    """Remove what the job of an ended attempt was made of, and its array once no task of that is left."""
    folder = place(home, request)
    array, _ = membership(folder)
    remove(folder)
    ignore_errors(os.rmdir, os.path.dirname(folder))
    if not array:
        return
    whole = array_place(home, array)
    if os.path.isdir(whole) and not any(name.isdigit() and os.path.exists(whole + "/" + name) for name in os.listdir(whole)):
        remove(whole)


def queue(home: str, request: Json) -> Json:
    """All jobs of this user that Slurm knows, whose name ends with `tag`: a list each in the order of `FIELDS`.

    A task of an array has the name of its attempt.
    """
    user = "--user=%d" % os.getuid()
    out = asked(request, "squeue", "--noheader", "--array", "--states=all", user, "--format=" + FIELDS)
    rows = [row for row in (line.split("|", 6) for line in out.splitlines()) if len(row) == 7]
    return {"jobs": [row for row in expanded(home, rows) if row[6].endswith(request["tag"])]}


def expanded(home: str, rows: Sequence[list[str]]) -> Iterator[list[str]]:
    """Each row with the name of its attempt.

    Tasks that were cancelled together before they began are one row, whose number is the array's alone: it speaks for all tasks
    of which no other row does.
    """
    tasks: dict[str, list[list[str]]] = {}
    for name in {row[6] for row in rows if re.fullmatch(ARRAY, row[6])}:
        tasks[name] = read_json(array_place(home, name) + "/tasks.json") or []
    told = {row[0] for row in rows}
    for row in rows:
        if row[6] not in tasks:
            yield row
            continue
        number, _, task = row[0].partition("_")
        every = [(str(each), about[2]) for each, about in enumerate(tasks[row[6]], 1)]
        for each, name in every:
            if each == task or (not task and "%s_%s" % (number, each) not in told):
                yield ["%s_%s" % (number, each), *row[1:6], name]


def find(home: str, request: Json) -> Json:
    """Slurm's number of an attempt, kept or looked for by its name; empty when it was never submitted."""
    return {"number": find_all(home, request, [(request["job"], request["attempt"], request["name"])])[0]}


def find_all(home: str, request: Json, attempts: Iterable[tuple[str, int, str]]) -> list[str]:
    """As `find`, for many by one look at the queue, where that is needed."""
    every = [(place(home, {"job": job, "attempt": attempt}), name) for job, attempt, name in attempts]
    numbers = [kept(home, folder) for folder, _ in every]
    open_ones = [at for at, (folder, _) in enumerate(every) if not numbers[at] and os.path.exists(folder + "/job.sbatch")]
    if not open_ones:
        return numbers
    listed = {row[6]: row[0] for row in reversed(queue(home, dict(request, tag=""))["jobs"])}
    for at in open_ones:
        folder, name = every[at]
        if name in listed:
            numbers[at] = listed[name]
            write_text(folder + "/id", listed[name])
    return numbers
