"""Hand a planned job over to the controller."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.conditions import check_keep, dependencies
from orchestrator.client.errors import AlreadyExists, InvalidRequest, MissingSecret
from orchestrator.client.notices import tell_notices
from orchestrator.client.plan import PlannedJob, check_inputs
from orchestrator.client.session import session
from orchestrator.client.targets import names_of
from orchestrator.daemon.client import wake
from orchestrator.home import Home, read_secrets

if TYPE_CHECKING:
    from backends.plan import Input, Plan
    from orchestrator.store import NewJob
    from orchestrator.store.dependencies import Dependency
    from orchestrator.store.requests import Fingerprint, JobRequest, SweepPoint
    from orchestrator.targets.model import Candidate

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


class Submitted(NamedTuple):
    """A job that is in the store."""

    id: str
    new: bool
    """False: it was submitted before, and nothing new is started."""


def submit(
    job: PlannedJob,
    *,
    id: str | None = None,
    priority: int = 0,
    labels: Mapping[str, str] | None = None,
    snapshot: bool = False,
    hold: bool = False,
    after: Sequence[str] = (),
    keep: float = 0.0,
    say: Callable[[str], None] = lambda text: None,
) -> Submitted:
    """Queue a planned job, and see that a controller takes it.

    The job begins with the inputs as they are now: each attempt checks that they have not changed.

    Args:
        job: as `plan` decided it.
        id: its name; the same id submitted twice runs once. None makes one.
        priority: higher starts earlier.
        labels: to find it by.
        snapshot: keep a copy of each input, so that the job begins whatever happens to the original.
        hold: it starts only once it is released (`queueing.release`).
        after: other jobs, `JOB` or `JOB:OUTCOME` (`dependencies.Outcome`): it starts once each has become that, or else is CANCELLED.
        keep: seconds for which the devices of an attempt that has failed are held, for somebody to look; no retry begins meanwhile.
        say: hears of what takes long, and what a user should know.

    Raises:
        InvalidRequest: an id, a label or notify.yaml is written otherwise than it should be.
        NotFound: a file that the recipe names is not there, or no job is one that it waits for.
        MissingSecret: a secret that the job needs has no value.
        AlreadyExists: the id belongs to another job.
        Unreachable: the store does not answer.
    """
    check_id(id)
    needs = dependencies(after)
    check_keep(keep, job.candidates)
    labels = check_labels((labels or {}).items())
    check_inputs(job.plan)
    home = Home.find().make()
    stages = (name for each in job.plan.after for name in each.secrets)
    values = secret_values(tuple(dict.fromkeys((*job.plan.secrets, *stages))), home)
    check_python(job.plan)
    name = id or new_id(job.plan.recipe)
    tell_not_passed(job, say)
    tell_notices(home, say)
    copied = keep_inputs(home, job.plan, say) if snapshot else None
    queued = QueuedJob(name, job.plan, job.candidates, priority, labels, copied, hold=hold, after=needs, keep=keep)
    return Submitted(name, bool(enqueue_all(home, [queued], values)))


def tell_not_passed(job: PlannedJob, say: Callable[[str], None]) -> None:
    """Name what the user has set for a training and the job will not have."""
    from orchestrator.transports.environ import not_passed  # noqa: PLC0415

    given = {name for each in job.candidates for node in each.nodes for name in node.env}
    left = not_passed(os.environ, {*given, *dict(job.plan.env), *job.plan.secrets})
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        say(f"not passed to the job: {', '.join(left[:5])}{more}; `env:` of its target in clusters.yaml sets variables")


def keep_inputs(home: Home, decided: Plan, say: Callable[[str], None]) -> Plan:
    """The plan with copies of its inputs.

    Raises:
        InvalidRequest: one cannot be copied.
    """
    from orchestrator.staging.inputs import snapshot  # noqa: PLC0415
    from orchestrator.transports.base import TransportError  # noqa: PLC0415

    try:
        return snapshot(home, decided, say)
    except (ValueError, TransportError) as error:
        raise InvalidRequest(str(error), argument="snapshot") from None


def new_id(stem: str) -> str:
    """A job's id that no other has."""
    return f"{stem}-{os.urandom(3).hex()}"


def check_id(id: str | None) -> None:
    """An id is a name of a folder, too.

    Raises:
        InvalidRequest: it cannot be one.
    """
    if id and not JOB_ID.fullmatch(id):
        raise InvalidRequest(id, "should be letters, digits, . _ and -, beginning with a letter or digit", argument="id")


def check_labels(pairs: Iterable[tuple[str, str]], *, argument: str = "label") -> dict[str, str]:
    """Labels out of keys and values.

    Raises:
        InvalidRequest: one is written otherwise than it should be, or a key is given twice with two values.
    """
    out: dict[str, str] = {}
    for key, value in pairs:
        if not LABEL.fullmatch(key) or len(value) > 200 or not value.isprintable():
            raise wrong_label(f"{key}={value}", argument)
        if out.setdefault(key, value) != value:
            raise InvalidRequest(key, f"is given twice, as {out[key]} and as {value}", argument=argument)
    return out


def wrong_label(text: str, argument: str = "label") -> InvalidRequest:
    """What is wrong with a label."""
    rule = "should be KEY=VALUE: a key of letters, digits, . _ - and /, a value of at most 200 characters"
    return InvalidRequest(repr(text[:300]), rule, argument=argument)


def check_python(decided: Plan) -> None:
    """An interpreter of the user's must have the trainer, in the supported range. A command may do without any.

    Raises:
        InvalidRequest: it has not, or there is no environment to build.
    """
    environment = decided.environment
    if environment.lock or not environment.python or (environment.python.startswith("/") and not environment.requires):
        return
    from orchestrator.agent.provision import ProvisionError  # noqa: PLC0415
    from orchestrator.staging.interpreter import check_interpreter  # noqa: PLC0415

    if not environment.python.startswith("/"):
        raise InvalidRequest(
            f"there is no lock for {environment.name} on {environment.accelerator}: name a `python:` of the target"
        )
    try:
        check_interpreter(environment.python, environment.requires)
    except ProvisionError as error:
        raise InvalidRequest(str(error)) from None


def secret_values(names: Sequence[str], home: Home) -> dict[str, str]:
    """Values of the secrets that a job needs, from the environment or the secrets file.

    Raises:
        MissingSecret: one has no value; named before anything starts.
        InvalidRequest: others may read the secrets file.
    """
    try:
        kept = read_secrets(home.secrets) if names else {}
    except PermissionError as error:
        raise InvalidRequest(str(error)) from None
    values = {name: os.environ.get(name) or kept.get(name, "") for name in names}
    missing = [name for name, value in values.items() if not value]
    if missing:
        gated = "HF_TOKEN" in missing
        why = "the model is gated: accept its licence on the hub and set a token" if gated else "a secret of the recipe"
        hint = f"export {missing[0]}=..., or a line in {home.secrets} (mode 0600)"
        raise MissingSecret(missing[0], f"is not set ({why})", hint=hint)
    return values


def has_secret(name: str, home: Home) -> bool:
    """Whether a secret has a value here."""
    try:
        return bool(os.environ.get(name) or read_secrets(home.secrets).get(name))
    except PermissionError:
        return False  # others may read the file: told where a secret is needed


class QueuedJob(NamedTuple):
    """A job as it is handed to the store."""

    id: str
    plan: Plan
    candidates: Sequence[Candidate]
    """Where it may run."""
    priority: int = 0
    """Higher starts earlier."""
    labels: Mapping[str, str] = {}
    copied: Plan | None = None
    """The same with copies of its inputs, where they were made."""
    sweep: SweepPoint | None = None
    """Of which sweep it is a point."""
    hold: bool = False
    """It starts only once it is released."""
    after: tuple[Dependency, ...] = ()
    """Other jobs that it waits for."""
    keep: float = 0.0
    """Seconds for which its devices are held after a failure."""


def enqueue(
    home: Home,
    job: str,
    decided: Plan,
    where: Sequence[Candidate],
    values: Mapping[str, str],
    priority: int,
    labels: Mapping[str, str] | None = None,
    copied: Plan | None = None,
) -> bool:
    """Put a job into the store and see that a controller takes it; False when it was there already.

    Args:
        home: our state folder.
        job: its id.
        decided: what is to be run.
        where: where it may run.
        values: of its secrets.
        priority: higher starts earlier.
        labels: to find it by.
        copied: the same with copies of its inputs, where they were made.

    Raises:
        AlreadyExists: the id belongs to another job.
        InvalidRequest: an input cannot be read.
    """
    return bool(enqueue_all(home, [QueuedJob(job, decided, where, priority, labels or {}, copied)], values))


def enqueue_all(home: Home, jobs: Sequence[QueuedJob], values: Mapping[str, str]) -> set[str]:
    """As `enqueue`, of many jobs with the same secrets: all are put into the store, or none; ids of those that were not there yet."""
    from orchestrator.staging.fingerprints import changed  # noqa: PLC0415
    from orchestrator.store import Duplicate  # noqa: PLC0415
    from orchestrator.store.requests import JobRequest  # noqa: PLC0415

    requests = _requests(jobs)
    if values:  # before the job can be seen: whoever starts it has them then
        wake(home, {job.id: values for job in jobs})
    with session(make=True, home=home) as (_, store, _):
        try:
            added = store.add_jobs([_new(*each) for each in zip(jobs, requests, strict=True)], time.time())
        except Duplicate as error:
            raise AlreadyExists(str(error), hint="choose another --id") from None
        for job in jobs:
            if job.id not in added and not job.copied and (news := changed(JobRequest.unpacked(store.request(job.id)).inputs)):
                raise AlreadyExists(f"{job.id} was submitted with another input: {news}", hint="choose another --id")
    wake(home)
    return added


def _requests(jobs: Sequence[QueuedJob]) -> list[JobRequest]:
    """All that is needed to run each; inputs that several have in common are read once.

    Raises:
        InvalidRequest: an input cannot be read.
    """
    from orchestrator.staging.fingerprints import fingerprints  # noqa: PLC0415
    from orchestrator.store.requests import JobRequest  # noqa: PLC0415
    from orchestrator.transports.environ import passed  # noqa: PLC0415

    inputs: dict[tuple[Input, ...], dict[str, Fingerprint]] = {}
    out = []
    for job in jobs:
        brought = () if job.copied else job.plan.brought
        try:
            if brought not in inputs:
                inputs[brought] = fingerprints(brought)
        except OSError as error:
            raise InvalidRequest(f"{error.filename or 'an input'}: {error.strerror or error}") from None
        request = JobRequest(
            job.copied or job.plan, tuple(job.candidates), passed(os.environ), inputs[brought], job.sweep, job.keep
        )
        out.append(request)
    return out


def _new(job: QueuedJob, request: JobRequest) -> NewJob:
    """As the store takes it."""
    from orchestrator.store import NewJob  # noqa: PLC0415
    from orchestrator.store.dependencies import AFTER  # noqa: PLC0415
    from orchestrator.store.lanes import shared  # noqa: PLC0415
    from orchestrator.store.rows import HELD, held  # noqa: PLC0415

    plan, target = job.plan, names_of(job.candidates)
    digest = sha256(f"{plan.digest()} {target}".encode()).hexdigest()
    packed, steps = request.packed(), plan.promise.steps
    lane = shared(request.lane, job.labels)
    new = NewJob(job.id, plan.recipe, plan.backend, target, digest, packed, job.priority, job.labels, steps, lane)
    new = new._replace(after=job.after)
    if job.hold:
        return new._replace(not_before=HELD, detail=held(job.id))
    return new._replace(not_before=AFTER, detail=job.after[0].words) if job.after else new
