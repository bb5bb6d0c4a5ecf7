"""What other processes do to a store in these tests: `workers.py URL WORK ARGUMENT...`; answers are lines on stdout."""

import math
import sys
from importlib import import_module

from orchestrator.store import Duplicate, NewJob, Store, open_store


def job(id: str, digest: str = "d") -> NewJob:
    """A job to submit."""
    return NewJob(id, f"name of {id}", "litgpt", "local", digest, "{}")


def add(store: Store, digest: str, *ids: str) -> None:
    """Submit jobs, one after the other."""
    for id in ids:
        try:
            print(store.add_job(job(id, digest), 1.0))
        except Duplicate:
            print("Duplicate")


def change(store: Store, who: str, *ids: str) -> None:
    """Take jobs out of the queue, one after the other."""
    for id in ids:
        print(store.change(id, expect=["QUEUED"], now=2.0, state="PREPARING", reason=who))


def mix(store: Store, shared: str, who: str, rounds: str) -> None:
    """All kinds of writing, to a job that others write to as well, and to jobs of its own."""
    for k in range(int(rounds)):
        store.record(shared, 1, [(k, f"metric {who}", float(k), who)], 3.0, {who: k})
        store.add_job(job(f"{who}-{k}"), 3.0)
        store.change(shared, expect=None, now=3.0, event=True, reason=f"{who} {k}")
    print("done", flush=True)


def flood(store: Store, id: str, size: str) -> None:
    """Record until killed, and say when inside."""
    batch, first = int(size), int(store.positions(id, 1).get("next", 0))
    while True:
        points = [(step, name, math.sin(step), "") for step in range(first, first + batch) for name in ("loss", "lr")]
        first += batch
        print("begin", flush=True)
        store.record(id, 1, points, 4.0, {"next": first})
        print("end", flush=True)


if __name__ == "__main__":
    url, work, *arguments = sys.argv[1:]
    if "://" in url:
        import_module("psycopg2")  # takes long, and would spread a race
    print("ready", flush=True)
    sys.stdin.readline()
    with open_store(url) as opened:
        {"add": add, "change": change, "mix": mix, "flood": flood}[work](opened, *arguments)
