"""How long it takes to count the weights that a run has changed, and what share of a run of 1,000 steps that is.

    python benchmarks/counting.py [--millions 48] [--parameters 1.236e9] [--step 0.478]

Needs numpy. Makes two folders of random weights in memory, counts the one against the other (backends/shims/tune_changed.py) and prints
nanoseconds of CPU an element, the seconds for so many parameters, and the share of 1,000 steps of so many seconds each. 0.478 is a step of
16 x 2,048 tokens over all weights of Llama 3.2 1B's shape on one H200, the fastest in docs/races.md.
"""

import argparse
import json
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "backends" / "shims"))
import tune_changed

WORDS = {"BF16": "<u2", "F32": "<f4"}


def main():
    """Print a line for each pair of kinds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--millions", type=int, default=48)
    parser.add_argument("--parameters", type=float, default=1.236e9)
    parser.add_argument("--step", type=float, default=0.478)
    args = parser.parse_args()
    count, rng = args.millions << 20, np.random.default_rng(0)
    before = rng.standard_normal(count, dtype="f4")
    after = before * (1 + 0.01 * rng.standard_normal(count, dtype="f4"))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        for kinds in (("BF16", "BF16"), ("BF16", "F32"), ("F32", "F32")):
            for part, values, kind in zip(("model", "out"), (before, after), kinds, strict=True):
                save(folder / part, values, kind)
            each = min(measured(folder) for _ in range(3)) / count
            whole = each * args.parameters
            share = whole / (1000 * args.step)
            print(f"{kinds[0]} to {kinds[1]}: {each * 1e9:.1f} ns an element, {whole:.1f} s in all, {share:.2%} of 1,000 steps")


def save(folder, values, kind):
    """A safetensors file of one tensor."""
    folder.mkdir(exist_ok=True)
    raw = (values.view("<u4") >> 16).astype("<u2") if kind == "BF16" else values
    header = json.dumps({"a.weight": {"dtype": kind, "shape": [values.size], "data_offsets": [0, raw.nbytes]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        raw.tofile(file)


def measured(folder):
    """Seconds of CPU of a count."""
    began = time.process_time()
    tune_changed.compared(str(folder / "model"), str(folder / "out"))
    return time.process_time() - began


if __name__ == "__main__":
    main()
