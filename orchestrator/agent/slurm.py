"""Slurm's own commands on a login node: a job goes into the queue once, all jobs are looked at in one call.

    submit   put an attempt into the queue, unless it is there or ever was: see `submit`
    find     Slurm's number of an attempt that was submitted; empty when none was
    queue    all jobs of an owner that Slurm still knows, by one `squeue`
    ended    how jobs ended that it has forgotten or that left no word: accounting, the completion log, and what their script wrote
    cancel   take attempts out of the queue, or end them
    site     what the site has and allows: partitions, limits, accounting
    limits   what of a target is over the limits of its partition
    probe    what a compute node finds: the folder, an interpreter, a package index

A request has `do`, and where Slurm's programs are not on the PATH `programs`, their folder; `env` is added to their environment.
Beside the attempts' folders, HOME/jobs/JOB/slurm/ATTEMPT has what a job of Slurm is made of: job.sbatch, document.json, `id`, and
slurm.out. An answer with `no` says in Slurm's words why not, and by `why` what that means: `silent`, it does not answer;
`full`, not now; `never`. Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
import re

from orchestrator.agent.files import ignore_errors, make_folder, read_bytes, read_json, read_part, write_text
from orchestrator.agent.slurm_command import FULL, SILENT, SlurmSilentError, asked, run, settings, with_way_out
from orchestrator.agent.slurm_site import TAIL, beyond, limits, probe, site

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.agent.files import Json

FIELDS = "%i|%T|%r|%S|%e|%N|%j"  # of squeue: number, state, reason, start, end, nodes, name
COMPLETIONS = 4 * 1024 * 1024  # bytes of the completion log's end


def answer(home: str, request: Json) -> Json:
    """What a request is answered."""
    try:
        return ACTIONS[request["do"]](home, request)
    except SlurmSilentError as error:
        return {"no": str(error), "why": "silent"}


# ---- putting into the queue


def place(home: str, request: Json) -> str:
    """Where an attempt has what its job is made of."""
    job, attempt = str(request["job"]), int(request["attempt"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", job):
        raise ValueError("%r: a job is named by letters, digits, `.`, `_` and `-`" % job)
    return "%s/jobs/%s/slurm/%d" % (home, job, attempt)


def submit(home: str, request: Json) -> Json:
    """Put an attempt into the queue; its number there.

    `script` and `document` are texts, `agent` the path of our programs, relative to HOME; `secrets` reach Slurm by the environment
    of sbatch alone, which Slurm keeps for the job as it does for each. `name` is the job's name in the queue, `limits` says what
    the script asks for, see `slurm_site.beyond`; without it that was looked at before. Killed anywhere, the next call finds the job by its name, which nobody else's has.
    """
    folder = place(home, request)
    make_folder(folder)
    lock = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(lock)
        known = find(home, request)
        if known["number"] or os.path.exists("%s/jobs/%s/%d" % (home, request["job"], request["attempt"])):
            _same(folder, request)
            return known
        if not os.path.exists(folder + "/job.sbatch"):
            trouble = beyond(request) if request.get("limits") else ""
            if trouble:
                return {"no": trouble, "why": "never"}
            write_text(folder + "/document.json", request["document"])
            if not os.path.islink(folder + "/agent"):
                os.symlink(os.path.relpath(os.path.join(home, request["agent"]), folder), folder + "/agent")
            write_text(folder + "/job.sbatch", request["script"])  # last: from here on sbatch may have been called
        _same(folder, request)
        argv = ["sbatch", "--parsable", "--job-name=" + request["name"], "job.sbatch"]
        code, out, errors = run(request, argv, request.get("secrets", {}), folder)
        number = out.strip().split(";")[0]
        if code == 0 and number.isdigit():
            write_text(folder + "/id", number)
            return {"number": number}
        if SILENT.search(errors):
            raise SlurmSilentError(errors)
        return {
            "no": with_way_out(errors) or "sbatch ended with exit code %d" % code,
            "why": "full" if FULL.search(errors) else "never",
        }
    finally:
        os.close(lock)


def _same(folder: str, request: Json) -> None:
    """FileExistsError where the attempt was submitted with another plan, whose sum is in the script."""
    if read_bytes(folder + "/job.sbatch").decode() != request["script"]:
        raise FileExistsError("%s exists with other contents: take another attempt, or another job" % folder)


def _lock(lock: int) -> None:
    """Wait for our turn; a file system without locks does without, since we have one controller."""
    import fcntl  # noqa: PLC0415

    ignore_errors(fcntl.flock, lock, fcntl.LOCK_EX)


def find(home: str, request: Json) -> Json:
    """Slurm's number of an attempt, kept or looked for by its name; empty when it was never submitted."""
    folder = place(home, request)
    kept = read_part(folder + "/id", 0, 64).decode().strip()
    if kept or not os.path.exists(folder + "/job.sbatch"):
        return {"number": kept}
    numbers = [row[0] for row in queue(home, dict(request, tag=request["name"]))["jobs"] if row[6] == request["name"]]
    if numbers:
        write_text(folder + "/id", numbers[0])
    return {"number": numbers[0] if numbers else ""}


# ---- looking


def queue(home: str, request: Json) -> Json:  # noqa: ARG001 (as all actions)
    """All jobs of this user that Slurm knows, whose name ends with `tag`: a list each in the order of `FIELDS`."""
    user = "--user=%d" % os.getuid()
    out = asked(request, "squeue", "--noheader", "--array", "--states=all", user, "--format=" + FIELDS)
    rows = (line.split("|", 6) for line in out.splitlines())
    return {"jobs": [row for row in rows if len(row) == 7 and row[6].endswith(request["tag"])]}


def ended(home: str, request: Json) -> Json:
    """How jobs ended, of those listed in `attempts` as [job, attempt, name]: `states` by name, `outs` in their order.

    A state is [state, nodes]; what nobody can tell is left out. An out is the end of what the job's script wrote, whether
    it was put back into the queue, and how many nodes it asked for.
    """
    numbers: dict[str, str] = {}
    outs = []
    for job, attempt, name in request["attempts"]:
        folder = place(home, {"job": job, "attempt": attempt})
        number = read_part(folder + "/id", 0, 64).decode().strip()
        if number:
            numbers[number] = name
        size = os.path.getsize(folder + "/slurm.out") if os.path.exists(folder + "/slurm.out") else 0
        tail = read_part(folder + "/slurm.out", max(0, size - TAIL), TAIL).decode("utf-8", "replace")
        hosts = (read_json(folder + "/document.json") or {}).get("hosts", 1)
        outs.append([tail, os.path.exists(folder + "/requeued"), hosts])
    return {"states": (accounted(request, numbers) or completed(request, numbers)) if numbers else {}, "outs": outs}


def accounted(request: Json, numbers: Mapping[str, str]) -> Json:
    """States from sacct; none where the site keeps no accounts.

    A job is meant by number and name: a controller of Slurm that crashed gives the same number again.
    """
    fields = "--format=JobID,State,NodeList,JobName"
    argv = ("sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--jobs=" + ",".join(numbers), fields)
    try:
        code, out, _ = run(request, argv, {})
    except OSError:  # not every site has it
        return {}
    rows = [line.split("|", 3) for line in out.splitlines()] if code == 0 else []
    meant = [row for row in rows if len(row) == 4 and row[1] and numbers.get(row[0]) == row[3]]
    return {name: [state.split()[0], nodes] for _, state, nodes, name in meant}


def completed(request: Json, numbers: Mapping[str, str]) -> Json:
    """States from the log of completed jobs, where it is a file that we may read.

    https://slurm.schedmd.com/slurm.conf.html#OPT_JobCompType: jobcomp/filetxt
    """
    said = settings(request)
    path = said.get("JobCompLoc", "")
    if said.get("JobCompType") != "jobcomp/filetxt" or not os.access(path, os.R_OK):
        return {}
    text = read_part(path, max(0, os.path.getsize(path) - COMPLETIONS), COMPLETIONS).decode("utf-8", "replace")
    found = {}
    for line in text.splitlines():
        facts = dict(re.findall(r"(\w+)=(\S*)", line))
        if facts.get("Name") and numbers.get(facts.get("JobId", "")) == facts["Name"]:
            found[facts["Name"]] = [facts.get("JobState", ""), facts.get("NodeList", "")]
    return found


def cancel(home: str, request: Json) -> Json:  # noqa: ARG001 (as all actions)
    """End jobs wherever they are, by their `names`. Nothing happens to what has ended.

    Not by number: after a crash of Slurm's controller another job may have it.
    """
    for name in request["names"]:
        code, _, errors = run(request, ("scancel", "--user=%d" % os.getuid(), "--name=" + name), {})
        if code and SILENT.search(errors):
            raise SlurmSilentError(errors)
    return {}


ACTIONS: Mapping[str, Callable[[str, Json], Json]] = {
    "submit": submit,
    "find": find,
    "queue": queue,
    "ended": ended,
    "cancel": cancel,
    "site": site,
    "limits": limits,
    "probe": probe,
}
