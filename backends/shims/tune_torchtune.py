"""torchtune 0.6.1's side: the components that a config names by `_component_: tune_torchtune.<name>`.

torchtune puts the folder it is started from on the path, so the job's folder is enough. Nothing of torchtune is patched.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import tune_shape
import tune_shared
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from torchtune.modules.peft import DoRALinear, LoRALinear
from torchtune.training import FullModelHFCheckpointer
from tune_shared import adamw

if TYPE_CHECKING:
    from torchtune.modules import TransformerDecoder

__all__ = ["PadOnly", "adamw", "checkpointer", "lora_model", "model", "rows", "schedule"]

_MODULES = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}


class PadOnly:
    """Stands where the config wants a tokenizer: the SFT recipes read nothing of it but `pad_id`."""

    def __init__(self, *, folder: str = "data") -> None:
        self.pad_id = tune_shared.manifest(folder)["pad_id"]


class _Stream(Dataset):
    """The rows in their order, cut into equal parts: the trainer's k-th epoch is the k-th part.

    A part is recognised by counting what was served, which is right as long as the trainer asks for its rows one after
    another. It does (a DistributedSampler without shuffle, no loader workers), and every request is checked against that.
    """

    def __init__(self, folder: str, parts: int) -> None:
        steps = tune_shared.manifest(folder)["steps"]
        if parts < 1 or steps % parts:
            raise ValueError(f"dataset.parts: {steps} steps cannot be cut into {parts} equal parts")
        self._rows = tune_shared.Rows(folder)
        self._order = tune_shared.order(folder)
        self._parts = parts
        self._size = len(self._order) // parts
        self._rank = int(os.environ.get("RANK", "0"))
        self._world = int(os.environ.get("WORLD_SIZE", "1"))
        self._served = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, place = divmod(self._served, self._size // self._world)
        if part >= self._parts:
            raise RuntimeError(f"the trainer wants more than the {self._parts} parts there are: epochs must equal parts")
        if index != self._rank + place * self._world:
            raise RuntimeError(
                f"the trainer asks for row {index} of part {part}, where row {self._rank + place * self._world} is due: "
                "shuffle must be False, batch_size x gradient_accumulation_steps x processes must be the global batch, "
                "and tensor parallelism is not supported"
            )
        self._served += 1
        ids, labels = self._rows.row(self._order[part * self._size + index])
        return {"tokens": ids, "labels": labels}


def rows(tokenizer: Any, *, folder: str = "data", parts: int = 1) -> Dataset:  # noqa: ARG001 - the recipe hands it over
    """The data step's rows, in the data step's order.

    torchtune saves a checkpoint at the end of an epoch and nowhere else, so the stream may be cut into `parts` equal
    trainer's epochs; the config then says `epochs: <parts>`. Works with several processes (each takes its share of every
    global batch), with `parts` as well.

    Raises:
        ValueError: the steps do not divide by `parts`.
    """
    return _Stream(folder, parts)


def schedule(
    optimizer: torch.optim.Optimizer,
    *,
    num_training_steps: int,
    last_epoch: int = -1,
    kind: str = "cosine",
    warmup_steps: int = 0,
    warmup_share: float | None = None,
    min_ratio: float = 0.0,
) -> LambdaLR:
    """constant, linear or cosine after a linear warm-up; the recipe supplies the first three arguments.

    Optimizer step k (from 1) runs with the factor f(k - 1): f(s) = s/W for s < W; from there down to `min_ratio` over the
    other N - W steps, or 1 throughout for `constant`. `warmup_share` gives W as a share of N, rounded up; it replaces
    `warmup_steps`.
    """
    if kind not in ("constant", "linear", "cosine"):
        raise ValueError(f"lr_scheduler.kind: should be constant, linear or cosine, got {kind!r}")
    # round: 0.07 * 100 is a little more than 7 in binary, and must not become 8
    warm = warmup_steps if warmup_share is None else math.ceil(round(warmup_share * num_training_steps, 9))

    def factor(step: int) -> float:
        if step < warm:
            return step / warm
        if kind == "constant":
            return 1.0
        done = min(1.0, (step - warm) / max(1, num_training_steps - warm))
        left = 1.0 - done if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
        return min_ratio + (1.0 - min_ratio) * left

    return LambdaLR(optimizer, factor, last_epoch)


def model(*, path: str, builder: str | None = None, folder: str = "data") -> TransformerDecoder:
    """The model of a Hugging Face folder, built from its config.json, or by a builder of torchtune's that is named."""
    if builder:
        return _component(builder)()
    name, sizes = _builder(tune_shape.read(path), folder)
    return _component(name)(**sizes)


def lora_model(
    *,
    path: str,
    lora_rank: int,
    lora_alpha: float,
    lora_attn_modules: list[str],
    lora_dropout: float = 0.0,
    apply_lora_to_mlp: bool = False,
    apply_lora_to_output: bool = False,
    start: str | None = None,
    builder: str | None = None,
    folder: str = "data",
    **more: Any,
) -> TransformerDecoder:
    """The same with LoRA; A and B begin as in `start`, a safetensors file in Hugging Face names.

    `builder` names the LoRA builder (`torchtune.models.llama3_2.lora_llama3_2_1b`). `more` is handed on to it:
    `use_dora`, `quantize_base`.
    """
    shape = tune_shape.read(path)
    name, sizes = (builder, {}) if builder else _builder(shape, folder, "lora_")
    build = _component(name)
    if apply_lora_to_output and (shape.tied or "apply_lora_to_output" not in inspect.signature(build).parameters):
        raise ValueError("apply_lora_to_output: the head is the embedding itself in this model (tie_word_embeddings)")
    if apply_lora_to_output:  # builders of tied models do not even know the argument
        sizes["apply_lora_to_output"] = True
    built = build(
        lora_attn_modules=list(lora_attn_modules),
        apply_lora_to_mlp=apply_lora_to_mlp,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        **sizes,
        **more,
    )
    for layer in built.modules():
        if isinstance(layer, LoRALinear | DoRALinear):
            layer.register_state_dict_post_hook(_apart)
    if start:
        _preset(built, start, shape)
    return built


def _builder(shape: tune_shape.Shape, folder: str, prefix: str = "") -> tuple[str, dict[str, Any]]:
    """The component builder of this shape, and every size it takes: no default of the builder's decides."""
    if shape.head * shape.heads != shape.width:
        raise ValueError(f"torchtune builds no model whose heads ({shape.heads} x {shape.head}) differ from its width")
    sizes = {
        "vocab_size": shape.vocab,
        "num_layers": shape.layers,
        "num_heads": shape.heads,
        "num_kv_heads": shape.kv_heads,
        "embed_dim": shape.width,
        "intermediate_dim": shape.inner,
        "max_seq_len": _positions(shape, folder),
        "attn_dropout": 0.0,
        "rope_base": shape.theta,
        "norm_eps": shape.eps,
    }
    room, more = _family(shape)
    return f"torchtune.models.{room}.{prefix}{room}", sizes | more


def _positions(shape: tune_shape.Shape, folder: str) -> int:
    """As many as the rows have, where they are ours: the LoRA builders keep one table of positions a layer."""
    return tune_shared.Rows(folder).longest() if Path(folder, "manifest.json").exists() else shape.positions


def _family(shape: tune_shape.Shape) -> tuple[str, dict[str, Any]]:
    """What torchtune calls the family, and the arguments that only this family's builder takes."""
    if shape.family == "qwen2":
        if shape.scaling:
            raise ValueError("torchtune's qwen2 builder knows no scaling of the rotary embedding")
        return "qwen2", {"tie_word_embeddings": shape.tied}
    if shape.tied:  # llama3_2 is the one that ties; a factor of 1 leaves the rotary embedding as it is
        return "llama3_2", {"tie_word_embeddings": True, "scale_factor": _scale(shape)}
    if shape.scaling:
        return "llama3_1", {"scale_factor": _scale(shape)}
    return "llama3", {}


def _scale(shape: tune_shape.Shape) -> float:
    """The factor of the Llama-3 scaling. Its other figures are fixed in torchtune (llama3_1/_position_embeddings.py)."""
    if not shape.scaling:
        return 1
    factor, *others = shape.scaling.values()
    if others != [1, 4, 8192]:
        raise ValueError(f"torchtune scales the rotary embedding with 1, 4 and 8192, this model with {others}")
    return factor


def _component(dotted: str) -> Any:
    room, _, name = dotted.rpartition(".")
    if not room.startswith("torchtune.models"):
        raise ValueError(f"builder should lie in torchtune.models, got {dotted!r}")
    return getattr(importlib.import_module(room), name)


def _preset(built: TransformerDecoder, start: str, shape: tune_shape.Shape) -> None:
    new = load_file(start)
    for name, layer in built.named_modules():
        if not isinstance(layer, LoRALinear | DoRALinear):
            continue
        hf = _hf_name(name)
        if f"{hf}.lora_A.weight" not in new:
            raise ValueError(f"{start}: nothing for {hf}, which the config trains")
        a, b = (new.pop(f"{hf}.lora_{x}.weight") for x in "AB")
        if shape.family == "llama" and hf.endswith(("q_proj", "k_proj")):
            b = tune_shape.interleaved(b, shape.head)
        # Distributed recipes build on the meta device and call this again on the sharded layer
        layer.initialize_parameters = partial(_fill, layer, a, b)
        if not layer.lora_a.weight.is_meta:
            layer.initialize_parameters()
    if new:
        raise ValueError(f"{start}: {sorted(new)[0]} and {len(new) - 1} others are not trained by this config")


def _apart(layer: Any, state: dict[str, Any], prefix: str, _: Any) -> None:  # noqa: ARG001 - torch calls it so
    """Hand out a copy of a base weight that lies in main memory.

    At the end of an epoch the LoRA recipe adds B x A into `state_dict()`, moved to the CPU first (lora_finetune_single_device.py,
    save_checkpoint). On a CPU nothing moves, the model itself is changed, and from then on LoRA counts twice.
    """
    weight = state[f"{prefix}weight"]
    if type(weight) is torch.Tensor and weight.is_cpu:
        state[f"{prefix}weight"] = weight.clone()


def _hf_name(name: str) -> str:
    """`layers.0.attn.q_proj` -> `model.layers.0.self_attn.q_proj`, `output` -> `lm_head`."""
    if name == "output":
        return "lm_head"
    room, number, rest = name.split(".", 2)
    return f"model.{room}.{number}.{_MODULES[rest]}"


@torch.no_grad()
def _fill(layer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    for own, new in ((layer.lora_a.weight, a), (layer.lora_b.weight, b)):
        value = new.to(own.device, own.dtype)
        if isinstance(own, DTensor):
            value = distribute_tensor(value, own.device_mesh, own.placements)
        own.copy_(value)


class _Checkpointer(FullModelHFCheckpointer):
    """Fills in what older config.json files leave out, and drops the copy of a tied head that some files carry."""

    def __init__(self, *, shape: tune_shape.Shape, **settings: Any) -> None:
        super().__init__(**settings)
        self._config |= {"tie_word_embeddings": shape.tied, "num_key_value_heads": shape.kv_heads}
        self._tied = shape.tied

    def load_checkpoint(self) -> dict[str, Any]:
        state = super().load_checkpoint()
        if self._tied:
            state["model"].pop("output.weight", None)
            self._weight_map.pop("lm_head.weight", None)
        return state


def checkpointer(
    *,
    checkpoint_dir: str,
    output_dir: str,
    model_type: str = "AUTO",
    recipe_checkpoint: str | None = None,
    should_load_recipe_state: bool = False,
) -> FullModelHFCheckpointer:
    """FullModelHFCheckpointer over a Hugging Face folder: the files are listed and the type is read from it.

    `model_type` is there because recipes look at that key; AUTO is the one value. Resuming is refused: torchtune 0.6.1 does
    not restore the place in the rows, and its LoRA recipe restarts the schedule.
    """
    if model_type != "AUTO":
        raise ValueError(f"checkpointer.model_type should be AUTO, it is read from config.json; got {model_type!r}")
    if should_load_recipe_state or recipe_checkpoint:
        raise ValueError("resume_from_checkpoint should be False: the place in the rows cannot be restored; start again")
    shape = tune_shape.read(checkpoint_dir)
    types = {"qwen2": "QWEN2", "llama": "LLAMA3_2" if shape.tied else "LLAMA3"}
    return _Checkpointer(
        shape=shape,
        checkpoint_dir=checkpoint_dir,
        checkpoint_files=[p.name for p in tune_shape.weight_files(checkpoint_dir)],
        model_type=types[shape.family],
        output_dir=output_dir,
    )
