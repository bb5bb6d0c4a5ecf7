"""What a job left, brought here. Interrupted, the next call goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.client.errors import AlreadyExists, InvalidRequest, NotFound, Unreachable
from orchestrator.client.jobs import find_attempt
from orchestrator.client.pulling import pulling
from orchestrator.client.session import Session, session
from orchestrator.executors.attempt_files import brought, reached, results
from orchestrator.home import Home
from orchestrator.render.points import metrics_csv
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.transports.base import Told, TransportError, ignore_progress


class Pulled(NamedTuple):
    """A job's results on this machine."""

    folder: Path
    """With `plan.json` and `metrics.csv` in it."""
    files: Sequence[Path]
    """What came from the job's hosts."""


def pull(
    name: str,
    into: str | Path | None = None,
    *,
    files: Iterable[str] = (),
    everything: bool = False,
    attempt: int | None = None,
    progress: Told = ignore_progress,
) -> Pulled:
    """Checkpoint, adapter, logs, metrics and the exact plan of a job into a folder.

    Args:
        name: of the job.
        into: the folder; None: one called as the job, here.
        files: also these files and folders of the job's folder.
        everything: the whole folder of the job, of every host.
        attempt: from 1; None: the latest.
        progress: is told how many bytes of how many are here.

    Raises:
        NotFound: there is no such job or attempt, or no such file; what else was asked for is here then.
        InvalidRequest: the attempt was not started anywhere yet, or a file's name leads out of the job's folder.
        AlreadyExists: the folder is a file.
        Unreachable: a host does not answer; the next call goes on where this one ended.
    """
    wanted_files = list(files)
    with session() as here:
        here.keep_alive()
        job, number = find_attempt(here.store, name, attempt)
        _refuse_pruned(here, job.id, number)
        folder = Path(into or job.id)
        if folder.exists() and not folder.is_dir():
            raise AlreadyExists(str(folder), "is a file; --into names another folder")
        folder.mkdir(parents=True, exist_ok=True)
        record = AttemptRecord.from_dict(here.store.positions(job.id, number))
        ran = JobRequest.unpacked(here.store.request(job.id)).plan.with_micro(record.micro)
        left = [*results(ran.promise.files), *(f"work/{name}" for name in wanted_files)]
        (folder / "plan.json").write_text(json.dumps(ran.as_dict(), indent=1) + "\n", "utf-8")
        (folder / "metrics.csv").write_text(metrics_csv({job.id: here.store.points(job.id, attempt=number)}) + "\n", "utf-8")
        found = _kept(here.home, job.id, number, folder)
        if found and not everything and all((folder / "work" / name).exists() for name in wanted_files):
            return Pulled(folder, found)
        found += _fetch(here, job.id, number, ["work"] if everything else left, folder, everything=everything, progress=progress)
    missing = [name for name in wanted_files if not (folder / "work" / name).exists()]
    if missing:
        rule = f"is not in the folder of attempt {number} of {job.id}; all else is in {folder}"
        raise NotFound(missing[0], rule, argument="file", hint=f"`tune pull {job.id} --all` brings all that there is")
    return Pulled(folder, found)


def _refuse_pruned(here: Session, job: str, attempt: int) -> None:
    pruned = (each for each in here.store.events(job) if each.reason == "pruned" and each.attempt >= attempt)
    if gone := next(pruned, None):
        raise NotFound(job, f"{gone.detail} by tune prune", hint=f"`tune metrics {job}` and `tune logs {job}` still work")


def _fetch(
    here: Session, job: str, attempt: int, names: Sequence[str], into: Path, *, everything: bool, progress: Told
) -> list[Path]:
    """Log and files of the first host, and the logs of the others, or with `everything` all of theirs."""
    found: list[Path] = []
    try:
        with pulling(here.home, job), reached(here.home, here.store, job, attempt) as hosts:
            if not hosts:
                raise InvalidRequest(job, f"attempt {attempt} was not started anywhere yet")
            for rank, (_, transport, known_as) in enumerate(hosts):
                below = into if rank == 0 else into / f"host{rank}"
                wanted = ["log", *(names if rank == 0 or everything else ())]
                found += transport.fetch(known_as, attempt, wanted, below, progress)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    except TransportError as error:
        hint = f"`tune pull {job}` goes on where it ended; `tune logs` needs no host"
        raise Unreachable(str(error), hint=hint) from None
    return found


def _kept(home: Home, job: str, attempt: int, into: Path) -> list[Path]:
    """What was brought here before the attempt's machines were given back, copied into a folder; none where nothing was."""
    kept = brought(home, job, attempt)
    if not kept.exists():
        return []
    with pulling(home, job):
        shutil.copytree(kept, into, dirs_exist_ok=True)
    return [into / each.relative_to(kept) for each in sorted(kept.rglob("*")) if each.is_file()]


def local_checkpoint(id: str, attempt: int) -> Path | None:
    """The folder of a job's model, where it ran on this machine."""
    folder = Home.find().jobs / id / str(attempt) / "work" / "checkpoint"
    return folder if folder.exists() else None
