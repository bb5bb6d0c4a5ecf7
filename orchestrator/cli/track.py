"""`tune status`, `logs`, `metrics`, `wait`: looking at jobs. Reads the store; a dead controller is noticed and replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED, TROUBLE, WRONG, Stop
from orchestrator.home import Home
from orchestrator.store import open_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from orchestrator.store import Job, PointRow, Store

PACE = 0.1
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


def find(store: Store, words: Iterable[str]) -> list[Job]:
    """Jobs that the words mean, each one job.

    Raises:
        Stop: a word means none, or several.
    """
    out = []
    for word in words:
        found = store.find(word)
        if not found:
            raise Stop(WRONG, f"{word}: no such job; `tune status` lists them")
        if len(found) > 1:
            raise Stop(
                WRONG, f"{word}: means {len(found)} jobs: {', '.join(job.id for job in found[:5])}{', ...' * (len(found) > 5)}"
            )
        out.append(found[0])
    return list({job.id: job for job in out}.values())


def opened() -> tuple[Home, Store]:
    """The state folder and its store.

    Raises:
        Stop: nothing was submitted yet.
    """
    home = Home.find()
    if not home.exists():
        raise Stop(WRONG, f"nothing was submitted yet (no store in {home.path})")
    return home, open_store(home.store)


def keep_alive(home: Home, store: Store) -> None:
    """When jobs are active and nobody looks after them: look once, so that what is shown is true, and start a controller."""
    if store.jobs(states=("QUEUED", "STARTING", "PREPARING", "RUNNING", "STOPPING"), limit=1):
        from orchestrator.daemon.client import alive, wake  # noqa: PLC0415

        if not alive(home):
            from orchestrator.daemon.loop import catch_up  # noqa: PLC0415  # heavier, and seldom needed

            catch_up(home, store)
            wake(home)


def status(said: argparse.Namespace) -> int:
    """Jobs and where they are."""
    from orchestrator.render.status import status_json, status_screen, status_table  # noqa: PLC0415
    from orchestrator.render.text import DUMB, may_colour  # noqa: PLC0415

    labelled(said.label)  # wrong words are wrong where there are no jobs, too
    if not Home.find().exists() and not said.jobs:
        print("[]" if said.json else "nothing was submitted yet")
        return DONE
    home, store = opened()
    colour = may_colour(sys.stdout.isatty(), os.environ)
    moving = sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in DUMB
    with store:
        while True:
            keep_alive(home, store)
            jobs = _wanted(store, said)
            if said.json:
                print(json.dumps(status_json(jobs, time.time()), indent=1), flush=True)
            elif said.watch and moving:
                print(_frame(status_screen(jobs, time.time(), size=os.get_terminal_size(), colour=colour)), end="", flush=True)
            else:
                width = os.get_terminal_size().columns if sys.stdout.isatty() else None
                print(status_table(jobs, time.time(), width=width, colour=colour), flush=True)
            if said.events and not said.json:
                _events(store, jobs)
            if not said.watch or all(job.ended for job in jobs):
                return DONE
            time.sleep(1)


def _frame(text: str) -> str:
    """A screen drawn over the one before it, without a flicker in between."""
    return "\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J"


def _wanted(store: Store, said: argparse.Namespace) -> list[Job]:
    """The jobs that were named, or all, as far as they pass the filters; newest first."""
    jobs = find(store, said.jobs) if said.jobs else store.jobs()
    labels = labelled(said.label).items()
    kept = (
        job
        for job in jobs
        if (not said.state or job.state in said.state or ("ACTIVE" in said.state and not job.ended))
        and (not said.name or named(job, said.name))
        and (not said.on or not set(said.on).isdisjoint(job.target.split(",")))
        and labels <= job.labels.items()
    )
    return list(islice(kept, said.limit))


def named(job: Job, patterns: Iterable[str]) -> bool:
    """Whether a job's name is one of these, in which `*`, `?` and `[abc]` stand for others."""
    return any(fnmatchcase(job.name, pattern) for pattern in patterns)


def labelled(texts: Iterable[str]) -> dict[str, str]:
    """Labels from `KEY=VALUE`.

    Raises:
        Stop: one is written otherwise, or a key is given twice with two values.
    """
    out: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not LABEL.fullmatch(key) or len(value) > 200 or not value.isprintable():
            rule = "should be KEY=VALUE: a key of letters, digits, . _ - and /, a value of at most 200 characters"
            raise Stop(WRONG, f"--label {text[:300]!r}: {rule}")
        if out.setdefault(key, value) != value:
            raise Stop(WRONG, f"--label {key}: is given twice, as {out[key]} and as {value}")
    return out


def _events(store: Store, jobs: Iterable[Job]) -> None:
    from orchestrator.render.text import clean, table  # noqa: PLC0415

    rows = [
        (time.strftime("%F %T", time.localtime(e.time)), e.job, str(e.attempt), e.state, e.reason, clean(e.detail))
        for job in jobs
        for e in store.events(job.id)
    ]
    print("\n" + table(("TIME", "JOB", "ATTEMPT", "STATE", "REASON", "DETAIL"), rows))


def logs(said: argparse.Namespace) -> int:
    """A job's output, as it is or until it ends. That of another host is kept here as it comes: no host is asked."""
    home, store = opened()
    offset = 0
    with store:
        [job] = find(store, [said.job])
        attempt = said.attempt or job.attempt
        if not 1 <= attempt <= job.attempt:
            raise Stop(WRONG, f"--attempt {attempt}: {job.id} has {job.attempt}")
        machines = list(store.positions(job.id, attempt).get("placed", {}).get("devices", ()))
        if said.host and not 0 <= said.host < len(machines):
            raise Stop(WRONG, f"--host {said.host}: attempt {attempt} of {job.id} has the hosts 0 to {len(machines) - 1}")
        while True:
            if said.follow:
                keep_alive(home, store)
            ended = attempt < job.attempt or job.ended is not None  # the state before the data: then what follows is all
            offset += _copied(home.log_of(job.id, attempt, said.host), offset)
            if ended or not said.follow:
                return DONE
            time.sleep(PACE)
            [job] = find(store, [job.id])


def _copied(log: Path, offset: int) -> int:
    """Write what a log has from an offset on to standard output; how many bytes. There may be no log yet."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return file.tell() - offset
    except FileNotFoundError:
        return 0


def metrics(said: argparse.Namespace) -> int:
    """Points of jobs: as a table, curves, JSON or CSV."""
    from orchestrator.render.points import metrics_csv, metrics_json, metrics_table  # noqa: PLC0415

    home, store = opened()
    with store:
        keep_alive(home, store)
        jobs = find(store, said.jobs)
        names = said.name or (["loss"] if said.plot else None)
        found = {job.id: store.points(job.id, attempt=said.attempt, names=names) for job in jobs}
    if said.plot:
        print(_plot(found, names or ["loss"]))
    elif said.json:
        documents = [metrics_json(id, points) for id, points in found.items()]
        print(json.dumps(documents[0] if len(documents) == 1 else documents))
    elif said.csv:
        print("\n".join(metrics_csv(points) for points in found.values()))
    else:
        for id, points in found.items():
            print(f"{id}\n{metrics_table(points, names, said.last or None)}" if points else f"{id}\nno metrics yet")
    return DONE


def _plot(found: dict[str, list[PointRow]], names: Iterable[str]) -> str:

    from orchestrator.render.plot import metrics_plot  # noqa: PLC0415
    from orchestrator.render.text import may_colour  # noqa: PLC0415

    size = shutil.get_terminal_size((100, 30))
    colour = may_colour(sys.stdout.isatty(), os.environ)
    return "\n\n".join(metrics_plot(found, name, size.columns, min(24, max(10, size.lines - 6)), colour=colour) for name in names)


def wait(said: argparse.Namespace) -> int:
    """Wait until jobs end; 0 when all SUCCEEDED."""
    home, store = opened()
    until = None if said.timeout is None else time.monotonic() + said.timeout
    with store:
        ids = [job.id for job in find(store, said.jobs)]
        jobs = until_ended(home, store, ids, until)
    for job in jobs:
        print(f"{job.id} {job.state}" + (f" {job.reason}: {job.detail}" if job.reason else ""))
    if not all(job.ended for job in jobs):
        raise Stop(TROUBLE, f"not ended after {said.timeout:g} s")
    return DONE if all(job.state == "SUCCEEDED" for job in jobs) else FAILED


def until_ended(home: Home, store: Store, ids: list[str], until: float | None) -> list[Job]:
    """The jobs, when all have ended or the time (monotonic) has come."""
    looked = 0.0
    while True:
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            keep_alive(home, store)
        jobs = store.jobs(ids=ids)
        if all(job.ended for job in jobs) or (until is not None and time.monotonic() > until):
            return sorted(jobs, key=lambda job: ids.index(job.id))
        time.sleep(PACE / 2)
