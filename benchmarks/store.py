"""How fast the store is: `python benchmarks/store.py [--postgres URL]`. Figures of one machine at one moment, no verdict."""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.store import NewJob, Store, open_store

ROOT = Path(__file__).parents[1]
JOBS, POINTS = 10_000, 100_000


def milliseconds(work: Callable[[], object], times: int = 9) -> str:
    """Median and best."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        taken.append((time.perf_counter() - start) * 1000)
        del result  # its end is not the work's
    return f"{sorted(taken)[times // 2]:8.1f} ms   (best {min(taken):.1f})"


def python(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def fill(store: Store) -> None:
    """Jobs with requests of 8 KB, labels, and something seen."""
    start = time.perf_counter()
    for n in range(JOBS):
        job = NewJob(f"{n:05}-{random.getrandbits(40):010x}", f"run {n % 50}", "litgpt", "local", "d", "x" * 8192)
        store.add_job(job._replace(labels={"team": "a"}, planned_steps=100), float(n))
    print(f"  submit a job, one by one                {JOBS / (time.perf_counter() - start):8.0f} a second")
    start = time.perf_counter()
    jobs = store.jobs(limit=1000)
    for job in jobs:
        store.change(job.id, expect=["QUEUED"], attempt=1, now=1.0, state="RUNNING", started=1.0)
    print(f"  change a state, one by one              {len(jobs) / (time.perf_counter() - start):8.0f} a second")


def write(store: Store, id: str, batch: int, total: int) -> None:
    start = time.perf_counter()
    for first in range(0, total, batch):
        store.record(id, 1, [(step, "loss", step / 7, "l") for step in range(first, first + batch)], 2.0, {"log": [first, "x"]})
    print(f"  record points, {batch:6} a commit          {total / (time.perf_counter() - start):8.0f} a second")


def hundred(store: Store) -> None:
    """100 jobs that report 100 points a second each, looked at once a second."""
    ids = [job.id for job in store.jobs(limit=200)[100:]]

    def second() -> None:
        step = random.getrandbits(40)
        for id in ids:
            points = [(step + k, name, 1.0, "") for k in range(10) for name in "abcdefghij"]
            store.record(id, 1, points, 2.0, {"log": [step, "x"]})

    print(f"  one second of 100 jobs x 100 points     {milliseconds(second)}")


def measure(url: str) -> None:
    with open_store(url) as store:
        fill(store)
        ids = [job.id for job in store.jobs(limit=3)]
        for id, batch, total in zip(ids, (1, 100, 10_000), (5_000, 100_000, POINTS * 4), strict=True):
            write(store, id, batch, total)
        hundred(store)
        print(f"  read {POINTS} points back             {milliseconds(lambda: store.points(ids[1]))}")
        print(f"  list {JOBS} jobs                       {milliseconds(store.jobs)}")
        print(f"  list 20 jobs                           {milliseconds(lambda: store.jobs(limit=20))}")
        print(f"  active(), {JOBS} of them               {milliseconds(store.active)}")
        print(f"  find by prefix in {JOBS}               {milliseconds(lambda: store.find('00042'))}")
    print(f"  open and close                         {milliseconds(lambda: open_store(url).close())}")
    listing = f"from orchestrator.store import open_store\nwith open_store({url!r}) as s: s.jobs()"
    print(f"  python: import, open, list {JOBS}      {milliseconds(python(listing))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", metavar="URL", help="of an empty database to measure as well")
    postgres = parser.parse_args().postgres
    print(f"  python -c pass                         {milliseconds(python('pass'))}")
    print(f"  python -c 'import orchestrator.store'  {milliseconds(python('import orchestrator.store'))}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "home" / "store.db"
        print("SQLite")
        measure(str(path))
        print(f"  size of the file                       {path.stat().st_size / 1e6:8.1f} MB")
    if postgres:
        print("PostgreSQL")
        measure(postgres)


if __name__ == "__main__":
    main()
