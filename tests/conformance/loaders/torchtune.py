"""torchtune's own config: parsed and validated by it, its model built, its top-level keys compared with what the recipe reads."""

import ast
import inspect
import warnings
from pathlib import Path

import torch
import torchtune.training
from omegaconf import OmegaConf
from torchtune import config as tune
from torchtune.config._utils import _get_component_from_path

warnings.simplefilter("ignore")
RECIPES = Path(torchtune.__file__).parents[1] / "recipes"


def load(job):
    """What is said of a config that torchtune takes; it raises on those that it refuses."""
    recipe = Path(job["argv"][job["argv"].index("--config") - 1]).stem
    wish = OmegaConf.load(job["config"])
    tune.validate(wish)
    required, optional = read_by(RECIPES / f"{recipe}.py")
    plain = OmegaConf.to_container(wish, resolve=True)
    if missing := required - set(plain):
        raise ValueError(f"{recipe} reads keys that are missing: {', '.join(sorted(missing))}")
    unknown = set(plain) - required - optional - {"output_dir"}
    for section, value in plain.items():
        if isinstance(value, dict) and "_component_" in value:
            unknown |= {f"{section}.{key}" for key in strange(value)}
    wish.model.pop("start", None)  # the adapter's first weights: a shape has none
    with torch.device("meta"):
        tune.instantiate(wish.model)
    return unknown, plain


def read_by(recipe):
    """Top-level keys that a recipe must have, and those that it may have, by its source."""
    required, optional = set(), set()
    for node in ast.walk(ast.parse(recipe.read_text())):
        if isinstance(node, ast.Attribute) and named(node.value) and node.attr != "get":
            required.add(node.attr)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and named(node.func.value)
        ):
            optional.add(key(node.args[0]))
    return required - optional, optional


def named(node):
    """The expression is `cfg`."""
    return isinstance(node, ast.Name) and node.id == "cfg"


def key(node):
    """A key as a text, or as one of torchtune's constants."""
    return getattr(torchtune.training, node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)


def strange(section):
    """Keys that a component does not take; one that takes any keyword hands them on to a data set's own loader."""
    known = inspect.signature(_get_component_from_path(section["_component_"])).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return set()
    return set(section) - {"_component_"} - set(known)
