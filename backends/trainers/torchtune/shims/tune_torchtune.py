"""torchtune 0.6.1's side: the components that a config names by `_component_: tune_torchtune.<name>`.

torchtune puts the folder it is started from on the path, so the job's folder is enough. Nothing of torchtune is patched.
Rows, checkpoints and logs are in tune_torchtune_rows.py, tune_torchtune_checkpoint.py and tune_torchtune_log.py.
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
import tune_checkpoints
import tune_lengths
import tune_noise
import tune_shape
import tune_shared
import tune_torchtune_tensor
import tune_torchtune_together
import tune_torchtune_whole
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.lr_scheduler import LambdaLR
from torchao.dtypes.nf4tensor import NF4Tensor
from torchao.quantization.qat import Int8DynActInt4WeightQATQuantizer
from torchtune.modules.low_precision import FrozenNF4Linear
from torchtune.modules.peft import DoRALinear, LoRALinear
from tune_shared import adamw
from tune_torchtune_checkpoint import checkpointer, read, restore_random
from tune_torchtune_log import clip, log
from tune_torchtune_rows import PadOnly, pairs, rows

if TYPE_CHECKING:
    from collections.abc import Collection

    from torchtune.modules import TransformerDecoder

__all__ = ["PadOnly", "adamw", "checkpointer", "log", "lora_model", "model", "pairs", "rows", "schedule", "teacher"]

_NF4 = 64 * 256
"""Weights of a layer in NF4 come in blocks of 64 with a scale each, and the scales in blocks of 256 (torchao 0.15, nf4tensor.py)."""

_MODULES = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}


def schedule(
    optimizer: torch.optim.Optimizer,
    *,
    num_training_steps: int,
    last_epoch: int = -1,
    kind: str = "cosine",
    warmup_steps: int = 0,
    warmup_share: float | None = None,
    min_ratio: float = 0.0,
    clip_grad_norm: float | str | None = None,
) -> LambdaLR:
    """constant, linear or cosine after a linear warm-up; the recipe supplies the first three arguments.

    Optimizer step k (from 1) runs with the factor f(k - 1): f(s) = s/W for s < W; from there down to `min_ratio` over the
    other N - W steps, or 1 throughout for `constant`. `warmup_share` gives W as a share of N, rounded up; it replaces
    `warmup_steps`. Where an attempt goes on, some recipes forget the steps behind it (recipes/lora_finetune_single_device.py).
    `clip_grad_norm`: the largest norm of the gradient, or inf; it is logged as it was before, for a recipe that does not log it.
    """
    restore_random()  # this component is the last that a recipe sets up
    if kind not in ("constant", "linear", "cosine"):
        raise ValueError(f"lr_scheduler.kind: should be constant, linear or cosine, got {kind!r}")
    if clip_grad_norm is not None:
        clip(optimizer, float(clip_grad_norm))
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

    return LambdaLR(optimizer, factor, max(last_epoch, tune_checkpoints.begun() - 1))


def model(
    *,
    path: str,
    builder: str | None = None,
    folder: str = "data",
    neftune_alpha: float | None = None,
    qat_group: int | None = None,
    tensor: int = 1,
) -> TransformerDecoder:
    """The model of a Hugging Face folder, built from its config.json, or by a builder of torchtune's that is named; with NEFTune's noise
    where there is an alpha of it.

    `qat_group`: its linear layers see what they would be in 4 bits, weights by groups of so many inputs, and inputs in 8 bits.
    `tensor`: processes that share each of its matrices.
    """
    shape = read(path)
    name, sizes = (builder, {}) if builder else _builder(shape, folder)
    built = _ready(_component(name)(**sizes), neftune_alpha, folder)
    if tensor > 1:
        tune_torchtune_tensor.shared(built, shape, tensor)
    return _rounding(built, qat_group) if qat_group else built


def _rounding(built: TransformerDecoder, group: int) -> TransformerDecoder:
    """Put torchao's layers in place; it would pass over those whose inputs are no whole groups, and say nothing."""
    for name, layer in built.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer.in_features % group:
            raise ValueError(f"method.qat.group: {group} does not divide the {layer.in_features} inputs of {name}")
    return Int8DynActInt4WeightQATQuantizer(groupsize=group, precision=torch.get_default_dtype()).prepare(built)


def _ready(built: TransformerDecoder, alpha: float | None, folder: str) -> TransformerDecoder:
    """With noise, and layers that one compilation does for."""
    tune_lengths.compile_once(built.layers, folder)
    if alpha:
        tune_noise.put_on(built.tok_embeddings, alpha, folder)
    return built


def teacher(*, path: str, student: str, folder: str = "data") -> TransformerDecoder:
    """The model of another folder, whose token probabilities `student`'s folder learns from.

    Raises:
        ValueError: the two have not the same vocabulary.
    """
    sizes = [read(each).vocab for each in (path, student)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"method.distill.teacher: {path} has {sizes[0]} token ids, the model {sizes[1]}: they must be the same")
    return model(path=path, folder=folder)


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
    neftune_alpha: float | None = None,
    train_fully: Collection[str] = (),
    **more: Any,
) -> TransformerDecoder:
    """The same with LoRA; A and B begin as in `start`, a safetensors file in Hugging Face names.

    `builder` names the LoRA builder (`torchtune.models.llama3_2.lora_llama3_2_1b`). `more` is handed on to it:
    `use_dora`, `quantize_base`.
    """
    shape = read(path)
    name, sizes = (builder, {}) if builder else _builder(shape, folder, "lora_")
    build = _component(name)
    if apply_lora_to_output and (shape.tied or "apply_lora_to_output" not in inspect.signature(build).parameters):
        raise ValueError("apply_lora_to_output: the head is the embedding itself in this model (tie_word_embeddings)")
    if apply_lora_to_output:  # builders of tied models do not even know the argument
        sizes["apply_lora_to_output"] = True
    if not more.get("use_dora") and "use_dora" not in inspect.signature(build).parameters:
        more.pop("use_dora", None)  # lora_llama3_1_405b knows no DoRA
    if more.get("quantize_base"):
        _quantizable(shape)
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
        if isinstance(layer, LoRALinear | DoRALinear | FrozenNF4Linear):
            layer.register_state_dict_post_hook(_apart)
    if start:
        _preset(built, start, shape)
    tune_torchtune_together.join(built)
    tune_torchtune_whole.learn(built, train_fully)
    return _ready(built, neftune_alpha, folder)


def _quantizable(shape: tune_shape.Shape) -> None:
    """NF4 takes whole blocks only, in every process; torchao's own message names neither layer nor way out."""
    whole = _NF4 * int(os.environ.get("WORLD_SIZE", "1"))
    for name, inputs, outputs in shape.linear(["q", "k", "v", "o", "gate", "up", "down"]):
        if inputs * outputs % whole:
            raise ValueError(
                f"{name}: {inputs} x {outputs} weights are no multiple of {whole}, which NF4 wants; use lora, not qlora"
            )


def _builder(shape: tune_shape.Shape, folder: str, prefix: str = "") -> tuple[str, dict[str, Any]]:
    """The component builder of this shape, and every size it takes: no default of the builder's decides."""
    if shape.head * shape.heads != shape.width and shape.family != tune_shape.GEMMA:
        raise ValueError(f"torchtune builds no model whose heads ({shape.heads} x {shape.head}) differ from its width")
    if shape.window and shape.window < _positions(shape, folder):
        raise ValueError(
            f"torchtune has no sliding window of attention ({shape.window} tokens): set data.max_length to that or less"
        )
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
    if not Path(folder, "manifest.json").exists():
        return shape.positions
    return tune_shared.manifest(folder).get("longest") or tune_shared.Rows(folder).longest()


def _family(shape: tune_shape.Shape) -> tuple[str, dict[str, Any]]:
    """What torchtune calls the family, and the arguments that only this family's builder takes."""
    if shape.family != "llama" and shape.scaling:
        raise ValueError(f"torchtune's {shape.family} builder knows no scaling of the rotary embedding")
    if shape.family in ("mistral", tune_shape.PHI) and shape.tied:
        raise ValueError(f"torchtune's {shape.family} builder knows no tied embeddings")
    if shape.family == tune_shape.GEMMA and not shape.tied:
        raise ValueError("torchtune's gemma builder ties the embeddings, which this model has apart")
    if shape.family == "qwen2":
        return "qwen2", {"tie_word_embeddings": shape.tied}
    if shape.family == tune_shape.GEMMA:
        return "gemma", {"head_dim": shape.head}
    if shape.family in ("mistral", tune_shape.PHI):
        return shape.family, {}
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
        if shape.family != "qwen2" and hf.endswith(("q_proj", "k_proj")):
            b = tune_shape.interleaved(b, shape.head)
        # Distributed recipes build on the meta device and call this again on the sharded layer
        layer.initialize_parameters = partial(_fill, layer, a, b)
        if not layer.lora_a.weight.is_meta:
            layer.initialize_parameters()
    if new:
        raise ValueError(f"{start}: {sorted(new)[0]} and {len(new) - 1} others are not trained by this config")


def _apart(layer: Any, state: dict[str, Any], prefix: str, _: Any) -> None:  # noqa: ARG001 - torch calls it so
    """Hand out a copy of a base weight that lies in main memory, and one in NF4 as it was before.

    At the end of an epoch the LoRA recipe adds B x A into `state_dict()`, moved to the CPU first (lora_finetune_single_device.py,
    save_checkpoint). On a CPU nothing moves, the model itself is changed, and from then on LoRA counts twice. Weights in NF4
    torchtune would hand out in bfloat16 whatever `dtype` is (modules/common_utils.py).
    """
    weight = state[f"{prefix}weight"]
    if isinstance(weight, NF4Tensor):
        state[f"{prefix}weight"] = weight.get_original_weight().cpu()
    elif type(weight) is torch.Tensor and weight.is_cpu:
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
