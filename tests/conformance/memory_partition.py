"""What a compiled decoder layer hands to its backward pass, by torch's own partition of its graph. Runs in a trainer's environment.

    python memory_partition.py TRAINER < cases.json       # bytes of activations a case, as JSON

A case is as in memory_peaks.py. Nothing is compiled: the graphs are divided as inductor divides them, and run as they are.
"""

import functools
import json
import sys

import torch
from torch._functorch.aot_autograd import aot_module_simplified
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table


class Counted(Exception):
    """The bytes are known, and nothing has to run."""


def count(graph, _):
    """Of what the graph returns beside the layer's result: what it made, and the layer's input; weights lie in memory anyway."""
    [output] = [node for node in graph.graph.nodes if node.op == "output"]
    total = 0
    for node in set(output.args[0][1:]):
        value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
        weight = node.op == "placeholder" and value is not None and (value.dim() < 3 or value.shape[0] == 1)
        if isinstance(value, torch.Tensor) and not weight and "alias" not in str(node.target):
            total += value.numel() * value.element_size()
    raise Counted(total)


def divide(graph, examples):
    """A backend of torch.compile that ends with the count."""
    parting = functools.partial(min_cut_rematerialization_partition, compiler="inductor")
    return aot_module_simplified(
        graph, examples, fw_compiler=count, bw_compiler=count, partition_fn=parting, decompositions=select_decomp_table()
    )


def torchtune(case):
    """A layer of its builder, and what it is called with beside the rows."""
    from torchtune.models.llama3 import lora_llama3

    model = lora_llama3(
        lora_attn_modules=["q_proj", "k_proj", "v_proj", "output_proj"], apply_lora_to_mlp=True, lora_rank=case["rank"], lora_alpha=32,
        lora_dropout=0.0, use_dora=case.get("dora", False), vocab_size=64, num_layers=1, num_heads=case["heads"],
        num_kv_heads=case["kv_heads"], embed_dim=case["hidden"], max_seq_len=case["length"], intermediate_dim=case["inner"],
    )  # fmt: skip
    return model, model.layers[0], ()


def litgpt(case):
    """The same."""
    from litgpt import lora

    names = ("query", "key", "value", "projection", "mlp")
    config = lora.Config(
        name="x", block_size=case["length"], vocab_size=64, padded_vocab_size=64, n_layer=1, n_head=case["heads"],
        n_query_groups=case["kv_heads"], n_embd=case["hidden"], head_size=case["head_dim"], intermediate_size=case["inner"],
        rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
        lora_r=case["rank"], lora_alpha=32, lora_dropout=0.0, **{f"lora_{name}": True for name in names},
    )  # fmt: skip
    model = lora.GPT(config)
    return model, model.transformer.h[0].forward, (model.cos[None, : case["length"]], model.sin[None, : case["length"]])


def kept(make, case):
    """Bytes of one layer."""
    torch._dynamo.reset()
    mixed = case["dtype"] == "mixed"
    dtype = torch.float32 if mixed else getattr(torch, case["dtype"])
    torch.set_default_dtype(dtype)
    model, layer, more = make(case)
    torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        learns = "lora" in name or "magnitude" in name or (case.get("norms", False) and "norm" in name)
        parameter.requires_grad_(learns)
    rows = torch.zeros(case["rows"], case["length"], case["hidden"], dtype=dtype, requires_grad=True)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            torch.compile(layer, backend=divide, dynamic=False)(rows, *(each.to(dtype) for each in more))
    except Exception as error:
        while error is not None and not isinstance(error, Counted):
            error = error.__cause__ or error.__context__
        if error is None:
            raise
        return error.args[0]
    return None


if __name__ == "__main__":
    print(json.dumps([kept(globals()[sys.argv[1]], case) for case in json.load(sys.stdin)]))
