"""Peaks of the trainers' own models on torch's fake tensors, which have sizes and no contents. Runs in a trainer's environment.

    python memory_peaks.py TRAINER < cases.json       # one peak in bytes a case, as JSON

A case: layers, hidden, inner, heads, kv_heads, head_dim, vocab, rows, length, rank (0: all weights), recomputes, dtype (`mixed`: weights in
float32 under autocast), dora, norms (they learn beside LoRA).
"""

import contextlib
import gc
import json
import sys
import weakref

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Alive(TorchDispatchMode):
    """Bytes of all storages that are alive, and the most at once."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor) and (key := each.untyped_storage()._cdata) not in self.sizes:
                storage = each.untyped_storage()
                self.sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, key)
        return out

    def freed(self, key):
        """A storage is gone."""
        self.now -= self.sizes.pop(key, 0)


class Flash(torch.autograd.Function):
    """What a kernel without scores keeps, as CUDA has it: queries, keys, values, the result, and a float32 of each row."""

    @staticmethod
    def forward(ctx, q, k, v):
        """Sizes alone."""
        rows, heads, length, size = q.shape
        out = torch.empty(rows, length, heads, size, dtype=q.dtype).transpose(1, 2)
        ctx.save_for_backward(q, k, v, out, torch.empty(rows, heads, length))
        return out

    @staticmethod
    def backward(ctx, _):
        """Sizes alone."""
        return tuple(torch.empty_like(each) for each in ctx.saved_tensors[:3])


def attend(q, k, v, *_, **__):
    """torch's scaled_dot_product_attention under autocast."""
    return Flash.apply(*(each.to(torch.bfloat16) for each in (q, k, v)))


class Lora(torch.nn.Module):
    """As peft.tuners.lora.Linear adds it, which cannot be made of fake tensors."""

    def __init__(self, base, rank):
        super().__init__()
        self.base, weight = base, base.weight
        self.a = torch.nn.Linear(weight.shape[1], rank, bias=False, dtype=weight.dtype)
        self.b = torch.nn.Linear(rank, weight.shape[0], bias=False, dtype=weight.dtype)

    def forward(self, x):
        """The product beside that of the base."""
        result = self.base(x)
        return result + self.b(self.a(x.to(self.a.weight.dtype))) * 2.0


class Dora(Lora):
    """As peft.tuners.lora.dora has it: the norms of the rows of the base and LoRA's product."""

    def __init__(self, base, rank):
        super().__init__(base, rank)
        self.magnitude = torch.nn.Parameter(torch.zeros(base.weight.shape[0], dtype=base.weight.dtype))

    def forward(self, x):
        """The products of the base and of LoRA, each by its share of the magnitude."""
        result = self.base(x)
        dense = self.b(self.a(torch.eye(x.shape[-1], dtype=self.a.weight.dtype))).T.to(x.dtype)
        norm = torch.linalg.norm(self.base.weight.to(x.dtype) + 2.0 * dense.detach(), dim=1).to(x.dtype).detach()
        scale = (self.magnitude / norm).view(1, -1)
        return (result + (scale - 1) * result + scale * self.b(self.a(x.to(self.a.weight.dtype))) * 2.0).to(result.dtype)


def torchtune(case):
    """Its builder and its chunked loss."""
    from torchtune import training
    from torchtune.models.llama3 import llama3, lora_llama3
    from torchtune.modules import TransformerSelfAttentionLayer
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    shape = {
        "vocab_size": case["vocab"],
        "num_layers": case["layers"],
        "num_heads": case["heads"],
        "num_kv_heads": case["kv_heads"],
        "embed_dim": case["hidden"],
        "max_seq_len": case["length"],
        "intermediate_dim": case["inner"],
    }
    if case["rank"]:
        attention = ["q_proj", "k_proj", "v_proj", "output_proj"]
        model = lora_llama3(
            lora_attn_modules=attention, apply_lora_to_mlp=True, lora_rank=case["rank"], lora_alpha=32, lora_dropout=0.0,
            use_dora=case.get("dora", False), **shape
        )  # fmt: skip
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora" in name or "magnitude" in name)
    else:
        model = llama3(**shape)
    if case["recomputes"]:
        training.set_activation_checkpointing(model, auto_wrap_policy={TransformerSelfAttentionLayer})
    loss = CEWithChunkedOutputLoss()
    model.set_num_output_chunks(loss.num_output_chunks)
    return model, lambda ids: loss(model(ids), torch.cat([ids[:, 1:], ids[:, :1]], 1))


def trl(case):
    """The model of transformers, its own loss, and adapters as PEFT has them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=case["vocab"],
        hidden_size=case["hidden"],
        intermediate_size=case["inner"],
        num_hidden_layers=case["layers"],
        num_attention_heads=case["heads"],
        num_key_value_heads=case["kv_heads"],
        head_dim=case["head_dim"],
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    if case["rank"]:
        model.requires_grad_(False)
        for layer in model.model.layers:
            for part, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down"))):
                for name in names:
                    setattr(
                        part, f"{name}_proj", (Dora if case.get("dora") else Lora)(getattr(part, f"{name}_proj"), case["rank"])
                    )
    if case["recomputes"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if case["rank"]:
            model.enable_input_require_grads()
    model.train()
    count = torch.tensor(case["rows"] * case["length"])
    return model, lambda ids: model(input_ids=ids, labels=ids, use_cache=False, num_items_in_batch=count).loss


def litgpt(case):
    """Its own model and loss, with the logits as Fabric hands them on: in float32, and held until the backward pass is over."""
    from litgpt import lora
    from litgpt import model as plain
    from litgpt.utils import chunked_cross_entropy
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing, checkpoint_wrapper

    names = ("query", "key", "value", "projection", "mlp")
    rank = case["rank"]
    kit, more = (
        (lora, {"lora_r": rank, "lora_alpha": 32, "lora_dropout": 0.0, **{f"lora_{n}": True for n in names}})
        if rank
        else (plain, {})
    )
    config = kit.Config(
        name="x",
        block_size=case["length"],
        vocab_size=case["vocab"],
        padded_vocab_size=case["vocab"],
        n_layer=case["layers"],
        n_head=case["heads"],
        n_query_groups=case["kv_heads"],
        n_embd=case["hidden"],
        head_size=case["head_dim"],
        intermediate_size=case["inner"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        **more,
    )
    model = kit.GPT(config)
    if rank:
        lora.mark_only_lora_as_trainable(model)
    if case["recomputes"]:
        apply_activation_checkpointing(
            model, checkpoint_wrapper_fn=checkpoint_wrapper, check_fn=lambda part: isinstance(part, kit.Block)
        )

    def loss(ids):
        model.held = [each.float() for each in model(ids, lm_head_chunk_size=128)]
        model.held[-1] = model.held[-1][..., :-1, :]
        return chunked_cross_entropy(model.held, ids[..., 1:])

    return model, loss


ATTENTION = torch.nn.functional.scaled_dot_product_attention


@contextlib.contextmanager
def attending(way):
    """With an attention in the place of torch's."""
    torch.nn.functional.scaled_dot_product_attention = way
    yield
    torch.nn.functional.scaled_dot_product_attention = ATTENTION


def peak(make, case):
    """Bytes of a step at its fullest, with AdamW's two means beside the weights that are trained."""
    mixed = case["dtype"] == "mixed"
    with FakeTensorMode(allow_non_fake_inputs=True), Alive() as alive, attending(attend if mixed else ATTENTION):
        torch.set_default_dtype(torch.float32 if mixed else getattr(torch, case["dtype"]))
        model, loss = make(case)
        torch.set_default_dtype(torch.float32)
        if case.get("norms"):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(parameter.requires_grad or "norm" in name or "ln_f" in name)
        if mixed:
            model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        state = [torch.zeros_like(each) for each in model.parameters() if each.requires_grad for _ in range(2)]
        gc.collect()
        alive.peak = alive.now
        loss(torch.zeros(case["rows"], case["length"], dtype=torch.long)).backward()
        return alive.peak if state else 0


if __name__ == "__main__":
    print(json.dumps([peak(globals()[sys.argv[1]], case) for case in json.load(sys.stdin)]))
