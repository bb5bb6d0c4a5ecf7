"""What of a row is read: its columns by our names, and the columns and keys that go unread, which are refused or counted.

Three things can be done with a column or key. It is used. It is one of HEEDED or has a name that speaks of the loss, so that it says
something about what should be learned, and nothing uses it here: refused, unless `ignore` names it. Anything else is counted, and the
counts are told. `ignore` takes columns and message keys away before anything reads them. A column that holds null is absent.
"""

import re
from functools import lru_cache

from tune_files import BadRow

MEDIA = {"image", "images", "audio", "audios", "video", "videos"}
SYSTEM = {"system_prompt", "system_message", "system_text", "system_instruction", "system_instructions", "sys_prompt"}
"""Other names of a row's system text."""
HEEDED = MEDIA | SYSTEM | {"system", "tools", "functions", "documents", "chat_template_kwargs", "history"}
"""Columns that say what a row means, in every format."""
HEEDED_IN_CHATS = HEEDED | {"messages", "conversations", "conversation", "dialogue", "dialog"}
CALLS = {"tool_calls", "function_call", "tool_plan"}
SAID = {"content", "refusal", "thought", "thoughts"} | {
    f"{kind}{part}" for kind in ("reasoning", "thinking") for part in ("", "_content", "_text", "_details", "_blocks")
}
HEEDED_KEYS = MEDIA | CALLS | SAID
"""Keys of a message that say what it means."""
SWITCHING = re.compile("loss(es)?|mask(s|ed)?|weights?|train(s|ed|able|ing)?|learn(ed)?|supervised")
BESIDE = re.compile(
    "is|on|no|not|use|has|in|of|the|should|do|ignore|skip|exclude|include|calculate|compute|apply|detail|flag|value|only|per|"
    "sample|example|row|tokens?|message|turns?|assistant|response|completion|answer|output|labels?|gradient|grad"
)
"""Words that a name may have beside one of SWITCHING and still speak of nothing but the loss."""


@lru_cache(maxsize=1024)
def speaks_of_loss(name):
    """Whether a column or a message's key is named as what says what carries loss: `weights`, `is_masked`, `calculateLoss`."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    switches = [bool(SWITCHING.fullmatch(word)) for word in words]
    return any(switches) and all(on or BESIDE.fullmatch(word) for on, word in zip(switches, words, strict=True))


class Cells:
    """A row's columns, and which of them have been read.

    Args:
        row: the row as its file has it.
        columns: the file's names of our columns, where they differ.
        ignored: names of columns that are as if they were not there.
    """

    def __init__(self, row, columns, ignored=()):
        self.row = {name: value for name, value in row.items() if name not in ignored} if ignored else row
        self.columns, self.read = columns, set()

    def theirs(self, name):
        """The file's name for our column `name`."""
        return self.columns.get(name) or name

    def get(self, name):
        """What stands in a column; None when it is absent or null."""
        theirs = self.theirs(name)
        self.read.add(theirs)
        return self.row.get(theirs)

    def cell(self, name):
        """What stands in a column; refused when there is none."""
        theirs = self.theirs(name)
        self.read.add(theirs)
        if theirs not in self.row:
            raise BadRow(f"has no column {theirs!r}, only {', '.join(map(repr, self.row))} (data.columns names them)")
        return self.row[theirs]

    def text(self, name, optional=False):
        """The text in a column; "" when an optional one is absent or null."""
        if optional and self.get(name) is None:
            return ""
        value = self.cell(name)
        if not isinstance(value, str):
            raise BadRow(f"column {self.theirs(name)!r}: should be text, got {type(value).__name__}")
        return value

    def unread(self, heeded=HEEDED):
        """The columns that nothing has read; refused when one of them is of the `heeded`."""
        left = [name for name, value in self.row.items() if name not in self.read and value is not None]
        for name in left:
            if (name in heeded or speaks_of_loss(name)) and self.row[name] not in ("", [], {}):
                raise BadRow(f"column {name!r}: nothing reads it here, so what it says would be lost: {way_out(name)}")
        return left


def way_out(name):
    """What to do about a column or key that nothing reads."""
    used = "call it 'system' to have it used, " if name in SYSTEM else ""
    return f"{used}take it out, or put {name!r} into data.ignore to have it left unread"


class Watched(dict):
    """An object that remembers which of its keys were looked at; objects within it do too."""

    def __init__(self, items):
        super().__init__((key, watched(value)) for key, value in items.items())
        self.seen = set()

    def __getitem__(self, key):
        self.seen.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        """As a dict's."""
        self.seen.add(key)
        return super().get(key, default)

    def __iter__(self):  # makes dict() and update() look each key up
        return super().__iter__()

    def _all(self):
        self.seen.update(super().keys())
        return self

    def items(self):
        """As a dict's."""
        return dict.items(self._all())

    def values(self):
        """As a dict's."""
        return dict.values(self._all())

    def __repr__(self):
        return dict.__repr__(self._all())


def watched(value):
    """The value, its objects Watched."""
    if isinstance(value, dict):
        return Watched(value)
    return [watched(item) for item in value] if isinstance(value, list) else value


def unseen(value, path):
    """Paths of the keys below a watched value at which nothing looked, those that hold null left out."""
    if isinstance(value, Watched):
        for key, item in dict.items(value):
            if key not in value.seen:
                yield from [f"{path}.{key}"] if item is not None else []
            else:
                yield from unseen(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from unseen(item, f"{path}[]")
