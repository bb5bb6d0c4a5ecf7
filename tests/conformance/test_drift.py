"""What axolotl's launcher writes down of its config is the plan: its own loading of a config goes further than its schema, which
the library's test looks at. A drift that is none would end a job.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.monitoring.drift import drift

REHEARSALS = sorted((Path(__file__).parents[2] / "recipes" / "rehearsal").glob("*.yaml"))
WHOLE = ("method.adapter=none", "method.lora=null")
ALSO = {
    "lora": [
        ("method.adapter=dora",),
        ("data.pack=true", "train.batch.micro=4"),
        WHOLE,
    ],
    "dpo": [("method.kind=ipo",), ("method.kind=simpo",), ("method.kind=orpo",), WHOLE, ("method.kind=orpo", *WHOLE)],
}
"""Rehearsal -> what is set over it, besides it as it is: other methods and adapters."""
LOADS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import tune_axolotl, tune_resolved
from axolotl.cli.config import load_cfg
for folder in sys.argv[1:]:
    os.chdir(folder)
    tune_resolved.record("axolotl.yaml", tune_axolotl._resolved(load_cfg("axolotl.yaml")))
"""

pytestmark = pytest.mark.trainer


def planned():
    """Recipe -> axolotl's plan, of the small recipes and what they are with other settings."""
    out = {}
    for path in REHEARSALS:
        for number, sets in enumerate([(), *ALSO.get(path.stem, ())]):
            wish = parse(path.read_text(), name=str(path), base=str(path.parent), sets=sets, trainers=BACKENDS)
            out[f"{path.stem}{number}"] = plan(BACKENDS["axolotl"], wish, Target())
    return out


def write(folder, cache, made):
    """A job's folder as far as axolotl's config is concerned, with a model that is config.json and tokenizer."""
    folder.mkdir()
    for file in made.files:
        (folder / file.path).write_text(file.text)
    (folder / "cache").symlink_to(cache)
    model = folder / json.loads((folder / "model.json").read_text())["folder"]
    if not model.exists():
        argv = [sys.executable, "tune_model.py", "model.json", "--tokenizer-only"]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)
        model.symlink_to(f"{model}-tokenizer")


@pytest.mark.thorough(2)
def test_what_axolotl_loads_is_the_plan(trainer_python, tmp_path):
    """Every method's config, loaded as a job does it, comes out as planned, key by key."""
    (tmp_path / "cache").mkdir()
    plans = planned()
    for name, made in plans.items():
        write(tmp_path / name, tmp_path / "cache", made)
    folders = [str(tmp_path / name) for name in plans]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **BACKENDS["axolotl"].env}
    done = subprocess.run(
        [trainer_python("axolotl"), "-c", LOADS, *folders], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = {name: (tmp_path / name / "resolved.json").read_text() for name in plans}
    assert {name: found for name, made in plans.items() if (found := drift(made, said[name]))} == {}
    assert len(plans) >= 15
