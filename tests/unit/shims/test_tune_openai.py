"""OpenAI's requests and replies: what is asked for, what is refused and why, and how a reply is put together."""

from types import SimpleNamespace

import pytest
import tune_openai
from tune_asks import Token


class Letters:
    """A tokenizer of one token a letter; token 0 ends a reply."""

    chat_template = "yes"

    def __call__(self, text):
        return {"input_ids": [ord(char) for char in text]}

    def apply_chat_template(self, messages, **_):
        return {"input_ids": [ord(char) for each in messages for char in each["content"]]}

    def decode(self, ids, skip_special_tokens=False):
        return "".join(chr(id) for id in ids if id)


SERVED = SimpleNamespace(
    names=["tiny", "base"], longest=20, stops=frozenset({0}), tokenizer=Letters(), generator=SimpleNamespace(vocabulary=128)
)
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def asked(body, chat=True):
    """What a request asks for."""
    return tune_openai.asks(body, SERVED, chat=chat)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"model": "tiny2"}, 404, "there is no 'tiny2'; there are tiny, base"),
        ({"messages": []}, 400, "messages should be a list"),
        ({"messages": [{"role": "user", "content": "x" * 20}]}, 400, "the prompt has 20 tokens"),
        ({"max_tokens": 0}, 400, "max_tokens should be 1 or more"),
        ({"temperature": -1}, 400, "temperature should be a number from 0"),
        ({"temperature": True}, 400, "temperature should be a number"),
        ({"n": 99}, 400, "n should be a number from 1 to 16"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "parts that are texts"),
    ],
)
def test_a_wrong_request_is_refused(change, code, said):
    """What cannot be answered has OpenAI's kind of error, with the key, the rule and what was got."""
    with pytest.raises(tune_openai.Refusal) as caught:
        asked({**HELLO, **change})
    assert caught.value.code == code
    assert said in caught.value.body()["error"]["message"]


@pytest.mark.parametrize("prompt", [None, [], [[]], [128], [-1], [True], "", [1.5]])
def test_a_prompt_is_text_or_token_ids(prompt):
    """Anything else, and ids that the model does not have, are refused: they would crash it."""
    with pytest.raises(tune_openai.Refusal, match="prompt should be"):
        asked({"model": "tiny", "prompt": prompt}, chat=False)


def test_what_is_asked_for():
    """Prompts and n multiply, the reply is no longer than there is room, sampling is as given."""
    found = asked(
        {"model": "base", "prompt": ["ab", [5, 6, 7]], "n": 2, "seed": 4, "temperature": 0.5, "logprobs": 3}, chat=False
    )
    assert [(each.ids, each.seed, each.longest) for each in found] == [
        ([97, 98], 4, 18),
        ([97, 98], 5, 18),
        ([5, 6, 7], 4, 17),
        ([5, 6, 7], 5, 17),
    ]
    assert {(each.model, each.temperature, each.logprobs) for each in found} == {("base", 0.5, 3)}


def reply(text, body, chat=True):
    """A reply made of these letters, the last of which may end it."""
    asks = asked(body, chat)
    for each in asks:
        for char in text:
            each.answers.put(Token(ord(char) if char != "$" else 0, -0.5, [(65, -1.0)]))
        each.answers.put(None)
    return tune_openai.Reply(SERVED.tokenizer, body, asks, chat=chat, id="1")


@pytest.mark.parametrize(
    ("text", "stop", "content", "why"),
    [("hi$", None, "hi", "stop"), ("hi", None, "hi", "length"), ("a##b", "##", "a", "stop"), ("a#b", ["##"], "a#b", "length")],
)
def test_a_reply_ends_where_it_should(text, stop, content, why):
    """At a token that ends it, at a text that ends it, or at its length; whole and streamed are the same text."""
    body = {**HELLO, "stop": stop, "logprobs": True, "top_logprobs": 1}
    whole = reply(text, body).whole()
    [choice] = whole["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, why)
    assert whole["usage"]["completion_tokens"] == len(text)
    assert choice["logprobs"]["content"][0]["logprob"] == -0.5
    parts = list(reply(text, {**body, "stream": True}).parts())
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == content
    assert parts[-1]["choices"][0]["finish_reason"] == why
    told = [one for part in parts for one in (part["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert told == choice["logprobs"]["content"][: len(told)]
    assert len(told) == len(text) - ("##" in text)  # what follows a text that ends the reply is not waited for


def test_an_echo_is_no_reply():
    """Streamed as whole the prompt comes first, with a log-probability for each token but the first; a token of it that ends replies ends
    none, and it is not counted as one of the reply.
    """
    body = {"model": "tiny", "prompt": [97, 0, 98], "echo": True, "logprobs": 0, "stream_options": {"include_usage": True}}

    def echoed():
        made = reply("", body, chat=False)
        [ask] = made.asks
        ask.answers.get()
        for id, logprob in ((97, None), (0, -1.0), (98, -2.0), (99, -3.0), (0, -4.0)):
            ask.answers.put(Token(id, logprob))
        ask.answers.put(None)
        return made

    whole = echoed().whole()
    parts = list(echoed().parts())
    texts = [part["choices"][0] for part in parts if part["choices"]]
    assert "".join(each["text"] for each in texts) == whole["choices"][0]["text"] == "abc"
    told = [one for each in texts for one in (each["logprobs"] or {"token_logprobs": []})["token_logprobs"]]
    assert told == whole["choices"][0]["logprobs"]["token_logprobs"] == [None, -1.0, -2.0, -3.0, -4.0]
    assert texts[-1]["finish_reason"] == whole["choices"][0]["finish_reason"] == "stop"
    assert parts[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize(("options", "said"), [({"stream_options": [1]}, "stream_options"), ({"stop": [""]}, "stop should be")])
def test_options_of_a_reply_are_refused_before_it_is_asked_for(options, said):
    """A wrong one is the asker's mistake, and told as such."""
    with pytest.raises(tune_openai.Refusal, match=said):
        tune_openai.Reply(SERVED.tokenizer, {**HELLO, **options}, [], chat=True, id="1")
