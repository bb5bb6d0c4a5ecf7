"""Which worker gets which file: all cores train while there is something to train, and somebody does what mostly waits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distribution import following

ROOT = Path(__file__).parents[2]
TRAINS, OTHER = "tests/conformance/test_a.py", "tests/unit/test_b.py"


@pytest.mark.parametrize(
    ("files", "training", "chosen"),
    [
        ([TRAINS, OTHER], 0, TRAINS),
        ([TRAINS, OTHER], 1, TRAINS),
        ([OTHER, TRAINS], 1, TRAINS),
        ([TRAINS, OTHER], 2, OTHER),
        ([TRAINS, OTHER], 3, OTHER),
        ([TRAINS, "tests/truth/test_c.py"], 2, TRAINS),
        ([OTHER, "tests/faults/test_d.py"], 0, OTHER),
    ],
)
def test_the_next_file(files, training, chosen):
    """Of two cores both train; a third worker gets what does not, or what is left."""
    assert following(files, training, 2) == chosen


CONFTEST = """
import os
from pathlib import Path
import pytest
from tests.distribution import Distribution

def pytest_xdist_make_scheduler(config, log):
    return Distribution(config, log)

@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if report.when == "call" and "PYTEST_XDIST_WORKER" in os.environ:
        with Path("ran").open("a") as file:
            file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {report.nodeid}\\n")
"""


def test_every_test_is_run_once(tmp_path):
    """Three workers and files of both kinds: each file is one worker's, and nothing is left out or run twice."""
    files = [f"tests/{room}/test_{n}.py" for room in ("conformance", "truth", "unit") for n in range(3)]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("".join(f"def test_{n}(): pass\n" for n in range(4)))
    (tmp_path / "conftest.py").write_text(CONFTEST)
    argv = [sys.executable, "-m", "pytest", "-q", "-n3", "--dist=loadfile", "--import-mode=importlib", "-c", "/dev/null"]
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*argv, "--rootdir=."], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "36 passed" in done.stdout, done.stdout + done.stderr
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert sorted(test for _, test in ran) == sorted(f"{file}::test_{n}" for file in files for n in range(4))
    assert len({(worker, test.partition("::")[0]) for worker, test in ran}) == len(files)
