"""Several GPUs of one host: each trainer on one and on N of them, jobs side by side, a rank that is killed, a collective that hangs.

    python benchmarks/several_gpus.py [--devices 2] [--python VENV/bin/python] [--to torchtune,litgpt] [--seconds 540] [--write]

The recipe is that of gpu_race.py: a random model of Llama 3.2 1B's shape, rows of 2048 tokens, bf16, every token with loss. Both runs
of a pair take the same global batch, N x 8 rows, so that their losses can be compared; the one GPU accumulates. What is printed: the
state of each job, the largest difference of the losses, tokens a second for each GPU. `--python` names an interpreter that has the
trainers, `--pythons` a JSON file with one for each; without them tune makes their environments. `--tiny --accelerator cpu` is the same in small, for trying the script.
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
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

Json = dict[str, Any]
"""A document."""
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "races.md"
BEGIN, END = "<!-- made by benchmarks/several_gpus.py -->", "<!-- end of several GPUs -->"
STEPS, LEFT_OUT = 20, 5
ROWS = 8
"""Rows that a device takes at once."""
LLAMA = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "heads": 32, "kv_heads": 8}
TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 176, "layers": 2, "heads": 4, "kv_heads": 2}
ADAPTERS = {
    "lora": "{adapter: lora, lora: {rank: 16, alpha: 32, targets: [q, k, v, o, gate, up, down]}}",
    "full": "{adapter: none}",
}
ONCE = tuple(word for kind in ("lost", "hardware", "hang", "unknown") for word in ("--set", f"retry.{kind}=0"))
"""What keeps a job that fails from being tried again."""
RECIPE = """\
version: 1
name: several-gpus
model:
  id: llama-3.2-1b-shape
  init: random
  architecture: {architecture}
method: {method}
data: {{train: rows.jsonl, format: text, max_length: {length}}}
train: {{steps: {steps}, batch: {{global: {batch}, micro: {rows}}}, precision: {precision}}}
optim: {{lr: {lr}, weight_decay: 0.0, warmup_steps: 5}}
"""


def main() -> int:
    """Every part that fits into the time; 0 when all of them ended as they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--python", default="", help="an interpreter that has the trainers")
    parser.add_argument("--pythons", type=Path, help="a JSON object: trainer -> interpreter, instead of --python")
    parser.add_argument("--to", default="torchtune,litgpt")
    parser.add_argument("--only", default="", help="run the parts whose names contain one of these, with commas between")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as tune submit takes it, for the pairs")
    parser.add_argument("--methods", default="lora,full")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no part begins after this time")
    parser.add_argument("--out", type=Path, help="folder for results.json and logs")
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/races.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Bench(args, Path(folder)).run()
    text = page(results)
    print(text)
    if args.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")
    return 0 if all(part["well"] for part in results["parts"]) else 1


class Bench:
    """A state folder of its own, and what was measured in it."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.out = (args.out or folder / "out").absolute()
        self.began = time.monotonic()
        self.env = os.environ | {
            "TUNE_HOME": str(folder / "home"),
            "TUNE_CLUSTERS": str(folder / "clusters.yaml"),
            "PYTHONPATH": str(ROOT),
        }

    def run(self) -> Json:
        """Facts of the machine, and each part in its order."""
        self.prepare()
        results: Json = {"devices": self.args.devices, "machine": self.machine(), "parts": []}
        trainers = self.args.to.split(",")
        pairs = [(trainer, method) for method in self.args.methods.split(",") for trainer in trainers]
        wanted = [pair for pair in pairs if any(some in " ".join(pair) for some in self.args.only.split(","))]
        for count in (1, self.args.devices):  # the jobs of one device run side by side
            for trainer, method in wanted:
                more = (word for each in self.args.set for word in ("--set", each))
                with suppress(SystemExit):  # who cannot express it has no job, and its pair says so
                    self.submit(trainer, method, count, f"{trainer}-{method}-{count}", *more)
        parts: list[tuple[str, Any]] = [
            (f"{trainer} {method}", lambda t=trainer, m=method: self.pair(t, m)) for trainer, method in wanted
        ]
        parts += [
            ("side by side", lambda: self.side_by_side(trainers[0])),
            *((f"killed rank, {trainer}", lambda t=trainer: self.killed_rank(t)) for trainer in trainers),
            ("hang", lambda: self.hang(trainers[0])),
        ]
        for name, part in (each for each in parts if any(some in each[0] for some in self.args.only.split(","))):
            if time.monotonic() - self.began > self.args.seconds:
                results["parts"].append({"name": name, "well": False, "what": "not run: out of time"})
                continue
            began = time.monotonic()
            try:
                found = {"name": name, **part()}
            except (SystemExit, ValueError) as error:
                found = {"name": name, "well": False, "what": str(error)[-600:]}
            results["parts"].append(found)
            print(f"{name}: {time.monotonic() - began:.0f} s: {json.dumps(found)}", file=sys.stderr, flush=True)
            (self.out / "results.json").write_text(json.dumps(results, indent=1))
        return results

    # Parts

    def pair(self, trainer: str, method: str) -> Json:
        """The same job on one device and on all of them."""
        many = self.args.devices
        runs = {count: self.job(trainer, method, count) for count in (1, many)}
        states = {count: run["state"] for count, run in runs.items()}
        if set(states.values()) != {"SUCCEEDED"}:
            return {"well": False, "what": f"{states}: {[run['reason'] for run in runs.values()]}"}
        losses = {count: self.points(run["id"], "loss") for count, run in runs.items()}
        speeds = {count: median(self.points(run["id"], "tokens_per_second")[LEFT_OUT:]) for count, run in runs.items()}
        memory = {count: max(self.points(run["id"], "memory_gib"), default=None) for count, run in runs.items()}
        apart = max(abs(a - b) for a, b in zip(losses[1], losses[many], strict=True))
        share = speeds[many] / many / speeds[1]
        what = {"apart": apart, "first": losses[1][0], "last": losses[1][-1], "speeds": speeds, "share": share, "memory": memory}
        return {"well": len(losses[1]) == STEPS, "what": what}

    def side_by_side(self, trainer: str) -> Json:
        """N jobs of one device run at once; a job that wants all devices waits for them."""
        ones = [self.submit(trainer, "lora", 1, f"side-{number}") for number in range(self.args.devices)]
        both = self.submit(trainer, "lora", self.args.devices, "side-all")
        seen: set[tuple[str, ...]] = set()
        while (states := self.states([*ones, both]))[-1] not in ("SUCCEEDED", "FAILED", "LOST", "CANCELLED"):
            seen.add(tuple(states))
            time.sleep(0.5)
        together = any(all(state == "RUNNING" for state in states[:-1]) for states in seen)
        early = any(states[-1] != "QUEUED" and not all(s == "SUCCEEDED" for s in states[:-1]) for states in seen)
        final = self.states([*ones, both])
        well = together and not early and set(final) == {"SUCCEEDED"}
        return {"well": well, "what": f"at once: {together}; all waited for: {not early}; ends: {sorted(set(final))}"}

    def killed_rank(self, trainer: str) -> Json:
        """SIGKILL of the last rank in mid-training: how long until the job has ended, and how."""
        job = self.submit(trainer, "lora", self.args.devices, f"killed-{trainer}", *ONCE, steps=2000)
        if not self.until_step(job, 3):
            return {"well": False, "what": f"never took a step: {self.status(job)['reason']}"}
        ranks = self.ranks()
        os.kill(ranks[-1], signal.SIGKILL)
        began = time.monotonic()
        self.tune("wait", job, check=False)
        seconds, status = time.monotonic() - began, self.status(job)
        well = status["state"] == "FAILED" and seconds <= 10 and not self.ranks()
        return {"well": well, "what": f"{status['state']} {status['reason']} after {seconds:.1f} s, {len(self.ranks())} left"}

    def hang(self, trainer: str) -> Json:
        """A rank that is stopped: no step is taken any more, and the job ends as `hang`."""
        job = self.submit(trainer, "lora", self.args.devices, "hang", *ONCE, "--set", "retry.hang_minutes=0.5", steps=2000)
        if not self.until_step(job, 3):
            return {"well": False, "what": f"never took a step: {self.status(job)['reason']}"}
        os.kill(self.ranks()[-1], signal.SIGSTOP)
        began = time.monotonic()
        self.tune("wait", job, check=False)
        seconds, status = time.monotonic() - began, self.status(job)
        well = (status["state"], status["reason"]) == ("FAILED", "hang")
        return {"well": well, "what": f"{status['state']} {status['reason']} after {seconds:.0f} s (limit 30)"}

    # Jobs

    def prepare(self) -> None:
        """The target and the rows."""
        self.out.mkdir(parents=True, exist_ok=True)
        target: Json = {"kind": "local", "accelerator": self.args.accelerator, "devices": self.args.devices}
        if self.args.python:
            target["python"] = str(Path(self.args.python).absolute())
        if self.args.pythons:
            target["python"] = json.loads(self.args.pythons.read_text())
        if self.args.accelerator == "cuda":  # NVLink multicast can put the GPUs of a shared host out of service
            target["env"] = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
        (self.folder / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": {"local": target}}))
        draws, length = random.Random(0), 64 if self.args.tiny else 2048
        texts = ("".join(draws.choices(string.ascii_letters + " ", k=length + 50)) for _ in range(64))
        (self.folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def submit(self, trainer: str, method: str, devices: int, name: str, *words: str, steps: int = STEPS) -> str:
        """Queue a job; its id."""
        facts = {**(TINY if self.args.tiny else LLAMA), "max_length": 2048, "rope_theta": 500000.0, "tied": True}
        recipe = RECIPE.format(
            architecture=json.dumps(facts),
            method=ADAPTERS[method],
            length=64 if self.args.tiny else 2048,
            steps=steps,
            rows=ROWS,
            batch=ROWS * self.args.devices,
            precision="fp32" if self.args.tiny else "bf16",
            lr="2e-4" if method == "lora" else "2e-5",
        )
        (self.folder / f"{name}.yaml").write_text(recipe)
        argv = ["submit", f"{name}.yaml", "--to", trainer, "--id", name, "--set", f"resources.devices={devices}", *words]
        self.tune(*argv)
        return name

    def job(self, trainer: str, method: str, devices: int) -> Json:
        """A job that was submitted, at its end; of one that did not succeed keep the log."""
        name = f"{trainer}-{method}-{devices}"
        self.tune("wait", name, check=False)
        status = self.status(name)
        if status["state"] != "SUCCEEDED":
            (self.out / f"{name}.log").write_text(self.tune("logs", name, check=False)[-100_000:])
        return status

    def tune(self, *words: str, check: bool = True) -> str:
        """The command, as a user runs it."""
        argv = [sys.executable, "-m", "orchestrator.cli", *words]
        done = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise SystemExit(f"{words}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def status(self, job: str) -> Json:
        """What `tune status` says of one job."""
        found: Json = json.loads(self.tune("status", job, "--json"))[0]
        return found

    def states(self, jobs: list[str]) -> list[str]:
        """States of several jobs, in their order."""
        found = {each["id"]: each["state"] for each in json.loads(self.tune("status", *jobs, "--json"))}
        return [found[job] for job in jobs]

    def points(self, job: str, name: str) -> list[float]:
        """Values of one metric by step."""
        found = json.loads(self.tune("metrics", job, "--json"))
        points = found["points"] if isinstance(found, dict) else found[0]["points"]
        return [each["value"] for each in sorted(points, key=lambda each: each["step"]) if each["name"] == name]

    def until_step(self, job: str, step: int) -> bool:
        """Wait until a job has taken so many steps; False when it ended before."""
        while True:
            status = self.status(job)
            if (status["step"] or 0) >= step:
                return True
            if status["state"] in ("SUCCEEDED", "FAILED", "LOST", "CANCELLED"):
                (self.out / f"{job}.log").write_text(self.tune("logs", job, check=False)[-100_000:])
                return False
            time.sleep(0.5)

    def ranks(self) -> list[int]:
        """Processes of the trainer, by rank, on this machine: those that the launcher has started, and not their own children."""
        found: dict[int, tuple[int, int]] = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                env = dict(item.split(b"=", 1) for item in (entry / "environ").read_bytes().split(b"\0") if b"=" in item)
                if entry.name.isdigit() and b"LOCAL_RANK" in env and str(self.folder) in str((entry / "cwd").readlink()):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    found[int(entry.name)] = (parent, int(env[b"RANK"]))
        return [pid for pid, (parent, rank) in sorted(found.items(), key=lambda each: each[1][1]) if parent not in found]

    def machine(self) -> str:
        """The devices, in nvidia-smi's words."""
        if self.args.accelerator == "cpu":
            return "CPU"
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return "; ".join(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines())


def page(results: Json) -> str:
    """The tables, as Markdown."""
    many = results["devices"]
    head = f"Devices: {results['machine']}. {ROWS * many} rows a step in both runs; losses over {STEPS} steps."
    columns = (
        f"| job | tokens/s, 1 GPU | tokens/s, {many} GPUs | of one GPU, each | losses apart, at most | peak GiB, 1 and {many} |\n"
        "|---|---|---|---|---|---|"
    )
    pairs = [_pair(part, many) for part in results["parts"] if isinstance(part["what"], dict)]
    others = [f"- {part['name']}: {part['what']}" for part in results["parts"] if not isinstance(part["what"], dict)]
    return "\n".join([head, "", columns, *pairs, "", *others])


def _pair(part: Json, many: int) -> str:
    what = part["what"]
    memory = " and ".join(f"{what['memory'][n]:.1f}" if what["memory"][n] is not None else "-" for n in (1, many))
    speeds = f"{what['speeds'][1]:,.0f} | {what['speeds'][many]:,.0f} | {what['share']:.2f}"
    return f"| {part['name']} | {speeds} | {what['apart']:.1e} | {memory} |"


if __name__ == "__main__":
    sys.exit(main())
