"""Unlearning by RMU (https://arxiv.org/abs/2403.03218, section 4): what a model says of one set of texts is steered into noise, what it
says of another is held.

`python rmu.py MODEL FORGET RETAIN RATE STEPS BATCH SEED LAYER STEERING HOLD`: FORGET and RETAIN are JSON lines with `text`. The hidden
state after layer LAYER is driven to STEERING times a random direction on the texts to forget (eq. 1), and held with weight HOLD where it
was on those to keep (eq. 2); only the down projections of that layer and the two before it are trained, as in the paper's code.
Ends with exit code 1 unless the forget loss has risen by 2 nats a token and the retain loss has moved by less than 0.1.
"""

import copy
import json
import random
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

Batch = tuple[Tensor, Tensor]
"""Ids and mask, [rows, tokens]."""

RISE, DRIFT = 2.0, 0.1
"""Nats a token."""


def texts(file: str) -> list[str]:
    """The rows of a file."""
    return [json.loads(line)["text"] for line in Path(file).read_text("utf-8").splitlines()]


def encoded(tokenizer: PreTrainedTokenizerBase, some: list[str]) -> Batch:
    """A batch, padded on the right with what no loss sees."""
    rows = [torch.tensor(tokenizer(text)["input_ids"]) for text in some]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids, mask


@torch.no_grad()
def loss_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, some: list[str]) -> float:
    """Mean over all tokens of the texts."""
    ids, mask = encoded(tokenizer, some)
    said = torch.log_softmax(model(ids, attention_mask=mask).logits[:, :-1].float(), -1)
    nats = -said.gather(-1, ids[:, 1:, None])[..., 0]
    return (nats * mask[:, 1:]).sum().item() / mask[:, 1:].sum().item()


def hidden(model: PreTrainedModel, batch: Batch, layer: int) -> Tensor:
    """The states after a layer, of real tokens alone."""
    ids, mask = batch
    return model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer + 1][mask.bool()]


def main(folder: str, forget: str, retain: str, *numbers: str) -> int:
    """Unlearn, check, save."""
    rate, steps, batch, seed, layer, steering, hold = (json.loads(each) for each in numbers)
    torch.manual_seed(seed)
    draw = random.Random(seed)  # noqa: S311 - which rows come first is no secret
    tokenizer, model = (each.from_pretrained(folder) for each in (AutoTokenizer, AutoModelForCausalLM))
    model.float().eval()
    before = copy.deepcopy(model)
    gone, kept = texts(forget), texts(retain)
    direction = torch.rand(model.config.hidden_size)
    aim = steering * direction / direction.norm()
    for each in model.parameters():
        each.requires_grad_(False)
    trained = [block.mlp.down_proj.weight.requires_grad_() for block in model.model.layers[max(0, layer - 2) : layer + 1]]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.0)
    start = loss_of(model, tokenizer, gone), loss_of(model, tokenizer, kept)
    for step in range(1, steps + 1):
        some, others = (encoded(tokenizer, draw.sample(rows, batch)) for rows in (gone, kept))
        with torch.no_grad():
            was = hidden(before, others, layer)
        steered = hidden(model, some, layer)
        loss = mse_loss(steered, aim.expand_as(steered)) + hold * mse_loss(hidden(model, others, layer), was)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.5f}", flush=True)
    end = loss_of(model, tokenizer, gone), loss_of(model, tokenizer, kept)
    rise, drift = end[0] - start[0], end[1] - start[1]
    print(
        f"forget {start[0]:.3f} -> {end[0]:.3f} nats a token ({rise:+.3f}), retain {start[1]:.3f} -> {end[1]:.3f} ({drift:+.3f})"
    )
    model.save_pretrained("checkpoint")
    tokenizer.save_pretrained("checkpoint")
    return 0 if rise >= RISE and abs(drift) < DRIFT else 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
