"""The shim that reads a program's output: lines of any length cost what their bytes cost."""

import json
import subprocess
import sys
from pathlib import Path

import backends

SHIM = Path(backends.__file__).parent / "shims" / "tune_lines.py"


def run(folder: Path, program: str) -> tuple[list[dict], bytes]:
    """What is found in the output of a shell program, and that output as it goes on."""
    argv = [sys.executable, SHIM, r"step (?P<step>\d+) loss (?P<loss>[\d.]+)", folder / "out.jsonl", "sh", "-c", program]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=300)
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()], done.stdout


def test_a_line_of_sixty_megabytes_holds_nothing_up(tmp_path):
    """Steps before and after a line of 60 MB and a redrawn one are found, and every byte goes on: once it took the square of that."""
    long = "head -c 60000000 /dev/zero | tr '\\0' x"
    found, output = run(
        tmp_path, f"echo step 1 loss 0.5; {long}; echo; printf 'step 2 loss 0.4\\rstep 3 loss 0.3\\n'; echo step 4 loss 0.2"
    )
    assert [each["step"] for each in found] == [1, 2, 3, 4]
    assert len(output) == 60_000_000 + len("step 1 loss 0.5\n") * 4 + 1


def test_the_beginning_of_a_long_line_counts(tmp_path):
    """Of a long line the beginning is looked at, in whatever pieces it comes; what lies far behind is not."""
    found, _ = run(
        tmp_path, "printf 'step 1 '; sleep 0.2; printf 'loss 0.5 '; head -c 50000 /dev/zero | tr '\\0' x; echo step 9 loss 9"
    )
    assert found == [{"step": 1, "loss": 0.5}]
