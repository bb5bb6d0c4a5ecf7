"""How fast jobs start, end and follow one another on this machine, beside a plain `subprocess` in the same run.

    uv run python benchmarks/submit.py [JOBS]

The jobs are `/bin/true` given as plans, so that what is measured is tune itself: the controller, the runner, the store.
With TUNE_HOME naming a state folder whose environments are built, `tune submit recipes/quickstart.yaml` is timed too, from
the command's start to the start of the trainer's process. Budgets (DESIGN): submit 400 ms, of it controller and runner
100 ms; a finished job noticed within 300 ms; 30 trivial jobs a second.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backends.plan import Environment, Plan, Promise, Step
from orchestrator.client.submit import enqueue
from orchestrator.home import Home
from orchestrator.store import open_store
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node

ROOT = Path(__file__).parents[1]


def trivial(script: str) -> Plan:
    """A plan of one shell step."""
    reading = {"every": 1, "first_lr": 0.0, "accumulation": 1}
    step = Step("train", ("/bin/sh", "-c", script))
    return Plan("trivial", "litgpt", Environment("litgpt", "/bin/sh"), (), (step,), (), (), (), Promise(None, ()), (), reading)


def here(slots: int, name: str = "local") -> Candidate:
    """This machine, with room for so many jobs at once."""
    return Candidate.of(name, "local", [Node("local", slots)])


def ended(home: Home, ids: set[str]) -> float:
    """Seconds since the epoch at which the store first shows all these jobs ended."""
    with open_store(home.store) as store:
        while any(job.ended is None for job in store.jobs(ids=ids)):
            time.sleep(0.002)
        return time.time()


def one(home: Home, n: int) -> tuple[float, float]:
    """Seconds from handing a job over to its process running, and from its end to the store knowing it."""
    id = f"one-{n}"
    stamp = home.path / f"{id}.stamp"
    began = time.time()
    enqueue(home, id, trivial(f"date +%s.%N > {stamp}; sleep 0.3; date +%s.%N >> {stamp}"), [here(1)], {}, 0)
    known = ended(home, {id})
    started, finished = map(float, stamp.read_text().split())
    return started - began, known - finished


def many(home: Home, count: int, slots: int) -> float:
    """Trivial jobs a second, from the first hand-over to the last end."""
    began = time.time()
    ids = {f"many-{n}" for n in range(count)}
    for id in sorted(ids):
        enqueue(home, id, trivial("true"), [here(slots, "wide")], {}, 0)
    return count / (ended(home, ids) - began)


def plain(count: int) -> float:
    """Milliseconds of `/bin/true` by subprocess."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        subprocess.run(["/bin/true"], check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def real() -> str:
    """The whole command, with environment and caches ready: from its start to the trainer's start."""
    home = Home.find()
    if not any(home.envs.glob("litgpt-*/.ready")):
        return "not measured: TUNE_HOME names no state folder with LitGPT's environment"
    times = []
    for _ in range(4):
        began = time.time()
        words = ("submit", str(ROOT / "recipes" / "quickstart.yaml"), "--to", "litgpt", "--set", "train.steps=11")
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        id = done.stdout.strip()
        ended(home, {id})
        history = json.loads((home.jobs / id / "1" / "exit.json").read_text())["history"]
        times.append(next(step for step in history if step["step"] == "train")["step_started"] - began)
    return f"{statistics.median(times[1:]) * 1e3:.0f} ms (after one that fills the caches; of it 3 preparing steps)"


def main() -> None:
    count = int(sys.argv[1]) if sys.argv[1:] else 100
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Home(Path(folder) / "home").make()
        first = one(home, 0)
        pairs = [one(home, n) for n in range(1, 8)]
        print(f"plain subprocess of /bin/true           {plain(50):8.1f} ms")
        print(f"hand over -> running, new controller    {first[0] * 1e3:8.0f} ms")
        print(f"hand over -> running, controller there  {statistics.median(p[0] for p in pairs) * 1e3:8.0f} ms")
        print(f"end -> known                            {statistics.median(p[1] for p in pairs) * 1e3:8.0f} ms")
        for slots in (1, 4, 16):
            print(
                f"{count} trivial jobs, {slots:2} at a time         {many(Home(Path(folder) / f'h{slots}').make(), count, slots):8.1f} a second"
            )
    print(f"tune submit -> trainer's process        {real()}")


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
