"""Chats: messages in the words of chat templates, the tokenizer's own template as a function, and where each turn lies in its text.

A message is {role, content}, or ShareGPT's {from, value} with human and gpt. A turn of the assistant begins behind the header
that the template writes to have one generated, and ends where the template's text for it ends: its end of turn belongs to it,
its header does not. Any other turn begins with its content.
"""
# ruff: noqa: PLC0415 - jinja2 only where a row needs it

import json
import os

from tune_files import BadRow, Refused

SHAREGPT = {"human": "user", "gpt": "assistant"}
MAY_FOLLOW = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
ROLES = ("system", "user", "assistant", "tool")


def turns(given, system=None, after=None):
    """Messages in the words of chat templates, in an order that they accept, after one of role `after`.

    `system` opens a chat that has no system turn.
    """
    messages = []
    for number, one in enumerate(given, 1):
        message = worded(one, number)
        due = MAY_FOLLOW[messages[-1]["role"] if messages else after]
        if message["role"] not in due:
            raise BadRow(f"message {number}: role should be {' or '.join(due)} here, got {message['role']!r}")
        if not isinstance(message["content"], str) and not message.get("tool_calls"):
            raise BadRow(f"message {number}: content should be text, got {type(message['content']).__name__}")
        messages.append(message)
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def worded(given, number):
    """One message with `role` and `content`, whatever its own words for them."""
    if not isinstance(given, dict):
        raise BadRow(f"message {number}: should be an object, got {given!r:.60}")
    role = given.get("role") or given.get("from")
    content = given.get("value") if given.get("content") is None else given["content"]
    return {**given, "role": SHAREGPT.get(role, role) if isinstance(role, str) else role, "content": content}


def chat_text(messages, chat, roles=("assistant",)):
    """The whole chat, and for each turn of one of the roles the range from behind its header to its end."""
    text = chat(messages)
    return text, [turn(text, messages, at, chat) for at, message in enumerate(messages) if message["role"] in roles]


def turn(text, messages, at, chat):
    """Where a turn lies in the text of all messages."""
    before, message = messages[:at], messages[at]
    end = chat([*before, message])
    if message["role"] == "assistant":
        header = chat(before, True)
    else:
        header = end[: in_common(end, chat([*before, otherwise(message)]))]
    if text.startswith(end) and end.startswith(header):
        return len(header), len(end)
    stop = end_within(text, end, messages, at, chat)
    if not text.startswith(header) or stop < len(header):
        raise unsteady(at)
    return len(header), stop


def end_within(text, end, messages, at, chat):
    """Where a turn ends that reads otherwise when more follows, as Qwen3's lose what was thought; -1 when that is open.

    It ends with what the template writes behind its content in `end`, the chat up to it, found behind the content in the whole.
    """
    before, other, after = messages[:at], otherwise(messages[at]), messages[at + 1 :]
    closing = end[len(end) - in_common(end[::-1], chat([*before, other])[::-1]) :]
    behind = len(text) - in_common(text[::-1], chat([*before, other, *after])[::-1])
    return behind + len(closing) if text.startswith(closing, behind) else -1


def otherwise(message):
    """The message with a content that begins and ends otherwise, so that what is the same around it is the template's."""
    said = (message["content"] or "").strip()
    return {**message, "content": next(letter for letter in "\ue000\ue001\ue002" if letter not in said[:1] + said[-1:])}


def in_common(*sequences):
    """With how many equal items the sequences begin."""
    shortest = min(map(len, sequences))
    if all(one[:shortest] == sequences[0][:shortest] for one in sequences):
        return shortest
    return next(at for at, items in enumerate(zip(*sequences, strict=False)) if any(one != items[0] for one in items))


def unsteady(at):
    """The complaint about a template that does not let a turn be found in its text."""
    return BadRow(
        f"message {at + 1}: the chat template writes this turn otherwise when more follows or when it is "
        "to be generated, so where its loss lies is open: one turn a row, or another template"
    )


def chat_renderer(folder, config):
    """The tokenizer's chat template as a function, with what transformers gives a template; its clock stands still.

    See transformers 5 utils/chat_template_utils.py. The model's author wrote it, so it runs in a sandbox. Refused without.
    """
    import datetime

    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message):
        raise BadRow(message)

    def chat(messages, add_generation_prompt=False):
        facts = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        try:
            return template.render(**names, **facts)
        except Exception as error:  # whatever foreign code raises
            raise BadRow(f"the chat template refuses the row: {error}") from None

    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    room.filters["tojson"] = lambda value, **options: json.dumps(value, **({"ensure_ascii": False} | options))
    room.globals |= {"raise_exception": refuse, "strftime_now": datetime.date(2024, 7, 26).strftime}
    names = {key: text for key, value in config.items() if key.endswith("_token") and (text := token_text(value))}
    try:
        template = room.from_string(template_source(folder, config))
    except TemplateSyntaxError as error:
        raise Refused("no_template", f"{folder}: line {error.lineno} of the chat template: {error}") from None
    return chat


def template_source(folder, config):
    """The text of the chat template: chat_template.jinja, else the configuration's, of several the one named `default`."""
    import re

    source = config.get("chat_template")
    if isinstance(source, list):
        source = {one.get("name"): one.get("template") for one in source}.get("default")
    path = os.path.join(folder, "chat_template.jinja")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            source = file.read()
    if not isinstance(source, str):
        raise Refused(
            "no_template",
            f"{folder}: the tokenizer has no chat template: choose a model trained for chat, or for "
            "instruct rows data.template alpaca, plain or a text of yours",
        )
    # {% generation %} is transformers' own tag for what we find by the turns; the text is the same without it
    source = re.sub(r"(\{%-?\s*)generation(\s*-?%\})", r"\1if true\2", source)
    return re.sub(r"(\{%-?\s*)endgeneration(\s*-?%\})", r"\1endif\2", source)


def token_text(value):
    """A special token's text as configurations give it, bare or as an object; None for anything else."""
    return value if isinstance(value, str) else value.get("content") if isinstance(value, dict) else None
