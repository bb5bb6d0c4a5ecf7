"""Slurm's own commands on a login node: a job goes into the queue once, all jobs are looked at in one call.

    submit   put an attempt into the queue, unless it is there or ever was: see `slurm_submit`
    put, array, largest    the same of many at once, as tasks of one array: see `slurm_array`
    find     Slurm's number of an attempt that was submitted; empty when none was: see `slurm_queue`
    queue    all jobs of an owner that Slurm still knows, by one `squeue`
    ended    how jobs ended that it has forgotten or that left no word: accounting, the completion log, and what their script wrote
    cancel   take attempts out of the queue, or end them
    site     what the site has and allows: partitions, limits, accounting
    limits   what of a target is over the limits of its partition
    probe    what a compute node finds: the folder, an interpreter, a package index

A request has `do`, and where Slurm's programs are not on the PATH `programs`, their folder; `env` is added to their environment.
An answer with `no` says in Slurm's words why not, and by `why` what that means: `silent`, it does not answer;
`full`, not now; `never`. Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
import re

from orchestrator.agent import slurm_array, slurm_queue, slurm_submit
from orchestrator.agent.files import read_json, read_part
from orchestrator.agent.slurm_command import SILENT, SlurmSilentError, run, settings
from orchestrator.agent.slurm_queue import kept, membership, place
from orchestrator.agent.slurm_site import TAIL, limits, probe, site

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.agent.files import Json

UNENDED = ("RUNNING", "COMPLETING", "PENDING", "SUSPENDED")  # what accounts that are behind say of a job that has ended
ENDED_BY = {"": "CANCELLED", "DUE TO TIME LIMIT": "TIMEOUT", "DUE TO PREEMPTION": "PREEMPTED", "DUE TO NODE FAILURE": "NODE_FAIL"}
COMPLETIONS = 4 * 1024 * 1024  # bytes of the completion log's end


def answer(home: str, request: Json) -> Json:
    """What a request is answered."""
    try:
        return ACTIONS[request["do"]](home, request)
    except SlurmSilentError as error:
        return {"no": str(error), "why": "silent"}


# ---- how it ended


def ended(home: str, request: Json) -> Json:
    """How jobs ended, of those listed in `attempts` as [job, attempt, name]: `states` by name, `outs` in their order.

    A state is [state, nodes]; what nobody can tell is left out. An out is the end of what the job's script wrote, whether
    it was put back into the queue, and how many nodes it asked for.
    """
    numbers: dict[str, tuple[str, str]] = {}
    words: dict[str, str] = {}
    outs, silent = [], []
    for job, attempt, name in request["attempts"]:
        folder = place(home, {"job": job, "attempt": attempt})
        number, out = kept(home, folder), folder + "/slurm.out"
        if number:
            numbers[number] = name, membership(folder)[0] if "_" in number else name
        if not os.path.exists(out):
            silent.append(number)
        size = os.path.getsize(out) if os.path.exists(out) else 0
        tail = read_part(out, max(0, size - TAIL), TAIL).decode("utf-8", "replace")
        hosts = (read_json(folder + "/document.json") or {}).get("hosts", 1)
        words[name] = by_its_node(tail)
        outs.append([tail, os.path.exists(folder + "/requeued"), hosts])
    found = (accounted(request, numbers) or completed(request, numbers)) if numbers else {}
    for number in silent:  # cancelled with others, it has no line of its own
        if "_" in number and number not in found and number.partition("_")[0] in found:
            found[number] = found[number.partition("_")[0]]
    states = {numbers[number][0]: state for number, state in found.items() if number in numbers}
    for name, state in words.items():
        if state and states.get(name, [UNENDED[0]])[0] in UNENDED:
            states[name] = [state, states.get(name, ["", ""])[1]]
    return {"states": dict(taken_out(home, request, numbers, set(silent), set(found)), **states), "outs": outs}


def by_its_node(out: str) -> str:
    """State at the end by what a node wrote into the script's output as it ended it; empty where it wrote nothing.

    Where Slurm forgets soon, accounts are behind by more than that. The words are slurmstepd's (src/slurmd/slurmstepd/req.c, 22.05);
    what a trainer prints goes elsewhere.
    """
    said = re.findall(r"^slurmstepd-\S+: error: \*\*\* JOB \d+ ON \S+ CANCELLED AT \S+( DUE TO [A-Z ]+)?", out, re.MULTILINE)
    return ENDED_BY.get(said[-1].strip(), "") if said else ""


def taken_out(home: str, request: Json, numbers: Mapping[str, tuple[str, str]], silent: set[str], told: set[str]) -> Json:
    """States of tasks that were cancelled before they began: Slurm forgets these at once, while it knows others of their array.

    A task that began has a file, into which its script writes.
    """
    wanted = [number for number in numbers if number in silent and number not in told and "_" in number]
    if not wanted:
        return {}
    known = {row[0] for row in slurm_queue.queue(home, dict(request, tag=""))["jobs"]} | told
    arrays = {number.partition("_")[0] for number in known if "_" in number}
    gone = [number for number in wanted if number not in known and number.partition("_")[0] in arrays]
    return {numbers[number][0]: ["CANCELLED", ""] for number in gone}


def accounted(request: Json, numbers: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """Number -> state and nodes from sacct; none where the site keeps no accounts. Of arrays all tasks are told.

    A job is meant by number and name: a controller of Slurm that crashed gives the same number again.
    """
    fields = "--format=JobID,State,NodeList,JobName"
    asked_for = ",".join(sorted({number.partition("_")[0] for number in numbers}))
    argv = ("sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--array", "--jobs=" + asked_for, fields)
    try:
        code, out, _ = run(request, argv, {})
    except OSError:  # not every site has it
        return {}
    rows = [line.split("|", 3) for line in out.splitlines()] if code == 0 else []
    names = {number.partition("_")[0]: name for number, (_, name) in numbers.items()}
    meant = [row for row in rows if len(row) == 4 and row[1] and names.get(row[0].partition("_")[0]) == row[3]]
    return {number: [state.split()[0], nodes] for number, state, nodes, _ in meant}


def completed(request: Json, numbers: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """As `accounted`, from the log of completed jobs, where it is a file that we may read.

    https://slurm.schedmd.com/slurm.conf.html#OPT_JobCompType: jobcomp/filetxt
    """
    said = settings(request)
    path = said.get("JobCompLoc", "")
    if said.get("JobCompType") != "jobcomp/filetxt" or not os.access(path, os.R_OK):
        return {}
    text = read_part(path, max(0, os.path.getsize(path) - COMPLETIONS), COMPLETIONS).decode("utf-8", "replace")
    names = {number.partition("_")[0]: name for number, (_, name) in numbers.items()}
    found = {}
    for line in text.splitlines():
        facts = dict(re.findall(r"(\w+)=(\S*)", line))
        whole = facts.get("ArrayJobId") or facts.get("JobId", "")
        number = "%s_%s" % (whole, facts["ArrayTaskId"]) if "ArrayTaskId" in facts else whole
        if facts.get("Name") and names.get(whole) == facts["Name"]:
            found[number] = [facts.get("JobState", ""), facts.get("NodeList", "")]
    return found


def cancel(home: str, request: Json) -> Json:
    """End jobs wherever they are, of those listed in `attempts` as [job, attempt, name]. Nothing happens to what has ended.

    Not by a number that we have kept: after a crash of Slurm's controller another job may have it. A job alone is meant by its name, a
    task by the number that it has now: with a name scancel takes all tasks of the array that have not begun.
    """
    joined = [about for about in request["attempts"] if membership(place(home, {"job": about[0], "attempt": about[1]}))[0]]
    rows = slurm_queue.queue(home, dict(request, tag=""))["jobs"] if joined else []
    tasks = {row[0]: row[6] for row in rows if "_" in row[0] and row[6] in [name for _, _, name in joined]}
    alone = [name for _, _, name in request["attempts"] if name not in tasks.values()]
    calls = [("--user=%d" % os.getuid(), "--name=" + name) for name in alone]
    for words in [*calls, *([tuple(tasks)] if tasks else [])]:
        code, _, errors = run(request, ("scancel", *words), {})
        if code and SILENT.search(errors):
            raise SlurmSilentError(errors)
    return {}


ACTIONS: Mapping[str, Callable[[str, Json], Json]] = {
    "submit": slurm_submit.submit,
    "put": slurm_array.put,
    "array": slurm_array.submit,
    "largest": slurm_array.largest,
    "find": slurm_queue.find,
    "queue": slurm_queue.queue,
    "ended": ended,
    "cancel": cancel,
    "site": site,
    "limits": limits,
    "probe": probe,
}
