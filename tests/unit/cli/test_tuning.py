"""`tune race --tune` as a user meets it; what runs is a script of the standard library."""

import json

import pytest

SCRIPT = """
import json, os, sys
steps, micro, compiled, recomputed = int(sys.argv[1]), int(sys.argv[2] if sys.argv[2] != "None" else 8), *(word.lower() == "true" for word in sys.argv[3:5])
if micro == 8 and not recomputed:
    raise SystemExit("out of memory")
speed = 100.0 * micro * (2 if compiled else 1) * (0.75 if recomputed else 1)
with open("lines.jsonl", "a", buffering=1) as log:
    for step in range(1, steps + 1):
        log.write(json.dumps({"step": step, "loss": 3 - step / 100 - compiled * APART, "learning_rate": 0.1, "speed": speed}) + "\\n")
os.makedirs("model")
json.dump(1, open("model/weight.json", "w"))
"""
UNUSED = ("model.id", "data.train", "train.batch.global", "train.precision", "optim.lr")
WORDS = ("r.yaml", "--to", "command", *(word for leaf in UNUSED for word in ("--accept", leaf)), "--steps", "6", "--tune")


@pytest.fixture
def job(tune):
    """A recipe whose trainer is the script."""
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n')
    leaves = ("train.steps", "train.batch.micro", "train.compile", "train.activation_checkpointing")
    command = {
        "argv": ["python3", "train.py", *(f"{{{leaf}}}" for leaf in leaves)],
        "inputs": ["./train.py"],
        "metrics": {"file": "lines.jsonl", "names": {"lr": "learning_rate", "tokens_per_second": "speed"}},
        "files": ["model/*.json"],
    }
    recipe = {
        "version": 1,
        "name": "script",
        "model": {"id": "org/name"},
        "data": {"train": "rows.jsonl", "format": "text"},
        "train": {"steps": 500, "batch": {"global": 8, "micro": 2}, "precision": "fp32", "compile": False},
        "optim": {"lr": 0.1},
        "native": {"command": command},
    }
    (tune.cwd / "r.yaml").write_text(json.dumps(recipe))

    def write(apart):
        (tune.cwd / "train.py").write_text(SCRIPT.replace("APART", str(apart)))
        return WORDS

    return write


def test_the_fastest_is_found_and_written_as_words(tune, job):
    """Compiled, eight rows at once and recomputed is the fastest that trains; eight without recomputing failed, and is told."""
    found = tune.json("race", *job(apart=0))
    sets = {"train.compile": True, "train.batch.micro": 8, "train.activation_checkpointing": True}
    assert found["winner"]["set"] == sets
    assert found["winner"]["tokens_per_second"]["median"] == 1200
    assert found["trials"][0]["set"] == {
        "train.compile": False,
        "train.batch.micro": 2,
        "train.activation_checkpointing": False,
    }
    assert [each["state"] for each in found["trials"]].count("FAILED") >= 1
    assert len(found["trials"]) < 16
    assert found["in_time"]


def test_other_losses_do_not_win(tune, job):
    """A switch that changes the losses by more than the tolerance is told, left off, and not tried again with other settings."""
    done = tune("race", *job(apart=0.5))
    assert "other losses than the recipe as it is" in done.stdout
    assert (
        "--to command --set train.compile=false --set train.batch.micro=8 --set train.activation_checkpointing=true"
        in done.stdout
    )


def test_the_time_ends_it(tune, job):
    """With next to no time the recipe as it is is tried, nothing else, and the table says so."""
    found = tune.json("race", *job(apart=0), "--minutes", "0.0001")
    assert len(found["trials"]) == 1
    assert not found["in_time"]


def test_words_that_do_not_go_together(tune, job):
    """--submit-winner is refused beside --tune, and minutes must be above 0."""
    assert "--submit-winner" in tune("race", *job(apart=0), "--submit-winner", code=2).stderr
    assert "minutes" in tune("race", *WORDS, "--minutes", "0", code=2).stderr
