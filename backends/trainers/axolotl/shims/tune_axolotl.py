"""axolotl's side (0.19 and 0.21): `python tune_axolotl.py axolotl.yaml`, in the job's folder, in each process of the job.

axolotl is called from Python, as its own tests do: `load_cfg`, then `train` with data sets. Its command line does the same but
for four things that have no key, each of them stated in `train`. What a key can do is in axolotl.yaml; what the trainer classes of
tune_axolotl_trainers.py add to it is in trainer.json, whose keys tune_hf_trainer.py explains.
"""

# ruff: noqa: PLC0415 - the processes that axolotl's own data path spawns import this file, and must not wait for all of axolotl

from __future__ import annotations

import importlib
import json
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

_ZERO = "deepspeed.json"

if TYPE_CHECKING:
    from types import ModuleType

    from axolotl.common.datasets import TrainDatasetMeta


def train(path: str) -> None:
    """Train as axolotl.yaml and trainer.json say."""
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu:  # accelerate looks at it when it is imported: several processes then talk through gloo
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    import axolotl.core.builders.causal
    import axolotl.train
    import transformers
    import tune_attention
    import tune_axolotl_trainers
    import tune_resolved
    import tune_whole
    from axolotl.cli.config import load_cfg

    wish = json.loads(Path("trainer.json").read_text())
    cfg = load_cfg(path)
    tune_resolved.record(path, _resolved(cfg))
    cfg.attn_implementation = tune_attention.suited(cfg.base_model, cfg.attn_implementation)
    names, tied = tune_whole.for_peft(cfg.lora_modules_to_save, cfg.base_model, wish["kind"])
    cfg.lora_modules_to_save, cfg.peft_ensure_weight_tying = names, tied
    cfg.torch_dtype = getattr(torch, wish["dtype"])  # with `bf16: true` axolotl makes the weights bfloat16, mixed or not
    if wish["dtype"] == "bfloat16":
        cfg.bf16 = "full"  # no autocast: core/builders/base.py knows the word, the schema does not
    if on_cpu and cfg.world_size > 1:
        cfg.device_map = {"": "cpu"}  # it puts rank n on the n-th GPU (utils/config/__init__.py, normalize_config)
    for name in cfg.trl.reward_funcs or [] if cfg.trl else []:
        importlib.import_module(name.rpartition(".")[0])  # axolotl takes a module that cannot be imported for a model of the hub
    # The reward trainer is the one that `trainer_cls` does not reach (core/builders/causal.py, _get_trainer_cls)
    _replace(axolotl.core.builders.causal, "AxolotlRewardTrainer", tune_axolotl_trainers.Reward)
    if on_cpu:
        _train_on_cpu(transformers.TrainingArguments)
    transformers.set_seed(cfg.seed)  # PEFT and a reward model's head draw before the trainer seeds
    axolotl.train.train(cfg=cfg, dataset_meta=_data(cfg, wish))


def _data(cfg: Any, wish: dict[str, Any]) -> TrainDatasetMeta:
    """Rows of the data step as they are, or what axolotl makes of its own `datasets`."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.common.datasets import load_datasets, load_preference_datasets

    if wish["rows"]:
        import tune_hf_rows
        import tune_shared
        from axolotl.common.datasets import TrainDatasetMeta

        taken = cfg.micro_batch_size * cfg.gradient_accumulation_steps * cfg.world_size
        answers = cfg.trl.num_generations if wish["kind"] == "grpo" else 1
        sets = tune_hf_rows.data_sets(wish["rows"], wish["kind"], taken=taken, answers=answers)
        return TrainDatasetMeta(*sets, tune_shared.manifest(wish["rows"])["steps"])
    _name_columns(wish)
    load = load_preference_datasets if cfg.rl else load_datasets
    return load(cfg=cfg, cli_args=TrainerCliArgs())


def _name_columns(wish: dict[str, Any]) -> None:
    """Rows of which axolotl's types leave no choice how their columns are called."""
    import axolotl.prompt_strategies.bradley_terry.chat_template
    import axolotl.utils.data.rl

    if wish["kind"] == "reward":
        import tune_axolotl_pairs

        own = axolotl.prompt_strategies.bradley_terry.chat_template
        _replace(own, "BTChatTemplateStrategy", tune_axolotl_pairs.Pairs)
    elif columns := wish.get("columns"):
        load = axolotl.utils.data.rl.load_dataset_with_config
        _replace(axolotl.utils.data.rl, load.__name__, lambda *args, **kw: load(*args, **kw).rename_columns(columns))


def _resolved(cfg: Any) -> dict[str, Any]:
    """The config under the keys of axolotl.yaml: a few have another name inside (`model_type` for one), and for DeepSpeed's file
    stands by now what is in it.
    """
    from axolotl.utils.schemas.config import AxolotlInputConfig

    written = {name: info.alias for name, info in AxolotlInputConfig.model_fields.items() if info.alias}
    values = {written.get(key, key): _plain(value) for key, value in cfg.to_dict().items()}
    if isinstance(values.get("deepspeed"), dict) and values["deepspeed"] == json.loads(Path(_ZERO).read_text()):
        values["deepspeed"] = _ZERO
    return values


def _plain(value: Any) -> Any:
    """Words for enumerations, by their names where they stand for a dtype."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    return value


def _train_on_cpu(settings: type) -> None:
    """Every trainer's settings say `use_cpu`: without it transformers refuses bfloat16 where it finds no GPU
    (5.x, training_args.py, `__post_init__`), and axolotl has no key for it.
    """
    check = settings.__post_init__

    def chosen(self: Any) -> None:
        self.use_cpu = True
        check(self)

    settings.__post_init__ = chosen


def _replace(module: ModuleType, name: str, new: Any) -> None:
    if not hasattr(module, name):
        raise RuntimeError(f"{module.__name__} has no {name}: this is none of the releases of axolotl that tune is written for")
    setattr(module, name, new)


if __name__ == "__main__":
    train(sys.argv[1])
