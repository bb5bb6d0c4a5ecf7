"""Remove the files of jobs that are not wanted any more, here and on every host where they ran."""

from __future__ import annotations

import math
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.agent.allocation import rank_job
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.jobs import find
from orchestrator.client.progress import Say, quiet
from orchestrator.client.pulling import is_pulled
from orchestrator.client.session import session
from orchestrator.client.targets import layout
from orchestrator.executors.attempt_files import given_back, is_apart
from orchestrator.jobs.pruning import PRUNED, PrunedJob, PruneRules, Pruning, passes
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.targets.connect import connect
from orchestrator.targets.storage import Attempt, StorageUse, ask
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.store import Job, Store
    from orchestrator.targets.node import Node


def prune(jobs: Iterable[str] = (), rules: PruneRules | None = None, *, act: bool = False, say: Say = quiet) -> Pruning:
    """Remove the files of jobs on every machine where they ran. Their metrics, logs and plans stay in the store and beside it.

    Kept whatever the rules say: a job that has not ended, one whose files are being pulled, and one whose files another job that
    is not pruned reads. Nothing that two jobs share goes with one of them.

    Args:
        jobs: by name; none: all that pass the rules.
        rules: which; see `PruneRules`.
        act: remove; without it nothing is changed.
        say: is told which hosts do not answer; what lies there stays.

    Raises:
        InvalidRequest: neither a job nor a rule is given.
        NotFound: there is no such job.
    """
    rules, listed = rules or PruneRules(), list(jobs)
    if not listed and not any(rules):
        raise InvalidRequest("prune what? name jobs, or a rule such as --older-than 30d")
    with session() as here:
        here.keep_alive()
        everything = here.store.jobs()
        wanted = find(here.store, listed) if listed else everything
        picked, kept = _picked(here.home, here.store, wanted, everything, rules)
        where = {job.id: _placed(here.home, here.store, job) for job in picked}
        nodes = {node.key: node for placed in where.values() for node, _ in placed}
        if rules.caches:
            nodes |= {node.key: node for each in layout().candidates.values() for node in each.machines}
        found = {key: held for key, held in zip(nodes, ask(here.home, nodes, say), strict=True) if not held.fault}
        for job in picked:
            if silent := [node.name for node, _ in where[job.id] if node.key not in found]:
                kept[job.id] = f"{silent[0]} does not answer"
        plan = [_sized(job, where[job.id], found) for job in picked if job.id not in kept]
        shared = {key: _unused(held, rules) for key, held in found.items()} if rules.caches and not _starting(everything) else {}
        would = sum(each.bytes for each in plan) + sum(sum(each.values()) for each in shared.values())
        pieces = {found[key].name: each for key, each in shared.items() if each}
        if not act:
            return Pruning(plan, kept, pieces, would)
        freed, left = _removed(here.home, here.store, nodes, where, plan, shared)
    return Pruning(plan, kept, pieces, freed, left)


def _picked(
    home: Home, store: Store, wanted: Sequence[Job], everything: Sequence[Job], rules: PruneRules
) -> tuple[list[Job], dict[str, str]]:
    """Jobs whose files may go, and the ended ones that pass the rules and are kept all the same, with the reason."""
    now = time.time()
    kept: dict[str, str] = {}
    best = _best(store, everything, rules.keep_best)
    picked = [job for job in wanted if job.ended is not None and passes(job, rules, now)]
    for job in picked:
        if job.id in best:
            kept[job.id] = f"one of the {rules.keep_best} best of {job.name}"
        elif is_pulled(home, job.id):
            kept[job.id] = "its files are being pulled"
    going = {job.id for job in picked} - kept.keys()
    gone = _gone(store, everything)
    reads = {job.id: _sources(store, job) for job in everything if job.id not in gone}
    while users := {source: id for id, sources in reads.items() if id not in going for source in sources & going}:
        kept |= {source: f"{user} reads its files" for source, user in users.items()}
        going -= users.keys()
    return [job for job in picked if job.id in going - gone], {id: why for id, why in kept.items() if id not in gone}


def _gone(store: Store, jobs: Iterable[Job]) -> set[str]:
    """Jobs whose files were removed before, and that were not tried again since."""
    last = {job.id: job.attempt for job in jobs}
    return {id for id, attempt, _ in store.ended_for(PRUNED) if last.get(id) == attempt}


def _best(store: Store, jobs: Iterable[Job], count: int) -> set[str]:
    """Ids of the best jobs of each recipe name."""
    names: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for job in jobs if count else ():
        if job.state == "SUCCEEDED" and job.loss is not None:
            measured = [each.value for each in store.points(job.id, attempt=job.attempt, names=["eval_loss"])]
            value = measured[-1] if measured else job.loss
            names[job.name].append((math.inf if math.isnan(value) else value, job.id))
    return {id for found in names.values() for _, id in sorted(found)[:count]}


def _sources(store: Store, job: Job) -> set[str]:
    """Jobs whose files a job reads: what it follows as a stage, or what of a state folder it names as an input."""
    plan = JobRequest.unpacked(store.request(job.id)).plan
    paths = [
        each.source.partition("/jobs/")[2] or each.source.removeprefix("jobs/") for each in plan.inputs if "jobs/" in each.source
    ]
    return {path.partition("/")[0] for path in paths} - {job.id}


def _placed(home: Home, store: Store, job: Job) -> list[tuple[Node, Attempt]]:
    """Where each attempt of a job lies: the machine, and the name by which its state folder knows it."""
    request = JobRequest.unpacked(store.request(job.id))
    listed = {node.name for candidate in request.candidates for node in candidate.nodes}
    found = []
    for number in range(1, job.attempt + 1):
        nodes = request.nodes(AttemptRecord.from_dict(store.positions(job.id, number)).placement)
        found += [
            (node, (job.id if node.name in listed or is_apart(node) else rank_job(job.id, rank), number))
            for rank, (node, _) in enumerate(nodes)
            if not given_back(home, node)
        ]
    return found


def _sized(job: Job, placed: Sequence[tuple[Node, Attempt]], found: Mapping[str, StorageUse]) -> PrunedJob:
    lying = {(node.key, attempt) for node, attempt in placed}
    hosts = dict.fromkeys(node.name for node, attempt in placed if attempt in found[node.key].attempts)
    return PrunedJob(job, sum(found[key].attempts.get(attempt, 0) for key, attempt in lying), list(hosts))


def _starting(jobs: Iterable[Job]) -> bool:
    """Is a job on its way, which may count on shared pieces that it has no link to yet?"""
    return any(job.ended is None and job.state in ("PREPARING", "STARTING") for job in jobs)


def _unused(held: StorageUse, rules: PruneRules) -> dict[str, int]:
    """Shared pieces of a machine that no attempt there uses, and that are old enough."""
    return {name: held.shared[name] for name, changed in held.idle.items() if held.clock - changed >= rules.older_than}


def _removed(
    home: Home,
    store: Store,
    nodes: Mapping[str, Node],
    where: Mapping[str, Sequence[tuple[Node, Attempt]]],
    plan: Sequence[PrunedJob],
    shared: Mapping[str, Mapping[str, int]],
) -> tuple[int, list[str]]:
    """Remove it, machine by machine; bytes that were freed, and what was left."""
    freed, left = 0, []
    for each in plan:
        _keep_logs(home, each.job)
    for key, node in nodes.items():
        attempts = sorted({attempt for each in plan for at, attempt in where[each.job.id] if at.key == key})
        pieces = sorted(shared.get(key, ()))
        if attempts or pieces:
            transport = connect(home, node)
            try:
                answer = transport.discard(attempts, pieces)
                freed += int(answer["freed"])
                left += [f"{node.name}: {why}" for why in answer["left"]]
            except TransportError as error:
                left.append(str(error))
            finally:
                transport.close()
    for each in plan:
        shutil.rmtree(home.results / each.job.id, ignore_errors=True)
        store.note(each.job.id, time.time(), PRUNED, f"its files were removed from {', '.join(each.hosts) or 'nowhere'}")
    return freed, left


def _keep_logs(home: Home, job: Job) -> None:
    """A log that lies in the job's folder on this machine goes where those of other machines are kept."""
    for number in range(1, job.attempt + 1):
        log, kept = home.jobs / job.id / str(number) / "log", home.mirror(job.id, number, 0)
        if log.exists() and not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(OSError):
                shutil.copyfile(log, kept)
