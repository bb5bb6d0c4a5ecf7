"""OpenAI's requests and replies, as values: what is asked for, checked; what is answered, whole or in parts.

The form is that of https://platform.openai.com/docs/api-reference (chat and legacy completions), with vLLM's additions that clients
use: token ids as a prompt, `echo` with log-probabilities, `return_token_ids`.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from tune_asks import Ask, Counters, Token
from tune_http import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tune_server import Served

Body = dict[str, Any]
USUAL = 256
"""Tokens of a reply where the request does not say."""
MOST_LOGPROBS = 20


def asks(body: Body, served: Served, *, chat: bool) -> list[Ask]:
    """What a request asks for: one reply for each prompt and each of `n`.

    Raises:
        Refusal: it asks for what there is not.
    """
    name = body.get("model")
    if name not in served.names:
        raise Refusal(404, f"model: there is no {name!r}; there are {', '.join(served.names)}")
    longest = _number(body, ("max_completion_tokens", "max_tokens"), None, 0, 10**6)
    echo = not chat and body.get("echo") is True
    if longest == 0 and not echo:
        raise Refusal(400, "max_tokens should be 1 or more, but with echo")
    found = []
    for ids in [_chat_ids(body, served)] if chat else _prompts(body, served):
        if len(ids) + (1 if longest != 0 else 0) > served.longest:
            raise Refusal(
                400, f"the prompt has {len(ids)} tokens; with a reply of one token at least the model takes {served.longest}"
            )
        room = served.longest - len(ids)
        for number in range(int(_number(body, ("n",), 1, 1, 16))):
            seed = _number(body, ("seed",), None, 0, 2**63 - 1)
            found.append(
                Ask(
                    name,
                    ids,
                    int(min(room, USUAL if longest is None else longest)),
                    served.stops if body.get("ignore_eos") is not True else frozenset(),
                    float(_number(body, ("temperature",), 1.0, 0, 100)),
                    float(_number(body, ("top_p",), 1.0, 0, 1)),
                    None if seed is None else int(seed) + number,
                    _logprobs(body, chat=chat),
                    echo,
                )
            )
    return found


def _number(body: Body, names: tuple[str, ...], usual: Any, least: float, most: float) -> Any:
    """A number of the request; the first of its names that is given."""
    name, value = next(((name, body[name]) for name in names if body.get(name) is not None), ("", usual))
    if not name:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Refusal(400, f"{name} should be a number from {least:g} to {most:g}, got {str(value)[:100]}")
    return value


def _logprobs(body: Body, *, chat: bool) -> int | None:
    if chat:
        return int(_number(body, ("top_logprobs",), 0, 0, MOST_LOGPROBS)) if body.get("logprobs") is True else None
    found = _number(body, ("logprobs",), None, 0, MOST_LOGPROBS)
    return None if found is None else int(found)


def _chat_ids(body: Body, served: Served) -> list[int]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) and "role" in each for each in messages):
        raise Refusal(400, "messages should be a list of {role, content}")
    if served.tokenizer.chat_template is None:
        raise Refusal(400, "the model has no chat template: use /v1/completions, or set data.chat_template and train again")
    flat = [{**each, "content": _content(each.get("content"))} for each in messages]
    try:
        found = served.tokenizer.apply_chat_template(flat, tools=body.get("tools"), add_generation_prompt=True, return_dict=True)
    except Exception as error:  # the template's author is a stranger
        raise Refusal(400, f"the chat template refuses the messages: {error}") from None
    return list(found["input_ids"])


def _content(content: Any) -> Any:
    """A message's text, also where it comes in parts.

    Raises:
        Refusal: a part is no text: the model would answer without it.
    """
    if not isinstance(content, list):
        return content if content is not None else ""
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    if not all(isinstance(each, str) for each in texts):
        raise Refusal(400, "content should be a text, or parts that are texts: {type: text, text}")
    return "".join(texts)


def _prompts(body: Body, served: Served) -> list[list[int]]:
    """Token ids of each prompt: a text, ids, or a list of either."""
    prompt = body.get("prompt")
    listed = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    size, found = served.generator.vocabulary, []
    for each in listed:
        ids = served.tokenizer(each)["input_ids"] if isinstance(each, str) else each
        if not isinstance(ids, list) or not ids or not all(type(id) is int and 0 <= id < size for id in ids):
            raise Refusal(400, f"prompt should be a text or token ids from 0 to {size - 1}, or a list of them, and not empty")
        found.append(ids)
    return found


class Reply:
    """The answer to one request, put together out of tokens."""

    def __init__(self, tokenizer: Any, body: Body, asks: list[Ask], *, chat: bool, id: str) -> None:
        self.tokenizer, self.asks, self.chat = tokenizer, asks, chat
        self.id, self.made, self.model = f"{'chatcmpl' if chat else 'cmpl'}-{id}", int(time.time()), body["model"]
        stop = body.get("stop") or []
        self.stop = [stop] if isinstance(stop, str) else stop
        if not isinstance(self.stop, list) or not all(isinstance(each, str) and each for each in self.stop):
            raise Refusal(400, "stop should be a text or a list of texts")
        self.with_ids = body.get("return_token_ids") is True
        options = body.get("stream_options") or {}
        if not isinstance(options, dict):
            raise Refusal(400, f"stream_options should be an object, got {str(options)[:100]}")
        self.usage = options.get("include_usage") is True

    def whole(self) -> Body:
        """All of it."""
        choices = [self._choice(index, ask) for index, ask in enumerate(self.asks)]
        tokens = sum(choice.pop("_tokens") for choice in choices)
        return {**self._head(""), "choices": choices, "usage": self._usage(tokens)}

    def _choice(self, index: int, ask: Ask) -> Body:
        tokens = list(ask.tokens())
        echoed = len(ask.ids) if ask.echo else 0
        reply = tokens[echoed:]
        ended = bool(reply) and reply[-1].id in ask.stops
        text, cut = self._until_stop(self._text([token.id for token in (reply[:-1] if ended else reply)]))
        full = self._text(ask.ids) + text if ask.echo else text
        logprobs = None if ask.logprobs is None else self._logprobs(tokens)
        choice: Body = {
            "index": index,
            "finish_reason": "stop" if ended or cut else "length",
            "logprobs": logprobs,
            "_tokens": len(reply),
        }
        choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": full}
        return choice | ({"token_ids": [token.id for token in reply]} if self.with_ids else {})

    def _until_stop(self, text: str) -> tuple[str, bool]:
        """The text up to the first of the texts that end it."""
        places = [place for each in self.stop if (place := text.find(each)) >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _logprobs(self, tokens: list[Token]) -> Body:
        if self.chat:
            return {
                "content": [{**self._one(t.id, t.logprob), "top_logprobs": [self._one(*each) for each in t.top]} for t in tokens]
            }
        return {
            "tokens": [self.tokenizer.decode([token.id]) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{self.tokenizer.decode([id]): value for id, value in token.top} for token in tokens],
        }

    def _one(self, id: int, logprob: float | None) -> Body:
        text = self.tokenizer.decode([id])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def parts(self) -> Iterator[Body]:
        """The same piece by piece; the choices of several come one after the other."""
        total = 0
        for index, ask in enumerate(self.asks):
            if self.chat:
                yield self._part(index, "", None, [], role=True)
            coming = ask.tokens()
            if ask.echo:
                echoed = list(islice(coming, len(ask.ids)))
                yield self._part(index, self._text(ask.ids), None, echoed)
            sent, ids, untold, why = "", [], list[Token](), "length"
            for token in coming:
                total += 1
                untold.append(token)
                if token.id in ask.stops:
                    why = "stop"
                    break
                ids.append(token.id)
                text, cut = self._until_stop(self._text(ids))
                # half a character, and what may become the beginning of a stop, is held back
                ready = text if cut else self._safe(text)
                if len(ready) > len(sent):
                    yield self._part(index, ready[len(sent) :], None, untold)
                    sent, untold = ready, []
                if cut:
                    ask.given_up, why = True, "stop"
                    break
            rest = self._until_stop(self._text(ids))[0][len(sent) :]
            if rest:
                yield self._part(index, rest, None, [])
            yield self._part(index, "", why, untold)
        if self.usage:
            yield {**self._head(".chunk"), "choices": [], "usage": self._usage(total)}

    def _safe(self, text: str) -> str:
        held = max((n for each in self.stop for n in range(1, len(each)) if text.endswith(each[:n])), default=0)
        return text[: len(text) - held].rstrip("\ufffd")

    def _part(self, index: int, text: str, why: str | None, tokens: list[Token], *, role: bool = False) -> Body:
        """One piece: its text, and the tokens that came since the last, whose log-probabilities are told where they are asked for."""
        piece: Body = {"content": text} if text or role else {}
        body = {"delta": {"role": "assistant", **piece} if role else piece} if self.chat else {"text": text}
        told = self._logprobs(tokens) if tokens and self.asks[index].logprobs is not None else None
        return {**self._head(".chunk"), "choices": [{"index": index, **body, "finish_reason": why, "logprobs": told}]}

    def give_up(self) -> None:
        """Nobody reads on."""
        for each in self.asks:
            each.given_up = True

    def _head(self, part: str) -> Body:
        kind = f"chat.completion{part}" if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.made, "model": self.model}

    def _usage(self, tokens: int) -> Body:
        prompts = sum(len(each.ids) for each in self.asks)
        return {"prompt_tokens": prompts, "completion_tokens": tokens, "total_tokens": prompts + tokens}


def models(names: list[str], made: int, longest: int) -> Body:
    """GET /v1/models."""
    head = {"object": "model", "created": made, "owned_by": "tunesmith", "max_model_len": longest}
    return {"object": "list", "data": [{"id": name, **head} for name in names]}


def metrics(counters: Counters) -> str:
    """GET /metrics, in vLLM's names."""
    values = {
        "vllm:request_success_total": counters.requests,
        "vllm:prompt_tokens_total": counters.prompt_tokens,
        "vllm:generation_tokens_total": counters.reply_tokens,
        "vllm:time_to_first_token_seconds_sum": counters.first_token_seconds,
        "vllm:e2e_request_latency_seconds_sum": counters.reply_seconds,
    }
    return "".join(f"{name} {value}\n" for name, value in values.items())
