"""Runs in axolotl's environment: its own validator over configs, without a model, a data set or a device.

usage: python axolotl_validates.py < LINES > LINES. In: a JSON object a line. Out: {"ok": true, "resolved": {...}} or {"ok": false, "why": ...}.
The machine is declared, not probed: one GPU of the Hopper family.
"""

import copy
import json
import logging
import os
import sys

os.environ |= {"AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
logging.disable(logging.CRITICAL)

import axolotl.integrations.base as plugins  # noqa: E402
from axolotl.utils.config import prepare_plugins, validate_config  # noqa: E402
from axolotl.utils.dict import DictDefault  # noqa: E402

MACHINE = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 1, "compute_capability": "sm_90"}
PACKAGES = {"torch_version": "2.13.0"}


def resolved(keys):
    """What axolotl makes of a config."""
    plugins.PluginManager._instance = None
    config = DictDefault(copy.deepcopy(keys))
    prepare_plugins(config)
    return validate_config(config, capabilities=dict(MACHINE), env_capabilities=dict(PACKAGES)).to_dict()


def main():
    """Answer line by line."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = {"ok": True, "resolved": resolved(json.loads(line))}
        except BaseException as error:  # whatever a validator raises is its answer
            answer = {"ok": False, "why": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer, default=str), file=out, flush=True)


main()
