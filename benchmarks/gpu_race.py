"""One GPU: `tune race` in turn with a torchtune config made by hand, which it should be as fast as.

    python benchmarks/gpu_race.py [--python VENV/bin/python] [--rounds 3] [--seconds 540] [--write]

LoRA on all linear layers of a random model of Llama 3.2 1B's shape, 8 x 2048 tokens a step, bf16, every token with loss. Each round
is a race of torchtune and LitGPT and then the hand-made config, so that a drift of the card shows; the second round's race recomputes
activations. `--python` has both trainers (without it tune makes their environments). `--write` puts the tables into docs/races.md.
`--tiny --accelerator cpu` is the same in small, for trying the script.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

Json = dict[str, Any]
"""A document."""
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "races.md"
BEGIN, END = "<!-- made by benchmarks/gpu_race.py -->", "<!-- end -->"
STEPS, LEFT_OUT = 40, 5
TRAINERS = ("torchtune", "litgpt")
LLAMA = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "heads": 32, "kv_heads": 8}
TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 176, "layers": 2, "heads": 4, "kv_heads": 2}
PACKAGES = ("torch", "triton", "torchtune", "torchao", "litgpt", "lightning")
RECIPE = """\
version: 1
name: one-gpu
model:
  id: llama-3.2-1b-shape
  init: random
  architecture: {architecture}
method: {{adapter: lora, lora: {{rank: 16, alpha: 32, targets: [q, k, v, o, gate, up, down]}}}}
data: {{train: rows.jsonl, format: text, max_length: {length}}}
train: {{steps: {steps}, batch: {{global: 8}}, precision: bf16}}
optim: {{lr: 2e-4, weight_decay: 0.0, warmup_steps: 5}}
"""
HAND = """\
output_dir: out
model:
  _component_: torchtune.models.llama3_2.lora_llama3_2
  lora_attn_modules: [q_proj, k_proj, v_proj, output_proj]
  apply_lora_to_mlp: true
  lora_rank: 16
  lora_alpha: 32
  lora_dropout: 0.0
  vocab_size: {vocab_size}
  num_layers: {layers}
  num_heads: {heads}
  num_kv_heads: {kv_heads}
  embed_dim: {hidden_size}
  intermediate_dim: {intermediate_size}
  max_seq_len: {length}
tokenizer: {{_component_: by_hand.Tokenizer}}
dataset: {{_component_: by_hand.rows, path: {texts}, count: {rows}, length: {length}}}
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: {model}
  checkpoint_files: [model.safetensors]
  output_dir: out
  model_type: LLAMA3_2
resume_from_checkpoint: false
save_adapter_weights_only: true
seed: 1
shuffle: false
batch_size: 8
gradient_accumulation_steps: 1
epochs: 1
max_steps_per_epoch: null
optimizer: {{_component_: torch.optim.AdamW, fused: {cuda}, lr: 2e-4, weight_decay: 0.0}}
lr_scheduler: {{_component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup, num_warmup_steps: 5}}
loss: {{_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}}
clip_grad_norm: null
compile: {cuda}
dtype: bf16
device: {device}
enable_activation_checkpointing: false
enable_activation_offloading: false
metric_logger: {{_component_: torchtune.training.metric_logging.DiskLogger, log_dir: out, filename: train.log}}
log_every_n_steps: 1
log_peak_memory_stats: {cuda}
"""
BY_HAND = """\
import json


class Tokenizer:
    pad_id = 0


def rows(tokenizer, *, path, count, length):
    texts = [json.loads(line)["text"] for line in open(path)]
    ids = [[256, *text.encode()][:length] for text in texts]
    return [{"tokens": row, "labels": list(row)} for row in (ids[n % len(ids)] for n in range(count))]
"""


def main() -> int:
    """Rounds until the time is up; 0 when every race ended well."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--python", default="", help="an interpreter that has both trainers")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--seconds", type=float, default=3600.0, help="no part begins that would not end within this time")
    asked.add_argument("--out", type=Path, help="folder for results.json and logs")
    asked.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    asked.add_argument("--tiny", action="store_true")
    asked.add_argument("--write", action="store_true", help="put the tables into docs/races.md")
    said = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Bench(said, Path(folder)).run()
    text = page(results)
    print(text)
    if said.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")
    return 0 if all(map(ended_well, results["parts"])) else 1


def ended_well(part: Json) -> bool:
    """The hand-made run, or all trainers of a race."""
    return "failed" not in part and all(each["state"] == "SUCCEEDED" for each in part.get("trainers", ()))


class Bench:
    """A folder with its own state of tune, and what was measured in it."""

    def __init__(self, said: argparse.Namespace, folder: Path) -> None:
        self._said, self._folder = said, folder
        self._out = (said.out or folder / "out").absolute()
        self._length = 64 if said.tiny else 2048
        self._shape = TINY if said.tiny else LLAMA
        self._began = time.monotonic()
        self._longest: dict[str, float] = {}
        """Seconds that a part took."""
        self._env = os.environ | {"TUNE_HOME": str(folder / "home"), "TUNE_CLUSTERS": str(folder / "clusters.yaml")}
        self._env["PYTHONPATH"] = str(ROOT)

    def run(self) -> Json:
        """Facts of the machine, and each part in its order."""
        self._prepare()
        results: Json = {"machine": self._machine(), "parts": []}
        for number in range(self._said.rounds):
            recomputed = number == 1
            for name, part in (("race", lambda again=recomputed: self._race(again=again)), ("hand", self._hand)):
                if self._late(name):
                    continue
                began = time.monotonic()
                results["parts"].append(part())
                self._longest[name] = max(time.monotonic() - began, self._longest.get(name, 0.0))
                print(f"{name}: {self._longest[name]:.0f} s: {json.dumps(results['parts'][-1])}", file=sys.stderr, flush=True)
                (self._out / "results.json").write_text(json.dumps(results, indent=1))
        return results

    def _late(self, name: str) -> bool:
        return time.monotonic() - self._began + self._longest.get(name, 0.0) > self._said.seconds

    def _prepare(self) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        target: Json = {"kind": "local", "accelerator": self._said.accelerator, "devices": 1}
        if self._said.python:
            target["python"] = str(Path(self._said.python).absolute())
        (self._folder / "clusters.yaml").write_text(json.dumps({"version": 1, "targets": {"local": target}}))
        facts = {**self._shape, "max_length": self._length, "rope_theta": 500000.0, "tied": True}
        recipe = RECIPE.format(architecture=json.dumps(facts), length=self._length, steps=STEPS)
        (self._folder / "race.yaml").write_text(recipe)
        (self._out / "race.yaml").write_text(recipe)
        draws = random.Random(0)
        texts = ("".join(draws.choices(string.ascii_letters + " ", k=self._length + 50)) for _ in range(64))
        (self._folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def _race(self, *, again: bool) -> Json:
        """`tune race`; a trainer that failed leaves its log."""
        words = ["race", "race.yaml", "--to", ",".join(TRAINERS), "--steps", str(STEPS), "--rounds", "1", "--json"]
        if again:
            words += ["--set", "train.activation_checkpointing=true"]
        ran = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words],
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            check=False,
        )
        if not ran.stdout:
            return {"kind": "race", "recomputed": again, "failed": f"exit code {ran.returncode}"}
        values: Json = json.loads(ran.stdout)
        for each in values["trainers"]:
            each["losses"] = self._losses(each["job"])
            if each["state"] != "SUCCEEDED":
                said = [sys.executable, "-m", "orchestrator.cli", "logs", each["job"]]
                told = subprocess.run(said, env=self._env, capture_output=True, check=False).stdout
                (self._out / f"{each['trainer']}.log").write_bytes(told[-200_000:])
        return {"kind": "race", "recomputed": again, **values}

    def _losses(self, job: str) -> list[float]:
        said = [sys.executable, "-m", "orchestrator.cli", "metrics", job, "--json"]
        told = subprocess.run(said, env=self._env, capture_output=True, check=True).stdout
        found = json.loads(told)
        points = found["points"] if isinstance(found, dict) else found[0]["points"]
        return [each["value"] for each in sorted(points, key=lambda each: each["step"]) if each["name"] == "loss"]

    def _hand(self) -> Json:
        """torchtune's own program with the hand-made config, on the weights that the race has made."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        model = next(self._folder.glob("home/cache/models/*/model.safetensors")).parent
        cuda = self._said.accelerator == "cuda"
        sizes = {
            **self._shape,
            "length": self._length,
            "rows": STEPS * 8,
            "texts": self._folder / "rows.jsonl",
            "model": model,
            "device": "cuda" if cuda else "cpu",
        }
        (place / "by_hand.yaml").write_text(HAND.format(**sizes, cuda=str(cuda).lower()))
        (place / "by_hand.py").write_text(BY_HAND)
        words = ["-m", "torchtune._cli.tune", "run", "lora_finetune_single_device", "--config", "by_hand.yaml"]
        with (self._out / "by_hand.log").open("wb") as log:
            ran = subprocess.run([self._trainers(), *words], cwd=place, stdout=log, stderr=log, check=False)
        if ran.returncode:
            return {"kind": "hand", "failed": f"exit code {ran.returncode}"}
        text = (place / "out" / "train.log").read_text()
        speeds = [float(found) for found in re.findall(r"tokens_per_second_per_gpu:([0-9.e+]+)", text)]
        losses = [float(found) for found in re.findall(r"loss:([0-9.e+-]+)", text)]
        memory = [float(found) for found in re.findall(r"peak_memory_alloc:([0-9.e+]+)", text)]
        low, _, high = quantiles(speeds[LEFT_OUT:], n=4, method="inclusive")
        tokens = {"median": median(speeds[LEFT_OUT:]), "low": low, "high": high}
        return {"kind": "hand", "tokens": tokens, "memory_gib": max(memory, default=None), "losses": losses}

    def _trainers(self) -> str:
        """An interpreter that has torchtune."""
        return self._said.python or str(next(self._folder.glob("home/envs/torchtune-*/bin/python")))

    def _machine(self) -> Json:
        asks = "import json, sys; from importlib.metadata import version as v, PackageNotFoundError as E\n"
        asks += "def ask(n):\n try: return v(n)\n except E: return None\n"
        asks += "print(json.dumps({'python': sys.version.split()[0], **{n: ask(n) for n in sys.argv[1:]}}))"
        versions = subprocess.run(
            [self._said.python or sys.executable, "-c", asks, *PACKAGES], capture_output=True, text=True, check=True
        )
        facts = {"versions": json.loads(versions.stdout), "device": "CPU", "driver": None}
        if self._said.accelerator == "cuda":
            said = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
            told = subprocess.run(said, capture_output=True, text=True, check=True).stdout.splitlines()[0]
            facts["device"], facts["driver"] = told.split(", ")
        return facts


def page(results: Json) -> str:
    """The tables, as Markdown."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items() if value)
    head = f"Device: {machine['device']}, driver {machine['driver']}. {versions}."
    rows = [row for number, part in enumerate(results["parts"], 1) for row in _rows(number, part)]
    columns = "| run | what | tokens/s | middle half | peak GiB | first step, s | loss apart |\n|---|---|---|---|---|---|---|"
    return "\n".join([head, "", columns, *rows])


def _rows(number: int, part: Json) -> list[str]:
    if "failed" in part:
        return [f"| {number} | {part['kind']}: {part['failed']} | | | | | |"]
    if part["kind"] == "hand":
        return [_row(number, "torchtune, made by hand", part["tokens"], part["memory_gib"], None, None)]
    how = ", activations recomputed" if part["recomputed"] else ""
    return [
        _row(
            number,
            f"`tune race`: {each['trainer']}{how}{', the winner' * (each['trainer'] == part['winner'])}",
            each["rounds"][0]["tokens_per_second"],
            each["memory_gib"],
            each["first_step_s"],
            each["loss_apart"],
        )
        if each["state"] == "SUCCEEDED"
        else f"| {number} | `tune race`: {each['trainer']}{how}: {each['state']} | | | | | |"
        for each in part["trainers"]
    ]


def _row(number: int, what: str, speed: Json | None, memory: float | None, first: float | None, apart: Json | None) -> str:
    cells = (
        f"{speed['median']:,.0f}" if speed else "-",
        f"{speed['low']:,.0f} to {speed['high']:,.0f}" if speed else "-",
        f"{memory:.1f}" if memory is not None else "-",
        f"{first:.0f}" if first is not None else "-",
        f"{apart['size']:.1e} at {apart['step']}" if apart and apart["size"] is not None else "-",
    )
    return f"| {number} | {what} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
