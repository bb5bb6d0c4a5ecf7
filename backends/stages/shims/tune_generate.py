"""Replies of transformers models for many askers at once: whoever waits for the same model goes through it in one batch.

One thread runs the models. A batch begins with all that wait by then; each row has its own sampling and its own end. Log-probabilities
are those of the model's own distribution (float32), before temperature and top_p.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import torch
from tune_asks import Ask, Counters, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    Model = Callable[..., Any]

WIDEST = 32
"""Rows of a batch at most."""
COLD = 1e-5
"""A temperature below this is 0, as in vLLM (vllm/sampling_params.py: _SAMPLING_EPS): logits divided by it have no shares any more."""


class Generator:
    """The models, and the thread that runs them.

    Args:
        models: name -> (a context that makes it the one meant, the model).
        pad: a token that fills rows of a batch.
    """

    def __init__(self, models: dict[str, tuple[Callable[[], Any], Model]], pad: int) -> None:
        self.models, self.pad, self.counters = models, pad, Counters()
        self.vocabulary = min(model.config.vocab_size for _, model in models.values())
        self._waiting: list[Ask] = []
        self._news = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self, ask: Ask) -> Ask:
        """Queue a request."""
        with self._news:
            self._waiting.append(ask)
            self._news.notify()
        return ask

    def _next(self) -> list[Ask]:
        """The first that waits, and all others that go with it. A reply alone needs no logits of its prompt."""
        with self._news:
            while not self._waiting:
                self._news.wait()
            first = self._waiting[0]
            batch = [each for each in self._waiting if each.model == first.model and each.echo == first.echo][:WIDEST]
            self._waiting = [each for each in self._waiting if each not in batch]
        return batch

    def _run(self) -> None:
        while True:
            batch = self._next()
            try:
                context, model = self.models[batch[0].model]
                with torch.inference_mode(), context():
                    self._generate(model, batch)
            except Exception as error:  # whatever a model raises is told to those who wait for it, and the next batch goes on
                traceback.print_exc()
                for each in batch:
                    each.answers.put(error)

    def _generate(self, model: Model, batch: list[Ask]) -> None:
        """One batch, from its prompts to the end of its longest reply."""
        ids, mask = self._padded(batch, model.device)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        keep = 0 if batch[0].echo else 1
        seen = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=keep)
        if batch[0].echo:
            for row, each in enumerate(batch):
                _echo(each, seen.logits[row, -len(each.ids) :])
        dice = [_generator(each, model.device) for each in batch]
        open_rows = {row: 0 for row, each in enumerate(batch) if each.longest}
        for row, each in enumerate(batch):
            if row not in open_rows:
                self._end(each, 0)
        places = places[:, -1:]
        while open_rows:
            last = seen.logits[:, -1].float()
            scores = torch.log_softmax(last, -1)
            chosen = [_choose(last[row], batch[row], dice[row]) if row in open_rows else self.pad for row in range(len(batch))]
            for row in list(open_rows):
                self._say(batch[row], chosen[row], scores[row], first=not open_rows[row])
                open_rows[row] += 1
                ask = batch[row]
                if ask.given_up or chosen[row] in ask.stops or open_rows[row] >= ask.longest:
                    self._end(ask, open_rows.pop(row))
            if not open_rows:
                return
            fed = torch.tensor(chosen, device=ids.device).unsqueeze(1)
            mask = torch.cat([mask, torch.ones_like(fed)], 1)
            places = places + 1
            seen = model(
                input_ids=fed, attention_mask=mask, position_ids=places, past_key_values=seen.past_key_values, use_cache=True
            )

    def _padded(self, batch: list[Ask], device: Any) -> tuple[Any, Any]:
        """Prompts side by side, filled up on the left, and where they are."""
        width = max(len(each.ids) for each in batch)
        rows = [[self.pad] * (width - len(each.ids)) + each.ids for each in batch]
        marks = [[0] * (width - len(each.ids)) + [1] * len(each.ids) for each in batch]
        return torch.tensor(rows, device=device), torch.tensor(marks, device=device)

    def _say(self, ask: Ask, id: int, scores: Any, *, first: bool) -> None:
        if first:
            self.counters.first_token_seconds += time.monotonic() - ask.asked
        ask.answers.put(_token(id, scores, ask.logprobs))

    def _end(self, ask: Ask, tokens: int) -> None:
        self.counters.requests += 1
        self.counters.prompt_tokens += len(ask.ids)
        self.counters.reply_tokens += tokens
        self.counters.reply_seconds += time.monotonic() - ask.asked
        ask.answers.put(None)


def _token(id: int, scores: Any, logprobs: int | None) -> Token:
    if logprobs is None:
        return Token(id, None)
    top = scores.topk(logprobs) if logprobs else None
    return Token(id, scores[id].item(), list(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else [])


def _echo(ask: Ask, logits: Any) -> None:
    """The tokens of a prompt with their log-probabilities."""
    scores = torch.log_softmax(logits.float(), -1)
    ask.answers.put(Token(ask.ids[0], None))
    for place, id in enumerate(ask.ids[1:]):
        ask.answers.put(_token(id, scores[place], ask.logprobs or 0))


def _generator(ask: Ask, device: Any) -> Any:
    dice = torch.Generator(device)
    return dice.manual_seed(ask.seed) if ask.seed is not None else (dice.seed(), dice)[1]


def _choose(logits: Any, ask: Ask, dice: Any) -> int:
    """The next token: the most likely at temperature 0, else drawn from the smallest set that has the share `top_p`, of one at least."""
    if ask.temperature < COLD:
        return int(logits.argmax())
    shares = torch.softmax(logits / ask.temperature, -1)
    if ask.top_p < 1:
        ordered, places = shares.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= ask.top_p
        beyond[0] = False
        ordered[beyond] = 0
        shares = torch.zeros_like(shares).scatter(0, places, ordered)
    return int(torch.multinomial(shares, 1, generator=dice))
