"""What a trainer takes for a key that a config leaves out, read out of the trainer itself. Runs inside its environment.

    env/bin/python backends/upstream/generate_defaults.py litgpt > backends/trainers/litgpt/defaults.txt

One key a line, sorted: `key = JSON`. `place:key` is a key of one command or of one component: `finetune_lora:train.epochs`,
`torchtune.datasets.alpaca_dataset:train_on_input`. A default that is no plain value is left out.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import importlib.metadata
import inspect
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

LONGEST = 300
"""Characters of a value. Longer ones are MaxText's rules for spreading arrays over devices, which no row reads."""

Found = Iterator[tuple[str, Any]]


def torchtune() -> Found:
    """Parameters of the components that configs name, and what the recipes take for a key that is not there."""
    for module in TORCHTUNE:
        try:
            yield from components(module)
        except ImportError:  # models with images want torchvision, which the environment has not
            yield from components_as_written(module)
    home = pathlib.Path(importlib.import_module("torchtune").__path__[0]).parent / "recipes"
    for path in sorted(home.glob("*.py")):
        yield from read_by(path.read_text("utf-8"))


TORCHTUNE = (
    "torch.optim",
    "torchao.optim",
    "torchtune.datasets",
    "torchtune.datasets.multimodal",
    "torchtune.modules.loss",
    "torchtune.rlhf.loss",
    "torchtune.training.lr_schedulers",
    "torchtune.training.metric_logging",
    *(
        f"torchtune.models.{family}"
        for family in ("code_llama2", "gemma", "gemma2", "llama2", "llama3", "llama3_1", "llama3_2", "llama3_2_vision")
    ),
    *(f"torchtune.models.{family}" for family in ("llama3_3", "mistral", "phi3", "phi4", "qwen2", "qwen2_5")),
)
"""Modules whose functions and classes stand behind `_component_`."""


def components(module: str) -> Found:
    """Defaults of all that a module offers."""
    home = importlib.import_module(module)
    for name in sorted(getattr(home, "__all__", None) or vars(home)):
        made = getattr(home, name, None)
        if callable(made) and not name.startswith("_") and is_of(made, module.partition(".")[0]):
            yield from ((f"{module}.{name}:{key}", value) for key, value in parameters(made))


def components_as_written(module: str) -> Found:
    """Defaults of the model builders of a package that cannot be imported; plain ones only."""
    package, _, name = module.rpartition(".")
    source = pathlib.Path(importlib.import_module(package).__path__[0], name, "_model_builders.py").read_text("utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            yield from ((f"{module}.{node.name}:{key}", value) for key, value in parameters_as_written(node))


def parameters_as_written(node: ast.FunctionDef) -> Found:
    """Keyword defaults of a function, by its text."""
    given, more = node.args, node.args.kw_defaults
    last = given.args[len(given.args) - len(given.defaults) :]
    for each, default in zip([*last, *given.kwonlyargs], [*given.defaults, *more], strict=True):
        with contextlib.suppress(ValueError):
            if default is not None:
                yield each.arg, ast.literal_eval(default)


def is_of(made: Any, package: str) -> bool:
    """Whether a package made it, and did not import it; a partial counts as what it calls."""
    return str(getattr(made, "func", made).__module__).startswith(package)


def parameters(made: Any) -> Found:
    """Keyword defaults of a function or class."""
    with contextlib.suppress(TypeError, ValueError):
        for each in inspect.signature(made).parameters.values():
            if each.default is not each.empty:
                yield from plain(each.name, each.default)


def plain(key: str, value: Any) -> Found:
    """A default by name; of a dataclass, field by field."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from plain(f"{key}.{field.name}", getattr(value, field.name))
    else:
        yield key, getattr(value, "value", value)


def read_by(source: str) -> Found:
    """`cfg.get("a", default)`, wherever a program asks for it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "cfg" and isinstance(node.args[0], ast.Constant):
                default = node.args[1] if len(node.args) > 1 else ast.Constant(None)
                with contextlib.suppress(ValueError):
                    yield str(node.args[0].value), ast.literal_eval(default)


def litgpt() -> Found:
    """Parameters of the commands that take a training config, and of the data modules."""
    for command in ("finetune_full", "finetune_lora", "finetune_adapter", "finetune_adapter_v2", "pretrain"):
        setup = importlib.import_module("litgpt." + command.replace("_", ".", 1)).setup
        yield from ((f"{command}:{key}", value) for key, value in parameters(setup))
    data = importlib.import_module("litgpt.data")
    for name in data.__all__:
        yield from ((f"litgpt.data.{name}:{key}", value) for key, value in parameters(getattr(data, name)))
    for module in ("torch.optim", "bitsandbytes.optim"):
        with contextlib.suppress(ImportError):
            yield from components(module)


def axolotl() -> Found:
    """Defaults of its schema, and where that has none those of the trainer underneath, which axolotl leaves alone then."""
    schema = importlib.import_module("axolotl.utils.schemas.config").AxolotlInputConfig
    for name, info in schema.model_fields.items():
        yield name, (None if info.is_required() else getattr(info.default, "value", info.default))
    arguments = importlib.import_module("transformers").TrainingArguments
    for field in dataclasses.fields(arguments):
        if field.default is not dataclasses.MISSING:
            yield f"transformers.TrainingArguments:{field.name}", getattr(field.default, "value", field.default)


RL = "post_train/rl.yml"
"""MaxText's config of reinforcement learning, which stands on no other: on the defaults of a class of its own."""


def maxtext() -> Found:
    """Values of base.yml, which every config stands on, and defaults of the fields that it does not name."""
    os.environ.update(DECOUPLE_GCLOUD="TRUE", JAX_PLATFORMS="cpu")
    types = importlib.import_module("maxtext.configs.types")
    configs = pathlib.Path(str(types.__file__)).parent
    yaml = importlib.import_module("yaml")
    usual = dict(fields(types.MaxTextConfig)) | yaml.safe_load((configs / "base.yml").read_text("utf-8"))
    yield from usual.items()
    for name, value in fields(types.RLConfig):
        if name not in usual or (value or None) != (usual[name] or None):
            yield f"{RL}:{name}", value
    for path in sorted(configs.glob("**/*.yml")):
        place = str(path.relative_to(configs))
        said = yaml.safe_load(path.read_text("utf-8"))
        if "base_config" in said or place == RL or place.startswith("models/"):  # the last win over what a config says
            yield from ((f"{place}:{key}", value) for key, value in dotted(said))


def fields(model: Any) -> Found:
    """Defaults of a class's fields."""
    for name, info in model.model_fields.items():
        if not info.is_required():
            yield name, getattr(info.default, "value", info.default)


def dotted(values: dict[str, Any], above: str = "") -> Found:
    """Nested mappings by dotted name."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


TRAINERS = {each.__name__: each for each in (litgpt, torchtune, axolotl, maxtext)}


def main() -> None:
    """Print the table of the trainer that is named."""
    name = sys.argv[1]
    table: dict[str, str] = {}
    with contextlib.redirect_stdout(sys.stderr):  # some trainers greet when they are imported
        for key, value in TRAINERS[name]():
            with contextlib.suppress(TypeError, ValueError):
                if len(text := json.dumps(value, allow_nan=False)) <= LONGEST:
                    table[key] = text
    head = f"# {name} {importlib.metadata.version(name)}"
    sys.stdout.write("\n".join([head, *(f"{key} = {table[key]}" for key in sorted(table)), ""]))


if __name__ == "__main__":
    main()
