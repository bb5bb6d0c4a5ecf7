"""Chats: messages in the words of chat templates, and the facts of a row that a template takes beside them.

A message is {role, content}, or ShareGPT's {from, value} with human and gpt. A key that holds null is absent, but for content:
templates tell a message that only calls tools by it. `weight` (0 or 1) and `train` (true or false) say whether a message
carries loss.
"""

import json

from tune_columns import HEEDED_KEYS, Watched, speaks_of_loss, unseen, watched, way_out
from tune_files import BadRow

SHAREGPT = {"human": "user", "gpt": "assistant"}
MAY_FOLLOW = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
ROLES = ("system", "user", "assistant", "tool")
PLAIN = {"role", "content"}
SWITCHES = ("weight", "train")
FACTS = ("tools", "documents", "chat_template_kwargs")
OURS = frozenset(("messages", "add_generation_prompt", "tools", "documents"))


def turns(given, system=None, after=None, ignored=()):
    """Messages in the words of chat templates, in an order that they accept, after one of role `after`.

    `system` opens a chat that has no system turn.
    """
    messages = []
    for number, one in enumerate(given, 1):
        message = worded(one, number, ignored)
        due = MAY_FOLLOW[messages[-1]["role"] if messages else after]
        if message["role"] not in due:
            raise BadRow(f"message {number}: role should be {' or '.join(due)} here, got {message['role']!r}")
        if not isinstance(message["content"], str) and not (message["content"] is None and calls(message)):
            raise BadRow(f"message {number}: content should be text, got {kind_of(message['content'])}")
        messages.append(message)
    return opened(messages, system)


def opened(messages, system):
    """The messages with a system text before them, where there is one to put and none is there."""
    return [{"role": "system", "content": system}, *messages] if system and messages[0]["role"] != "system" else messages


def kind_of(content):
    """What a content is that is no text, and what to do about it."""
    if content is None:
        return "none: give it one, or take the message out"
    if (
        isinstance(content, list)
        and content
        and all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in content)
    ):
        return "a list of parts: write their texts as one"
    return type(content).__name__


def calls(message):
    """Whether a message says something beside its content."""
    return bool(message.get("tool_calls") or message.get("function_call"))


def worded(given, number, ignored=()):
    """One message with `role` and `content`, whatever its own words for them."""
    if not isinstance(given, dict):
        raise BadRow(f"message {number}: should be an object, got {given!r:.60}")
    if given.keys() == PLAIN and given["role"] in ROLES and isinstance(given["content"], str) and not ignored:
        return given
    message = {key: value for key, value in given.items() if value is not None and key not in ignored}
    for ours, theirs in (("role", "from"), ("content", "value")):
        if ours in message and theirs in message and message[ours] not in (message[theirs], SHAREGPT.get(str(message[theirs]))):
            raise BadRow(
                f"message {number}: {theirs!r} says otherwise than {ours!r}: keep one, or put {theirs!r} into data.ignore"
            )
    role = message.pop("from", None) if "role" not in message else message["role"]
    content = message.pop("value", None) if "content" not in message else message["content"]
    return {**message, "role": SHAREGPT.get(role, role) if isinstance(role, str) else role, "content": content}


def switched(messages, roles):
    """The messages without their switches, and for each whether it carries loss: as it says, or else by its role."""
    if all(len(one) == len(PLAIN) for one in messages):
        return messages, [one["role"] in roles for one in messages]
    return (
        [{key: value for key, value in one.items() if key not in SWITCHES} for one in messages],
        [carries(one, number, roles) for number, one in enumerate(messages, 1)],
    )


def carries(message, number, roles):
    """Whether a message carries loss: `train` decides, a `weight` of 0 takes it away, else it is its role's."""
    for key in SWITCHES:
        if isinstance(message.get(key), str):
            raise BadRow(
                f"message {number}: {key} should be true or false, got the text {message[key]!r:.60}: take its quotes away"
            )
        if key in message and message[key] not in (0, 1):  # false and true are equal to them
            raise BadRow(
                f"message {number}: {key} should be 0 or 1, false or true, got {message[key]!r:.60}: a share of a message's "
                f"loss cannot be taken; {way_out(key)}"
            )
    weight, train = message.get("weight"), message.get("train")
    if train is not None and weight is not None and bool(train) != bool(weight):
        raise BadRow(f"message {number}: weight says {weight!r}, but train says {train!r}: keep one")
    return message["role"] in roles and weight != 0 if train is None else bool(train)


# What a template takes beside messages


def row_facts(cells):
    """Tools, documents and the variables of chat_template_kwargs, as transformers' apply_chat_template takes them."""
    tools, documents, kwargs = (structured(name, cells.get(name)) for name in FACTS)
    facts = {}
    for name, value in (("tools", tools), ("documents", documents)):
        if value is not None:
            if not (isinstance(value, list) and all(isinstance(one, dict) for one in value)):
                raise BadRow(f"column {name!r}: should be a list of objects, got {value!r:.60}")
            facts[name] = value
    if kwargs is not None:
        if not isinstance(kwargs, dict) or OURS & kwargs.keys():
            raise BadRow(
                f"column 'chat_template_kwargs': should be an object without {', '.join(sorted(OURS))}, got {kwargs!r:.60}"
            )
        facts |= {name: value for name, value in kwargs.items() if value is not None}
    return facts


def structured(name, value, wanted="a list or an object"):
    """A column's value; read as JSON where it is text, as data sets of the hub have it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        raise BadRow(f"column {name!r}: should be {wanted}, or JSON of one, got {value!r:.60}") from None


# What the template writes


def written(messages, chat):
    """(messages, text, unread) of a chat: null contents as the template bears them, and the paths of keys that it drops.

    Refused when one of those keys says what the message means.
    """
    messages, text = without_none(messages, chat)
    facts = getattr(chat, "facts", {})
    if not facts and all(len(one) == 2 for one in messages):
        return messages, text, []
    seen = [Watched(one) for one in messages]
    noted = chat.with_facts({name: watched(value) for name, value in facts.items()}) if facts else chat
    noted(seen)
    unread = {path for one in seen for path in unseen(one, "messages[]")} - {"messages[].role", "messages[].content"}
    for key in {key for one in seen for key in one.keys() - {"role", "content"} if f"messages[].{key}" not in unread}:
        if drops(text, chat, [{name: value for name, value in one.items() if name != key} for one in messages]):
            unread = {path for path in unread if not below(path, f"messages[].{key}")} | {f"messages[].{key}"}
    for path in unread:
        key = path.removeprefix("messages[].")
        switching = "." not in key and "[" not in key and speaks_of_loss(key)
        if switching or key in HEEDED_KEYS:
            number = next(at for at, one in enumerate(messages, 1) if key in one)
            if switching:
                raise BadRow(
                    f"message {number}: nothing reads {key!r}, so what it says of the loss would be lost: say it as `train`, or put "
                    f"{key!r} into data.ignore"
                )
            raise BadRow(
                f"message {number}: the chat template writes no {key!r}, so what it says would be lost: choose a template that "
                f"does (data.chat_template), {way_out(key)}"
            )
    return messages, text, sorted(unread | unread_facts(noted, chat, messages, text))


def unread_facts(noted, chat, messages, text):
    """Paths of the row's facts that the template drops."""
    unread = set()
    for name, value in getattr(noted, "facts", {}).items():
        if name in FACTS:
            lost = bool(value) and drops(text, chat.with_facts({**chat.facts, name: None}), messages)
        else:
            lost = name not in chat.variables
        if lost:
            column = name if name in FACTS else "chat_template_kwargs"
            raise BadRow(
                f"column {column!r}: the chat template does not read {name!r}, so what it says would be lost: {way_out(column)}"
            )
        unread |= set(unseen(value, name))
    return unread


def drops(text, chat, messages):
    """Whether the template writes the same text for the lesser messages."""
    try:
        return chat(messages) == text
    except BadRow:
        return False


def below(path, above):
    """Whether a path is another or within it."""
    return path == above or path.startswith((f"{above}.", f"{above}["))


def without_none(messages, chat):
    """The messages and their text; content that is null is an empty text where the template would write the word None."""
    if all(one["content"] is not None for one in messages):
        return messages, chat(messages)
    empty = [{**one, "content": one["content"] or ""} for one in messages]
    try:
        text = chat(messages)
    except BadRow:
        return empty, chat(empty)
    try:
        spared = chat(empty)
    except BadRow:
        return messages, text
    return (empty, spared) if text.count("None") > spared.count("None") else (messages, text)
