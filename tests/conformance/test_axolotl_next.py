"""The other release of axolotl that a recipe may ask for: its own loader takes what is written for it, and it trains as the pinned one does.

Its environment is made from its lock, or `TUNE_TEST_AXOLOTL_NEXT` names an interpreter that has that release. Where neither is to be had
(the lock wants a torch for Python 3.12 without CUDA) these tests are skipped and say so.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from backends.backend import Inexpressible
from backends.compile import plan
from backends.mapping.rows import Variant
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.agent.provision import build
from orchestrator.agent.uv_settings import pip_settings
from tests.conformance.test_hf import every_method, recipe, run
from tests.conformance.test_library import ACCEPTED, LIBRARY, ROOT, agrees, asked, load, wanted, write

pytestmark = pytest.mark.trainer

PINNED = BACKENDS["axolotl"]
(NEXT,) = PINNED.releases
NUMBER = NEXT.package.split()[1]
VARIABLE = "TUNE_TEST_AXOLOTL_NEXT"


@pytest.fixture(scope="session")
def next_python(shared_home):
    """An interpreter that has the release; skipped where none can be had."""
    if given := os.environ.get(VARIABLE):
        return given
    links = pip_settings(os.environ).get("find-links", "").split()
    if links and not any(path for link in links for path in Path(link).glob("torch-*+cpu-cp312-*.whl")):
        pytest.skip(
            f"pip's find-links have no torch for Python 3.12 without CUDA, and {VARIABLE} names no interpreter with {NEXT.package}"
        )
    environment = plan(PINNED, parse(json.dumps(asking(recipe()))), Target()).environment
    return str(build(shared_home / "envs", environment, say=print) / "bin" / "python")


def asking(wish):
    """The recipe for that release."""
    return {**wish, "release": {"axolotl": NUMBER}}


def test_its_own_loader_takes_the_library(next_python, tmp_path):
    """Every recipe that comes along and that it can express, as many as by the pinned release: no config is refused, no key unknown, no
    value another once the loader has read it; and a key that it does not know would be found.
    """
    names, jobs, plans = [], [], []
    for name, path in LIBRARY.items():
        wish = parse(path.read_text(), base=str(path.parent), sets=[f'release.axolotl="{NUMBER}"'])
        target = wanted(wish)
        try:
            made = plan(PINNED, wish, target)
        except Inexpressible:
            continue
        folder = tmp_path / str(len(jobs))
        write(folder, wish, made)
        names.append(name)
        plans.append(yaml.safe_load((folder / "axolotl.yaml").read_text()))
        jobs.append(asked(folder, made, target))
    wish = parse(LIBRARY["quickstart"].read_text(), base=str(LIBRARY["quickstart"].parent))
    write(tmp_path / "wrong", wish, made := plan(PINNED, wish, Target()))
    with (tmp_path / "wrong" / "axolotl.yaml").open("a") as file:
        file.write("no_such_key: 1\nfsdp_config: {use_orig_params: true}\n")  # the second is a key of the pinned release
    *said, wrong = load(next_python, "axolotl", tmp_path, [*jobs, asked(tmp_path / "wrong", made, Target())])
    assert wrong["unknown"] == ["fsdp_config.use_orig_params", "no_such_key"]
    assert {name: each for name, each in zip(names, said, strict=True) if each["error"] or each["unknown"]} == {}
    changed = {
        (name, key): (value, each["resolved"].get(key))
        for name, written, each in zip(names, plans, said, strict=True)
        for key, value in written.items()
        if not agrees(value, each["resolved"].get(key))
    }
    assert changed == {}
    assert len(names) >= ACCEPTED["axolotl"]


def test_its_own_schema_accepts_every_method(next_python, tmp_path):
    """Of each kind, adapter, format and strategy: no config is refused, no key unknown, no value changed."""
    found = every_method(next_python, tmp_path, release={"axolotl": NUMBER})
    assert {path: what for path, what in found.items() if what != {"unknown": [], "changed": {}}} == {}


@pytest.mark.parametrize("script", ["keys", "defaults"])
def test_its_tables_are_what_it_says(next_python, script):
    """The tables of known keys and of defaults are what the generators print in its environment."""
    argv = [next_python, str(ROOT / "backends" / "upstream" / f"generate_{script}.py"), "axolotl"]
    env = {**os.environ, "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, cwd="/", env=env, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout == (ROOT / "backends" / "trainers" / "axolotl" / f"{script}-next.txt").read_text("utf-8")


def test_its_source_is_where_rows_say(next_python):
    """Every file and folder of axolotl's and TRL's source that a row or a loss of that release names is in the packages installed."""
    find = "import importlib.util as u; print(u.find_spec('axolotl').submodule_search_locations[0])"
    packages = Path(subprocess.run([next_python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()).parent
    named = {
        row.see for kind in KINDS for adapter in ("none", "lora") for row in NEXT.table(Variant(kind, adapter, kind == "sft"))
    }
    paths = {see.partition("/blob/")[2].partition("/")[2].removeprefix("src/") for see in named if "/blob/" in see}
    ours = {path.partition("#")[0] for path in paths if path.startswith(("axolotl/", "trl/"))}
    assert {path for path in ours if not (packages / path).exists()} == set()
    assert len(ours) > 5


KINDS = ("sft", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo")
"""Kinds that axolotl has."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "adapter"),
    [("sft", "lora"), *(pytest.param(kind, "none", marks=pytest.mark.thorough(3)) for kind in KINDS[1:])],
)
def test_it_trains_as_the_pinned_release_does(tune, home, next_python, kind, adapter):
    """Three steps and evaluations of a small model: losses and gradient norms are those of the pinned release within 1e-5."""
    own = f"{{kind: local, accelerator: cpu, python: {{axolotl: {next_python}}}, env: {{OMP_NUM_THREADS: '1'}}}}"
    (tune.cwd / "clusters.yaml").write_text(f"version: 1\ntargets: {{next: {own}, local: {{kind: local, accelerator: cpu}}}}\n")
    wish = recipe(kind, adapter, data={"eval": "val.jsonl"}, train={"steps": 3})
    found = {}
    for on, each in (("local", wish), ("next", asking(wish))):
        points, _ = run(tune, home, "axolotl", {**each, "name": f"{kind}-{on}"}, "--on", on)
        found[on] = {name: points[name] for name in ("loss", "grad_norm", "eval_loss", "reward") if name in points}
    assert list(found["next"]["loss"]) == [1, 2, 3]
    assert found["next"] == {name: pytest.approx(values, abs=1e-5) for name, values in found["local"].items()}
