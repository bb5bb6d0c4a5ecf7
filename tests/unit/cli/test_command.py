"""The backend `command`: any command line as a trainer, with what it needs of the recipe in its words."""

import json

import pytest

from backends.analysis.capabilities import VARIANTS
from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.flat import leaves
from backends.recipe.parse import parse
from backends.target import Target
from backends.trainers.command.backend import COMMAND

SCRIPT = """
import argparse, json, os, sys
words = argparse.ArgumentParser()
for name, kind in (("--lr", float), ("--steps", int), ("--data", str)):
    words.add_argument(name, type=kind)
said = words.parse_args()
weight, rows = 1.0, sum(1 for _ in open(said.data))
for step in range(said.steps):
    print(f"\\rprogress {step}", end="")
    print(f"\\n{{'loss': {weight:.4f}, 'learning_rate': {said.lr}, 'step': {step}}} {rows} {os.environ['MARK']}", flush=True)
    with open("lines.jsonl", "a") as log:
        log.write(json.dumps({"loss": weight, "learning_rate": said.lr, "step": step}) + "\\n")
    weight -= said.lr
os.makedirs("model")
json.dump(weight, open("model/weight.json", "w"))
"""
PATTERN = r"'loss': (?P<loss>[\d.]+), 'learning_rate': (?P<lr>[\d.e-]+), 'step': (?P<step>\d+)"
WORDS = ["python3", "train.py", "--lr={optim.lr}", "--steps", "{train.steps}", "--data={data.train}", "{{{train.batch.global}"]


def recipe(**command):
    """A small recipe whose command is the script; keys given replace those of the section."""
    said = {"argv": WORDS[:-1], "inputs": ["./train.py"], "metrics": {"pattern": PATTERN, "first": 0}, "files": ["model/*.json"]}
    return {
        "version": 1,
        "name": "script",
        "model": {"id": "org/name"},
        "data": {"train": "rows.jsonl", "format": "text"},
        "train": {"steps": 4, "batch": {"global": 2}},
        "optim": {"lr": 0.125},
        "native": {"command": {**said, "env": {"MARK": "{name}"}, **command}},
    }


def decided(values, *accept, **target):
    """The plan of a recipe."""
    return plan(COMMAND, parse(json.dumps(values), base="/there"), Target(**target), accept)


def refused(values):
    """Leaf -> reason of what is lost."""
    with pytest.raises(Inexpressible) as error:
        decided(values)
    return {line.leaf: line.why for line in error.value.report.refused}


ACCEPTED = ("model.id", "train.batch.global")


@pytest.fixture
def script(tune):
    """A folder with the script and its rows."""
    (tune.cwd / "train.py").write_text(SCRIPT)
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n' * 3)

    def write(**command):
        (tune.cwd / "r.yaml").write_text(json.dumps(recipe(**command)))
        return ("submit", "r.yaml", "--to", "command", *(word for leaf in ACCEPTED for word in ("--accept", leaf)))

    return write


def test_a_loss_that_stays_high_ends_the_run(tune, script):
    """Losses above the recipe's limit for so many steps in a row end the job as diverged, whatever points are kept of them; it is not
    tried again. A limit that none is above does nothing.
    """
    words = (*script(), "--set", "retry.diverged_above=0.7", "--set", "log.every=4", "--set", "retry.unknown=2", "--follow")
    id = tune(*words, code=1).stdout.strip()
    (job,) = tune.json("status", id)
    assert (job["state"], job["reason"], job["attempt"]) == ("FAILED", "diverged", 1)
    assert job["detail"].startswith("the loss of 3 steps in a row was above 0.7, up to 0.75 at step 3")
    tune(*words, "--set", "retry.diverged_steps=4")
    tune(*words, "--set", "retry.diverged_above=1.5")


@pytest.mark.parametrize(
    "metrics", [{"pattern": PATTERN, "first": 0}, {"file": "lines.jsonl", "names": {"lr": "learning_rate"}, "first": 0}]
)
def test_a_script_trains(tune, script, metrics):
    """A script of the standard library becomes a job that succeeds, with a point a step, from its output or from a file."""
    id = tune(*script(metrics=metrics), "--follow").stdout.strip()
    points = tune.json("metrics", id)["points"]
    assert {p["step"]: p["value"] for p in points if p["name"] == "loss"} == {1: 1.0, 2: 0.875, 3: 0.75, 4: 0.625}
    assert {p["value"] for p in points if p["name"] == "lr"} == {0.125}
    assert "3 script" in tune("logs", id).stdout
    tune("pull", id, "--into", "out")  # with what the command promises to write
    assert json.loads((tune.cwd / "out/work/model/weight.json").read_text()) == 0.5


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ({"files": ["model/*.bin"]}, "no_checkpoint: missing or empty: model/*.bin"),
        ({"metrics": {"file": "elsewhere.jsonl"}}, "no_steps"),
        ({"argv": [*WORDS[:4], "3", WORDS[5]]}, ""),
        ({"argv": ["python3", "-c", "raise SystemExit(7)", *WORDS[2:6]]}, "exit code 7"),
        ({"argv": ["no-such-program", *WORDS[2:6]]}, "no-such-program: No such file or directory"),
    ],
)
def test_a_script_that_did_not_train(tune, script, command, reason):
    """Exit code 0 alone is no success: promised files and planned steps must be there; a failure says which."""
    words = script(**command)
    more = () if WORDS[4] in recipe(**command)["native"]["command"]["argv"] else ("--accept", "train.steps")
    id = tune(*words, *more).stdout.strip()
    said = tune("wait", id, code=0 if not reason else 1).stdout
    assert reason in said


def test_words_are_filled_in():
    """Leaves, the file as the job finds it, and braces; what is filled in is not looked at again, and no shell sees it."""
    values = recipe(
        argv=[*WORDS, "--name={model.id}", "{optim.betas}", "{data.shuffle}", "{description}", '{"a": 1}', "$HOME; ls"]
    )
    values["description"] = "{optim.lr}"
    [step] = decided(values).steps
    assert step.argv[:3] == ("python3", "tune_lines.py", PATTERN)
    assert step.argv[4:] == (
        "python3", "train.py", "--lr=0.125", "--steps", "4", "--data=inputs/train.jsonl", "{2",
        "--name=org/name", "[0.9, 0.95]", "true", "{optim.lr}", '{"a": 1}', "$HOME; ls",
    )  # fmt: skip


def test_what_no_word_takes_is_lost():
    """A leaf that is set and handed to nobody is lost by name; at its default it is the command's own affair."""
    values = recipe()
    values["optim"]["weight_decay"] = 0.1
    values["train"]["seed"] = 42
    assert set(refused(values)) == {"model.id", "train.batch.global", "optim.weight_decay"}
    lines = {line.leaf: line for line in decided(values, "optim.weight_decay", *ACCEPTED).report.lines}
    assert lines["train.seed"].status == "approximated"
    assert lines["optim.eps"].status == "defaulted"
    assert lines["data.format"].status == "approximated"


def test_steps_are_promised_only_when_handed_over():
    """Steps that the command was not told of are not held against it."""
    values = recipe(argv=[word for word in WORDS if "train.steps" not in word])
    assert decided(recipe(argv=WORDS), "model.id").promise.steps == 4
    assert decided(values, "model.id", "train.steps").promise.steps is None


def test_model_and_data_folders():
    """{model} brings the model step, {data} the data step, both in the named trainer's environment and under its name."""
    plain = decided(recipe(), *ACCEPTED)
    assert [step.name for step in plain.steps] == ["train"]
    assert (plain.environment.lock, plain.environment.python) == ("", "")
    whole = decided(recipe(argv=["{python}", "train.py", "{model}", "{data}", "{optim.lr}"], environment="litgpt"))
    assert [step.name for step in whole.steps] == ["model", "data", "train"]
    assert whole.steps[-1].argv[4:] == ("env/bin/python", "train.py", "cache/models/org--name@main", "data", "0.125")
    assert whole.environment.name == "litgpt"
    assert whole.environment.lock.startswith("#") or "torch==" in whole.environment.lock
    assert whole.promise.steps == 4
    own = decided(recipe(argv=["{python}", *WORDS[1:]], environment="litgpt"), "model.id", python="/opt/bin/python")
    assert own.steps[-1].argv[4] == "/opt/bin/python"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ({"argv": []}, "native.command.argv should have at least 1 item(s)"),
        ({"argv": ["x", "{optim.lrr}"]}, "{optim.lrr} is no placeholder; write {{optim.lrr}} for the text itself"),
        ({"argv": ["{python}"]}, "native.command.environment is required"),
        ({"environment": "litgtp"}, "native.command.environment should be a trainer whose environment is locked"),
        ({"metrics": {}}, "native.command.metrics should have either file or pattern"),
        ({"metrics": {"pattern": "(loss"}}, "native.command.metrics.pattern should be a regular expression"),
        ({"metrics": {"pattern": "loss"}}, "should have a group (?P<loss>...)"),
        ({"metrics": {"file": "../x"}}, "native.command.metrics.file should be a path inside the job's folder"),
        ({"files": ["/etc/passwd"]}, "native.command.files.0 should be a path inside the job's folder"),
        ({"inputs": ["./data"]}, "native.command.inputs.0 'data' is a name of ours in the job's folder"),
        ({"inputs": ["../.."]}, "native.command.inputs.0 '..' is a name of ours"),
        ({"argvs": []}, "native.command.argvs is not a key; known: argv, metrics, inputs"),
        ({"metrics": {"fiel": "x"}}, "native.command.metrics.fiel is not a key; known: file, pattern"),
    ],
)  # fmt: skip
def test_a_wrong_command(command, why):
    """What is wrong with the section is the one thing said, by its key, and cannot be accepted away."""
    lost = refused(recipe(**command))
    assert set(lost) == {"native"}
    assert why in lost["native"]
    with pytest.raises(Inexpressible):
        decided(recipe(**command), "native")


def test_no_command():
    """A recipe without the section is told what is missing."""
    values = recipe()
    del values["native"]
    assert refused(values) == {"native": "native.command is required: argv, the command line to run, and metrics"}


def test_it_is_never_chosen_by_itself(tune, script):
    """Without --to no command is run, although it could."""
    script()
    assert "command" not in tune.json("translate", "r.yaml", "--to", "all", code=None)["backends"]


@pytest.mark.parametrize("values", [recipe(), recipe(argv=["{python}", "{model}", "{data}"], environment="litgpt")])
def test_every_leaf_is_read_once(values):
    """As every table, that of a command reads each leaf once, in the schema's order."""
    fitted = COMMAND.fit(parse(json.dumps(values)))
    order = {leaf: number for number, leaf in enumerate(leaves())}
    for shape in VARIANTS:
        for table in (COMMAND.table(shape), fitted.table(shape)):
            assert sorted(leaf for row in table for leaf in row.ours) == sorted(leaves())
            firsts = [order[row.ours[0]] for row in table if row.ours]
            assert firsts == sorted(firsts)


READER = """
import json, os, sys
import numpy
model, data, lr = sys.argv[1:]
tokens, order = numpy.load(f"{data}/train.ids.npy"), numpy.load(f"{data}/train.order.npy")
assert "tokenizer.json" in os.listdir(model)
for step in range(len(order) // 2):
    print(json.dumps({"step": step + 1, "loss": len(tokens) * float(lr)}))
"""


@pytest.mark.trainer
def test_a_script_in_a_trainers_environment(tune, trainer_python):
    """{python}, {model} and {data}: a script finds numpy, a model folder and the tokens, in the environment that the trainer has."""
    trainer_python("litgpt")
    (tune.cwd / "train.py").write_text(READER)
    (tune.cwd / "rows.jsonl").write_text('{"text": "abcd"}\n' * 4)
    argv = ["{python}", "train.py", "{model}", "{data}", "{optim.lr}"]
    values = recipe(
        argv=argv, environment="litgpt", metrics={"pattern": r'"step": (?P<step>\d+), "loss": (?P<loss>\S+)}'}, files=[]
    )
    shape = {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2, "kv_heads": 1}
    values["model"] = {"id": "random", "init": "random", "architecture": shape}
    values["data"]["max_length"] = 16
    (tune.cwd / "r.yaml").write_text(json.dumps(values))
    id = tune("submit", "r.yaml", "--to", "command", "--follow").stdout.strip()
    points = tune.json("metrics", id)["points"]
    assert {p["step"]: p["value"] for p in points if p["name"] == "loss"} == dict.fromkeys(
        (1, 2, 3, 4), 24 * 0.125
    )  # 4 rows of 4 bytes between two special tokens
    assert [p["value"] for p in points if p["name"] == "tokens"] == [12, 24, 36, 48]
