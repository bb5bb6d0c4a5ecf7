"""One GPU: `tune race` beside configs made by hand, which it should be as fast as, and `tune race --tune` beside a whole grid.

    python benchmarks/gpu_race.py [--job lora] [--pythons pythons.json] [--to torchtune,litgpt] [--parts race,hand] [--out OUT]
    python benchmarks/gpu_race.py --from OUT/results.json --write

Each job (`JOBS`) is a random model in bf16, rows that fill the length, every token with loss. `hand` (of the job lora) is each trainer's own
program with the config of by_hand.py; `tune` is `tune race --tune` of the first trainer, and `grid` all of its settings. `--pythons` is a
JSON object: trainer -> interpreter (without it tune makes environments). results.json in OUT has all figures; `--write` puts the table
of the job into docs/races.md. `--tiny --accelerator cpu` is the same in small, for trying the script.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]
"""A document."""
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from by_hand import by_hand  # noqa: E402
from one_gpu import matmul  # noqa: E402
from tables import put  # noqa: E402

from backends.memory.footprint import Footprint  # noqa: E402
from backends.memory.speed import flops_of_token  # noqa: E402
from backends.memory.training import training_of  # noqa: E402
from backends.models import of_architecture  # noqa: E402
from backends.recipe.parse import parse  # noqa: E402
from backends.records import replace  # noqa: E402

LEFT_OUT = 5
LLAMA = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "heads": 32, "kv_heads": 8}
LLAMA_8B = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "layers": 32, "heads": 32, "kv_heads": 8}
TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 176, "layers": 2, "heads": 4, "kv_heads": 2}
PACKAGES = (
    "torch",
    "triton",
    "torchtune",
    "torchao",
    "litgpt",
    "lightning",
    "axolotl",
    "liger_kernel",
    "trl",
    "transformers",
    "maxtext",
    "jax",
)
ALL = {"rank": 16, "alpha": 32, "targets": ["q", "k", "v", "o", "gate", "up", "down"]}
LORA: Json = {"adapter": "lora", "lora": ALL}


class Job(NamedTuple):
    """What is raced."""

    about: str
    shape: dict[str, int]
    method: Json
    length: int
    """Tokens of a row."""
    batch: int
    """Rows of a step."""
    steps: int
    train: Json | None = None
    """More of the section."""
    data: Json | None = None
    """More of the section; where it is given rows are short and of many lengths, else they fill the length."""
    hands: tuple[str, ...] = ("torchtune",)
    """Trainers with a config made by hand (by_hand.py)."""


_AGAIN: Json = {"activation_checkpointing": True}
JOBS = {
    "lora": Job(
        "LoRA, 1B shape, 8 x 2048 tokens a step", LLAMA, LORA, 2048, 8, 30, hands=("torchtune", "litgpt", "axolotl", "trl")
    ),
    "full": Job(
        "all weights, 1B shape, 8 x 2048 tokens a step",
        LLAMA,
        {"adapter": "none"},
        2048,
        8,
        16,
        hands=("torchtune", "axolotl", "trl"),
    ),
    "qlora-8b": Job("QLoRA, 8B shape, 4 x 2048 tokens a step", LLAMA_8B, {"adapter": "qlora", "lora": ALL}, 2048, 4, 12),
    "long": Job("LoRA, 1B shape, one row of 32,768 tokens a step, activations recomputed", LLAMA, LORA, 32768, 1, 12, _AGAIN),
    "packed": Job("LoRA, 1B shape, short rows packed to 8 x 2048 tokens a step", LLAMA, LORA, 2048, 8, 16, data={"pack": True}),
    "padded": Job("LoRA, 1B shape, the same short rows, padded, 8 a step", LLAMA, LORA, 2048, 8, 16, data={"pack": False}),
    "dpo": Job(
        "DPO with LoRA, 1B shape, 4 pairs of 2 x 1024 tokens a step", LLAMA, {"kind": "dpo", **LORA}, 1024, 4, 12, hands=()
    ),
    "tune": Job(
        "`tune race --tune` beside all settings: LoRA, 1B shape, 2 x 2048 tokens a step", LLAMA, LORA, 2048, 2, 12, hands=()
    ),
}
SLOW = ("--set", "train.batch.micro=1", "--set", "train.activation_checkpointing=true")
"""Where the search begins: the slowest of those that are compiled (adapters in bf16 have other losses when they are not)."""


def main() -> int:
    """Every part that fits into the time; 0 when all of them ended well."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--job", default="lora", choices=tuple(JOBS))
    asked.add_argument("--pythons", type=Path, help="a JSON object: trainer -> interpreter")
    asked.add_argument("--to", default="torchtune,litgpt,axolotl,trl,maxtext")
    asked.add_argument("--hands", help="trainers whose hand-made configs are run, with commas between; all of the job")
    asked.add_argument("--parts", default="race,hand")
    asked.add_argument("--seconds", type=float, default=3600.0, help="no part begins that would not end within this time")
    asked.add_argument("--out", type=Path, help="folder for results.json and logs")
    asked.add_argument("--cache", type=Path, help="folder for weights that are made, which further races then find")
    asked.add_argument(
        "--from", dest="results", type=Path, nargs="+", help="results.json of runs of one job, which are not run again"
    )
    asked.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    asked.add_argument("--tiny", action="store_true")
    asked.add_argument("--write", action="store_true", help="put the table into docs/races.md")
    args = asked.parse_args()
    if args.results:
        runs = [json.loads(path.read_text()) for path in args.results]
    else:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            runs = [Bench(args, Path(folder)).run()]
    text = "\n\n".join(map(page, runs))
    print(text)
    if args.write:
        put(f"<!-- made by benchmarks/gpu_race.py: {runs[0]['job']} -->", f"<!-- end of {runs[0]['job']} -->", text)
    return 0 if all(ended_well(part) for run in runs for part in run["parts"]) else 1


def ended_well(part: Json) -> bool:
    """A hand-made run, or all trainers of a race."""
    return "failed" not in part and all(each["state"] == "SUCCEEDED" for each in part.get("trainers", ()))


class Bench:
    """A folder with its own state of tune, and what was measured in it."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.out = (args.out or folder / "out").absolute()
        self.job = JOBS[args.job]
        if args.tiny:
            self.job = self.job._replace(shape=TINY, length=64, steps=8)
        self.until = time.monotonic() + args.seconds
        self.pythons: dict[str, str] = json.loads(args.pythons.read_text()) if args.pythons else {}
        self.env = os.environ | {"TUNE_HOME": str(folder / "home"), "TUNE_CLUSTERS": str(folder / "clusters.yaml")}
        self.env["PYTHONPATH"] = str(ROOT)

    def run(self) -> Json:
        """Facts of the machine, and each part in its order."""
        self.prepare()
        results: Json = {"job": self.args.job, "flops": self.flops(), "machine": self.machine(), "parts": []}
        parts = {"race": self.race, "hand": self.hands, "tune": self.tune, "grid": lambda: self.grid(results["parts"])}
        for name in self.args.parts.split(","):
            for found in parts[name]():
                results["parts"].append(found)
                print(
                    json.dumps({key: value for key, value in found.items() if key != "losses"})[:1500],
                    file=sys.stderr,
                    flush=True,
                )
                (self.out / "results.json").write_text(json.dumps(results, indent=1))
        return results

    def prepare(self) -> None:
        """The target, the recipe and the rows."""
        self.out.mkdir(parents=True, exist_ok=True)
        if self.args.cache:
            self.args.cache.mkdir(parents=True, exist_ok=True)
            (self.folder / "home").mkdir()
            (self.folder / "home" / "cache").symlink_to(self.args.cache.absolute())
        target: Json = {"kind": "local", "accelerator": self.args.accelerator, "devices": 1}
        if self.pythons:
            target["python"] = self.pythons
        (self.folder / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": {"local": target}}))
        (self.folder / "race.yaml").write_text(json.dumps(self.recipe()))
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows()))

    def rows(self) -> Iterator[Json]:
        """That fill the length; pairs whose two answers do; or short ones, of many lengths."""
        draws, job = random.Random(0), self.job

        def words(size: int) -> str:
            return "".join(draws.choices(string.ascii_letters + " ", k=size))

        for _ in range(2048 if job.data else 64):
            if job.method.get("kind") == "dpo":
                yield {"prompt": words(30), "chosen": words(job.length), "rejected": words(job.length)}
            else:
                short = draws.randint(job.length // 20, job.length * 19 // 20) if job.data else 0
                yield {"text": words(short or job.length + 50)}

    def recipe(self) -> Json:
        """The job; it asks for nothing that concerns speed but what JOBS says."""
        job = self.job
        facts = {**job.shape, "max_length": job.length, "rope_theta": 500000.0, "tied": job.shape is not LLAMA_8B}
        batch = {"global": job.batch, "micro": job.batch}
        form = "preference" if job.method.get("kind") == "dpo" else "text"
        return {
            "version": 1,
            "name": self.args.job,
            "model": {"id": "random-shape", "init": "random", "architecture": facts},
            "method": job.method,
            "data": {"train": "rows.jsonl", "format": form, "max_length": job.length, **(job.data or {})},
            "train": {"steps": job.steps, "batch": batch, "precision": "bf16", **(job.train or {})},
            "optim": {"lr": 2e-4, "weight_decay": 0.0, "warmup_steps": 5},
        }

    def flops(self) -> float:
        """Of a token, without what is computed again."""
        flat = parse(json.dumps(self.recipe()), base=str(self.folder)).flat()
        training = training_of(flat, of_architecture(flat["model.architecture"]), Footprint({}, {}), "cuda")
        return flops_of_token(replace(training, recomputes=False))

    def command(self, *words: str) -> Json:
        """A command of tune, its document."""
        argv = [sys.executable, "-m", "orchestrator.cli", *words, "--json"]
        ran = subprocess.run(argv, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, check=False)
        if not ran.stdout:
            return {"failed": f"exit code {ran.returncode}"}
        found: Json = json.loads(ran.stdout)
        return found

    def race(self) -> Iterator[Json]:
        """`tune race`; a trainer that failed leaves its log."""
        found = self.command("race", "race.yaml", "--to", self.args.to, "--steps", str(self.job.steps), "--rounds", "1")
        for each in found.get("trainers", ()):
            each["losses"] = self.losses(each["job"])
            each["hook_gib"] = self.hook(each["job"])
            if each["state"] != "SUCCEEDED":
                self.keep_log(each["job"], each["trainer"])
        yield {"kind": "race", **found}

    def keep_log(self, job: str, name: str) -> None:
        """The end of a job's output."""
        argv = [sys.executable, "-m", "orchestrator.cli", "logs", job]
        told = subprocess.run(argv, env=self.env, capture_output=True, check=False).stdout
        (self.out / f"{name}.log").write_bytes(told[-20_000:])

    def losses(self, job: str) -> list[float]:
        """By step."""
        argv = [sys.executable, "-m", "orchestrator.cli", "metrics", job, "--json"]
        found = json.loads(subprocess.run(argv, env=self.env, capture_output=True, check=True).stdout)
        points = found["points"] if isinstance(found, dict) else found[0]["points"]
        return [each["value"] for each in sorted(points, key=lambda each: each["step"]) if each["name"] == "loss"]

    def hook(self, job: str) -> float | None:
        """The allocator's peak by gpu_hook.py, where the interpreter has it."""
        found = [json.loads(path.read_text()) for path in self.folder.glob(f"home/jobs/{job}/*/work/hook-*.json")]
        return max((each["peak"] / 2**30 for each in found), default=None)

    def hands(self) -> Iterator[Json]:
        """Each trainer's own program, on the weights that the race has made."""
        model = next((self.folder / "home" / "cache").resolve().glob("models/*/model*.safetensors")).parent
        lit = next((self.folder / "home" / "cache").resolve().rglob("lit_model.pth"), model / "none").parent
        cuda = self.args.accelerator == "cuda"
        job = self.job
        facts = {**job.shape, "length": job.length, "batch": job.batch, "count": job.steps * job.batch}
        facts |= {
            "adapter": job.method["adapter"],
            "recompute": bool(job.train),
            "packed": bool(job.data and job.data["pack"]),
            "tied": job.shape is not LLAMA_8B,
            "texts": self.folder / "rows.jsonl",
            "model": model,
            "lit": lit,
            "cuda": cuda,
            "device": "cuda" if cuda else "cpu",
        }
        for trainer in self.args.hands.split(",") if self.args.hands else job.hands:
            if time.monotonic() < self.until:
                log = self.out / f"by-hand-{trainer}.log"
                found = by_hand(trainer, self.python(trainer), self.folder / f"hand-{trainer}", facts, log)
                if "failed" in found:
                    print(log.read_text()[-600:], log.with_suffix(".err").read_text()[-2500:], file=sys.stderr, flush=True)
                yield found

    def python(self, trainer: str) -> str:
        """An interpreter that has it."""
        return self.pythons.get(trainer) or str(next(self.folder.glob(f"home/envs/{trainer}-*/bin/python")))

    def tune(self) -> Iterator[Json]:
        """`tune race --tune` of the first trainer."""
        words = ("--to", self.args.to.split(",")[0], "--steps", str(self.job.steps), "--tune", "--minutes", "9", *SLOW)
        yield {"kind": "tune", **self.command("race", "race.yaml", *words)}

    def grid(self, parts: Sequence[Json]) -> Iterator[Json]:
        """Every micro-batch, with activations kept and recomputed, compiled and not, each by a race of one; what `parts` have tried is left out."""
        trainer, micro = self.args.to.split(",")[0], self.job.batch
        tried = [each["set"] for part in parts for each in part.get("trials", ())]
        while micro:
            for compiled, again in ((True, False), (True, True), (False, False), (False, True)):
                if time.monotonic() > self.until:
                    return
                sets = {"train.batch.micro": micro, "train.compile": compiled, "train.activation_checkpointing": again}
                if sets in tried:
                    continue
                words = [word for leaf, value in sets.items() for word in ("--set", f"{leaf}={str(value).lower()}")]
                found = self.command(
                    "race", "race.yaml", "--to", trainer, "--steps", str(self.job.steps), "--rounds", "1", *words
                )
                yield {"kind": "grid", "set": sets, **found}
            micro //= 2

    def machine(self) -> Json:
        """The device, the versions in all interpreters, and the rate of large products."""
        asks = "import json, sys; from importlib.metadata import version as v, PackageNotFoundError as E\n"
        asks += "def ask(n):\n try: return v(n)\n except E: return None\n"
        asks += "print(json.dumps({'python': sys.version.split()[0], **{n: ask(n) for n in sys.argv[1:]}}))"
        versions: Json = {}
        for python in [*self.pythons.values()] or [sys.executable]:
            told = subprocess.run([python, "-c", asks, *PACKAGES], capture_output=True, text=True, check=True)
            versions |= {name: value for name, value in json.loads(told.stdout).items() if value}
        facts = {"versions": versions, "device": "CPU", "driver": None, "matmul_tflops": None}
        if self.args.accelerator == "cuda":
            said = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
            told_device = subprocess.run(said, capture_output=True, text=True, check=True).stdout.splitlines()[0]
            facts["device"], facts["driver"] = told_device.split(", ")
            facts["matmul_tflops"] = matmul(self.pythons.get("torchtune", sys.executable))
        return facts


def page(results: Json) -> str:
    """The table, as Markdown."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items() if value)
    rate = machine["matmul_tflops"]
    bound = rate and rate * 1e12 / results["flops"]
    head = f"{JOBS[results['job']].about}. Device: {machine['device']}, driver {machine['driver']}. {versions}."
    if bound:
        head += f" Products of 8192 x 8192 matrices in bf16: {rate:,.0f} TFLOP/s; at {results['flops'] / 1e9:.2f} GFLOP a token that is {bound:,.0f} tokens/s."
    rows = [row for part in results["parts"] for row in _rows(part, bound)]
    columns = (
        "| what | tokens/s | middle half | of the bound | peak GiB | by a hook | first step, s | first and last loss |\n|"
        + "---|" * 8
    )
    return "\n".join([head, "", columns, *rows])


def _rows(part: Json, bound: float | None) -> Iterator[str]:
    if "failed" in part:
        yield f"| {part.get('trainer', part['kind'])}: {part['failed']} |" + " |" * 7
    elif part["kind"] == "hand":
        yield _row(f"{part['trainer']}, made by hand", part["tokens"], bound, part["memory_gib"], losses=part["losses"])
    elif part["kind"] == "tune":
        for each in part["trials"]:
            won = ", **the winner**" if part["winner"] and each["set"] == part["winner"]["set"] else ""
            name = f"`tune race --tune`: {_set(each['set'])}{won}{'' if each['counts'] else ' (does not count)'}"
            yield _row(name, each["tokens_per_second"], bound, each["memory_gib"], first=each["first_step_s"])
    else:
        for each in part["trainers"]:
            name = f"grid: {_set(part['set'])}" if part["kind"] == "grid" else f"`tune race`: {each['trainer']}"
            won = ", the winner" if each["trainer"] == part.get("winner") else ""
            speed = each["rounds"][0]["tokens_per_second"] if each["state"] == "SUCCEEDED" else None
            state = "" if each["state"] == "SUCCEEDED" else f": {each['state']}"
            yield _row(
                f"{name}{won}{state}",
                speed,
                bound,
                each["memory_gib"],
                each.get("hook_gib"),
                each["first_step_s"],
                each.get("losses"),
            )


def _set(sets: Json) -> str:
    compiled, micro, again = sets["train.compile"], sets["train.batch.micro"], sets["train.activation_checkpointing"]
    return f"{micro} rows, {'compiled' if compiled else 'not compiled'}, {'recomputed' if again else 'kept'}"


def _row(
    what: str,
    speed: Json | None,
    bound: float | None,
    memory: float | None,
    hook: float | None = None,
    first: float | None = None,
    losses: list[float] | None = None,
) -> str:
    cells = (
        f"{speed['median']:,.0f}" if speed else "-",
        f"{speed['low']:,.0f} to {speed['high']:,.0f}" if speed else "-",
        f"{speed['median'] / bound:.0%}" if speed and bound else "-",
        f"{memory:.2f}" if memory is not None else "-",
        f"{hook:.2f}" if hook is not None else "-",
        f"{first:.0f}" if first is not None else "-",
        f"{losses[0]:.4f} {losses[-1]:.4f}" if losses else "-",
    )
    return f"| {what} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
