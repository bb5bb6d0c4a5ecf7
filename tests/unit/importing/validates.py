"""Runs in a trainer's environment: its own parser over configs as people write them, without a model, data or a device.

usage: python validates.py TRAINER < LINES > LINES. In: `{"config": {...}, "command": name}`, a line each. Out: `{"ok": true}` or
`{"ok": false, "why": ...}`. `command` is LitGPT's subcommand, and MaxText's config that the keys stand on.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

PARTS = ("optim", "transforms", "transforms.v2", "transforms.v2.functional")


def torchtune():
    """As `tune validate`: every component is there and takes the arguments."""
    from omegaconf import OmegaConf  # noqa: PLC0415
    from torchtune import config  # noqa: PLC0415

    # One is of the environment for CUDA alone, one for pictures: any name of theirs is there.
    for package in ("bitsandbytes", "torchvision"):
        sys.modules |= {name: MagicMock(__path__=[]) for name in (package, *(f"{package}.{part}" for part in PARTS))}
    return lambda keys, _: config.validate(OmegaConf.create(keys))


def litgpt():
    """The command line's parser, which refuses keys that it does not know and values of another kind."""
    from jsonargparse import CLI, capture_parser, set_docstring_parse_options  # noqa: PLC0415
    from litgpt.__main__ import PARSER_DATA  # noqa: PLC0415

    set_docstring_parse_options(attribute_docstrings=True)  # as litgpt.__main__ does
    parser = capture_parser(lambda: CLI(PARSER_DATA, exit_on_error=False))

    def look(keys, command):
        Path("config.yaml").write_text(json.dumps(keys))
        parser.parse_args([command, "--config", "config.yaml"])

    return look


def maxtext():
    """pyconfig, with the base config that the keys stand on."""
    os.environ |= {"DECOUPLE_GCLOUD": "TRUE", "JAX_PLATFORMS": "cpu"}  # before JAX is imported
    from maxtext.configs import pyconfig, types  # noqa: PLC0415

    def look(keys, base):
        Path("config.yml").write_text(json.dumps({**keys, "base_config": base}))
        argv = ["", "config.yml", "skip_jax_distributed_system=true", "log_config=false"]
        pyconfig._initialize_pydantic(argv, config_class=types.MaxTextConfig)

    return look


def main(trainer):
    """Answer line by line; what a trainer prints goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    look = {each.__name__: each for each in (torchtune, litgpt, maxtext)}[trainer]()
    os.chdir(tempfile.mkdtemp())
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            look(asked["config"], asked["command"])
            answer = {"ok": True}
        except BaseException as error:  # whatever a parser raises, SystemExit, too, is its answer
            answer = {"ok": False, "why": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=out, flush=True)


main(*sys.argv[1:])
