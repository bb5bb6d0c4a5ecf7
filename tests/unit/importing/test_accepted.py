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
from backends.importing.recognise import opened
from backends.native_config import Unreadable, flat
from backends.registry import BACKENDS
from tests.unit.importing.test_corpora import imported, machine, on_one_host

HERE = Path(__file__).parent
ROOT = HERE.parents[2] / "backends"
VALIDATOR = HERE / "axolotl_validates.py"
pytestmark = [pytest.mark.thorough, pytest.mark.long]


def back(found, trainer):
    """The plan for its own trainer that a recipe becomes, with what native keys stand in for accepted; None where there is none."""
    native = flat(found.recipe.native.get(trainer, {}))
    leaves = {*found.recipe.flat(), *(f"native.{trainer}.{key}" for key in native)}
    recipe = on_one_host(found.recipe)
    try:
        return plan(BACKENDS[trainer], recipe, machine(recipe), accept=leaves - NEVER_ACCEPTABLE)
    except Inexpressible:
        return None


def config(made):
    """The main config of a plan."""
    return yaml.safe_load(next(file.text for file in made.files if file.path == BACKENDS[made.backend].config))


def judged(argv, asked, places=""):
    """What a script in the trainer's environment says of each line."""
    lines = "".join(f"{json.dumps(each, default=str)}\n" for each in asked)
    env = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run(argv, input=lines, capture_output=True, text=True, timeout=3000, check=False, env=env)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(asked), done.stderr[-2000:]
    return found


def none_lost(trainer, names, found):
    """Of pairs of answers, before and after: who was accepted is accepted again. Everyone else is printed with its reason."""
    pairs = list(zip(names, found[::2], found[1::2], strict=True))
    counts = Counter((before["ok"], after["ok"]) for _, before, after in pairs)
    print(f"\n{len(pairs)} configs of {trainer}: (accepted, accepted again) {dict(counts)}")
    for name, before, after in pairs:
        if not before["ok"]:
            said = "refused as it comes, and accepted again" if after["ok"] else "refused as it comes, and again"
            print(f"  {name}: {said}: {' '.join(before['why'].split())[:200]}")
    assert not [(name, after["why"]) for name, before, after in pairs if before["ok"] and not after["ok"]]


@pytest.mark.trainer
@pytest.mark.parametrize("release", ["axolotl", "axolotl@0.17.0", "axolotl@0.18.0"])
def test_axolotl_accepts_what_comes_back(corpus, trainer_python, release):
    """Every example, of older releases, too, that axolotl's validator accepts is accepted after the way through a recipe and back."""
    texts, pairs = corpus(release), []
    for path, text in texts.files.items():
        try:
            found = convert(text, name=posixpath.basename(path), beside=texts.beside(path))
        except (Refused, Unreadable):
            continue
        if made := back(found, "axolotl"):
            pairs.append((path, yaml.safe_load(text), config(made)))
    found = judged([trainer_python("axolotl"), VALIDATOR], [each for _, *both in pairs for each in both])
    assert len(pairs) > 230
    none_lost(release, [path for path, *_ in pairs], found)


LEAST = {"torchtune": 130, "litgpt": 45, "maxtext": 70}
"""So many configs come back at least."""


@pytest.mark.trainer
@pytest.mark.parametrize("trainer", list(LEAST))
def test_a_trainers_own_parser_accepts_what_comes_back(corpus, trainer_python, trainer):
    """The same of `tune validate` of torchtune, the command line's parser of LitGPT, pyconfig of MaxText."""
    texts, names, asked = corpus(trainer), [], []
    for (path, line), found in imported(texts).items():
        if isinstance(found, str) or not (made := back(found, trainer)):
            continue
        wild = opened(texts.files[path], "", texts.beside(path), (), line)[1].keys
        names.append((path, line))
        asked += [{"config": each, "command": word} for each, word in both(trainer, wild, texts.files[path], made)]
    shims = [str(ROOT / "shims"), str(ROOT / "trainers" / trainer / "shims")]
    argv = [trainer_python(trainer), HERE / "validates.py", trainer]
    assert len(names) >= LEAST[trainer]
    none_lost(trainer, names, judged(argv, asked, os.pathsep.join(shims)))


def both(trainer, wild, text, made):
    """The config as it comes and as it comes back, each with LitGPT's subcommand, or MaxText's config that it stands on."""
    if trainer == "maxtext":  # many are command lines, whose keys are what was read
        keys = {key: value for key, value in wild.items() if not key.startswith(("launch:", "outside:"))}
        sizes = {
            key: value for key, value in keys.items() if key.startswith(("model_name", "base_num_", "base_emb_", "base_mlp_"))
        }
        back_again = {**sizes, **config(made)}  # a step on the host writes the sizes
        return (keys, str(wild.get("launch:base") or "base.yml")), (back_again, "base.yml")
    argv = next(step.argv for step in made.steps if step.name == "train")
    command = next((word for word in argv if word.startswith(("finetune", "pretrain"))), "")
    return (yaml.safe_load(text), command), (config(made), command)
