"""How the controller's work grows with the number of queued jobs: figures for each size, and the exponents of their growth.

    uv run python benchmarks/growth.py [--sizes 100 1000 10000] [--slots 16] [--widths 1 4 16] [--ends 200]

The jobs are `true`, given as plans, so that what is measured is tune itself. For each size, in a fresh state folder:
the jobs ended a second and the controller's CPU for each of them (the first `--ends` of the queue); with all slots held by jobs that
sleep, the share of a core that the controller takes in 10 s, and `tune wait` with the names of all jobs; then `tune status --json`
and `tune cancel --all-of`, in seconds of the clock and, for status, of its own CPU. An exponent of 0 means that the number of queued
jobs does not matter, 1 that twice the jobs take twice the time. At last the rate by the number of slots, beside that of the first.

The CPU is what can be compared on a machine that is busy with other things; a rate of the clock only with others of one run.
TUNE_STORE measures PostgreSQL; all jobs of the benchmark are then in that database, so give it one of its own.
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
from pathlib import Path

from backends.plan import Environment, Plan, Promise, Step
from orchestrator.daemon.client import BOOT, wake
from orchestrator.home import Home
from orchestrator.store import NewJob, open_store
from orchestrator.store.requests import JobRequest
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node

ROOT = Path(__file__).parents[1]
IDLE = 10.0


def queue(home: Home, prefix: str, count: int, script: str, slots: int) -> None:
    """Queue jobs of one shell step, without waking anything."""
    reading = {"every": 1, "first_lr": 0.0, "accumulation": 1}
    step = Step("train", ("/bin/sh", "-c", script))
    environment = Environment("litgpt", "/bin/sh")
    plan = Plan("growth", "litgpt", environment, (), (step,), (), (), (), Promise(None, ()), (), reading)
    request = JobRequest(plan, (Candidate.of("local", "local", [Node("local", slots)]),))
    packed, lane = request.packed(), request.lane
    with open_store(home.store) as store:
        for n in range(count):
            store.add_job(NewJob(f"{prefix}-{n:05}", "growth", "litgpt", "local", "d", packed, lane=lane), time.time())


def controller(home: Home) -> int:
    """Pid of the one that has the lock, once it is there."""
    while True:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if BOOT.encode() in argv and os.fsencode(home.path) in argv:
                    return int(entry.name)
        time.sleep(0.01)


def cpu(pid: int) -> float:
    """Seconds that a process has taken so far, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds(home: Home, *args: str) -> float:
    """Of one command."""
    env = {**os.environ, "TUNE_HOME": str(home.path), "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "orchestrator.cli", *args], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def states(home: Home, state: str, prefix: str) -> int:
    """How many jobs whose ids begin so are in a state."""
    with open_store(home.store) as store:
        found = store._database.read("SELECT count(*) FROM jobs WHERE state = ? AND id LIKE ?", (state, f"{prefix}-%"))
        return found[0][0]


def drain(folder: Path, size: int, slots: int, ends: int) -> tuple[float, float]:
    """Jobs ended a second, and milliseconds of the controller's CPU for each, at the head of a queue."""
    home = Home(folder / f"drain-{size}").make()
    queue(home, f"d{size}", size, "true", slots)
    wake(home)
    pid = controller(home)
    while states(home, "FAILED", f"d{size}") == 0:  # a job that trains nothing is no success
        time.sleep(0.01)
    first, began, spent = states(home, "FAILED", f"d{size}"), time.monotonic(), cpu(pid)
    while (ended := states(home, "FAILED", f"d{size}")) < min(size, ends + first):
        time.sleep(0.05)
    done = ended - first
    out = done / (time.monotonic() - began), (cpu(pid) - spent) / done * 1e3
    os.kill(pid, signal.SIGKILL)
    return out


def waiting(home: Home, ids: Sequence[str]) -> float:
    """Percent of a core that `tune wait` takes with these names, once it has looked them up."""
    env = {**os.environ, "TUNE_HOME": str(home.path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "orchestrator.cli", "wait", *ids], env=env, stdout=subprocess.DEVNULL)
    time.sleep(5)
    spent = cpu(process.pid)
    time.sleep(IDLE)
    share = (cpu(process.pid) - spent) / IDLE * 100
    process.kill()
    process.wait()
    return share


def own_cpu(home: Home, *args: str) -> float:
    """Seconds of CPU of one command."""
    before = os.times()
    seconds(home, *args)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def idle(folder: Path, size: int, slots: int) -> tuple[float, ...]:
    """Percent of a core that a controller and a `tune wait` take with nothing to do, milliseconds of `tune status` and of its CPU,
    seconds of `tune cancel --all-of`.
    """
    home = Home(folder / f"idle-{size}").make()
    queue(home, f"s{size}", slots, "sleep 1000", slots)
    queue(home, f"i{size}", size, "true", slots)
    wake(home)
    pid = controller(home)
    while states(home, "RUNNING", f"s{size}") < slots:
        time.sleep(0.05)
    time.sleep(2)
    spent = cpu(pid)
    time.sleep(IDLE)
    share = (cpu(pid) - spent) / IDLE * 100
    waits = waiting(home, [f"i{size}-{n:05}" for n in range(size)])
    status = min(seconds(home, "status", "--json") for _ in range(3)) * 1e3
    spent = min(own_cpu(home, "status", "--json") for _ in range(3)) * 1e3
    return share, waits, status, spent, seconds(home, "cancel", "--all-of", "growth")


def widths(folder: Path, slots: Sequence[int], ends: int) -> None:
    """The rate with so many slots."""
    first = 0.0
    for number in slots:
        rate, spent = drain(folder / f"width-{number}", ends + 2 * number + 20, number, ends)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--widths", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--ends", type=int, default=200)
    args = parser.parse_args()
    heads = ("queued", "ended/s", "CPU ms/job", "idle %", "wait %", "status ms", "its CPU ms", "cancel s")
    print("".join(f"{head:>12}" for head in heads))
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for size in args.sizes:
            rows.append((*drain(Path(folder), size, args.slots, args.ends), *idle(Path(folder), size, args.slots)))
            print(f"{size:12}" + "".join(f"{value:12.2f}" for value in rows[-1]), flush=True)
        if len(rows) > 1:
            print(f"{'exponent':>12}" + "".join(f"{exponent(args.sizes, column):12.2f}" for column in zip(*rows, strict=True)))
        widths(Path(folder), args.widths, args.ends)


if __name__ == "__main__":
    main()
