"""The tables of the trainers' defaults are what the trainers say."""

import sys
from pathlib import Path
from subprocess import run

import pytest

from backends.mapping.rows import ABSENT
from backends.registry import BACKENDS, READ_ONLY, dialects, importer
from backends.upstream.defaults import Defaults

SCRIPT = Path(__file__).parents[3] / "backends" / "upstream" / "generate_defaults.py"
SLOW = ("unsloth", "maxtext", "axolotl")
"""Trainers whose import alone takes half a minute."""
TRAINERS = SCRIPT.parents[1] / "trainers"


@pytest.mark.trainer
@pytest.mark.parametrize(
    "trainer", [pytest.param(each, marks=[pytest.mark.thorough] if each in SLOW else []) for each in dialects()]
)
def test_tables_are_generated(asked, trainer):
    """Each table is what its script prints in the trainer's locked environment, or beside its source."""
    assert asked(SCRIPT.name, trainer) == (TRAINERS / trainer / "defaults.txt").read_text("utf-8")


@pytest.mark.trainer
@pytest.mark.parametrize("trainer", list(BACKENDS))
def test_keys_are_current(asked, trainer):
    """Each table of keys is what the script reads out of the pinned trainer."""
    assert asked("generate_keys.py", trainer) == BACKENDS[trainer].known_keys.text
    assert BACKENDS[trainer].known_keys.version == BACKENDS[trainer].package


@pytest.mark.parametrize("trainer", list(READ_ONLY))
def test_keys_of_trainers_that_are_not_run(asked, trainer):
    """Their tables of keys are what the script reads out of their source."""
    assert asked("generate_keys.py", trainer) == (TRAINERS / trainer / "keys.txt").read_text("utf-8")


@pytest.mark.parametrize("trainer", list(dialects()))
def test_tables_are_of_the_pinned_version(trainer):
    """Each table says the version that its backend is for."""
    head = (TRAINERS / trainer / "defaults.txt").read_text("utf-8").partition("\n")[0]
    assert head == f"# {importer(trainer).package}"


@pytest.mark.parametrize(
    ("trainer", "key", "place", "value"),
    [
        ("torchtune", "weight_decay", "torch.optim.AdamW", 0.01),
        ("torchtune", "train_on_input", "torchtune.datasets.alpaca_dataset", True),
        ("litgpt", "train.epochs", "finetune_lora", 5),
        ("maxtext", "learning_rate_final_fraction", "", 0.1),
        ("axolotl", "bf16", "", "auto"),
        ("axolotl", "no_such_key", "", ABSENT),
        ("llamafactory", "cutoff_len", "", 2048),
        ("llamafactory", "lora_rank", "", 8),
        ("llamafactory", "learning_rate", "", 5e-5),
    ],
)
def test_some_that_matter(trainer, key, place, value):
    """Defaults that decide what is learnt, as read in each trainer's source; of a key that it has not, ABSENT."""
    assert Defaults.beside(str(TRAINERS / trainer / "dialect.py")).get(key, place) == value


@pytest.mark.parametrize("script", ["generate_keys.py", "generate_defaults.py"])
@pytest.mark.parametrize("name", ["nobody", "command", "../recipe"])
def test_only_a_trainer_with_an_ask_is_asked(script, name):
    """A name without `ask.py` in its folder ends with one line that says which file is looked for, and prints no table."""
    done = run([sys.executable, SCRIPT.with_name(script), name], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{name}: no backends/trainers/{name}/ask.py\n"
