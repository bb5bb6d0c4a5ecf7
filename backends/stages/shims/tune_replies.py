"""A model's greedy tokens and log-probabilities on some prompts, by plain transformers: what other forms of it are compared with."""

from __future__ import annotations

from typing import Any

import torch
import tune_apart

CLOSE = 1e-5
"""Nats by which log-probabilities of float32 may differ between two programs that run the same weights."""
HALF = 0.05
"""The same where weights are kept in 16 bits."""
TEXTS = (
    "The",
    "Question: what is two and two?\nAnswer:",
    "Once upon a time",
    "def add(a, b):\n    return",
    "Dear Sir or Madam,",
    "1 2 3 4 5 6",
    "Il était une fois",
    '{"name": "',
)
"""Prompts that any tokenizer takes."""
CHATS = ("What is two and two?", "Say hello.", "Name a colour.", "Why?")


def prompts(tokenizer: Any, count: int) -> list[list[int]]:
    """Token ids of so many prompts: through the chat template, where there is one, every other one."""
    found = []
    for number in range(count):
        if tokenizer.chat_template and number % 2 == 0:
            chat = [{"role": "user", "content": f"{CHATS[number // 2 % len(CHATS)]}{'' if number < 8 else f' ({number})'}"}]
            found.append(list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]))
        else:
            text = TEXTS[number % len(TEXTS)] + ("" if number < len(TEXTS) else f" {number}")
            found.append(list(tokenizer(text)["input_ids"]))
    return found


def replies(model: Any, asked: list[list[int]], tokens: int) -> list[dict[str, Any]]:
    """For each prompt the greedy tokens, and the log-probability of every token of prompt and reply but the first."""
    return [_reply(model, ids, tokens) for ids in asked]


@torch.inference_mode()
def _reply(model: Any, ids: list[int], tokens: int) -> dict[str, Any]:
    """Without a cache: each token from the whole text before it, so that nothing but the weights decides."""
    whole = list(ids)
    for _ in range(tokens):
        logits = model(input_ids=torch.tensor([whole], device=model.device)).logits[0, -1]
        whole.append(int(logits.argmax()))
    return {"prompt": ids, "reply": whole[len(ids) :], "logprobs": logprobs(model, whole)}


@torch.inference_mode()
def logprobs(model: Any, ids: list[int]) -> list[float]:
    """Log-probability of every token but the first, given those before it."""
    logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float()
    logprobs = torch.log_softmax(logits[:-1], -1)
    return logprobs.gather(1, torch.tensor(ids[1:], device=logprobs.device).unsqueeze(1)).squeeze(1).tolist()


@torch.inference_mode()
def foretold(model: Any, each: dict[str, Any]) -> dict[str, Any]:
    """What a model says of another's prompt and reply: the log-probability of every token but the first, and at each place of the reply
    its own most likely token.
    """
    whole = torch.tensor(each["prompt"] + each["reply"], device=model.device)
    logits = model(input_ids=whole[None]).logits[0, :-1].float()
    said = torch.log_softmax(logits, -1).gather(1, whole[1:, None]).squeeze(1)
    return {"reply": logits[len(each["prompt"]) - 1 :].argmax(-1).tolist(), "logprobs": said.tolist()}


def mean_apart(expected: list[list[float]], found: list[list[float]]) -> float:
    """The mean distance of log-probabilities over the same texts."""
    pairs = [pair for ours, theirs in zip(expected, found, strict=True) for pair in zip(ours, theirs, strict=True)]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def apart(expected: list[dict[str, Any]], found: list[list[float | None]]) -> tuple[float, str]:
    """The largest distance of log-probabilities over the same texts, and where; what nobody told of is passed over.

    Raises:
        ValueError: there is nothing to compare.
    """
    pairs = (
        (a, b, f"prompt {number}, token {place}")
        for number, (theirs, ours) in enumerate(zip(expected, found, strict=True), 1)
        for place, (a, b) in enumerate(zip(theirs["logprobs"], ours, strict=True), 2)
    )
    return tune_apart.farthest(pairs)
