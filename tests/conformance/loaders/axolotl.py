"""axolotl's own validation, for the device that the plan is for. It drops keys that it does not know, and does not tell."""

import os
from enum import Enum
from pathlib import Path

os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"

import yaml
from axolotl.utils.config import prepare_plugins, validate_config
from axolotl.utils.dict import DictDefault
from axolotl.utils.schemas.config import AxolotlInputConfig
from axolotl.utils.schemas.enums import CustomSupportedOptimizers
from pydantic import BaseModel
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

CPU = {"bf16": False, "fp8": False, "tf32": False, "n_gpu": 0, "compute_capability": None}
CUDA = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 1, "compute_capability": "sm_90"}


def load(job):
    """What is said of a config that axolotl takes; it raises on those that it refuses."""
    raw = yaml.safe_load(Path(job["config"]).read_text())
    wish = DictDefault(dict(raw))
    prepare_plugins(wish)
    has = dict(CUDA if job["accelerator"] == "cuda" else CPU)
    taken = validate_config(wish, capabilities=has, env_capabilities={"torch_version": "2.13.0"})
    named(raw)
    return unknown(raw, AxolotlInputConfig), by_alias(plain(taken.to_dict()))


def named(raw):
    """Optimizer and schedule by a name that there is: axolotl takes any text, and fails when the data are ready."""
    optimizers = {each.value for kind in (OptimizerNames, CustomSupportedOptimizers) for each in kind}
    schedules = {each.value for each in SchedulerType}
    for key, known in (("optimizer", optimizers), ("lr_scheduler", schedules)):
        if raw[key] not in known:
            raise ValueError(f"{key}: {raw[key]} is none of {', '.join(sorted(known))}")


def plain(value):
    """Words for enumerations, some of which stand for a dtype."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    return value


def by_alias(values):
    """Fields as people write them: a few have another name inside, `model_type` for one."""
    inside = {name: info.alias for name, info in AxolotlInputConfig.model_fields.items() if info.alias}
    return {inside.get(key, key): value for key, value in values.items()}


def unknown(raw, model, above=""):
    """Keys of a mapping that its pydantic model has no field for; free mappings have no model."""
    known = {name: info.annotation for name, info in model.model_fields.items()}
    known |= {info.alias: info.annotation for info in model.model_fields.values() if info.alias}
    out = set()
    for key, value in raw.items():
        if key not in known:
            out.add(f"{above}{key}")
            continue
        inner = models(known[key])
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and inner:
                out |= min((unknown(item, each, f"{above}{key}.") for each in inner), key=len)
    return out


def models(kind):
    """Pydantic models that an annotation names."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [found for part in getattr(kind, "__args__", ()) for found in models(part)]
