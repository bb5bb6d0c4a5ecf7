"""One GPU: a job whose micro-batch is too large for the card, with `retry.oom: {micro: halve}`, beside the same with one that fits.

    python benchmarks/out_of_memory.py [--pythons pythons.json] [--to trl] [--seconds 300] [--out OUT]

A random model in fp32 (8 layers of width 1024, Llama 3's vocabulary), 64 rows of 2048 tokens a step, all at once at first: the logits alone take 67 GB and
are held several times. What is printed: each attempt's end and micro-batch, the state at the end, and how far the losses are from those of the
job that began with 8 rows at once. With several GPUs both jobs run side by side.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

from homes import Home, Json, Late  # noqa: E402

SHAPE = {"vocab_size": 128256, "hidden_size": 1024, "intermediate_size": 2816, "layers": 8, "heads": 16, "kv_heads": 8}


def recipe(micro: int) -> Json:
    """Rows that fill the length."""
    facts = {**SHAPE, "max_length": 2048, "rope_theta": 500000.0, "tied": True}
    return {
        "version": 1,
        "name": "out-of-memory",
        "model": {"id": "shape", "init": "random", "architecture": facts},
        "method": {"adapter": "none"},
        "data": {"train": "rows.jsonl", "format": "text", "max_length": 2048},
        "train": {"steps": 3, "batch": {"global": 64, "micro": micro}, "precision": "fp32", "compile": False},
        "optim": {"lr": 1e-4, "weight_decay": 0.0, "warmup_steps": 1},
        "retry": {"oom": {"micro": "halve"}},
    }


def main() -> int:
    """0 when the job succeeded after it ran out of memory, with the other's losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", type=Path, help="a JSON object: trainer -> interpreter")
    parser.add_argument("--to", default="trl")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    target: Json = {"kind": "local", "accelerator": "cuda", "devices": args.devices}
    if args.pythons:
        target["python"] = json.loads(args.pythons.read_text())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Home(Path(folder) / "oom", target, time.monotonic() + args.seconds, args.out.absolute())
        draws = random.Random(0)
        texts = ("".join(draws.choices(string.ascii_letters + " ", k=2100)) for _ in range(192))
        (home.folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        found: Json = {"trainer": args.to}
        try:
            home.submit("small", recipe(8), args.to)
            home.submit("halved", recipe(64), args.to)
            status = {name: home.ended(name) for name in ("small", "halved")}
            losses = {name: home.points(name).get("loss", []) for name in status}
            found |= {"states": {name: each["state"] for name, each in status.items()}, "losses": losses}
            found |= {"attempts": status["halved"]["attempt"], "detail": status["halved"]["detail"]}
            found["apart"] = max((abs(a - b) for a, b in zip(losses["small"], losses["halved"], strict=True)), default=None)
            found["events"] = home.tune("report", "halved", check=False)[:6000]
        except (Late, RuntimeError, ValueError) as error:
            found["why"] = f"{type(error).__name__}: {error}"[-1500:]
        finally:
            home.close()
    (args.out / "out_of_memory.json").write_text(json.dumps(found))
    print(json.dumps({key: value for key, value in found.items() if key != "events"}), flush=True)
    good = set(found.get("states", {"": ""}).values()) == {"SUCCEEDED"} and found["attempts"] > 1
    return 0 if good and (found["apart"] or 0.0) < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
