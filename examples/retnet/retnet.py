"""A retentive network (https://arxiv.org/abs/2307.08621): one layer in three forms that give the same numbers.

Parallel (eq. 5) trains, recurrent (eq. 6) generates with a state of fixed size, chunkwise (eq. 7) reads long texts: parallel inside a
chunk, recurrent between chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, group_norm, silu


class Retention(nn.Module):
    """Multi-scale retention (eq. 8): each head forgets at its own pace; swish gate, and a norm for each head.

    Args:
        width: of the model.
        heads: divides it; a head's part is even.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.part = heads, width // heads
        self.query, self.key, self.value, self.gate, self.out = (nn.Linear(width, width, bias=False) for _ in range(5))
        self.register_buffer("decay", 1 - 2.0 ** (-5 - torch.arange(heads)))
        self.register_buffer("turn", 10_000.0 ** -torch.linspace(0, 1, self.part // 2))

    def forward(self, x: Tensor, state: Tensor | None = None, start: int = 0, chunk: int = 0) -> tuple[Tensor, Tensor]:
        """Answers for x [batch, tokens, width], and the state after its last token.

        Args:
            x: hidden states of the tokens that begin at place `start`.
            state: after the tokens before; None: there are none.
            start: place of the first token.
            chunk: tokens that are taken in parallel: 0 is all of them, 1 is the recurrent form.
        """
        batch, tokens, _ = x.shape
        query, key, value = (
            made(x).view(batch, tokens, self.heads, self.part).transpose(1, 2) for made in (self.query, self.key, self.value)
        )
        places = torch.arange(start, start + tokens, device=x.device)
        query, key = self._turned(query, places), self._turned(key, places) * self.part**-0.5
        state = x.new_zeros(batch, self.heads, self.part, self.part) if state is None else state
        answers = []
        for some in zip(*(each.split(chunk or tokens, dim=2) for each in (query, key, value)), strict=True):
            answer, state = self._chunk(*some, state)
            answers.append(answer)
        whole = torch.cat(answers, dim=2).transpose(1, 2).reshape(batch * tokens, -1)
        normed = group_norm(whole, self.heads).view(batch, tokens, -1)  # no scale of the heads' answers survives it (section 2.2)
        return self.out(silu(self.gate(x)) * normed), state

    def _chunk(self, query: Tensor, key: Tensor, value: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Inside by the decay mask D (eq. 5), from before by the state (eq. 7)."""
        tokens = torch.arange(query.shape[2], device=query.device)
        apart = tokens[:, None] - tokens[None, :]
        decay = self.decay[:, None, None]
        mask = torch.where(apart >= 0, decay ** apart.clamp(min=0), 0.0)
        inside = (query @ key.transpose(-1, -2) * mask) @ value
        before = query @ state * decay ** (tokens[:, None] + 1)
        left = decay ** (len(tokens) - 1 - tokens[:, None])
        return inside + before, key.transpose(-1, -2) @ (value * left) + decay ** len(tokens) * state

    def _turned(self, x: Tensor, places: Tensor) -> Tensor:
        """Turned by its place (e^{in theta} of eq. 4): what two tokens have in common hangs on their distance alone."""
        angle = places[:, None] * self.turn
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
        return torch.stack(turned, dim=-1).flatten(-2)


class RetNet(nn.Module):
    """A language model: retention and a feed-forward network in each layer (eq. 9), norms before them."""

    def __init__(self, vocabulary: int, width: int, inner: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.retentions = nn.ModuleList(Retention(width, heads) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, inner) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(inner, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(
        self, ids: Tensor, states: list[Tensor] | None = None, start: int = 0, chunk: int = 0
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits, and a state for each layer; the arguments are those of `Retention.forward`."""
        x, after = self.embedding(ids), []
        for n, retention in enumerate(self.retentions):
            answer, state = retention(self.norms[2 * n](x), states and states[n], start, chunk)
            after.append(state)
            x = x + answer
            x = x + self.down[n](gelu(self.up[n](self.norms[2 * n + 1](x))))
        return self.head(self.norms[-1](x)), after

    @torch.no_grad()
    def generate(self, ids: Tensor, count: int) -> Tensor:
        """The most likely next tokens, one by one, each from the state alone."""
        logits, states = self(ids)
        for place in range(ids.shape[1], ids.shape[1] + count):
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
            logits, states = self(ids[:, -1:], states, place)
        return ids


@torch.no_grad()
def apart(model: RetNet, ids: Tensor) -> float:
    """How far the recurrent and the chunkwise form are from the parallel one: the largest difference of a logit."""
    whole, _ = model(ids)
    return max((model(ids, chunk=chunk)[0] - whole).abs().max().item() for chunk in (1, 7, 16))
