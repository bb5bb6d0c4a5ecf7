"""What comes back from an import is a config that its trainer's own validator accepts, and resolves to the same."""

import json
import os
import posixpath
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from backends.backend import Inexpressible
from backends.compile import NEVER_ACCEPTABLE, plan
from backends.dialect import Refused
from backends.importing.convert import convert
from backends.native_config import Unreadable, flat
from backends.registry import BACKENDS
from tests.unit.importing.test_corpora import machine, on_one_host

VALIDATOR = Path(__file__).with_name("axolotl_validates.py")
pytestmark = [pytest.mark.thorough, pytest.mark.long]


def back(found, trainer):
    """The config of its own trainer that a recipe becomes, with what native keys stand in for accepted; None where there is none."""
    native = flat(found.recipe.native.get(trainer, {}))
    leaves = {*found.recipe.flat(), *(f"native.{trainer}.{key}" for key in native)}
    recipe = on_one_host(found.recipe)
    try:
        made = plan(BACKENDS[trainer], recipe, machine(recipe), accept=leaves - NEVER_ACCEPTABLE)
    except Inexpressible:
        return None
    return yaml.safe_load(next(file.text for file in made.files if file.path == BACKENDS[trainer].config))


def judged(python, configs):
    """What axolotl's validator says of each config."""
    lines = "".join(f"{json.dumps(each, default=str)}\n" for each in configs)
    env = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([python, VALIDATOR], input=lines, capture_output=True, text=True, timeout=3000, check=False, env=env)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(configs), done.stderr[-2000:]
    return found


@pytest.mark.trainer
def test_axolotl_accepts_what_comes_back(corpus, trainer_python):
    """Every example that axolotl's validator accepts is accepted after the way through a recipe and back."""
    texts, pairs = corpus("axolotl"), []
    for path, text in texts.files.items():
        try:
            found = convert(text, name=posixpath.basename(path), beside=texts.beside(path))
        except (Refused, Unreadable):
            continue
        if (made := back(found, "axolotl")) is not None:
            pairs.append((path, yaml.safe_load(text), made))
    found = judged(trainer_python("axolotl"), [each for _, *both in pairs for each in both])
    before, after = found[::2], found[1::2]
    counts = Counter((one["ok"], other["ok"]) for one, other in zip(before, after, strict=True))
    print(f"\n{len(pairs)} configs of axolotl: (accepted, accepted again) {dict(counts)}")
    left = [
        (path, other["why"]) for (path, *_), one, other in zip(pairs, before, after, strict=True) if one["ok"] and not other["ok"]
    ]
    for path, why in left:
        print(f"  {path}: {why}")
    for (path, *_), one, other in zip(pairs, before, after, strict=True):
        if not one["ok"]:
            said = "refused as it comes, and accepted again" if other["ok"] else "refused as it comes, and again"
            print(f"  {path}: {said}: {' '.join(one['why'].split())[:200]}")
    assert len(pairs) > 250
    assert not left
