"""Five people use tune, each line by line in a real terminal; all that it shows is kept beside this file and compared whole.

`uv run python tests/walks/test_walks.py [WALK]` writes the files anew. Read the difference: it is what people will see.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.walks.terminal import HERE, walked

SETTLE = None
"""Between two lines: what has happened gets times that do not depend on the machine."""

WALKS = {
    # writes a first recipe, is wrong about a name, compares rates by a sweep
    "researcher": [
        "tune init --data answers.jsonl --goal style --model Qwen/Qwen2.5-0.5B --accelerator cpu --out answers.yaml",
        "tune init --data answers.jsonl --goal task --model Qwen/Qwen2.5-0.5B --accelerator cuda --out cuda.yaml",
        "tune translate answers.yaml --to torchtune --set optim.learning_rate=1e-4",
        "tune explain learning_rate",
        "tune diff answers.yaml cuda.yaml",
        "tune sweep script.yaml --id lr --grid optim.lr=0.1,0.3,0.9,2",
        "tune wait lr.1 lr.2 lr.3 lr.4 > /dev/null",
        SETTLE,
        "tune best lr",
        "tune diff lr.1 lr.3",
        "tune metrics lr.1 lr.3 --csv | cut -d, -f1-4",
    ],
    # has a torchtune config and must move
    "engineer": [
        "tune import lora.yaml -o mine.yaml",
        "tune diff lora.yaml mine.yaml",
        "tune translate mine.yaml --to axolotl,litgpt",
        "tune translate mine.yaml --to maxtext",
        "tune submit mine.yaml --to axolotl --dry-run --on nowhere",
    ],
    # fifty jobs, some of which fail
    "operator": [
        "tune sweep script.yaml --id night --random optim.lr=0.01..1.2 --trials 50 --seed 4 --at-once 4",
        "tune wait night > /dev/null",
        SETTLE,
        "tune status --state FAILED",
        "tune status night.2 --events",
        "tune status",
        "tune logs $(tune status --state FAILED --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0][\"id\"])')",
        "tune cancel night.1",
        "tune prune --state FAILED",
        "tune targets",
    ],
    # no GPU, typing by heart
    "laptop": [
        "tune sumbit script.yaml",
        "tune submit script.yml",
        "tune submit script.yaml --on lab",
        "tune recipes cp qwen2.5-0.5b/lora cuda",
        "tune submit cuda/lora.yaml --set resources.accelerator=cuda",
        "tune submit script.yaml --id mine",
        "tune wait mine > /dev/null",
        SETTLE,
        "tune status",
        "tune logs mine",
        "tune metrics mine",
        "tune metrics mine --name foo",
        "tune pull mine --into out",
        "tune submit script.yaml --id mine",
    ],
    # looks how trainers are told apart, and what a new setting would touch
    "contributor": [
        "tune explain optim.amsgrad",
        "tune explain optim.weight_decay",
        "tune schema | head -3",
        "tune translate script.yaml --to nonesuch",
        "tune help",
    ],
}
FIRST = {"researcher": 80, "engineer": 200, "operator": 60, "laptop": 60, "contributor": 80}
"""The width at which each is walked every time; the other widths are more of the same."""
WIDTHS = (60, 80, 200)
CASES = [
    pytest.param(name, width, marks=() if FIRST[name] == width else pytest.mark.thorough, id=f"{name}-{width}")
    for name in WALKS
    for width in WIDTHS
]


@pytest.mark.parametrize(("name", "width"), CASES)
def test_what_they_see(name, width, tmp_path):
    """The whole screen, line by line with each exit code, at 60, 80 and 200 columns."""
    if not shutil.which("tmux"):
        (pytest.fail if "tmux" in os.environ.get("TUNE_REQUIRE", "") else pytest.skip)("needs tmux")
    assert walked(WALKS[name], width, tmp_path) == (HERE / f"{name}-{width}.txt").read_text("utf-8")


if __name__ == "__main__":
    for walk in sys.argv[1:] or WALKS:
        for columns in WIDTHS:  # one after the other: each has a controller of its own
            with tempfile.TemporaryDirectory(prefix="walk-") as base:
                (HERE / f"{walk}-{columns}.txt").write_text(walked(WALKS[walk], columns, Path(base)), "utf-8")
