"""Matrices of torchtune 0.6.1's models shared by several processes (resources.tensor): the component for `tensor_parallel_plan:`.

torchtune's own plan, base_llama_tp_plan, leaves norms as plain tensors beside the shared ones, over which the recipe's clipping ends
with `_foreach_norm.Scalar got mixed torch.Tensor and DTensor`, and the optimizer's step likewise. Here every process has the norms whole,
as shared tensors too. Each process of a group gets the same rows, and computes the same loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor, Replicate, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel
from torchtune.modules import TiedLinear

if TYPE_CHECKING:
    import tune_shape
    from torch.distributed.device_mesh import DeviceMesh
    from torchtune.modules import TransformerDecoder

_FAMILIES = ("llama", "mistral", "qwen2")
"""Families whose layers have the names and operations of `plan`."""


class _Whole(ParallelStyle):
    """A module that each process has whole, and computes with the whole input."""

    def _apply(self, module: torch.nn.Module, device_mesh: DeviceMesh) -> torch.nn.Module:
        return distribute_module(module, device_mesh, self._keep, self._given, self._made)

    @staticmethod
    def _keep(_name: str, module: torch.nn.Module, mesh: DeviceMesh) -> None:
        for name, value in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, torch.nn.Parameter(distribute_tensor(value, mesh, [Replicate()])))

    @staticmethod
    def _given(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], mesh: DeviceMesh) -> tuple[DTensor, ...]:
        return tuple(DTensor.from_local(each, mesh, [Replicate()], run_check=False) for each in inputs)

    @staticmethod
    def _made(_module: torch.nn.Module, output: DTensor, _mesh: DeviceMesh) -> torch.Tensor:
        return output.to_local()


class _Embedding(RowwiseParallel):
    """Each process looks up its part of the vocabulary; hooks that the module had, such as tune_noise.py's, get whole vectors."""

    def _apply(self, module: torch.nn.Module, device_mesh: DeviceMesh) -> torch.nn.Module:
        made = super()._apply(module, device_mesh)
        made._forward_hooks.move_to_end(next(reversed(made._forward_hooks)), last=False)
        return made


class _Tied(TiedLinear):
    """The head of tied embeddings, each process with its part of the vocabulary; the logits are whole."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.tied_module.weight
        if not isinstance(weight, DTensor):
            return super().__call__(x)
        shared = DTensor.from_local(x, weight.device_mesh, [Replicate()], run_check=False)
        return self.linear(shared, weight).redistribute(placements=[Replicate()]).to_local()


def plan() -> dict[str, Any]:
    """Which module of a model is shared how: as in torchtune's plan, and the norms."""
    inside = dict.fromkeys(("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.w1", "mlp.w3"), ColwiseParallel)
    inside |= dict.fromkeys(("attn.output_proj", "mlp.w2"), RowwiseParallel) | dict.fromkeys(("sa_norm", "mlp_norm"), _Whole)
    return {
        "tok_embeddings": _Embedding(input_layouts=Replicate()),
        **{f"layers.*.{name}": style() for name, style in inside.items()},
        "norm": _Whole(),
        "output": ColwiseParallel(output_layouts=Replicate()),
    }


def shared(built: TransformerDecoder, shape: tune_shape.Shape, count: int) -> TransformerDecoder:
    """A model that is going to be shared by `count` processes.

    Raises:
        ValueError: it cannot be.
    """
    if shape.family not in _FAMILIES:
        raise ValueError(f"resources.tensor: models of the family {shape.family} are not shared here; leave it at 1")
    sizes = {"heads": shape.heads, "heads of keys and values": shape.kv_heads, "inner width": shape.inner}
    for name, size in sizes.items():
        if size % count:
            raise ValueError(f"resources.tensor: {count} does not divide the {size} of this model's {name}")
    if isinstance(built.output, TiedLinear):
        built.output = _Tied(built.tok_embeddings)
    return built
