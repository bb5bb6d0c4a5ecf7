"""`release`: a recipe asks for another release of a trainer than the pinned one."""

import json
import re

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.registry import BACKENDS
from backends.target import Target

PINNED, NEXT = "axolotl 0.19.0", "axolotl 0.21.0"


def decided(release=None, native=None, *accept, trainer="axolotl"):
    """The plan of a small recipe."""
    values = {
        "version": 1,
        "name": "release",
        "model": {"id": "Qwen/Qwen2.5-0.5B"},
        "data": {"train": "rows.jsonl", "format": "instruct"},
        "train": {"steps": 4, "batch": {"global": 2}},
        "optim": {"lr": 1e-4, "warmup_steps": 1},
        "release": release or {},
        "native": {"axolotl": native} if native else {},
    }
    return plan(BACKENDS[trainer], parse(json.dumps(values), trainers=BACKENDS), Target(), accept)


def config(made):
    """The text of axolotl.yaml."""
    return next(file.text for file in made.files if file.path == "axolotl.yaml")


def refused(*args, **kw):
    """Leaf -> why of what stops the plan."""
    with pytest.raises(Inexpressible) as error:
        decided(*args, **kw)
    return {line.leaf: line.why for line in error.value.report.refused}


@pytest.mark.parametrize("asked", ["0.21", "0.21.0"])
def test_another_release_has_its_own_environment_and_says_so(asked):
    """Its lock, its Python and its range; config and report name it, and the keys written are those of the pinned release."""
    usual, made = decided(), decided({"axolotl": asked})
    assert usual.environment.python == "3.11"
    assert made.environment.python == "3.12"
    assert made.environment.requires == "axolotl>=0.21.0,<0.22"
    assert "\naxolotl==0.21.0\n" in made.environment.lock
    assert config(made).startswith(f"# {NEXT}, written by")
    assert config(made).partition("\n")[2] == config(usual).partition("\n")[2]
    (line,) = [line for line in made.report.lines if line.leaf == "release.axolotl"]
    assert (line.status, line.why) == ("native", f"{NEXT} instead of {PINNED}, which is the default")


@pytest.mark.parametrize("release", [{}, {"axolotl": "0.19"}, {"axolotl": "0.19.0"}])
def test_the_pinned_release_is_the_default(release):
    """Who asks for none, or for the pinned one, gets the same environment, config and report."""
    usual, made = decided(), decided(release)
    assert (made.environment, config(made), made.steps) == (usual.environment, config(usual), usual.steps)
    assert not [line for line in made.report.lines if line.leaf.startswith("release.")]


@pytest.mark.parametrize("asked", ["0.20", "0.2", "0.19.1", "1"])
def test_a_release_without_a_table_is_refused(asked):
    """The reason names those that there are; accepted by its name, the pinned one runs."""
    why = {"release.axolotl": f"tune has no table of axolotl {asked}; it has {PINNED} and {NEXT}"}
    assert refused({"axolotl": asked}) == why
    assert decided({"axolotl": asked}, None, "release.axolotl").environment == decided().environment


def test_each_trainer_has_its_own_release():
    """What is asked of one trainer is nothing to another, and a trainer with one release has no other."""
    assert decided({"axolotl": "0.21"}, trainer="litgpt").environment == decided(trainer="litgpt").environment
    has = BACKENDS["litgpt"].package
    assert refused({"litgpt": "9"}, trainer="litgpt") == {"release.litgpt": f"tune has no table of litgpt 9; it has {has}"}


@pytest.mark.parametrize(
    ("key", "value", "lacks"),
    [("fsdp", ["full_shard"], NEXT), ("fsdp_config.use_orig_params", True, NEXT), ("use_dft", True, PINNED)],
)
def test_keys_are_held_against_the_release(key, value, lacks):
    """A key that one of the two has is set there; the other refuses it by its own name."""
    version = {PINNED: "0.19", NEXT: "0.21"}
    other = next(name for name in version if name != lacks)
    why = refused({"axolotl": version[lacks]}, {key: value})[f"native.axolotl.{key}"]
    assert why.startswith(f"{lacks} has no such key")
    made = decided({"axolotl": version[other]}, {key: value})
    assert re.search(rf"^ *{key.rpartition('.')[2]}:", config(made), re.MULTILINE)


@pytest.mark.parametrize(
    ("release", "leaf", "rule"),
    [
        ({"axolotle": "0.21"}, "release.axolotle", "is not a trainer"),
        ({"axolotl": 0.21}, "release.axolotl", "should be text"),
        ({"axolotl": "newest"}, "release.axolotl", "should match"),
    ],
)
def test_what_is_no_release_of_a_trainer(release, leaf, rule):
    """A trainer that there is none of, a number (0.20 would be 0.2), and a word."""
    with pytest.raises(RecipeError) as error:
        decided(release)
    ((path, said),) = [(each.path, each.rule) for each in error.value.problems]
    assert (path, said[: len(rule)]) == (leaf, rule)
