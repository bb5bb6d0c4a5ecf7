"""docs/python.md and docs/notebook.py: what they show runs as they show it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tunesmith

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def python(folder, text):
    """What a script prints, run in a folder as a user would; its last line is kept apart."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert done.stderr == ""
    return done.stdout


def until_submit():
    """The examples that run nothing."""
    first = next(number for number, block in enumerate(BLOCKS) if "submit(" in block)
    return BLOCKS[:first]


def test_what_decides_on_the_page(home, tmp_path):
    """Its examples about recipes and plans run in order, say what their comments say, and submit nothing."""
    said = python(tmp_path, "".join(until_submit()))
    assert "quickstart 0.003 16" in said
    assert "[0.001, 0.003]" in said
    assert "optim.lrr is not a setting of the recipe did you mean optim.lr?" in said
    assert "accept='checkpoint.kep': is not a setting of the recipe" in said
    assert "learning_rate" in said or "optimizer" in said
    assert "axolotl 2e-05 ['flash_optimum']\nFalse" in said
    assert (tmp_path / "native" / "litgpt" / "litgpt.yaml").exists()
    assert list(home.glob("store*")) == []


@pytest.mark.trainer
def test_the_whole_page(home, tmp_path, trainer_python):
    """All its examples run in order on a real training; what they print is what was trained."""
    trainer_python("litgpt")
    last = "import json; print(json.dumps([job.status().state, len(metrics['step']), metrics['loss'][0], metrics['loss'][-1]]))\n"
    said = python(tmp_path, "".join(BLOCKS) + last)
    state, steps, first, final = json.loads(said.splitlines()[-1])
    assert (state, steps) == ("SUCCEEDED", 30)
    assert final < first
    assert "loss by step" in said
    assert (tmp_path / "results" / "work" / "checkpoint" / "config.json").exists()
    assert "Gap(size=0.0, step=1)" in said


@pytest.mark.trainer
def test_the_notebook(home, tmp_path, trainer_python):
    """The script in cells submits the quickstart, follows it to its end and draws its loss, without the command line."""
    trainer_python("litgpt")
    said = python(tmp_path, (ROOT / "docs" / "notebook.py").read_text("utf-8"))
    assert "RUNNING   train       step 30 of 30" in said or "SUCCEEDED" in said
    assert "loss by step" in said
    assert "model.safetensors" in said.splitlines()[-1]


def test_every_name_is_on_the_page():
    """The page names every function, error and method of a job; what it names of `tunesmith.` is there."""
    methods = [
        f".{name}("
        for name in vars(tunesmith.JobHandle)
        if not name.startswith("_") and callable(getattr(tunesmith.JobHandle, name)) and name not in ("count", "index")
    ]
    quiet = ("recipes", "schema", "version")
    missing = [name for name in tunesmith.__all__ if name not in quiet and name not in PAGE]
    assert missing + [name for name in methods if name not in PAGE] == []
    named = set(re.findall(r"tunesmith\.(\w+)", PAGE))
    assert {name for name in named if not hasattr(tunesmith, name)} == set()
    assert {name for name in tunesmith.__all__ if not hasattr(tunesmith, name)} == set()
