"""How long commands take, as multiples of a bare `python -c pass` in the same run. Budgets: DESIGN: help 5, status 8, translate 25.

uv run python benchmarks/commands.py [ROUNDS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.store import open_store

ROOT = Path(__file__).parents[1]
RECIPE = str(ROOT / "recipes" / "quickstart.yaml")
TUNE = (sys.executable, "-m", "orchestrator.cli")
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "tune --help": (*TUNE, "--help"),
    "tune status": (*TUNE, "status"),
    "tune translate": (*TUNE, "translate", RECIPE),
    "tune submit --dry-run": (*TUNE, "submit", RECIPE, "--dry-run"),
}
BUDGET = {"tune --help": 5, "tune status": 8, "tune translate": 25}


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each command, one of each a round, after a round that does not count."""
    with tempfile.TemporaryDirectory() as home:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
            "PYTHONPATH": str(ROOT),
            "TUNE_HOME": home,
        }
        open_store(f"{home}/store.db").close()
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for n in range(rounds + 1):
            for name, argv in COMMANDS.items():
                began = time.perf_counter()
                subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True)
                if n:
                    times[name].append(time.perf_counter() - began)
        return times


def main() -> None:
    times = measure(int(sys.argv[1]) if sys.argv[1:] else 9)
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':24} {'median ms':>10} {'min':>7} {'x bare':>7}  budget")
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"{name:24} {middle * 1e3:10.0f} {min(each) * 1e3:7.0f} {middle / bare:7.1f}  {BUDGET.get(name, '')}")


if __name__ == "__main__":
    main()
