"""One attempt goes into Slurm's queue, once. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os
from contextlib import contextmanager

from orchestrator.agent.files import ignore_errors, make_folder, read_bytes, write_text
from orchestrator.agent.slurm_command import FULL, SILENT, SlurmSilentError, run, with_way_out
from orchestrator.agent.slurm_queue import find, membership, place
from orchestrator.agent.slurm_site import beyond

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.agent.files import Json


def submit(home: str, request: Json) -> Json:
    """Put an attempt into the queue; its number there.

    `script` and `document` are texts, `agent` the path of our programs, relative to HOME; `secrets` reach Slurm by the environment
    of sbatch alone, which Slurm keeps for the job as it does for each. `name` is the job's name in the queue, `limits` says what
    the script asks for, see `slurm_site.beyond`; without it that was looked at before. `after`, where it is there, is the number of what
    has to end before. Killed anywhere, the next call finds the job by
    its name, which nobody else's has.
    """
    folder = place(home, request)
    make_folder(folder)
    with held(home + "/arrays/lock" if membership(folder)[0] else folder + "/lock"):  # it may be going into the queue with others
        known = find(home, request)
        if known["number"] or os.path.exists("%s/jobs/%s/%d" % (home, request["job"], request["attempt"])):
            same(folder, request)
            return known
        if not os.path.exists(folder + "/job.sbatch"):
            trouble = beyond(request) if request.get("limits") else ""
            if trouble:
                return {"no": trouble, "why": "never"}
            prepare(home, folder, request)
        same(folder, request)
        told = queued(request, folder, request["name"], after(request))
        if "number" in told:
            write_text(folder + "/id", told["number"])
        return told


def prepare(home: str, folder: str, request: Json) -> None:
    """Write down what an attempt's job is made of; the script is last, since from there on sbatch may have been called."""
    write_text(folder + "/document.json", request["document"])
    if not os.path.islink(folder + "/agent"):
        os.symlink(os.path.relpath(os.path.join(home, request["agent"]), folder), folder + "/agent")
    write_text(folder + "/job.sbatch", request["script"])


def same(folder: str, request: Json) -> None:
    """FileExistsError where the attempt was submitted with another plan, whose sum is in the script."""
    if read_bytes(folder + "/job.sbatch").decode() != request["script"]:
        raise FileExistsError("%s exists with other contents: take another attempt, or another job" % folder)


def after(request: Json) -> list[str]:
    """What sbatch is told of a job that others have to end before, however they do."""
    return ["--dependency=afterany:" + request["after"]] if request.get("after") else []


def queued(request: Json, folder: str, name: str, more: Sequence[str] = ()) -> Json:
    """Call sbatch in a folder with a script; the number that it gives, or why it gives none."""
    argv = ["sbatch", "--parsable", "--job-name=" + name, *more, "job.sbatch"]
    code, out, errors = run(request, argv, request.get("secrets", {}), folder)
    number = out.strip().split(";")[0]
    if code == 0 and number.isdigit():
        return {"number": number}
    if SILENT.search(errors):
        raise SlurmSilentError(errors)
    no = with_way_out(errors) or "sbatch ended with exit code %d" % code
    return {"no": no, "why": "full" if FULL.search(errors) else "never"}


@contextmanager
def held(path: str) -> Iterator[None]:
    """Wait for our turn; a file system without locks does without, since we have one controller."""
    import fcntl  # noqa: PLC0415

    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        ignore_errors(fcntl.flock, lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
