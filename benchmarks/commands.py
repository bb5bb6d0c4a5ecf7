"""How long commands take, as multiples of a bare `python -c pass` in the same run, and a plan in process.

Budgets: help 5, status 8, translate 20, with one trainer 12, a dry run 12 times; recipe -> plan 1 ms, median.

uv run python benchmarks/commands.py [ROUNDS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backends.backend import Backend, Inexpressible
from backends.compile import plan
from backends.recipe.parse import parse
from backends.recipe.schema import Recipe
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.store import open_store

ROOT = Path(__file__).parents[1]
RECIPE = str(ROOT / "recipes" / "quickstart.yaml")
TUNE = (sys.executable, "-m", "orchestrator.cli")
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "tune --help": (*TUNE, "--help"),
    "tune status": (*TUNE, "status"),
    "tune translate": (*TUNE, "translate", RECIPE),
    "tune translate --to litgpt": (*TUNE, "translate", RECIPE, "--to", "litgpt"),
    "tune submit --dry-run": (*TUNE, "submit", RECIPE, "--dry-run"),
}
BUDGET = {"tune --help": 5, "tune status": 8, "tune translate": 20, "tune translate --to litgpt": 12, "tune submit --dry-run": 12}


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
                done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
                if n:
                    times[name].append(time.perf_counter() - began)
                if done.returncode:
                    raise SystemExit(f"{name}: {done.stderr}")
        return times


def planning(rounds: int = 21) -> dict[str, list[float]]:
    """Milliseconds from recipe to plan, the median of each recipe of the library that a trainer can express."""
    recipes = [parse(path.read_text(), base="/nowhere") for path in sorted((ROOT / "recipes").rglob("*.yaml"))]
    return {
        name: [statistics.median(timed(backend, recipe) for _ in range(rounds)) for recipe in recipes if able(backend, recipe)]
        for name, backend in BACKENDS.items()
    }


def able(backend: Backend, recipe: Recipe) -> bool:
    """Whether the trainer can express the recipe. Reads its table on the way, which happens once a process."""
    try:
        plan(backend, recipe, wanted(recipe))
    except Inexpressible:
        return False
    return True


def timed(backend: Backend, recipe: Recipe) -> float:
    """Milliseconds of one plan."""
    target = wanted(recipe)
    began = time.perf_counter()
    plan(backend, recipe, target)
    return (time.perf_counter() - began) * 1e3


def wanted(recipe: Recipe) -> Target:
    """A machine such as the recipe asks for."""
    asked = recipe.resources
    return Target("there", "cuda" if asked.accelerator == "any" else asked.accelerator, asked.devices, hosts=asked.hosts)


def main() -> None:
    times = measure(int(sys.argv[1]) if sys.argv[1:] else 9)
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':26} {'median ms':>10} {'min':>7} {'x bare':>7}  budget")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:26} {middle * 1e3:10.0f} {min(seconds) * 1e3:7.0f} {middle / bare:7.1f}  {BUDGET.get(name, '')}")
    for name, each in planning().items():
        if each:
            middle, worst = statistics.median(each), max(each)
            print(f"recipe -> plan, {name:9} {middle:6.2f} ms median of {len(each)} recipes, {worst:.2f} the slowest (budget 1)")


if __name__ == "__main__":
    main()
