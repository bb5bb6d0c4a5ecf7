"""Adapters of torchtune whose first matrices are multiplied together, beside the same each by itself: `python joined_by_hand.py MODEL`, in
torchtune's environment, uncompiled and compiled. Prints the largest differences of logits and of gradients (as a share of a gradient's largest number), and what would
be left in memory.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path.cwd()))
import tune_torchtune
import tune_torchtune_together as together
from torchtune.modules.peft import get_adapter_params, set_trainable_params

MODULES = ["q_proj", "k_proj", "v_proj", "output_proj"]


def run(model, ids):
    """Logits, and the gradient of each adapter's matrix, of the second pass."""
    for _ in "12":
        model.zero_grad()
        logits = model(ids)
        cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def main(path):
    """Compare."""
    facts = {"path": path, "lora_rank": 8, "lora_alpha": 16, "lora_attn_modules": MODULES, "apply_lora_to_mlp": True}
    joined = tune_torchtune.lora_model(**facts)
    together.join = lambda _: None
    apart = tune_torchtune.lora_model(**facts)
    draws = torch.Generator().manual_seed(1)
    for weight in apart.parameters():
        weight.data.normal_(0, 0.2, generator=draws)
    joined.load_state_dict(apart.state_dict())
    ids = torch.randint(3, 250, (2, 40), generator=draws)
    found = {"layers": sum(isinstance(module, together._First) for module in joined.modules()), "logits": 0.0, "gradients": 0.0}
    for compiled in (False, True):
        for model in (joined, apart):
            set_trainable_params(model, get_adapter_params(model))
            if compiled:
                for layer in model.layers:
                    layer.compile(backend="aot_eager", fullgraph=True)
        (mine, grads), (theirs, wanted) = run(joined, ids), run(apart, ids)
        assert list(grads) == list(wanted)
        found["logits"] = max(found["logits"], float((mine - theirs).abs().max()))
        gaps = (float((grads[name] - value).abs().max() / value.abs().max()) for name, value in wanted.items())
        found["gradients"] = max(found["gradients"], *gaps)
    found["kept"] = sum(isinstance(m, together._First) and m.group.input is not None for m in joined.modules())
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
