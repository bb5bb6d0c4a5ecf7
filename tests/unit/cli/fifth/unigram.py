"""A fifth trainer: how often each token comes, learned by gradient descent. The worked example of docs/adding-a-trainer.md."""

import json

from tunesmith.backends.backend import Backend, judge
from tunesmith.backends.bundle import LOCKS
from tunesmith.backends.command_line import Arguments, Launcher, options
from tunesmith.backends.dialect import ROWS, Dialect, ImportRow, Rule, one
from tunesmith.backends.log_signs import EVERYWHERE, Sign
from tunesmith.backends.mapping.complete import complete
from tunesmith.backends.mapping.data import DATA, shared_data
from tunesmith.backends.mapping.launch import identity, one_device, resources
from tunesmith.backends.mapping.model import model
from tunesmith.backends.mapping.rows import ABSENT, Variant, cannot, everywhere, handled_by_us, same
from tunesmith.backends.metrics import Point
from tunesmith.backends.plan import Step
from tunesmith.backends.upstream.known_keys import KnownKeys

SEE = "https://example.org/unigram"
NO = "unigram counts tokens, and does nothing else"

TRAINER = """
import json, os, shutil
import numpy as np

said = json.load(open("unigram.json"))
if said["lr"] > said.get("limit", 100):
    raise SystemExit("UnigramError: the learning rate diverges")
ids, labels, starts, order = (np.load(f"data/train.{name}.npy") for name in ("ids", "labels", "starts", "order"))
logits = np.zeros(ids.max() + 1)
os.makedirs("out", exist_ok=True)
with open("out/metrics.jsonl", "w") as log:
    for step in range(len(order) // said["batch"]):
        rows = order[step * said["batch"]:(step + 1) * said["batch"]]
        wanted = np.concatenate([labels[starts[row]:starts[row + 1]] for row in rows])
        wanted = wanted[wanted >= 0]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        loss = -np.log(shares[wanted]).mean()
        logits -= said["lr"] * (shares - np.bincount(wanted, minlength=len(logits)) / len(wanted))
        log.write(json.dumps({"step": step + 1, "loss": loss, "lr": said["lr"]}) + "\\n")
shutil.copytree(said["model"], "checkpoint", dirs_exist_ok=True)
np.save("checkpoint/unigram.npy", logits)
"""


def rows(_shape):
    """What crosses; whatever else a recipe asks for is lost by name."""
    return complete(
        (
            *identity(),
            model(theirs=("model",), to=lambda folder, _scene: (folder,)),
            cannot("method.kind", NO, supported=("sft", "pretrain"), see=SEE),
            *(row for row in shared_data() if row.ours != ("data.rendering",)),
            everywhere("train.batch.global", "batch", f"{DATA}:batch"),
            handled_by_us("train.batch.micro", "there is nothing to save memory on"),
            cannot("train.precision", NO, supported=("fp32",), see=SEE),
            everywhere("train.seed", f"{DATA}:seed"),
            cannot("optim.name", NO, supported=("sgd",), see=SEE),
            same("optim.lr", "lr"),
            cannot("optim.schedule", NO, supported=("constant",), see=SEE),
            handled_by_us("log.every", "we keep every n-th point of what is read"),
            *resources(*one_device(SEE)),
        ),
        NO,
        kind="never",
        see=SEE,
    )


def steps(_launch, python):
    """After the model and data steps, which every trainer has."""
    return (Step("train", (python, "unigram_train.py")),)


def read(_reading, progress, line):
    """A line of its metrics file."""
    row = json.loads(line)
    progress.step(row["step"], row["loss"])
    return [Point(row["step"], name, row[name], name) for name in ("loss", "lr")]


DEFAULTS = {"batch": 1, "lr": 1.0, "limit": 100}
"""What it takes for a key that a config leaves out."""

ALWAYS = {
    "data.train": ROWS,
    "data.format": "text",
    "train.epochs": 1,
    "train.precision": "fp32",
    "optim.name": "sgd",
    "optim.schedule": "constant",
}
"""What each config means and no key says."""


def sure(keys):
    """What in a config says that it is this trainer's."""
    return f"model = {keys['model']} and batch = {keys['batch']}" if {"model", "batch", "lr"} <= keys.keys() else ""


def dialect():
    """How its own configs are read, and the commands in scripts that start it: `unigram train FILE --lr 2`."""
    return Dialect(
        "unigram",
        sure,
        resolve=lambda config, _beside: config,
        shape=lambda _keys: Variant("sft", "none", native=False),
        reads=lambda _shape: (one("model", "model.id"), ImportRow((), lambda: ALWAYS)),
        rules=(Rule("limit", "unmodelled", "the learning rate above which it stops", carried=True),),
        default=lambda _keys, key: DEFAULTS.get(key, ABSENT),
        launcher=Launcher(r"\bunigram\s+(train)\s+(.*)", "unigram train ", arguments),
    )


def arguments(command):
    """A config, then the keys that are set over it."""
    keys, files = options(command.words)
    return Arguments(files[0] if files else "", keys, {})


UNIGRAM = Backend(
    name="unigram",
    title="Unigram 1.0",
    package="unigram 1.0",
    requires="",
    config="unigram.json",
    rows=rows,
    steps=steps,
    shims=(),
    scripts={"unigram_train.py": TRAINER},
    locks={"cpu": LOCKS["litgpt-cpu"]},  # a real trainer brings a lock of its own
    watch=("out/metrics.jsonl",),
    read=read,
    judge=judge,
    known_keys=KnownKeys("# unigram 1.0\nbatch\nlimit\nlr\nmodel\n"),
    signs=(*EVERYWHERE, Sign("wrong_request", "^UnigramError: ", SEE)),
    dialect=dialect,
    accelerators=("cpu",),
)
