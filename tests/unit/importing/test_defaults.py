"""The tables of the trainers' defaults are what the trainers say."""

from pathlib import Path
from subprocess import run

import pytest

from backends.mapping.rows import ABSENT
from backends.registry import BACKENDS, dialects
from backends.upstream.defaults import default, table

SCRIPT = Path(__file__).parents[3] / "backends" / "upstream" / "generate_defaults.py"
TRAINERS = SCRIPT.parents[1] / "trainers"


@pytest.mark.trainer
@pytest.mark.parametrize("trainer", list(dialects()))
def test_tables_are_generated(trainer_python, trainer, tmp_path):
    """Each table is what its script prints in the trainer's locked environment."""
    made = run([trainer_python(trainer), SCRIPT, trainer], capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path)
    assert made.stdout == (TRAINERS / trainer / "defaults.txt").read_text("utf-8")


@pytest.mark.parametrize("trainer", list(dialects()))
def test_tables_are_of_the_pinned_version(trainer):
    """Each table says the version that its backend is for."""
    head = (TRAINERS / trainer / "defaults.txt").read_text("utf-8").partition("\n")[0]
    assert head == f"# {BACKENDS[trainer].package}"


def test_some_that_matter():
    """Defaults that decide what is learnt, as read in each trainer's source."""
    assert default("torchtune", "weight_decay", "torch.optim.AdamW") == 0.01
    assert default("torchtune", "train_on_input", "torchtune.datasets.alpaca_dataset") is True
    assert default("litgpt", "train.epochs", "finetune_lora") == 5
    assert default("maxtext", "learning_rate_final_fraction") == 0.1
    assert default("axolotl", "bf16") == "auto"
    assert default("axolotl", "no_such_key") is ABSENT
    assert table("nobody") == {}
