"""A torchtune model that rounds, beside the same by hand: `python qat_by_hand.py MODEL GROUP`, in torchtune's environment.

Activations: 8 bits, by token, the range from the least to the largest and 0 in it. Weights: 4 bits, by groups of inputs, even about 0.
Gradients go through as if nothing were rounded, but for weights beyond the last level. Prints the largest differences of logits and gradients, and of a model that does not round.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, linear

sys.path.insert(0, str(Path.cwd()))
import tune_torchtune


def through(value, levels, low, high, back):
    """What the levels stand for forwards; backwards the identity, but for what lies outside of them."""
    inside = ((levels >= low) & (levels <= high)).reshape(value.shape)
    return value * inside + (back(levels.clamp(low, high)).reshape(value.shape) - value * inside).detach()


def tokens(x):
    """Activations in 8 bits."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).eps)
    zero = (-128 - torch.round(low / scale)).clamp(-128, 127)
    return through(x, torch.round(x / scale) + zero, -128, 127, lambda levels: (levels - zero) * scale)


def groups(weight, size):
    """Weights in 4 bits. The largest of a group lies between two levels: torchao multiplies, and so do we."""
    parts = weight.reshape(weight.shape[0], -1, size)
    scale = parts.abs().amax(-1, keepdim=True) / 7.5
    return through(weight, torch.round(parts * (1 / scale)), -8, 7, lambda levels: levels * scale)


def run(model, ids):
    """Logits, and the gradient of each weight."""
    logits = model(ids)
    cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


def main(path, group):
    """Compare."""
    state = tune_torchtune.checkpointer(checkpoint_dir=path, output_dir="out").load_checkpoint()["model"]
    ids = torch.randint(3, 250, (2, 40), generator=torch.Generator().manual_seed(2))
    models = [tune_torchtune.model(path=path, qat_group=each) for each in (group, None, None)]
    for model in models:
        model.load_state_dict(state)
    for layer in models[1].modules():
        if isinstance(layer, torch.nn.Linear):
            layer.forward = lambda x, own=layer: linear(tokens(x), groups(own.weight, group), own.bias)
    (mine, grads), (want, wanted), (plain, _) = (run(model, ids) for model in models)
    apart = max(float((grads[name] - value).abs().max()) for name, value in wanted.items())
    print(
        json.dumps({"logits": float((mine - want).abs().max()), "gradients": apart, "plain": float((plain - want).abs().max())})
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
