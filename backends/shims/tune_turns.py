"""Where each turn of a chat lies in the text that the template makes of it, found by the turn's own content.

A turn of the assistant begins behind the header that the template writes to have one generated, and ends where the template's
text for it ends: its end of turn belongs to it, its header does not. Where that header goes on with what the turn itself may
lack, such as the opening of a thought, it counts as far as the turn has it. Any other turn begins with its content. Where the
template marks what is generated, the marks within a turn are what carries loss of it.
"""

import re
from collections import namedtuple

from tune_columns import way_out
from tune_files import BadRow

Turn = namedtuple("Turn", "number role spans body end forgets", defaults=[False])
Turn.__doc__ = """A turn that carries loss.

number of its message, from 1; role; ranges that carry loss; where its content ends, and where itself; whether the template leaves
out what it thought.
"""
MARK = re.compile(r"<[^<>\s]*>|\[/?[A-Z_]+\]")
"""A mark of a template's, as `<|user|>` or `[INST]`."""
SHORT = 24  # characters; a text as short as this may stand in another by chance


def find_turns(text, messages, wanted, chat, ignored=()):
    """A Turn for each message that is wanted. Refused when one cannot be found, or a content is not written."""
    marks = chat.marks(messages) if any(wanted) and hasattr(chat, "marks") else []
    found = []
    for at, message in enumerate(messages):
        if wanted[at]:
            start, body, end = turn(text, messages, at, chat)
            spans = [(start, end)]
            if marks and message["role"] == "assistant":
                spans = [(max(a, start), min(b, end)) for a, b in marks if a < end and b > start]
            forgets = "content" not in ignored and check_written(text[start:end], messages, at)
            found.append(Turn(at + 1, message["role"], spans, body, end, forgets))
    if "content" not in ignored:
        check_others(text, messages, wanted, chat)
    return found


def turn(text, messages, at, chat):
    """Start, end of content and end of a turn in the text of all messages."""
    content = (messages[at]["content"] or "").strip()
    if messages[at]["role"] == "assistant" and content and text.startswith(asked := chat(messages[:at], True)):
        alone = text if at == len(messages) - 1 else chat(messages[: at + 1])
        place = text.rfind(content, len(asked), len(alone)) if text.startswith(alone) else -1
        if place >= 0:
            end = place + len(content)
            if text.find(content, len(asked), end - 1) >= 0:  # it stands in a thought, a call, or the mark behind it as well: `>`
                end = content_range(text, messages, at, chat)[1]
            return len(asked), end, len(alone)
    first, behind = content_range(text, messages, at, chat)
    start = header_end(text, messages, at, chat, first) if messages[at]["role"] == "assistant" else first
    return start, behind, end_of(text, messages, at, chat, behind)


def content_range(text, messages, at, chat):
    """Where the content of a message lies: what changes when another stands in its place, or with what it calls."""
    for other in (otherwise(messages[at]), renamed_calls(messages[at])):
        if other is None:
            continue
        said = chat([*messages[:at], other, *messages[at + 1 :]])
        if said != text:
            first = in_common(text, said)
            return first, len(text) - in_common(text[first:][::-1], said[first:][::-1])
    raise unsteady(at)


def header_end(text, messages, at, chat, first):
    """Where the header of an assistant's turn ends, whose content begins at `first`.

    It stands behind the content of the message before, or else is the last of its kind before `first`.
    """
    before = messages[:at]
    asked = chat(before, True)
    if text.startswith(asked):
        return len(asked)
    header = asked[in_common(asked, chat(before)) :]
    floor, between = behind_last(text, messages[at - 1 :], before, chat) if at else (0, "")
    if between and text.startswith(between, floor):
        return floor + len(between)
    if header and (place := text.rfind(header, floor, first)) >= 0:
        return place + len(header)
    least = role_part(header, chat) if header else 0
    shared = in_common(between, text[floor:first])
    if between and shared >= len(between) - len(header) + least:
        return floor + shared
    for size in range(len(header), max(least, 1) - 1, -1):
        place = text.rfind(header[:size], floor, first)
        if place >= 0:
            return place + size
    raise unsteady(at)


def behind_last(text, rest, before, chat):
    """(where the content of the last message before a turn ends in the text, what the template writes from there to the turn)."""
    try:
        floor = content_range(text, [*before[:-1], *rest], len(before) - 1, chat)[1]
    except BadRow:  # nothing of it is written
        return 0, ""
    asked, other = chat(before, True), chat([*before[:-1], otherwise(before[-1])], True)
    return floor, asked[len(asked) - in_common(asked[::-1], other[::-1]) :]


def role_part(header, chat):
    """How much of a header any turn has: at least what it shares with that of a plain answer, the last one or an earlier one."""
    ask, plain = {"role": "user", "content": "\ue000"}, {"role": "assistant", "content": "\ue001"}
    shared = [len(header)]
    for messages in ([ask, plain], [ask, plain, ask]):
        try:
            opened, answered = chat([ask]), chat(messages)
        except BadRow:
            continue
        shared.append(in_common(header, answered[in_common(opened, answered) :]))
    return max(1, min(shared))


def end_of(text, messages, at, chat, behind):
    """Where a turn ends whose content ends at `behind`; it may read otherwise when more follows, as Qwen3's lose thoughts.

    It ends with what the template writes behind its content when nothing follows, or behind a user's, or else with its content.
    """
    if at == len(messages) - 1:
        return len(text)
    alone = chat(messages[: at + 1])
    if len(alone) >= behind and text.startswith(alone):
        return len(alone)
    _, last = content_range(alone, messages[: at + 1], at, chat)
    for closing in (alone[last:], user_end(chat)):
        if closing is not None and text.startswith(closing, behind):
            return behind + len(closing)
    return behind


def user_end(chat):
    """What the template writes behind a user's content; None when that is nothing."""
    try:
        return chat([{"role": "user", "content": "\ue000"}]).partition("\ue000")[2] or None
    except BadRow:
        return None


def check_written(text, messages, at):
    """Refuse a turn whose text lacks something of its content. White space around it, and around the marks of a thought, is the
    template's; what an earlier turn thought may be left out, as it is when the model is asked. Whether it is.
    """
    content = (messages[at]["content"] or "").strip()
    if content in text:
        return False
    later = any(one["role"] == "user" for one in messages[at + 1 :])
    thought, mark, answer = content.rpartition("</think>")
    pieces = [answer] if mark and later else [*thought.replace("<think>", "").split("</think>"), answer]
    place = 0
    for piece in (one.strip() for one in pieces):
        place = text.find(piece, place)
        if place < 0:
            raise lost(at)
        place += len(piece)
    return bool(mark and later)


def check_others(text, messages, wanted, chat):
    """Refuse a message without loss whose content the text lacks."""
    asked = [at for at, one in enumerate(messages) if not wanted[at] and (one["content"] or "").strip()]
    for at in asked:
        if messages[at]["content"].strip() not in text:
            check_written(text, messages, at)
    if any(len(messages[at]["content"].strip()) <= SHORT for at in asked):  # those may stand there by chance
        marked = chat([{**one, "content": f"\ue000{at}\ue001"} if at in asked else one for at, one in enumerate(messages)])
        for at in asked:
            if f"\ue000{at}\ue001" not in marked and chat([*messages[:at], otherwise(messages[at]), *messages[at + 1 :]]) == text:
                raise lost(at)


def own_text(chat):
    """What the template itself puts before the first message of a conversation, such as a system text where there is none; "" where
    that is marks alone: nothing of two words that it would not write before a later message too.
    """
    asks = [
        {"role": "user", "content": "\ue000"},
        {"role": "assistant", "content": "\ue001"},
        {"role": "user", "content": "\ue002"},
    ]
    try:
        before, between = chat(asks[:1]).partition("\ue000")[0], chat(asks).partition("\ue001")[2].partition("\ue002")[0]
    except BadRow:  # a template may want a system text, or no second turn
        return ""
    own = before[: len(before) - in_common(before[::-1], between[::-1])]
    return own if len(MARK.sub(" ", own).split()) > 1 else ""


def otherwise(message):
    """The message with a content that begins and ends otherwise, so that what is the same around it is the template's."""
    said = (message["content"] or "").strip()
    return {**message, "content": next(letter for letter in "\ue000\ue001\ue002" if letter not in said[:1] + said[-1:])}


def renamed_calls(message):
    """The message with a call of another name; None when it calls nothing."""
    made = [one for one in message.get("tool_calls") or [] if isinstance(one, dict)]
    if not made:
        return None
    return {**message, "tool_calls": [renamed(one) for one in made]}


def renamed(call):
    """One call of another name."""
    if isinstance(call.get("function"), dict):
        return {**call, "function": {**call["function"], "name": "\ue000", "arguments": {}}}
    return {**call, "name": "\ue000", "arguments": {}}


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
        "to be generated, so where its loss lies is open: one turn a row, or another template (data.chat_template)"
    )


def lost(at):
    """The complaint about a template that does not write what a message says."""
    return BadRow(
        f"message {at + 1}: the chat template does not write all of its content, so what it says would be lost: another "
        f"template (data.chat_template), or {way_out('content')}"
    )
