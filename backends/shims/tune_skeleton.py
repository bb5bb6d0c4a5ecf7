"""Turns of chats that differ in their contents alone: found once, and then placed by the length of each content.

The text of most templates is what stands around the contents, the same for all chats with the same roles, and the contents between.
It is made once of contents that stand for others, and tune_turns.py finds the turns in it. A chat whose text is exactly that, with
its own contents, has its turns at the same places; any other is searched by tune_turns.py: where a template looks at what a content
says, leaves out an empty one, or opens a thought that the answer goes on with.
"""

from functools import partial
from itertools import accumulate
from typing import NamedTuple

from tune_files import BadRow
from tune_turns import Turn, find_turns, in_common

MOST = 4096  # sequences of roles that are kept


class Skeleton(NamedTuple):
    """What a template writes around contents, and where turns lie in it: places are (number of the part, characters into it)."""

    parts: list
    turns: list
    opened: list  # of each turn: what the template goes on with behind its header where one is to be generated


def placed_turns(text, messages, wanted, chat):
    """The Turns of a chat's text, as `find_turns` has them; None where they have to be searched."""
    known = getattr(chat, "skeletons", None)
    if known is None or any(len(one) != 2 or not one["content"] for one in messages):
        return None
    key = (*(one["role"] for one in messages), *wanted)
    if key not in known:
        if len(known) >= MOST:
            known.clear()
        known[key] = skeleton(messages, wanted, chat)
    return fitted(text, [one["content"] for one in messages], known[key]) if known[key] else None


def skeleton(messages, wanted, chat):
    """The Skeleton of chats with these roles; None where there is none."""
    stand_ins = [f"\ue000{number}\ue001" for number in range(len(messages))]
    asked = [{"role": one["role"], "content": text} for one, text in zip(messages, stand_ins, strict=True)]
    try:
        text = chat(asked)
        turns = find_turns(text, asked, wanted, chat)
        parts = split(text, stand_ins)
        opened = [chat(asked[: one.number - 1], True)[one.spans[0][0] :] for one in turns if one.spans]
    except BadRow:
        return None
    if parts is None or len(opened) < len(turns) or any(one.forgets for one in turns):
        return None
    at = partial(place, parts=parts, contents=stand_ins)
    places = [(one, [(at(start), at(end)) for start, end in one.spans], at(one.body), at(one.end)) for one in turns]
    return Skeleton(parts, places, opened)


def split(text, contents):
    """What stands before, between and behind the contents; None where one is not there once, in its turn."""
    parts = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found:
            return None
        parts.append(before)
    return None if any(content in text for content in contents) else [*parts, text]


def place(position, parts, contents):
    """(number of the part, characters into it) of a position; one within a content is at an end of it in any skeleton."""
    at = 0
    for number, part in enumerate(parts):
        if position <= at + len(part):
            return number, position - at
        at += len(part) + (len(contents[number]) if number < len(contents) else 0)
    raise ValueError(f"{position} lies behind the text")


def joined(parts, contents):
    """The text of parts with contents between."""
    pieces = [""] * (2 * len(contents) + 1)
    pieces[::2], pieces[1::2] = parts, contents
    return "".join(pieces)


def fitted(text, contents, bones):
    """The Turns in a text that has these bones; None where it has not."""
    said = contents
    if text != joined(bones.parts, said):
        said = [one.strip() for one in contents]
        if text != joined(bones.parts, said):
            return None
    starts = list(accumulate((len(part) + len(one) for part, one in zip(bones.parts, said, strict=False)), initial=0))
    turns = []
    for (turn, spans, body, end), opened in zip(bones.turns, bones.opened, strict=True):
        content = said[turn.number - 1]
        if not content or (opened and in_common(opened, content)):
            return None  # what the header opened goes on in the content
        ranges = [(starts[a] + x, starts[b] + y) for (a, x), (b, y) in spans]
        turns.append(Turn(turn.number, turn.role, ranges, starts[body[0]] + body[1], starts[end[0]] + end[1]))
    return turns
