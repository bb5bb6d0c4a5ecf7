"""`tune race --tune` as a user meets it; what runs is a script of the standard library."""

import pytest

import tunesmith
from tests.script_trainer import accepted, script_values, write

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
LEAVES = ("train.steps", "train.batch.micro", "train.compile", "train.activation_checkpointing")
VALUES = script_values(
    *(f"{{{leaf}}}" for leaf in LEAVES), train={"steps": 500, "batch": {"global": 8, "micro": 2}, "compile": False}
)


@pytest.fixture
def job(tune):
    """A recipe whose trainer is the script; the words after the command."""

    def words(apart):
        return (*write(tune.cwd, SCRIPT.replace("APART", str(apart)), VALUES), "--steps", "6", "--tune")

    return words


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
    """What only a race has is refused beside --tune, and what only --tune has in a race; minutes must be above 0."""
    words = job(apart=0)
    assert "--submit-winner" in tune("race", *words, "--submit-winner", code=2).stderr
    assert "--rounds" in tune("race", *words, "--rounds", "3", code=2).stderr
    assert "minutes" in tune("race", *words, "--minutes", "0", code=2).stderr
    assert "--minutes" in tune("race", *words[:-1], "--minutes", "5", code=2).stderr


def test_from_python(tune, job, monkeypatch):
    """`tunesmith.autotune` gives the same, and its leaves are what `load` takes."""
    job(apart=0)
    monkeypatch.chdir(tune.cwd)
    found = tunesmith.autotune("r.yaml", to="command", accept=accepted(VALUES), steps=6)
    assert found.winner and found.winner.choice == (True, 8, True)
    assert tunesmith.load("r.yaml", sets=found.sets(found.winner)).train.batch.micro == 8
