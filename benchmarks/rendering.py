"""How fast the data step makes tokens of chat rows, beside the tokenizer alone, and how much memory that takes.

    python benchmarks/rendering.py [--rows 200000] [--steps 5 --of 1000000]

Run it in a trainer's interpreter (it needs tokenizers, jinja2 and numpy). Prints rows a second of `encode_batch` on the rendered texts
and of the whole data step on the file, in turns on the same cores, the largest resident memory of all its processes together, and how
long a run of a few steps over many rows takes to begin.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SHIMS = Path(__file__).parents[1] / "backends" / "shims"
MODEL = {"family": "llama", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 4, "kv_heads": 2}
MODEL |= {"head_dim": None, "max_length": 4096, "rope_theta": 10000.0, "norm_eps": 1e-5, "tied": False}
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
    "an",
    "they",
    "which",
]
ENCODE = """
import json, os, sys, time
os.environ["TOKENIZERS_PARALLELISM"] = "true"
from tokenizers import Tokenizer
bare, texts = Tokenizer.from_file(sys.argv[1]), [json.loads(line) for line in open(sys.argv[2])]
begun = time.perf_counter()
for at in range(0, len(texts), 1000):
    bare.encode_batch(texts[at : at + 1000], add_special_tokens=False)
print(time.perf_counter() - begun)
"""
TEXTS = """
import json, sys
import tune_data, tune_rows
from tune_files import found
from tune_reading import each
spec = tune_data.read_spec(sys.argv[1])
chat = tune_data.tokens_of(spec).chat
with open(sys.argv[2], "w") as out:
    for _, made in each(found(spec.train).files, lambda row: tune_rows.render(row, spec, chat)):
        out.write(json.dumps(made.text) + "\\n")
"""


def write(path: Path, rows: int) -> None:
    """Chats of one to three turns, a third of them with a system text: about 660 characters a row."""
    draw = random.Random(1)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words))

    with path.open("w") as file:
        for n in range(rows):
            said = [{"role": "system", "content": text(8)}] if n % 3 == 0 else []
            for _ in range(1 + n % 3):
                said += [{"role": "user", "content": f"{text(18)} {n}?"}, {"role": "assistant", "content": f"{text(44)}."}]
            file.write(json.dumps({"messages": said}) + "\n")


def memory(root: int, peak: list[int], over: threading.Event) -> None:
    """The largest proportional share of memory (PSS, kiB) of a process and its children, looked at ten times a second."""
    while not over.wait(0.1):
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                if int(stat.parent.name) == root or parent == root:
                    lines = (stat.parent / "smaps_rollup").read_text().splitlines()
                    total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            except (OSError, StopIteration):
                continue
        peak[0] = max(peak[0], total)


def step(folder: Path, **changes: object) -> tuple[float, float]:
    """Seconds and MiB of a data step."""
    spec = {"format": "chat", "max_length": 4096, "batch": 8, "tokenizer": "models/tiny-tokenizer", **changes}
    (folder / "data.json").write_text(json.dumps(spec))
    peak, over, begun = [0], threading.Event(), time.perf_counter()
    process = subprocess.Popen([sys.executable, "tune_data.py", "data.json"], cwd=folder, stdout=subprocess.DEVNULL)
    watcher = threading.Thread(target=memory, args=(process.pid, peak, over))
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - begun
    over.set()
    watcher.join()
    if code:
        raise SystemExit(code)
    shutil.rmtree(folder / "cache" / "data")
    return seconds, peak[0] / 1024


def main() -> None:
    """Measure and print."""
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rows", type=int, default=200_000)
    args.add_argument("--steps", type=int, default=5)
    args.add_argument("--of", type=int, default=1_000_000)
    args.add_argument("--rounds", type=int, default=3)
    wish = args.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for script in SHIMS.glob("tune_*.py"):
            shutil.copy(script, folder)
        spec = {"init": "random", "folder": "models/tiny", "seed": 0, "architecture": MODEL}
        (folder / "model.json").write_text(json.dumps(spec))
        subprocess.run([sys.executable, "tune_model.py", "model.json", "--tokenizer-only"], cwd=folder, check=True)
        write(folder / "rows.jsonl", wish.rows)
        size = (folder / "rows.jsonl").stat().st_size / 1e6
        spec = {"train": {"path": "rows.jsonl"}, "format": "chat", "max_length": 4096, "batch": 8, "epochs": 1}
        (folder / "texts.json").write_text(json.dumps(spec | {"tokenizer": "models/tiny-tokenizer"}))
        env = {**os.environ, "PYTHONPATH": str(folder)}
        subprocess.run([sys.executable, "-c", TEXTS, "texts.json", "texts.jsonl"], cwd=folder, env=env, check=True)
        shares = []
        for _ in range(wish.rounds):
            argv = [sys.executable, "-c", ENCODE, "models/tiny-tokenizer/tokenizer.json", "texts.jsonl"]
            alone = float(subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True).stdout)
            whole, used = step(folder, train={"path": "rows.jsonl"}, epochs=1)
            shares.append(alone / whole)
            print(
                f"{wish.rows:,} rows, {size:.0f} MB: encode_batch {alone:.1f} s, data step {whole:.1f} s ({shares[-1]:.2f} x), {used:.0f} MiB"
            )
        write(folder / "many.jsonl", wish.of)
        seconds, used = step(folder, train={"path": "many.jsonl"}, steps=wish.steps)
        print(f"{wish.steps} steps over {wish.of:,} rows: {seconds:.1f} s, {used:.0f} MiB")
        print(f"CPU of all processes: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s")


if __name__ == "__main__":
    main()
