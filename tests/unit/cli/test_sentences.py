"""What the command says, in the field's words: help, errors and hints, each asked for as a user would."""

from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"
LOST = ("--set", "eval.every=5", "--set", "data.eval=data/quickstart.jsonl")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--help",), 0, "2 invalid arguments or recipe"),
        (("--help",), 0, "3 recipe not supported by the trainer, 4 host or network error"),
        (("--help",), 0, "list jobs and their state"),
        (("--help",), 0, "show versions, paths and environments"),
        (("--help",), 0, "a translation report"),
        (("status", "--help"), 0, "refresh until Ctrl-C"),
        (("status", "--help"), 0, "id, prefix of an id, recipe name, or latest"),
        (("submit", "--help"), 0, "override a setting: optim.lr=3e-4, or SECTION=null"),
        (("submit", "--help"), 0, "run without this setting where the trainer does not support it"),
        (("import", "--help"), 0, "fail on keys with no recipe equivalent (exit code 3)"),
        (("cancel", "--help"), 0, "* matches any text"),
        (("explain", "learning_rate"), 2, "no setting or file called 'learning_rate'"),
        (("explain",), 2, "name a setting or a recipe, or give --matrix"),
        (("explain", "optim"), 2, "its settings are optim."),
        (("submit", QUICKSTART, "--set", "train.stepz=3"), 2, "is not a setting of the recipe"),
        (("submit", QUICKSTART, *LOST, "--to", "torchtune"), 3, "not supported:"),
        (("submit", QUICKSTART, *LOST, "--to", "torchtune"), 3, "to run without them: --accept data.eval --accept eval.every"),
        (("submit", "twice.yaml"), 2, "twice.yaml:3: name: already set on line 2"),
        (("submit", QUICKSTART, "--set", "secrets=[WANDB_KEY]"), 2, "WANDB_KEY: is not set (a secret of the recipe)"),
    ],
)
def test_a_sentence(tune, words, code, sentence):
    """Help, errors and hints are said in the field's words."""
    (tune.cwd / "twice.yaml").write_text("version: 1\nname: a\nname: b\n")
    done = tune(*words, code=code)
    assert sentence in " ".join((done.stdout + done.stderr).split())
