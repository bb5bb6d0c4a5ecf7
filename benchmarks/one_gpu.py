"""One GPU, every trainer: peaks of memory against what fit tells, the same job at each trainer's best, and all methods once.

    python benchmarks/one_gpu.py --pythons pythons.json --out OUT [--only peaks,speed,methods] [--seconds 560] [--tiny]

`--pythons` is a JSON object: trainer -> interpreter. An interpreter that imports gpu_hook.py at its start tells the allocator's peak by
itself; without it that column is empty. results.json in OUT has all figures, and a table is printed. `--tiny` is the same in small on a CPU.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Json = dict[str, Any]
"""A document."""
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from cells import Cell, Runner  # noqa: E402

LLAMA = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "heads": 32, "kv_heads": 8}
SMALL = {"vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 2816, "layers": 8, "heads": 16, "kv_heads": 8}
TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 176, "layers": 2, "heads": 4, "kv_heads": 2}
ALL = ["q", "k", "v", "o", "gate", "up", "down"]
KERNELS = {"lora_mlp_kernel": True, "lora_qkv_kernel": True, "lora_o_kernel": True}


def recipe(
    shape: dict[str, int],
    *,
    adapter: str = "lora",
    rows: str = "long.jsonl",
    length: int = 2048,
    batch: int = 8,
    micro: int | None = None,
    steps: int = 30,
    kind: str = "sft",
    train: Json | None = None,
    more: Json | None = None,
) -> Json:
    """A recipe of random weights."""
    form = {"long.jsonl": "text", "chat.jsonl": "chat", "pairs.jsonl": "preference"}[rows]
    method: Json = {"kind": kind, "adapter": adapter}
    if adapter != "none":
        method["lora"] = {"rank": 16, "alpha": 32, "targets": ALL}
    data: Json = {"train": rows, "format": form, "max_length": length}
    if form != "text":
        data["chat_template" if form == "chat" else "template"] = "chatml" if form == "chat" else None
    return {
        "version": 1,
        "name": "one-gpu",
        "model": {
            "id": "shape",
            "init": "random",
            "architecture": {**shape, "max_length": 8192, "rope_theta": 500000.0, "tied": True},
        },
        "method": method,
        "data": {name: value for name, value in data.items() if value is not None},
        "train": {"steps": steps, "batch": {"global": batch, "micro": micro or batch}, "precision": "bf16", **(train or {})},
        "optim": {"lr": 2e-4 if adapter != "none" else 2e-5, "weight_decay": 0.0, "warmup_steps": 2},
        **(more or {}),
    }


def peaks(shape: dict[str, int]) -> list[Cell]:
    """Trainings of which fit tells the peak: trainers x adapters x lengths x recomputation x compilation."""
    on, off, again = {"compile": True}, {"compile": False}, {"activation_checkpointing": True}
    table: list[tuple[str, str, int, int, Json]] = [
        ("torchtune", "none", 1024, 4, off | again),
        ("torchtune", "none", 2048, 2, on),
        ("torchtune", "lora", 2048, 4, on),
        ("torchtune", "lora", 4096, 1, on | again),
        ("torchtune", "lora", 1024, 4, off),
        ("torchtune", "qlora", 2048, 2, off),
        ("torchtune", "qlora", 1024, 4, off | again),
        ("torchtune", "qlora", 2048, 4, on),
        ("torchtune", "qlora", 2048, 2, on | again),
        ("litgpt", "none", 1024, 4, off),
        ("litgpt", "none", 2048, 2, on | again),
        ("litgpt", "lora", 2048, 4, on),
        ("litgpt", "lora", 1024, 4, off | again),
        ("litgpt", "qlora", 2048, 2, {}),
        ("axolotl", "none", 1024, 4, off),
        ("axolotl", "none", 2048, 2, off | again),
        ("axolotl", "lora", 2048, 4, off),
        ("axolotl", "lora", 4096, 1, off | again),
        ("axolotl", "qlora", 2048, 2, off),
        ("trl", "none", 1024, 2, off | again),
        ("trl", "lora", 2048, 2, off),
        ("trl", "lora", 1024, 4, off | again),
        ("trl", "qlora", 1024, 4, off),
        ("trl", "none", 1024, 4, off),
        ("torchtune", "none", 1024, 4, on),
        ("axolotl", "none", 2048, 4, off),
    ]
    cells = [
        Cell(
            f"peak {trainer} {adapter} {micro}x{length} {'recomputed ' * ('activation_checkpointing' in train)}{'compiled' * train.get('compile', False)}".strip(),
            trainer,
            recipe(shape, adapter=adapter, length=length, batch=micro, steps=5, train=train),
        )
        for trainer, adapter, length, micro, train in table
    ]
    without, liger = {"trainer.json": {"liger": False}}, {"trainer.json": {"liger": True}}
    others = [
        Cell(f"{each.name} {word}", each.trainer, each.recipe, edits=edit)
        for each in cells
        for trainer, word, edit in (("axolotl", "without liger", without), ("trl", "with liger", liger))
        if each.trainer == trainer and "qlora" not in each.name
    ]
    return cells + others


def more_peaks(shape: dict[str, int]) -> list[Cell]:
    """Trainings whose peak is measured, whether or not fit tells it: float32, bf16-mixed, DoRA, whole modules beside an adapter, MaxText."""
    on, off, again = {"compile": True}, {"compile": False}, {"activation_checkpointing": True}
    mixed, full = {"precision": "bf16-mixed"}, {"precision": "fp32"}
    table: list[tuple[str, str, int, int, Json]] = [
        ("litgpt", "none", 1024, 4, off | mixed),
        ("litgpt", "lora", 1024, 4, off | mixed),
        ("litgpt", "none", 2048, 2, off | again | mixed),
        ("litgpt", "lora", 2048, 2, on | mixed),
        ("litgpt", "lora", 2048, 4, off | again | mixed),
        ("axolotl", "none", 1024, 4, off | mixed),
        ("axolotl", "lora", 2048, 2, off | mixed),
        ("axolotl", "none", 2048, 2, off | again | mixed),
        ("trl", "none", 1024, 2, off | mixed),
        ("trl", "lora", 2048, 2, off | mixed),
        ("trl", "lora", 1024, 4, off | again | mixed),
        ("trl", "none", 1024, 4, off | again | mixed),
        ("torchtune", "none", 1024, 4, off | full),
        ("torchtune", "lora", 1024, 4, off | full),
        ("torchtune", "lora", 2048, 2, off | again | full),
        ("litgpt", "lora", 1024, 4, off | full),
        ("trl", "lora", 1024, 2, off | full),
        ("axolotl", "lora", 1024, 2, off | again | full),
        ("torchtune", "dora", 1024, 4, off),
        ("trl", "dora", 1024, 4, off),
        ("axolotl", "dora", 1024, 4, off | again),
        ("maxtext", "none", 1024, 4, {}),
        ("maxtext", "none", 2048, 2, again),
        ("maxtext", "lora", 1024, 4, {}),
        ("maxtext", "lora", 2048, 4, again),
        ("maxtext", "none", 1024, 2, mixed),
    ]
    cells = [
        Cell(
            f"peak {trainer} {adapter} {micro}x{length} {' '.join(sorted(f'{name}={value}' for name, value in train.items()))}".strip(),
            trainer,
            recipe(shape, adapter=adapter, length=length, batch=micro, micro=micro, steps=5, train=train),
        )
        for trainer, adapter, length, micro, train in table
    ]
    for trainer, whole in (("litgpt", ["norms"]), ("torchtune", ["embeddings"]), ("trl", ["norms"]), ("axolotl", ["embeddings"])):
        args = recipe(shape, length=1024, batch=4, steps=5, train=off)
        args["method"]["lora"]["train_fully"] = whole
        cells.append(Cell(f"peak {trainer} lora 4x1024 with {whole[0]}", trainer, args))
    return cells


def speed(shape: dict[str, int], length: int) -> list[Cell]:
    """The job of docs/races.md in each trainer: as tune plans it, and as a person would have it."""
    plain = recipe(shape, length=length, steps=30)
    env = {"XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=true --xla_gpu_enable_triton_gemm=false"}
    return [
        Cell("speed torchtune", "torchtune", plain, profile=True),
        Cell("speed axolotl", "axolotl", plain, profile=True),
        Cell("speed maxtext", "maxtext", plain),
        Cell("speed litgpt", "litgpt", plain, profile=True),
        Cell("speed trl", "trl", plain, profile=True),
        Cell("speed trl liger", "trl", plain, edits={"trainer.json": {"liger": True}}),
        Cell("speed axolotl without liger", "axolotl", plain, edits={"trainer.json": {"liger": False}}),
        Cell("speed maxtext cudnn", "maxtext", recipe(shape, length=length, steps=30, train={"attention": "flash"})),
        Cell(
            "speed axolotl liger and lora kernels",
            "axolotl",
            plain,
            edits={"axolotl.yaml": {"lora_qkv_kernel": True, "lora_o_kernel": True}},
        ),
        Cell(
            "speed maxtext cudnn flags", "maxtext", recipe(shape, length=length, steps=30, train={"attention": "flash"}), env=env
        ),
        Cell("speed axolotl lora kernels", "axolotl", plain, edits={"axolotl.yaml": KERNELS, "trainer.json": {"liger": False}}),
    ]


def methods(shape: dict[str, int]) -> list[Cell]:
    """Every method once, small, rows of different lengths, two micro-batches of four a step."""
    ways = [
        *((trainer, "sft", "none") for trainer in ("torchtune", "litgpt", "axolotl", "trl", "maxtext")),
        *((trainer, "sft", "lora") for trainer in ("torchtune", "litgpt", "axolotl", "trl", "maxtext")),
        *((trainer, "sft", "qlora") for trainer in ("torchtune", "litgpt", "axolotl", "trl")),
        *((trainer, "sft", "dora") for trainer in ("torchtune", "axolotl", "trl")),
        *((trainer, "dpo", "lora") for trainer in ("torchtune", "axolotl", "trl")),
        *((trainer, "dpo", "none") for trainer in ("torchtune", "axolotl", "trl")),
        ("axolotl", "orpo", "lora"),
        ("trl", "orpo", "lora"),
        ("maxtext", "dpo", "none"),
    ]
    made = []
    for trainer, kind, adapter in ways:
        rows = "chat.jsonl" if kind == "sft" else "pairs.jsonl"
        args = recipe(shape, adapter=adapter, rows=rows, length=512, batch=8, micro=4, steps=20, kind=kind)
        made.append(Cell(f"method {kind} {adapter} {trainer}", trainer, args))
    return made


def matmul(python: str) -> float | None:
    """TFLOP/s of 8192 x 8192 x 8192 products in bf16, on random numbers."""
    code = (
        "import torch,time\nx,y=(torch.randn(8192,8192,device='cuda',dtype=torch.bfloat16) for _ in '12')\n"
        "for _ in range(5): x@y\ntorch.cuda.synchronize(); t=time.time()\nfor _ in range(30): x@y\n"
        "torch.cuda.synchronize(); print(30*2*8192**3/(time.time()-t)/1e12)"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def rows(folder: Path) -> None:
    """Rows that fill the length, chats of many lengths, and pairs."""
    draws = random.Random(0)

    def words(low: int, high: int) -> str:
        return "".join(draws.choices(string.ascii_letters + " ", k=draws.randint(low, high)))

    def turn(role: str, low: int, high: int) -> dict[str, str]:
        return {"role": role, "content": words(low, high)}

    texts = [{"text": words(4200, 4200)} for _ in range(64)]
    chats = [{"messages": [turn("user", 10, 120), turn("assistant", 10, 350)]} for _ in range(160)]
    pairs = [{"prompt": words(10, 100), "chosen": words(10, 200), "rejected": words(10, 200)} for _ in range(160)]
    for name, made in (("long", texts), ("chat", chats), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))


def main() -> int:
    """All parts that fit into the time."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--pythons", type=Path, required=True)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--only", default="peaks,speed,methods")
    asked.add_argument("--cells", default="", help="run those whose names contain one of these, with commas between")
    asked.add_argument("--seconds", type=float, default=560.0)
    asked.add_argument("--limit", type=float, default=150.0, help="seconds of one training")
    asked.add_argument("--together", type=int, default=8)
    asked.add_argument("--tiny", action="store_true")
    args = asked.parse_args()
    began = time.monotonic()
    pythons = json.loads(args.pythons.read_text())
    results: Json = {"cells": []}
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows(folder)
        runner = Runner(folder, pythons, "cpu" if args.tiny else "cuda", args.limit)
        if not args.tiny:
            results["matmul_tflops"] = matmul(pythons["torchtune"])
        llama, small, length = (TINY, TINY, 64) if args.tiny else (LLAMA, SMALL, 2048)
        parts = {
            "peaks": (peaks(llama), args.together),
            "more": (more_peaks(llama), args.together),
            "speed": (speed(llama, length), 1),
            "methods": (methods(small), args.together),
        }

        def one(cell: Cell) -> None:
            if time.monotonic() - began > args.seconds:
                results["cells"].append({"name": cell.name, "state": "NOT RUN"})
                return
            found = runner.run(cell)
            results["cells"].append(found)
            print(line(found), flush=True)
            (args.out / "results.json").write_text(json.dumps(results, indent=1))

        for part in args.only.split(","):
            cells, at_once = parts[part]
            chosen = [
                cell for cell in cells if any(some in cell.name for some in args.cells.split(",")) and cell.trainer in pythons
            ]
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(one, chosen))
    return 0


def line(found: Json) -> str:
    """One cell, short."""
    losses = found.get("losses") or [float("nan")]
    figures = [
        f"{found['tokens_per_second']:,.0f} tok/s" if found.get("tokens_per_second") else "",
        *(f"{name} {found[f'{name}_gib']:.2f}" for name in ("memory", "hook", "told") if found.get(f"{name}_gib")),
        f"first {found.get('first_step_s')} s of {found.get('seconds')}",
        f"loss {losses[0]:.5f} {losses[len(losses) // 2]:.5f} {losses[-1]:.5f} n={len(losses)}",
    ]
    why = found.get("why", "")
    return f"{found['name']}: {found['state']} {'; '.join(filter(None, figures))} {why[:300]} {found.get('log', '')[-700:] if why else ''}"


if __name__ == "__main__":
    sys.exit(main())
