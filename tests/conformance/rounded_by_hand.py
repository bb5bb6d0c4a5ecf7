"""A torchtune model in bf16, compiled, with adapters that change nothing yet, beside itself without them, as DPO has its reference:
`python rounded_by_hand.py MODEL`, in torchtune's environment. Prints how far log-probabilities of whole rows are apart.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path.cwd()))
import tune_torchtune
from torchtune.modules.peft import disable_adapter, get_adapter_params, set_trainable_params

MODULES = ["q_proj", "k_proj", "v_proj", "output_proj"]


def main(path):
    """Compare."""
    torch.set_default_dtype(torch.bfloat16)
    facts = {"path": path, "lora_rank": 8, "lora_alpha": 16, "lora_attn_modules": MODULES, "apply_lora_to_mlp": True}
    model = tune_torchtune.lora_model(**facts)
    torch.set_default_dtype(torch.float32)
    draws = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_b" in name:
            weight.data.zero_()
        elif weight.dim() > 1:
            weight.data.copy_(torch.randn(weight.shape, generator=draws) * 0.1)
    set_trainable_params(model, get_adapter_params(model))
    for layer in model.layers:
        layer.compile(backend="inductor")
    ids = torch.randint(3, 250, (2, 500), generator=draws)

    def row_sums():
        logits = model(ids)
        whole = torch.cat(logits, 1) if isinstance(logits, list) else logits
        return whole[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None]).sum((1, 2))

    policy = row_sums().detach()
    with torch.no_grad(), disable_adapter(model):
        print(json.dumps(float((policy - row_sums()).abs().max())))


if __name__ == "__main__":
    main(sys.argv[1])
