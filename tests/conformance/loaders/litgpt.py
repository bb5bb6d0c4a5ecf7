"""LitGPT's own command line: its parser, then what each command checks before it starts."""

import inspect
import json
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import docstring_parser
import torch
from jsonargparse import CLI, capture_parser, set_docstring_parse_options
from litgpt.__main__ import PARSER_DATA
from litgpt.config import Config
from litgpt.utils import instantiate_torch_optimizer, save_config

warnings.simplefilter("ignore")
set_docstring_parse_options(attribute_docstrings=True)  # as litgpt.__main__ does
docstring_parser.parse_from_object = cache(docstring_parser.parse_from_object)  # texts of --help, read anew for each config
PARSER = capture_parser(lambda: CLI(PARSER_DATA))


def load(job):
    """The parser refuses keys that it does not know; of an optimizer it looks at none, so that one is made."""
    describe(json.loads(Path("convert.json").read_text()))
    argv = job["argv"]
    command = next(word for word in argv if word in PARSER_DATA)
    rest = argv[argv.index(command) + 1 :]
    parsed = PARSER.parse_args([command, *rest])
    section = parsed[command]
    objects = PARSER.instantiate_classes(parsed)[command]
    check(PARSER_DATA[command], objects)
    resolved = json.loads(PARSER.dump(parsed, format="json", skip_none=False))[command]
    if str(resolved.get("quantize")).startswith("bnb."):
        here("bitsandbytes", job["lock"])
    return unknown(section["optimizer"], job["lock"]), resolved


def describe(wish):
    """The model's shape where the convert step leaves it; `litgpt pretrain` reads it with the config."""
    import tune_convert  # noqa: PLC0415  # both lie in the plan's folder
    import tune_shape  # noqa: PLC0415

    if tune_convert.family(wish["model"]) in tune_convert.FAMILIES:
        shape = tune_convert._config(tune_shape.read(wish["model"], tune_convert.FAMILIES), wish["name"])
    elif wish["name"] is None:
        import tune_convert_described  # noqa: PLC0415

        sizes = json.loads(Path(wish["model"], "config.json").read_text())  # all that the folder of a test says
        shape = Config(name="", **tune_convert_described._sizes(sizes))
    else:
        shape = Config.from_name(wish["name"])
    Path(wish["out"]).mkdir()
    save_config(shape, Path(wish["out"]))


def check(setup, objects):
    """The command's own `validate_args`, by the names of its parameters."""
    validate = getattr(inspect.getmodule(setup), "validate_args", None)
    if validate:
        validate(**{name: objects[name] for name in inspect.signature(validate).parameters})


def unknown(optimizer, lock):
    """Keys of the optimizer that its class does not take. LitGPT then makes one, which fails where a function of ours hands on
    what its class does not take.
    """
    module, _, name = optimizer["class_path"].rpartition(".")
    if not here(module.partition(".")[0], lock):
        return set()
    known = inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in known.values())
    strange = set() if anything else set(optimizer["init_args"]) - set(known)
    if not strange:
        instantiate_torch_optimizer(optimizer, [torch.nn.Parameter(torch.zeros(2, 2))])
    return {f"optimizer.init_args.{key}" for key in strange}


def here(package, lock):
    """A package is in this environment. One that is not must be in the lock of the environment meant, the one for CUDA."""
    if find_spec(package) is None and f"\n{package}==" not in lock:
        raise ValueError(f"{package} is neither here nor in the lock of the environment that the plan is for")
    return find_spec(package) is not None
