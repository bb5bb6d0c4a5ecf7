"""Going on from a checkpoint, with each trainer: a run that is killed on its way and goes on learns what a whole run learns."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backends.backend import Progress
from backends.checkpoints import INDEX, LINK, checkpoints, resumed
from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

pytestmark = pytest.mark.trainer

STEPS, EVERY = 20, 5
CLOSE = 2e-6
"""Largest difference of a step's loss, in nats, and of its rate as a share of the highest."""
RATE = 3e-3
RECIPE = f"""\
version: 1
name: again
model:
  id: tiny
  init: random
  architecture: {{hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4, kv_heads: 2, max_length: 128}}
data: {{train: rows.jsonl, format: text, max_length: 96}}
train: {{steps: {STEPS}, batch: {{global: 8, micro: 2}}, precision: fp32, seed: 3}}
optim: {{lr: {RATE}, warmup_steps: 3, weight_decay: 0.1}}
checkpoint: {{every: {EVERY}, resume: true}}
"""
LORA = ("method.adapter=lora", "method.lora.rank=4")
WHOLE = "method.lora.train_fully=[embeddings,norms]"
DPO = ("method.kind=dpo", "data.train=pairs.jsonl", "data.format=preference", "optim.lr=3.0e-4")

TWO = ("resources.devices=2",)
KEEP = ("checkpoint.keep=2",)
THOROUGH = pytest.mark.thorough(3)


def prose(n):
    """A sentence; of unequal lengths, so that another place in the rows would show."""
    return f"Row {n} says " + "so " * (1 + n * 5 % 11) + f"and is {n * n}."


@dataclass
class Attempt:
    """One try of a job in a folder of its own, as a host runs it."""

    trainer: str
    plan: dict
    work: Path
    python: str
    home: Path
    links: dict = field(default_factory=dict)

    def make(self):
        """The work folder."""
        self.work.mkdir(parents=True)
        for file in self.plan.files:
            (self.work / file.path).write_text(file.text)
        inputs = {each.path: each.source for each in self.plan.inputs}
        for name, place in {"cache": self.home / "cache", "env": Path(self.python).parents[1], **inputs, **self.links}.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).symlink_to(place)
        return self

    def run(self, until=None):
        """All steps, or until the checkpoint of a step is there: then the processes are killed."""
        for step in self.plan.steps:
            with (self.work / "log").open("ab") as log:
                process = subprocess.Popen(
                    step.argv,
                    cwd=self.work,
                    env={**os.environ, **dict(self.plan.env), "OMP_NUM_THREADS": "1"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            while until and process.poll() is None and all(each.step < until for each in self.checkpoints()):
                time.sleep(0.002)
            if until and self.checkpoints():
                for pid in self.processes():
                    os.kill(pid, signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
                return self
            assert process.wait() == 0, f"{step['name']}: {(self.work / 'log').read_text()[-5000:]}"
        return self

    def processes(self):
        """All that work in its folder; torchrun gives its own a session of their own."""
        for place in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if place.readlink() == self.work:
                    yield int(place.parent.name)

    def checkpoints(self):
        """Those that it says are complete."""
        index = self.work / INDEX
        return checkpoints(index.read_text()) if index.exists() else ()

    def curve(self, name):
        """Step -> value, as the product reads it."""
        progress, found = Progress(), {}
        files = [file for pattern in self.plan.watch for file in sorted(self.work.glob(pattern))]
        for line in "".join(file.read_text() for file in files).splitlines():
            points = BACKENDS[self.trainer].read(self.plan.reading, progress, line)
            found |= {point.step: point.value for point in points if point.name == name}
        return found


@pytest.fixture
def attempt(tmp_path, shared_home, trainer_python):
    """Makes the first attempt of a trainer's job, or one that goes on from another."""
    texts = [{"text": prose(n)} for n in range(48)]
    pairs = [{"prompt": f"Add {n}: ", "chosen": prose(n), "rejected": prose(n + 3)} for n in range(48)]
    for name, rows in (("rows", texts), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")

    def make(trainer, name, *sets, after=None):
        backend = BACKENDS[trainer]
        sets = list(sets)
        made = plan(backend, parse(RECIPE, base=str(tmp_path), sets=sets), Target(devices=2))
        links = {}
        if after:
            earlier, step = after
            chosen = next(each for each in earlier.checkpoints() if each.step == step)
            assert not chosen.lacks
            made = resumed(made, step, STEPS, backend.resume, backend.config)
            links = {LINK: earlier.work / chosen.folder}
        return Attempt(trainer, made, tmp_path / name, trainer_python(trainer), shared_home, links).make()

    return make


@pytest.mark.parametrize(
    ("trainer", "sets"),
    [
        pytest.param("litgpt", KEEP, id="litgpt-weights"),
        pytest.param("litgpt", ("method.kind=pretrain", "train.compile=false"), id="litgpt-pretrain", marks=THOROUGH),
        pytest.param("litgpt", TWO, id="litgpt-processes", marks=THOROUGH),
        pytest.param("torchtune", KEEP, id="torchtune-weights", marks=THOROUGH),
        pytest.param("torchtune", TWO, id="torchtune-processes", marks=THOROUGH),
        pytest.param("torchtune", (*LORA, *TWO), id="torchtune-lora-processes", marks=THOROUGH),
        pytest.param("torchtune", (*LORA, "method.lora.dropout=0.1"), id="torchtune-lora", marks=THOROUGH),
        pytest.param("torchtune", (*LORA, WHOLE), id="torchtune-lora-whole", marks=THOROUGH),
        pytest.param("torchtune", (*LORA, *DPO), id="torchtune-pairs", marks=THOROUGH),
        pytest.param("axolotl", KEEP, id="axolotl-weights", marks=THOROUGH),
        pytest.param("axolotl", (*LORA, "method.lora.dropout=0.1"), id="axolotl-lora", marks=THOROUGH),
        pytest.param("axolotl", (*LORA, WHOLE), id="axolotl-lora-whole", marks=THOROUGH),
        pytest.param("trl", (*LORA, "method.lora.dropout=0.1"), id="trl-lora", marks=THOROUGH),
        pytest.param("trl", (*LORA, WHOLE), id="trl-lora-whole", marks=THOROUGH),
        pytest.param("trl", KEEP, id="trl-weights", marks=THOROUGH),
        pytest.param("trl", TWO, id="trl-processes", marks=THOROUGH),
        pytest.param("trl", (*LORA, *DPO), id="trl-pairs", marks=THOROUGH),
        pytest.param("unsloth", (*LORA, "method.lora.dropout=0.1"), id="unsloth-lora", marks=THOROUGH),
        pytest.param("unsloth", (*LORA, WHOLE), id="unsloth-lora-whole", marks=THOROUGH),
        pytest.param("maxtext", KEEP, id="maxtext-weights", marks=THOROUGH),
        pytest.param("maxtext", (*LORA, *KEEP), id="maxtext-lora", marks=THOROUGH),
        pytest.param("maxtext", DPO, id="maxtext-pairs", marks=THOROUGH),
        pytest.param("maxtext", TWO, id="maxtext-devices", marks=THOROUGH),
        pytest.param("maxtext", (*LORA, *TWO), id="maxtext-lora-devices", marks=THOROUGH),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(attempt, trainer, sets):
    """Steps, losses and rates after the checkpoint are those of a whole run, and the old attempt's folder stays as it is."""
    whole = attempt(trainer, "whole", *sets).run()
    assert steps(whole) == list(range(EVERY, STEPS + 1, EVERY))[-2 if KEEP[0] in sets else 0 :]
    killed = attempt(trainer, "1", *sets).run(until=2 * EVERY)
    before = state(killed.work)
    second = attempt(trainer, "2", *sets, after=(killed, 2 * EVERY)).run()
    assert state(killed.work) == before
    for name, unit in (("loss", 1.0), ("lr", RATE)):
        due = {step: value for step, value in whole.curve(name).items() if step > 2 * EVERY}
        seen = second.curve(name)
        assert list(due) == list(seen) == list(range(2 * EVERY + 1, STEPS + 1))
        assert max(abs(due[step] - seen[step]) for step in due) < CLOSE * unit, (name, due, seen)
    assert (second.work / "checkpoint/config.json").exists()
    assert steps(second)[-2:] == [3 * EVERY, STEPS]


@pytest.mark.parametrize(
    ("trainer", "sets"),
    [
        pytest.param("torchtune", (), id="torchtune-weights", marks=THOROUGH),
        pytest.param("torchtune", (*LORA, *DPO), id="torchtune-pairs", marks=THOROUGH),
        pytest.param("axolotl", (), id="axolotl-weights", marks=THOROUGH),
        pytest.param("trl", (), id="trl-weights", marks=THOROUGH),
        pytest.param("trl", (*LORA, *DPO), id="trl-pairs", marks=THOROUGH),
        pytest.param("unsloth", LORA, id="unsloth-lora", marks=THOROUGH),
        pytest.param("maxtext", (), id="maxtext-weights", marks=THOROUGH),
        pytest.param("maxtext", DPO, id="maxtext-pairs", marks=THOROUGH),
    ],
)
def test_it_goes_on_with_a_smaller_micro_batch(attempt, trainer, sets):
    """As after a run that ran out of memory (`Backend.resumes_smaller`): the losses are those of a whole run."""
    assert BACKENDS[trainer].resumes_smaller
    whole = attempt(trainer, "whole", *sets).run()
    killed = attempt(trainer, "1", *sets).run(until=2 * EVERY)
    second = attempt(trainer, "2", *sets, "train.batch.micro=1", after=(killed, 2 * EVERY)).run()
    due, seen = whole.curve("loss"), second.curve("loss")
    assert list(seen) == list(range(2 * EVERY + 1, STEPS + 1))
    assert max(abs(due[step] - seen[step]) for step in seen) < CLOSE


def test_what_no_run_goes_on_from_says_so(attempt):
    """LitGPT's adapters are saved on their way, and listed with what they lack."""
    sets = (*LORA, "checkpoint.resume=false", f"train.steps={EVERY}")
    tried = attempt("litgpt", "1", *sets).run()
    assert steps(tried) == [EVERY]
    assert "no optimizer state" in tried.checkpoints()[0].lacks


def steps(attempt):
    """Those of its checkpoints, each of which is there."""
    assert all((attempt.work / each.folder).is_dir() for each in attempt.checkpoints())
    return [each.step for each in attempt.checkpoints()]


def state(folder):
    """Names, sizes and times of everything in a folder."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if "cache" not in path.parts and "env" not in path.parts
    }
