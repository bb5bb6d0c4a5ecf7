"""How near one recipe comes to itself: in another trainer, in two processes, in another precision.

    uv run python benchmarks/parity.py [--home FOLDER] [--write]

Trains a small random Llama on chat rows, 100 optimizer steps of 8 x 2 sequences, on this machine's CPU: all weights and LoRA; fp32,
bf16 and bf16-mixed with several seeds; one process and two; in every trainer that can express it, and in the plain PyTorch loop of
tests/conformance/yardstick.py. Prints the tables; `--write` puts them into docs/sameness.md and draws docs/curves.svg.

Some 80 runs of half a minute. With `--home` a run that is there is not made again. Environments and caches are taken from the state
folder that TUNE_TEST_HOME names, if it does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from itertools import combinations, product
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs" / "sameness.md", ROOT / "docs" / "curves.svg"
BEGIN, END = "<!-- made by benchmarks/parity.py -->", "<!-- end -->"
TRAINERS = ("litgpt", "torchtune", "axolotl", "maxtext")
PLAIN, OPTAX = "plain loop", "plain loop, optax's AdamW"
METHODS = {"full": "all weights", "lora": "LoRA"}
SEEDS = {"fp32": (1, 2), "bf16": (1, 2), "bf16-mixed": (1, 2)}
"""Of the order of rows and LoRA's start, for each precision."""
LIMIT = 1e-5
"""Largest difference in fp32 between two runs that are the same training, at any step, in nats."""
STEPS, WARMUP, LR = 100, 10, 1e-3
RECIPE = f"""\
version: 1
name: parity
model:
  id: tiny
  init: random
  architecture: {{hidden_size: 64, intermediate_size: 176, layers: 2, heads: 4, kv_heads: 2, max_length: 256}}
data: {{train: rows.jsonl, format: chat, max_length: 160}}
train: {{steps: {STEPS}, batch: {{global: 16, micro: 8}}, precision: fp32}}
optim: {{lr: {LR}, weight_decay: 0.1, warmup_steps: {WARMUP}}}
"""
COSINE = {"kind": "cosine", "warmup": WARMUP, "min_ratio": 0.0}
WRONG = {
    "`optim.lr` 1 % higher": {"lr": LR * 1.01},
    "one step more of warm-up": {"schedule": {**COSINE, "warmup": WARMUP + 1}},
    "a linear schedule": {"schedule": {**COSINE, "kind": "linear"}},
    "`optim.betas` 0.9, 0.96": {"betas": [0.9, 0.96]},
    "`optim.eps` 1e-7": {"eps": 1e-7},
    "`optim.weight_decay` 0.11": {"weight_decay": 0.11},
    "`optim.decay_on: matrices`": {"decay_on": "matrices"},
    "gradients clipped at 1": {"clip": 1.0},
}
"""Mistakes that a translation could make, as the plain loop is told them."""
LORA = {"method.adapter": "lora", "method.lora.rank": 8, "method.lora.alpha": 16}
MACHINE = "version: 1\ntargets: {local: {accelerator: cpu, devices: 2, threads: 1}}\n"
SHARING = {
    "litgpt": ("DDP", "FSDP2"),
    "torchtune": ("FSDP2", "FSDP2"),
    "axolotl": ("DDP", "DDP"),
    "maxtext": ("mesh axis fsdp", "mesh axis fsdp"),
}
"""What resources.strategy: auto is on two CPU devices, for all weights and for LoRA."""


class Case(NamedTuple):
    """One training, whoever does it."""

    method: str
    precision: str = "fp32"
    devices: int = 1
    seed: int = 1

    @property
    def id(self) -> str:
        return "-".join(map(str, self))

    @property
    def changes(self) -> dict[str, object]:
        """Leaves of the recipe. Each of two processes takes half of a micro-batch at once: both accumulate over two."""
        several = {"resources.devices": self.devices, "train.batch.micro": 8 // self.devices} if self.devices > 1 else {}
        lora = LORA if self.method == "lora" else {}
        return {"train.precision": self.precision, "train.seed": self.seed, **several, **lora}


class Curves(NamedTuple):
    """Loss and learning rate of each optimizer step, from 1."""

    loss: list[float]
    lr: list[float]


def chat(rows: int = 120) -> str:
    """Conversations of one or two turns, some with a system message, of unequal lengths, as JSON lines."""
    lines = []
    for n in range(rows):
        turns = [{"role": "system", "content": "Be short."}] if n % 3 == 0 else []
        for k in range(1 + n % 2):
            turns += [
                {"role": "user", "content": f"Add {n} and {k}" + " please" * (n % 4)},
                {"role": "assistant", "content": f"It is {n + k}."},
            ]
        lines.append(json.dumps({"messages": turns}))
    return "\n".join(lines) + "\n"


def plain_loop(work: Path, case: Case, out: Path, **otherwise: object) -> Curves:
    """The yardstick, in the environment and from the weights, rows and LoRA start of a job of torchtune's; `otherwise` is what it is
    told otherwise than the recipe says. What is in `out` already is not measured again.
    """
    wish = {
        "model": str(work / json.loads((work / "model.json").read_text())["folder"]),
        "data": str(work / "data"),
        "lr": LR,
        "betas": [0.9, 0.95],
        "eps": 1e-8,
        "weight_decay": 0.1,
        "decay_on": "all",
        "schedule": COSINE,
        "micro": 8,
        "clip": None,
        "dtype": {"fp32": "float32", "bf16": "bfloat16"}[case.precision],
        "lora": {"start": str(work / "lora" / "start.safetensors"), "alpha": 16} if case.method == "lora" else None,
        **otherwise,
    }
    if not out.exists():
        (told := out.with_suffix(".wish")).write_text(json.dumps(wish))
        yardstick = ROOT / "tests" / "conformance" / "yardstick.py"
        subprocess.run([work / "env" / "bin" / "python", yardstick, told, out], check=True)
    said = json.loads(out.read_text())
    return Curves(said["loss"], said["lr"])


class Bench:
    """A folder with the recipe, its rows and a state folder, in which `tune` runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder.resolve(), folder.resolve() / "home"
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in (("parity.yaml", RECIPE), ("rows.jsonl", chat()), ("clusters.yaml", MACHINE)):
            (folder / name).write_text(text)
        for room in ("envs", "cache"):
            if (shared := os.environ.get("TUNE_TEST_HOME")) and not (self.home / room).exists():
                (self.home / room).symlink_to(Path(shared).resolve() / room)

    def tune(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, as a user runs it."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TUNE_HOME": str(self.home)}
        argv = [sys.executable, "-m", "orchestrator.cli", *words]
        return subprocess.run(argv, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def work(self, case: Case, trainer: str) -> Path:
        """The job's folder."""
        return self.home / "jobs" / f"{case.id}-{trainer}" / "1" / "work"

    def wrong(self, name: str) -> Curves:
        """The plain loop with a mistake, all weights, fp32."""
        place = list(WRONG).index(name)
        return plain_loop(self.work(Case("full"), "torchtune"), Case("full"), self.folder / f"wrong-{place}.json", **WRONG[name])

    @cache  # noqa: B019  # one bench a process
    def run(self, case: Case, who: str) -> Curves | None:
        """Curves of a trainer or of the plain loop; None where it cannot do this, or did not come to the end."""
        if who in (PLAIN, OPTAX):
            return self._plain(case, "torch" if who == PLAIN else "optax")
        job = f"{case.id}-{who}"
        if not self.work(case, who).exists():
            sets = [word for leaf, value in case.changes.items() for word in ("--set", f"{leaf}={value}")]
            done = self.tune("submit", "parity.yaml", "--to", who, "--id", job, "--follow", *sets)
            print(f"{job}: {done.stderr.strip()[-300:] if done.returncode else 'done'}", file=sys.stderr, flush=True)
        found = [self._metric(job, name) for name in Curves._fields]
        return Curves(*found) if all(found) else None

    def _plain(self, case: Case, adamw: str) -> Curves | None:
        if case.precision == "bf16-mixed" or (adamw == "optax" and case.precision == "fp32"):
            return None
        return plain_loop(self.work(case, "torchtune"), case, self.folder / f"{case.id}-{adamw}.json", adamw=adamw)

    def _metric(self, job: str, name: str) -> list[float]:
        """Of every step; empty where one is missing."""
        said = self.tune("metrics", job, "--name", name, "--json").stdout
        points = {p["step"]: p["value"] for p in json.loads(said or '{"points": []}')["points"]}
        return [points[step] for step in range(1, STEPS + 1)] if len(points) == STEPS else []


# Figures


class Apart(NamedTuple):
    """How far losses lie apart, in nats, over all steps of one or several pairs."""

    still: float
    """The largest at steps 1 and 2: the warm-up begins at 0, so the weights have not moved and only the forward pass differs."""
    middle: float
    largest: float
    step: int
    """Where the largest is."""


def apart(both: Iterable[tuple[Curves | None, Curves | None]]) -> Apart | None:
    """Over every step of every pair; None where one of them cannot do it."""
    found = list(both)
    gaps = [[abs(a - b) for a, b in zip(one.loss, other.loss, strict=True)] for one, other in found if one and other]
    if len(gaps) < len(found):
        return None
    largest, step = max((gap, -step) for each in gaps for step, gap in enumerate(each, 1))
    return Apart(max(max(each[:2]) for each in gaps), median(gap for each in gaps for gap in each), largest, -step)


def cases(method: str, precision: str) -> list[Case]:
    """In one process, with each seed."""
    return [Case(method, precision, 1, seed) for seed in SEEDS[precision]]


def tolerance(largest: float) -> float:
    """Twice what was seen, rounded up to 1, 2 or 5 times a power of ten."""
    marks = (float(f"{factor}e{power}") for power in range(-9, 3) for factor in (1, 2, 5))
    return next(mark for mark in marks if mark >= 2 * largest)


# Tables


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    first = list(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, ["---"] * len(first), *rows))


def shown(found: Apart | None) -> tuple[str, str, str]:
    """Forward pass alone, median, largest and its step."""
    if found is None:
        return "-", "-", "-"
    where = f" ({found.step})" if found.largest else ""
    return figure(found.still), figure(found.middle), f"{figure(found.largest)}{where}"


def figure(value: float) -> str:
    """Two digits; nothing is 0."""
    return f"{value:.1e}" if value else "0"


def pairs(bench: Bench, precision: str) -> str:
    """Every two that have this precision, the plain loop too. MaxText's optimizer is optax's."""
    rows = []
    for one, other in (*combinations((*TRAINERS, PLAIN), 2), ("maxtext", OPTAX)):
        found = [apart((bench.run(case, one), bench.run(case, other)) for case in cases(method, precision)) for method in METHODS]
        if any(found):
            rows.append([one, other, *(word for each in found for word in shown(each))])
    told = [f"{name}: {word}" for name in METHODS.values() for word in ("steps 1, 2", "median", "largest (step)")]
    return table(["", "", *told], rows)


def tolerances(bench: Bench) -> str:
    """The largest of all pairs of trainers, and of those that use torch; and what may be asked of two that are the same training."""
    rows = []
    for precision, (method, name) in product(SEEDS, METHODS.items()):
        ran = [[bench.run(case, trainer) for case in cases(method, precision)] for trainer in TRAINERS]
        rows.append([f"`{precision}`", name])
        for some in (ran, ran[:-1]):
            found = (apart(zip(one, other, strict=True)) for one, other in combinations(some, 2))
            largest = max(each.largest for each in found if each)
            rows[-1] += [f"{largest:.1e}", f"{tolerance(largest):.0e}"]
    groups = [f"{whose}: {word}" for whose in ("all four", "without MaxText") for word in ("largest", "twice that, rounded up")]
    return table(["`train.precision`", "", *groups], rows)


def costs(bench: Bench) -> str:
    """How far a precision leads away from the plain loop in fp32."""
    kinds = list(product(list(SEEDS)[1:], METHODS))
    rows = []
    for who in (*TRAINERS, PLAIN):
        found = [
            apart([(bench.run(Case(method, precision), who), bench.run(Case(method), PLAIN))]) for precision, method in kinds
        ]
        rows.append([who, *(shown(each)[2] for each in found)])
    return table(["", *(f"`{precision}`, {METHODS[method]}" for precision, method in kinds)], rows)


def in_two(bench: Bench) -> str:
    """Two processes (MaxText: two devices of one) beside one, and beside the plain loop."""
    rows = []
    for trainer in TRAINERS:
        two = [(bench.run(Case(method, devices=2), trainer), method) for method in METHODS]
        against = [(run, bench.run(Case(method), who)) for run, method in two for who in (trainer, PLAIN)]
        rows.append([trainer, *SHARING[trainer], *(shown(apart([each]))[2] for each in against)])
    told = [f"{name}: from {word}" for name in METHODS.values() for word in ("one process", "the plain loop")]
    return table(["", "all weights by", "LoRA by", *told], rows)


def mistakes(bench: Bench) -> str:
    """What a wrong setting shows: the plain loop with it beside the plain loop without."""
    rows = ((name, *shown(apart([(bench.wrong(name), bench.run(Case("full"), PLAIN))]))[1:]) for name in WRONG)
    return table(["", "median", "largest (step)"], rows)


def rates(bench: Bench) -> str:
    """Each trainer's learning rate beside the plain loop's, in fp32."""
    rows = []
    for trainer in TRAINERS:
        ran = [(bench.run(Case(method), trainer), bench.run(Case(method), PLAIN)) for method in METHODS]
        both = [(one.lr, want.lr) for one, want in ran if one and want]
        gaps = [(abs(a - b), b) for one, want in both for a, b in zip(one, want, strict=True)]
        of_itself, of_highest = max(gap / rate for gap, rate in gaps if rate), max(gap for gap, _ in gaps) / LR
        rows.append([trainer, figure(of_itself), figure(of_highest)])
    return table(["", "of itself", "of the highest rate"], rows)


def figures(bench: Bench) -> str:
    """What the page shows."""
    parts = [
        f"{STEPS} optimizer steps of 8 x 2 sequences of chat rows, {WARMUP} of them warm-up, cosine, highest rate {LR:g}, decay 0.1; a "
        "random Llama of 133,440 weights, LoRA of rank 8 on all seven linear layers (18,688 weights); on a CPU. In nats a token."
    ]
    for precision, seeds in SEEDS.items():
        parts += [f"### Pairs in `{precision}`, {len(seeds)} seed{'s'[: len(seeds) - 1]}", pairs(bench, precision)]
    parts += ["### What may be asked of two trainers", tolerances(bench)]
    parts += ["### What a precision costs: largest distance (step) from the plain loop in `fp32`", costs(bench)]
    parts += ["### Two processes in `fp32`: largest distance (step)", in_two(bench)]
    parts += ["### What a mistake shows: all weights, `fp32`", mistakes(bench)]
    parts += ["### Learning rate: largest relative distance from the plain loop", rates(bench)]
    return "\n\n".join(parts)


def put(path: Path, text: str) -> None:
    """Between the marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{path}: should have {BEGIN} and, below it, {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    from picture import picture  # noqa: PLC0415  # a script beside this one, found only where this one is run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="keeps the runs; those that are there are not made again")
    parser.add_argument("--write", action="store_true", help="put tables and picture into docs/")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        bench = Bench(said.home or Path(empty))
        text = figures(bench)
        print(text)
        if said.write:
            drawn = {trainer: curves.loss for trainer in TRAINERS if (curves := bench.run(Case("full"), trainer))}
            put(PAGE, text)
            PICTURE.write_text(picture(drawn, bench.run(Case("full"), PLAIN).loss, LIMIT))


if __name__ == "__main__":
    main()
