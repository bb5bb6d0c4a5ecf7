"""How fast configs become recipes, beside a bare interpreter in the same run.

    uv run python benchmarks/importing.py

All 156 configs of torchtune 0.6.1 in one process; the wheel is fetched from the package registry by pip unless it is in the state
folder that TUNE_TEST_HOME names. Budget (issue "Import"): 3 s for all of them.
"""

import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 5

ALL = """
import pickle, sys, time
start = time.perf_counter()
from backends.dialect import Refused
from backends.importing.convert import convert
from backends.native_config import Unreadable
loaded = time.perf_counter()
files, made = pickle.load(sys.stdin.buffer), 0
began = time.perf_counter()
for name, text in files.items():
    try:
        convert(text, name=name)
        made += 1
    except (Refused, Unreadable):
        pass
print(made, loaded - start, time.perf_counter() - began)
"""


def configs() -> dict[str, str]:
    """torchtune's own, by path."""
    from tests.unit.importing.conftest import _packaged  # noqa: PLC0415  # the tests' folder is no package of ours

    with tempfile.TemporaryDirectory() as empty:
        home = Path(os.environ.get("TUNE_TEST_HOME", empty))
        files: dict[str, str] = _packaged("torchtune", home / "cache" / "corpora").files
        return files


def timed(argv: list[str], given: bytes = b"") -> tuple[float, str]:
    """Milliseconds of a program from its start to its end, and what it prints."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *argv], input=given, cwd=ROOT, capture_output=True, check=True)
    return (time.perf_counter() - began) * 1e3, done.stdout.decode()


def main() -> None:
    files = configs()
    given = pickle.dumps(files)
    bare = statistics.median(timed(["-c", "pass"])[0] for _ in range(ROUNDS))
    runs = [timed(["-c", ALL], given) for _ in range(ROUNDS)]
    whole = statistics.median(each for each, _ in runs)
    made, loading, converting = zip(*(map(float, said.split()) for _, said in runs), strict=True)
    print(f"bare interpreter                        {bare:8.0f} ms")
    print(f"{len(files)} configs of torchtune, the process   {whole:8.0f} ms, {whole / bare:.0f} x bare")
    print(f"  loading the importer                  {statistics.median(loading) * 1e3:8.0f} ms")
    print(f"  reading them: {made[0]:.0f} recipes             {statistics.median(converting) * 1e3:8.0f} ms")
    print(f"  each                                  {statistics.median(converting) * 1e3 / len(files):8.1f} ms")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
