"""How the controller's work grows with the number of queued jobs: figures for each size and store, and the exponents of their growth.

    uv run python benchmarks/growth.py [--stores sqlite postgres] [--sizes 100 1000 10000] [--slots 16] [--ends 200] [--whole]

The jobs are `true`, given as plans, so that what is measured is tune itself. Each figure has a fresh state folder, and in PostgreSQL
(Debian's, a server of its own, which waits for the disk) a fresh database.

    first/s, last/s   jobs ended a second: the first `--ends` of the queue, and the last ones, when all between them have ended (they are
                      cancelled; with `--whole` they run, which takes minutes), and milliseconds of the controller's CPU for each
    idle %            of a core that the controller takes with all slots held by jobs that sleep, while a third of the queue waits for a
                      slot, a third is held, a third waits for another job (`--after`); and that `tune wait` with all their names takes
    status, json ms   `tune status` and `tune status --json`: seconds of the clock, and of their own CPU; the best of three
    cancel s          `tune cancel --all-of`: of the clock, and of the CPU of it and the controller together

An exponent of 0 means that the number of queued jobs does not matter, 1 that twice the jobs take twice the time. At last the rate by
the number of slots, beside that of the first. On a machine that is busy with other things the CPU can be compared; a rate of the
clock only with others of one run.
"""

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from backends.plan import Environment, Plan, Promise, Step
from orchestrator.daemon.client import BOOT, wake
from orchestrator.home import Home
from orchestrator.store import NewJob, Store, open_store
from orchestrator.store.dependencies import AFTER, Dependency
from orchestrator.store.requests import JobRequest
from orchestrator.store.rows import HELD, held
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from tests.postgres_server import database, running
from tests.processes import pids_of

ROOT = Path(__file__).parents[1]
IDLE = 6.0
NUMBER = count()


def fresh(folder: Path, server: str) -> Home:
    """A new state folder, and where there is a server a new database for it."""
    if server:
        os.environ["TUNE_STORE"] = database(server)
    return Home(folder / f"growth{next(NUMBER)}").make()


def opened(home: Home) -> Store:
    return open_store(home.store, home.owner)


def queue(home: Home, prefix: str, number: int, script: str, slots: int, behind: str = "") -> list[str]:
    """Queue jobs of one shell step, without waking anything; their ids. With a job to wait `behind`, a third each waits so, is held,
    and waits for a slot.
    """
    reading = {"every": 1, "first_lr": 0.0, "accumulation": 1}
    step = Step("train", ("/bin/sh", "-c", script))
    environment = Environment("litgpt", "/bin/sh")
    plan = Plan("growth", "litgpt", environment, (), (step,), (), (), (), Promise(None, ()), (), reading)
    request = JobRequest(plan, (Candidate.of("local", "local", [Node("local", slots)]),))
    packed, lane = request.packed(), request.lane
    jobs = []
    for n in range(number):
        job = NewJob(f"{prefix}-{n:05}", "growth", "litgpt", "local", "d", packed, lane=lane)
        if behind and n % 3 == 1:
            job = job._replace(not_before=HELD, detail=held(job.id))
        if behind and n % 3 == 2:
            job = job._replace(not_before=AFTER, detail=f"waits for {behind} to end", after=(Dependency(behind, "ended"),))
        jobs.append(job)
    with opened(home) as store:
        store.add_jobs(jobs, time.time())
    return [job.id for job in jobs]


def controller(home: Home) -> int:
    """Pid of the one that has the lock, once it is there."""
    while True:
        if found := pids_of(home.path, BOOT):
            return found[0]
        time.sleep(0.01)


def cpu(pid: int) -> float:
    """Seconds that a process has taken so far, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command(home: Home, *args: str) -> tuple[float, float]:
    """Seconds of one command, and of its CPU."""
    before, began = os.times(), time.perf_counter()
    env = {**os.environ, "TUNE_HOME": str(home.path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "orchestrator.cli", *args], env=env, check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, os.times()
    return took, after.children_user + after.children_system - before.children_user - before.children_system


def states(store: Store, state: str, prefix: str) -> int:
    """How many jobs whose ids begin so are in a state."""
    found = store._database.read("SELECT count(*) FROM jobs WHERE state = ? AND id LIKE ?", (state, f"{prefix}-%"))
    return int(found[0][0])


def ending(store: Store, pid: int, prefix: str, until: int) -> tuple[float, float]:
    """Jobs ended a second, and milliseconds of the controller's CPU for each, until so many have ended."""
    first, began, spent = states(store, "FAILED", prefix), time.monotonic(), cpu(pid)
    while (ended := states(store, "FAILED", prefix)) < until:
        time.sleep(0.05)
    done = max(ended - first, 1)
    return done / (time.monotonic() - began), (cpu(pid) - spent) / done * 1e3


def drain(home: Home, size: int, slots: int, ends: int, *, whole: bool = False) -> tuple[float, ...]:
    """The rate and the CPU at the head of a queue, and at its end."""
    ids = queue(home, "d", size, "true", slots)
    wake(home)
    pid, part = controller(home), min(ends, size // 2)
    with opened(home) as store:
        while not states(store, "FAILED", "d"):  # a job that trains nothing is no success
            time.sleep(0.01)
        head = ending(store, pid, "d", part)
        if not whole and size > 2 * part:
            store.ask_all(ids[part + 4 * slots : size - part], "cancel")
            wake(home)
            while states(store, "CANCELLED", "d") < size - 2 * part - 4 * slots:
                time.sleep(0.05)
        else:
            ending(store, pid, "d", size - part)
        left = size - states(store, "CANCELLED", "d")
        tail = ending(store, pid, "d", left)
    os.kill(pid, signal.SIGKILL)
    return *head, *tail


def idle(home: Home, size: int, slots: int) -> tuple[float, ...]:
    """Of a controller with nothing to do and of the commands beside it, as at the top."""
    queue(home, "s", slots, "sleep 1000", slots)
    ids = queue(home, "i", size, "true", slots, behind="s-00000")
    wake(home)
    pid = controller(home)
    with opened(home) as store:
        while states(store, "RUNNING", "s") < slots:
            time.sleep(0.05)
    env = {**os.environ, "TUNE_HOME": str(home.path), "PYTHONPATH": str(ROOT)}
    waits = subprocess.Popen([sys.executable, "-m", "orchestrator.cli", "wait", *ids], env=env, stdout=subprocess.DEVNULL)
    time.sleep(5)
    spent = cpu(pid), cpu(waits.pid)
    time.sleep(IDLE)
    shares = [(cpu(each) - before) / IDLE * 100 for each, before in zip((pid, waits.pid), spent, strict=True)]
    waits.kill()
    waits.wait()
    looks = [min(command(home, "status", *words) for _ in range(3)) for words in ((), ("--json",))]
    before = cpu(pid)
    took, own = command(home, "cancel", "--all-of", "growth")
    return *shares, *(1e3 * each for look in looks for each in look), took, own + cpu(pid) - before


def widths(folder: Path, slots: Sequence[int], ends: int) -> None:
    """The rate with so many slots."""
    first = 0.0
    for number in slots:
        rate, spent = drain(fresh(folder, ""), 2 * ends, number, ends)[:2]
        first = first or rate
        print(
            f"{number:4} slots {rate:8.2f} ended/s, {rate / first:.2f} x the first, {spent:.2f} ms of the controller's CPU each",
            flush=True,
        )


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Slope of the line through the points, both on logarithmic scales."""
    x, y = [math.log(size) for size in sizes], [math.log(max(value, 1e-6)) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


HEADS = ("queued", "first/s", "CPU ms", "last/s", "CPU ms", "idle %", "wait %")
HEADS += ("status ms", "its CPU", "json ms", "its CPU", "cancel s", "its CPU s")


def table(folder: Path, server: str, args: argparse.Namespace) -> None:
    """All sizes in one store, and the exponents."""
    print(f"{'PostgreSQL' if server else 'SQLite'}\n" + "".join(f"{head:>10}" for head in HEADS), flush=True)
    rows = []
    for size in args.sizes:
        rates = drain(fresh(folder, server), size, args.slots, args.ends, whole=args.whole)
        rows.append((*rates, *idle(fresh(folder, server), size, args.slots)))
        print(f"{size:10}" + "".join(f"{value:10.2f}" for value in rows[-1]), flush=True)
    if len(rows) > 1:
        print(f"{'exponent':>10}" + "".join(f"{exponent(args.sizes, column):10.2f}" for column in zip(*rows, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--widths", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--ends", type=int, default=200)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):  # its server and controllers end with it
        signal.signal(number, lambda *_: sys.exit(1))
    os.environ.pop("TUNE_STORE", None)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"  # as an installation has it
        if "sqlite" in args.stores:
            table(Path(folder), "", args)
            widths(Path(folder), args.widths, args.ends // 2)
        if "postgres" in args.stores:
            with running("") as server:
                table(Path(folder), server, args)


if __name__ == "__main__":
    main()
