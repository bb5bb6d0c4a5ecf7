"""Trainers of other packages: what docs/adding-a-trainer.md shows is installed and run."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from backends.analysis.capabilities import VARIANTS
from backends.backend import Ending, Progress
from backends.recipe.flat import leaves
from backends.registry import BACKENDS, reader

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent / "fifth"
RECIPE = """
version: 1
name: count
model: {id: random, init: random, architecture: {hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2, kv_heads: 1}}
data: {train: rows.jsonl, format: text, max_length: 64}
train: {steps: 6, batch: {global: 2}, precision: fp32}
optim: {name: sgd, lr: 5.0, schedule: constant}
"""


@pytest.fixture
def packages(tmp_path):
    """Put the example and a broken package where Python finds installed ones; gives the words that a command is started with."""
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(HERE / "unigram.py", site)
    (site / "broken.py").write_text("raise RuntimeError('of no use')\n")
    for name, value in {"unigram": "unigram:UNIGRAM", "broken": "broken:NOTHING"}.items():
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[tunesmith.backends]\n{name} = {value}\n")
    return {"prefix": ("env", f"PYTHONPATH={ROOT}:{site}")}


def test_the_page_shows_what_is_tested():
    """The code on the page is the code that runs here, to the letter."""
    [shown] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding-a-trainer.md").read_text(), re.DOTALL)
    assert shown == (HERE / "unigram.py").read_text()


def test_the_example_is_a_lawful_table():
    """It reads every leaf once, in the schema's order, whatever the shape of recipe."""
    spec = importlib.util.spec_from_file_location("unigram", HERE / "unigram.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for shape in VARIANTS:
        assert [leaf for row in module.UNIGRAM.table(shape) for leaf in row.ours if row.ours[0] == leaf] == [
            leaf for leaf in leaves() if any(row.ours[:1] == (leaf,) for row in module.UNIGRAM.table(shape))
        ]
        assert sorted(leaf for row in module.UNIGRAM.table(shape) for leaf in row.ours) == sorted(leaves())


@pytest.mark.trainer
def test_a_fifth_trainer_trains(tune, packages, trainer_python):
    """A backend of another package takes a job from recipe to points and checkpoint, like ours."""
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("aaab", "abab", "aaaa")))
    (tune.cwd / "r.yaml").write_text(RECIPE)
    python = trainer_python("litgpt")
    (tune.cwd / "clusters.yaml").write_text(
        f"version: 1\ntargets:\n  here: {{kind: local, accelerator: cpu, python: {python}}}\n"
    )
    id = tune("submit", "r.yaml", "--to", "unigram", "--on", "here", "--follow", **packages).stdout.strip()
    losses = [p["value"] for p in tune.json("metrics", id, **packages)["points"] if p["name"] == "loss"]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 1


def test_beside_ours(tune, packages):
    """All trainers are shown side by side, the broken one as a warning; whoever names that one gets the sentence and nothing else."""
    (tune.cwd / "r.yaml").write_text(RECIPE)
    said = tune("translate", "r.yaml", "--json", **packages)
    assert set(json.loads(said.stdout)["backends"]) == {*BACKENDS, "unigram"}
    assert said.stderr == "warning: trainer broken of package broken cannot be loaded: RuntimeError: of no use\n"
    assert tune("translate", "r.yaml", "--to", "broken", code=2, **packages).stderr == said.stderr.removeprefix("warning: ")
    assert "did you mean unigram?" in tune("translate", "r.yaml", "--to", "unigramm", code=2, **packages).stderr


def test_what_it_lacks_is_refused_by_name(tune, packages):
    """What the example has no row for is lost by name, not passed over."""
    (tune.cwd / "r.yaml").write_text(RECIPE.replace("lr: 5.0", "lr: 5.0, weight_decay: 0.1"))
    assert "never    optim.weight_decay" in tune("translate", "r.yaml", "--to", "unigram", code=3, **packages).stdout


def test_keys_of_its_own(tune, packages):
    """A section of native for it is no mistake when it is installed, and one when it is not."""
    (tune.cwd / "r.yaml").write_text(RECIPE + "native: {unigram: {lr: 2.0}}\n")
    assert '"lr": 2.0' in tune("translate", "r.yaml", "--to", "unigram", **packages).stdout
    assert "native.unigram: is not a trainer" in tune("translate", "r.yaml", code=2).stderr


def test_its_configs_are_imported(tune, packages):
    """A config, or a script that runs it, is recognised without `--from`; defaults are its own, and an unknown key has a hint."""
    (tune.cwd / "u.yaml").write_text("model: ./m\nbatch: 2\nlr: 5.0\nlimt: 7\n")
    (tune.cwd / "run.sh").write_text("#!/bin/bash\nunigram train u.yaml --lr 3 --limit 100\n")
    found = tune.json("import", "u.yaml", **packages)
    assert found["trainer"] == "unigram"
    [typo] = [each for each in found["report"] if each["key"] == "limt"]
    assert typo["why"] == "unigram 1.0 knows no such key; did you mean limit?"
    said = tune("import", "run.sh", "-o", "r.yaml", "--verbose", **packages)
    assert "limit = 100 (line 2)\n      the trainer's default" in said.stderr
    assert "lr: 3" in (tune.cwd / "r.yaml").read_text()
    assert "should be litgpt" in tune("import", "u.yaml", "--from", "unigram", code=2).stderr


def test_its_configs_are_compared(tune, packages):
    """`tune diff` counts the trainer's own defaults, and says what differs in leaves and in its own keys."""
    (tune.cwd / "a.yaml").write_text("model: ./m\nbatch: 2\nlr: 5.0\nlimit: 7\n")
    (tune.cwd / "b.yaml").write_text("model: ./m\nbatch: 2\nlr: 3.0\n")
    said = tune("diff", "a.yaml", "b.yaml", code=1, **packages).stdout
    assert "optim.lr\n    A  5.0  (lr)\n    B  3.0  (lr)" in said
    assert "unigram: limit  A 7  B 100" in said


def test_its_keys_are_checked(tune, packages):
    """A native key that its table does not have is lost by name, with the nearest one as a hint."""
    (tune.cwd / "r.yaml").write_text(RECIPE + "native: {unigram: {limt: 2.0}}\n")
    said = tune("translate", "r.yaml", "--to", "unigram", code=3, **packages).stdout
    assert "unigram 1.0 has no such key; did you mean limit?" in said


@pytest.mark.trainer
def test_its_failures_are_recognised(tune, packages, trainer_python):
    """A line of its log that its signs know decides the class of the failure, and so that it is not tried again."""
    (tune.cwd / "rows.jsonl").write_text('{"text": "aaab"}\n' * 3)
    (tune.cwd / "r.yaml").write_text(RECIPE.replace("lr: 5.0", "lr: 1000.0") + "retry: {unknown: 2}\n")
    python = trainer_python("litgpt")
    (tune.cwd / "clusters.yaml").write_text(
        f"version: 1\ntargets:\n  here: {{kind: local, accelerator: cpu, python: {python}}}\n"
    )
    id = tune("submit", "r.yaml", "--to", "unigram", "--on", "here", **packages).stdout.strip()
    tune("wait", id, code=1, **packages)
    [job] = tune.json("status", id, **packages)
    assert (job["state"], job["attempt"]) == ("FAILED", 1)


def test_a_trainer_that_is_gone():
    """A job whose trainer was removed since does not count as trained, and the reason names it; no other job is disturbed."""
    gone = reader("gone")
    assert gone.read({}, Progress(), "anything") == []
    assert gone.judge(Ending(1, Progress(last=1, nonzero=True), ())) == ("no_backend", "no trainer gone is installed any more")
