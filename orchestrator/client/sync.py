"""What a job's tracker wrote into files because no network was in reach, sent to the tracker's server from here afterwards.

W&B's own program does it: its files are brought here and kept in the state folder, where it notes which were sent. So a call that
was interrupted goes on, and nothing is sent twice. https://docs.wandb.ai/ref/cli/wandb-sync/
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.errors import ActionFailed, InvalidRequest, NotFound, Unreachable
from orchestrator.client.jobs import find_all
from orchestrator.client.progress import Say, quiet
from orchestrator.client.pulling import pulling
from orchestrator.client.session import Session, session
from orchestrator.client.submit import secret_values
from orchestrator.executors.attempt_files import reached
from orchestrator.home import Home
from orchestrator.store.requests import JobRequest
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.store import Job

OFFLINE = "work/out/wandb"
"""Folder in which wandb writes its runs while `log.wandb_mode` is offline."""
KEY, SERVER = "WANDB_API_KEY", "WANDB_BASE_URL"
LAST = 5
"""Lines of wandb's output that are told where it failed."""


class SyncedRun(NamedTuple):
    """A run of a tracker that is at its server now."""

    job: str
    attempt: int
    run: str
    """The folder that wandb gave it."""
    sent: bool
    """False: an earlier call had sent it."""


class _Batch(NamedTuple):
    job: str
    attempt: int
    plan: Plan
    runs: Sequence[Path]


def sync(names: Iterable[str], say: Say = quiet) -> list[SyncedRun]:
    """Send all runs that jobs left offline, those of earlier attempts too.

    Args:
        names: of the jobs, or of sweeps; each has ended.
        say: hears what is being done.

    Raises:
        NotFound: there is no such job, or one of them left no offline run.
        InvalidRequest: a job has not ended yet.
        MissingSecret: there is something to send, and WANDB_API_KEY is not set.
        Unreachable: the host that has the files does not answer.
        ActionFailed: wandb did not send a run, in its words; the next call goes on there.
    """
    with session() as here:
        here.keep_alive()
        jobs = find_all(here.store, names)
        for job in jobs:
            if not job.ended:
                hint = f"`tune wait {job.id}`; a run is sent once it is whole"
                raise InvalidRequest(job.id, f"is {job.state}, and its run still grows", hint=hint)
        batches = [batch for job in jobs for batch in _brought(here, job, say)]
        home = here.home
    waiting = [run for batch in batches for run in batch.runs if not _is_sent(run)]
    key = secret_values([KEY], home) if waiting else {}
    done = []
    for batch in batches:
        for run in batch.runs:
            if new := not _is_sent(run):
                say(f"{batch.job}: sending {run.name}")
                _send(home, batch.plan, run, key)
            done.append(SyncedRun(batch.job, batch.attempt, run.name, new))
    return done


def _brought(here: Session, job: Job, say: Say) -> list[_Batch]:
    """The runs of a job's attempts, as they lie here."""
    plan = JobRequest.unpacked(here.store.request(job.id)).plan
    found = []
    for attempt in range(1, job.attempt + 1):
        into = here.home.path / "sync" / job.id / str(attempt)
        try:
            with pulling(here.home, job.id), reached(here.home, here.store, job.id, attempt) as hosts:
                say(f"{job.id}: looking for runs of attempt {attempt}")
                places = [into / f"rank-{rank}" if rank else into for rank in range(len(hosts))]
                for place, (_, transport, known_as) in zip(
                    places, hosts, strict=True
                ):  # most trainers report from the first alone
                    transport.fetch(known_as, attempt, [OFFLINE], place)
        except TransportError as error:
            raise Unreachable(str(error), hint=f"`tune sync {job.id}` goes on where it ended") from None
        if runs := [path.parent for place in places for path in sorted((place / OFFLINE).glob("offline-run-*/run-*.wandb"))]:
            found.append(_Batch(job.id, attempt, plan, runs))
    if not found:
        hint = "`log.trackers: [wandb]` with `log.wandb_mode: offline` writes runs; online there is nothing to send"
        raise NotFound(job.id, "left no offline run of a tracker", hint=hint)
    return found


def _is_sent(run: Path) -> bool:
    """Has wandb noted that it sent the whole run? Its exit code is 0 also where it sent nothing."""
    return any(run.glob("run-*.wandb.synced"))


def _send(home: Home, plan: Plan, run: Path, key: dict[str, str]) -> None:
    """Have wandb send one run."""
    env = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    env |= {name: value for name, value in plan.env if name == SERVER} | key
    argv = [*_wandb(home, plan), "sync", str(run)]
    done = subprocess.run(argv, cwd=run.parent, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if not _is_sent(run):
        lines = [line.removeprefix("wandb: ") for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        said = "\n".join(lines[-LAST:]).replace(key[KEY], "***") or f"exit code {done.returncode}"
        raise ActionFailed(run.name, f"wandb did not send it:\n{said}", hint="`tune sync` goes on with it")


def _wandb(home: Home, plan: Plan) -> list[str]:
    """The program: of the trainer's environment where that is here, else of uv in the same version, else what is on the PATH.

    Raises:
        ActionFailed: there is none.
    """
    from orchestrator.agent.provision import ProvisionError, address, find_uv  # noqa: PLC0415  # only once something is sent

    environment = plan.environment
    here = Path(address(home.envs, environment), "bin/wandb") if environment.lock else Path()
    if here.is_file():
        return [str(here)]
    pin = re.search(r"^wandb==([\w.]+)", environment.lock, re.MULTILINE)
    if not pin and (found := shutil.which("wandb")):
        return [found]
    try:
        return [find_uv(), "tool", "run", "--quiet", "--from", f"wandb=={pin[1]}" if pin else "wandb", "wandb"]
    except ProvisionError as error:
        raise ActionFailed("wandb", f"is not here: {error}") from None
