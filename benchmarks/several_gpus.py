"""Several GPUs of one host: ways to share the work, ranks that die, hang or fail, and each trainer on one and on N of them.

    python benchmarks/several_gpus.py [--devices 2] [--pythons pythons.json] [--to torchtune,litgpt] [--seconds 540] [--write]

- `ways`: a small random model in fp32, each trainer's ways to share it (DDP, FSDP, ZeRO, tensor axes), against the same job on one device.
- `faults`: the last rank of such a job is killed, fails by itself, or is stopped (which hangs the others' collective).
- `pairs`: a random model of Llama 3.2 1B's shape (`--shape 8b`: Llama 3.1 8B's), rows of 2048 tokens, bf16, compiled as tune does. Both runs of a
  pair take the same global batch, N x 8 rows; the one device accumulates. Jobs of one device run side by side, that of all waits for them.

Ways and faults run side by side, each trainer in a state folder of its own, since they take no times; pairs have the machine for themselves.
`--pythons` is a JSON object: trainer -> interpreter; without it tune makes their environments. Whatever has not ended after `--seconds` is
cancelled and told so; results.json in `--out` is written after each job. `--tiny --accelerator cpu` is the same in small, for trying the script.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).parent)]

from homes import ONCE, Home, Json, Late  # noqa: E402
from tables import put  # noqa: E402

BEGIN, END = "<!-- made by benchmarks/several_gpus.py -->", "<!-- end of several GPUs -->"
STEPS, LEFT_OUT, ROWS = 16, 6, 8
SHAPES = {
    "1b": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "heads": 32, "kv_heads": 8},
    "8b": {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "layers": 32, "heads": 32, "kv_heads": 8},
    "small": {"vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 2816, "layers": 8, "heads": 16, "kv_heads": 8},
    "tiny": {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 176, "layers": 2, "heads": 4, "kv_heads": 2},
}
WAYS: dict[str, list[tuple[str, str]]] = {
    "torchtune": [("lora", "auto"), ("full", "auto"), ("full", "zero2"), ("qlora", "auto")],
    "litgpt": [("lora", "auto"), ("lora", "fsdp"), ("full", "ddp"), ("full", "fsdp")],
    "axolotl": [("full", "fsdp"), ("lora", "ddp"), ("full", "zero2"), ("full", "zero3"), ("lora", "auto"), ("qlora", "auto")],
    "trl": [("full", "fsdp"), ("lora", "ddp"), ("full", "zero2"), ("full", "zero3"), ("lora", "auto"), ("qlora", "auto")],
    "maxtext": [("full", "auto"), ("full", "tensor"), ("full", "ddp"), ("full", "zero1"), ("lora", "auto"), ("lora", "tensor")],
}
"""Trainer -> methods and strategies; `tensor`: all devices on one tensor axis."""
PAIRS = [
    ("axolotl", "full", "auto"),
    ("axolotl", "lora", "ddp"),
    ("trl", "full", "auto"),
    ("maxtext", "full", "auto"),
    ("trl", "lora", "ddp"),
    ("axolotl", "lora", "auto"),
    ("maxtext", "lora", "auto"),
    ("maxtext", "full", "ddp"),
    ("trl", "lora", "auto"),
    ("torchtune", "lora", "auto"),
    ("torchtune", "full", "auto"),
    ("litgpt", "lora", "auto"),
    ("litgpt", "full", "auto"),
]
"""Trainers, methods and strategies, in the order in which they run."""


def recipe(
    shape: str, method: str, *, length: int, batch: int, micro: int, steps: int, precision: str, more: Json | None = None
) -> Json:
    """Random weights, rows that fill the length; large models have tied embeddings, as Llama 3.2 1B has."""
    adapter = "none" if method == "full" else method
    lora = {"rank": 16, "alpha": 32, "targets": ["q", "k", "v", "o", "gate", "up", "down"]}
    facts = {**SHAPES[shape], "max_length": max(length, 64), "rope_theta": 500000.0, "tied": shape == "1b"}
    return {
        "version": 1,
        "name": f"{shape}-{method}",
        "model": {"id": f"{shape}-shape", "init": "random", "architecture": facts},
        "method": {"adapter": adapter, **({"lora": lora} if adapter != "none" else {})},
        "data": {"train": "rows.jsonl", "format": "text", "max_length": length},
        "train": {"steps": steps, "batch": {"global": batch, "micro": micro}, "precision": precision, **(more or {})},
        "optim": {"lr": 2e-5 if method == "full" else 2e-4, "weight_decay": 0.0, "warmup_steps": 2},
    }


class Bench:
    """What was measured, and the folders it was measured in."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder, self.began = args, folder, time.monotonic()
        self.out = (args.out or folder / "out").absolute()
        self.out.mkdir(parents=True, exist_ok=True)
        self.until = self.began + args.seconds
        self.results: Json = {"devices": args.devices, "shape": args.shape, "machine": machine(args.accelerator), "parts": []}
        self._lock = threading.Lock()

    def run(self) -> Json:
        """Each part in its order."""
        asked, trainers = self.args.parts.split(","), self.args.to.split(",")
        together = [("ways", self.ways), ("faults", self.faults)]
        work = [(name, part, trainer) for name, part in together if name in asked for trainer in trainers]
        if work:
            until = min(self.until, self.began + self.args.together_seconds)
            with ThreadPoolExecutor(self.args.together) as pool:
                list(pool.map(lambda each: self.guarded(*each, until), work))
        if "pairs" in asked:
            self.guarded("pairs", self.pairs, ",".join(trainers), self.until)
        self.results["seconds"] = round(time.monotonic() - self.began)
        self.write()
        return self.results

    def guarded(self, name: str, part: Any, trainer: str, until: float) -> None:
        """One part in a folder of its own; what goes wrong is told, and the others go on."""
        home = Home(self.folder / f"{name}-{trainer.replace(',', '-')}", self.target(name), until, self.out)
        length, draws = (64 if self.args.tiny else 2048), random.Random(0)
        texts = ("".join(draws.choices(string.ascii_letters + " ", k=length + 50)) for _ in range(64))
        (home.folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        try:
            part(home, trainer)
        except Exception as error:
            self.tell({"part": name, "trainer": trainer, "state": "BROKEN", "why": f"{type(error).__name__}: {error}"[-1500:]})
        finally:
            home.close()

    def target(self, part: str) -> Json:
        """This machine."""
        target: Json = {"kind": "local", "accelerator": self.args.accelerator, "devices": self.args.devices}
        if self.args.pythons:
            target["python"] = json.loads(self.args.pythons.read_text())
        if self.args.accelerator == "cuda":  # NVLink multicast can put the GPUs of a shared host out of service
            target["env"] = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
            if part != "pairs":  # several share a card
                target["env"]["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        return target

    def tell(self, found: Json) -> None:
        """One result, kept and printed."""
        with self._lock:
            found["at"] = round(time.monotonic() - self.began)
            self.results["parts"].append(found)
            print(line(found), flush=True)
        self.write()

    def write(self) -> None:
        """results.json."""
        with self._lock:
            (self.out / "results.json").write_text(json.dumps(self.results))

    # Parts

    def small(self, trainer: str, method: str, steps: int = 10) -> Json:
        """The job of ways and faults; JAX always compiles."""
        shape, length = ("tiny", 64) if self.args.tiny else ("small", 512)
        precision = "bf16" if method == "qlora" else "fp32"
        batch, more = 4 * self.args.devices, {} if trainer == "maxtext" else {"compile": False}
        return recipe(shape, method, length=length, batch=batch, micro=4, steps=steps, precision=precision, more=more)

    def ways(self, home: Home, trainer: str) -> None:
        """Every strategy of a trainer, against one device."""
        self.compared(home, [(trainer, *each) for each in WAYS[trainer]], "ways", self.small)

    def pairs(self, home: Home, trainers: str) -> None:
        """Of all trainers."""
        length, more = (
            (64, {}) if self.args.tiny else (2048, {"activation_checkpointing": True} if self.args.shape == "8b" else {})
        )

        def made(_: str, method: str) -> Json:
            shape, precision = ("tiny", "fp32") if self.args.tiny else (self.args.shape, "bf16")
            batch = ROWS * self.args.devices
            return recipe(shape, method, length=length, batch=batch, micro=ROWS, steps=STEPS, precision=precision, more=more)

        self.compared(home, [each for each in PAIRS if each[0] in trainers.split(",")], "pairs", made)

    def compared(self, home: Home, wanted: list[tuple[str, str, str]], part: str, made: Any) -> None:
        """Jobs of one device and then of all are queued at once; each of all is compared with that of one."""
        chosen = [each for each in wanted if named(" ".join(each), self.args.only)]
        ones = [] if self.args.without_one else list(dict.fromkeys((trainer, method, "one") for trainer, method, _ in chosen))
        founds = [self.queued(home, part, each, 1, made) for each in ones]
        founds += [self.queued(home, part, each, self.args.devices, made) for each in chosen]
        alone: dict[tuple[str, str], Json] = {}
        for job in founds:
            key = job["trainer"], job["method"]
            found = {**job, **self.seen(home, "-".join((*key, job["way"])))} if job["state"] == "QUEUED" else job
            if found["devices"] == 1:
                alone[key] = found
            self.tell({**found, **(beside(found, alone.get(key, {})) if found["devices"] > 1 else {})})

    def queued(self, home: Home, part: str, job: tuple[str, str, str], devices: int, made: Any) -> Json:
        """A job that is submitted, or why it is not."""
        trainer, method, way = job
        found: Json = {"part": part, "trainer": trainer, "method": method, "way": way, "devices": devices, "state": "QUEUED"}
        sets = [f"resources.devices={devices}"]
        sets += [f"resources.tensor={devices}"] if way == "tensor" else [f"resources.strategy={way}"] if devices > 1 else []
        words = [word for each in [*sets, *self.args.set] for word in ("--set", each)]
        try:
            home.submit("-".join(job), made(trainer, method), trainer, *words, *ONCE)
        except RuntimeError as error:
            found |= {"state": "REFUSED", "why": str(error)[-600:]}
        except Late as error:
            found |= {"state": "LATE", "why": str(error)}
        return found

    def seen(self, home: Home, name: str) -> Json:
        """A job at its end, or at the end of the time, in figures."""
        try:
            status = home.ended(name, self.args.limit)
        except Late as error:
            status = {"state": "LATE", "reason": "", "detail": str(error), "started": None, "ended": None}
        points = home.points(name)
        speeds = points.get("tokens_per_second", [])
        return {
            **{key: status[key] for key in ("state", "reason", "detail", "started", "ended")},
            "losses": points.get("loss", []),
            "speed": median(speeds[LEFT_OUT:] or speeds) if speeds else None,
            "memory": max(points.get("memory_gib", []), default=None),
            "hook": max((json.loads(path.read_text())["peak"] / 2**30 for path in hooks(home, name)), default=None),
        }

    def faults(self, home: Home, trainer: str) -> None:
        """SIGKILL of the last rank, an exception in it, SIGSTOP: how the job ends, and how soon."""
        if trainer == "maxtext":  # one process has all devices of a host
            return
        for fault in ("killed", "broken", "stopped"):
            if named(f"{trainer} {fault}", self.args.only):
                self.tell({"part": "faults", "trainer": trainer, "way": fault, **self.fault(home, trainer, fault)})

    def fault(self, home: Home, trainer: str, fault: str) -> Json:
        """One of them."""
        words = ("--set", f"resources.devices={self.args.devices}", *ONCE, "--set", "retry.hang_minutes=0.4")
        job = home.submit(f"{trainer}-{fault}", self.small(trainer, "lora", 100_000), trainer, *words)
        if not home.until_step(job, 5):
            return {"state": "BROKEN", "why": f"never took a step: {home.status(job)['detail']}"}
        rank = home.ranks()[-1]
        if fault == "broken":
            (Path(f"/proc/{rank}/cwd").readlink() / "break.now").touch()
        else:
            os.kill(rank, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        began = time.monotonic()
        status = home.ended(job, limit=90)
        return {
            **{key: status[key] for key in ("state", "reason", "detail")},
            "after": time.monotonic() - began,
            "left": len(home.ranks()),
        }


def beside(found: Json, one: Json) -> Json:
    """How far the losses are from those on one device, and the share of its speed that each device has."""
    if not (found.get("losses") and one.get("losses")):
        return {}
    apart = max(abs(a - b) for a, b in zip(one["losses"], found["losses"], strict=False))
    share = found["speed"] / found["devices"] / one["speed"] if found.get("speed") and one.get("speed") else None
    return {"apart": apart, "share": share}


def named(name: str, only: str) -> bool:
    """Whether a part's name contains one of the words."""
    return any(word in name for word in only.split(","))


def hooks(home: Home, name: str) -> list[Path]:
    """What gpu_hook.py left in the job's folder."""
    return list(home.folder.glob(f"home/jobs/{name}/*/work/hook-*.json"))


def machine(accelerator: str) -> str:
    """The devices, in nvidia-smi's words."""
    if accelerator == "cpu":
        return "CPU"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return "; ".join(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines())


def line(found: Json) -> str:
    """One result, short."""
    losses = found.get("losses") or []
    figures = [
        f"{found['speed']:,.0f} tok/s" if found.get("speed") else "",
        *(
            f"{name} {found[name]:.3g}"
            for name in ("share", "apart", "memory", "hook", "after", "left")
            if found.get(name) is not None
        ),
        f"loss {losses[0]:.5f} {losses[-1]:.5f} n={len(losses)}" if losses else "",
    ]
    said = (
        ""
        if found["state"] == "SUCCEEDED"
        else f"{found.get('reason', '')}: {found.get('detail', '')} {found.get('why', '')}"[:500]
    )
    names = " ".join(str(found[key]) for key in ("part", "trainer", "method", "way") if key in found)
    return f"[{found['at']}] {names}: {found['state']} {'; '.join(filter(None, figures))} {said}"


def page(results: Json) -> str:
    """The tables, as Markdown."""
    many, parts = results["devices"], results["parts"]
    ones = {(each["part"], each["trainer"], each["method"]): each for each in parts if each.get("way") == "one"}
    pairs = [
        f"| {each['trainer']} {each['method']}, {each['way']} | {number(one.get('speed'))} | {number(each.get('speed'))} "
        f"| {number(each.get('share'), '.2f')} | {number(each.get('apart'), '.1e')} | {number(one.get('memory'), '.1f')} and "
        f"{number(each.get('memory'), '.1f')} |"
        for each in parts
        if each["part"] == "pairs" and each.get("devices", 1) > 1 and each["state"] == "SUCCEEDED"
        for one in [ones.get(("pairs", each["trainer"], each["method"]), {})]
    ]
    ways = [
        f"| {each['trainer']} | {each['method']} | {each['way']} | {each['state']} | {number(each.get('apart'), '.1e')} |"
        for each in parts
        if each["part"] == "ways" and each.get("devices", 1) > 1
    ]
    faults = [
        f"| {each['trainer']} | {each['way']} | {each['state']} {each.get('reason', '')} | {number(each.get('after'), '.1f')} | "
        f"{each.get('detail', '').splitlines()[0][:110] if each.get('detail') else '-'} |"
        for each in parts
        if each["part"] == "faults" and "way" in each
    ]
    head = (
        f"| job | tokens/s, 1 GPU | tokens/s, {many} GPUs | of one GPU, each | losses apart, at most | peak GiB, 1 and {many} |"
    )
    tables = [
        (head, pairs),
        ("| trainer | method | shared by | ended | losses apart, at most |", ways),
        ("| trainer | last rank | ended | after, s | in its words |", faults),
    ]
    text = [f"Devices: {results['machine']}."]
    for columns, rows in tables:
        text += ["", columns, "|" + "---|" * (columns.count("|") - 1), *rows] if rows else []
    return "\n".join(text)


def number(value: float | None, how: str = ",.0f") -> str:
    """A figure, or a dash."""
    return "-" if value is None else format(value, how)


def main() -> int:
    """Every part that fits into the time; 0 when all of them ended as they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--pythons", type=Path, help="a JSON object: trainer -> interpreter")
    parser.add_argument("--to", default="torchtune,litgpt,axolotl,trl,maxtext")
    parser.add_argument("--parts", default="ways,faults,pairs")
    parser.add_argument(
        "--only", default="", help="run what has one of these in its name (method and strategy, or fault), with commas between"
    )
    parser.add_argument("--without-one", action="store_true", help="leave out the runs on one device")
    parser.add_argument("--shape", default="1b", choices=("1b", "8b"))
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="as tune submit takes it, for ways and pairs"
    )
    parser.add_argument("--together", type=int, default=9, help="state folders of ways and faults at once")
    parser.add_argument("--together-seconds", type=float, default=3600.0, help="ways and faults end after this time")
    parser.add_argument("--seconds", type=float, default=3600.0, help="everything does")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that are waited for one job")
    parser.add_argument("--out", type=Path, help="folder for results.json and logs")
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/races.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        results = Bench(args, Path(folder)).run()
    text = page(results)
    print(text)
    if args.write:
        put(BEGIN, END, text)
    good = {"faults": ("FAILED",)}
    return 0 if all(each["state"] in good.get(each["part"], ("SUCCEEDED",)) for each in results["parts"]) else 1


if __name__ == "__main__":
    sys.exit(main())
