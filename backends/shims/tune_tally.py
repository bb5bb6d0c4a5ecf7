"""What a set of rows amounts to: counted while its rows are made, refused when they do not serve, told in figures."""

# ruff: noqa: PLC0415 - numpy only where rows are made

from array import array
from collections import Counter

from tune_files import Refused

SHOWN = 200
"""Characters of a template's own text that are told."""


FEW = 10
BEARABLE = 0.01
"""Share of a set's rows without loss up to which they are left out and told; more of them stop the job (data.drop_empty)."""


class Places(list):
    """How many things there are, and where the first few of them."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def note(self, places, count=None):
        """Add so many, as many as places are given unless said."""
        self.count += len(places) if count is None else count
        self.extend(places[: FEW - len(self)])


class Tally:
    """The counts of one set (train, eval).

    Args:
        name: train or eval.
        noun: what its rows are called.
        lack: what makes a row empty.

    Attributes:
        rows_in: rows of the files.
        read: those of each source, by its name.
        truncated: rows that were cut at max_length.
        lost_end: rows of which the cut took the end of what carries loss.
        empty: places of rows from which nothing could be learned.
        blank: rows with an answer that says nothing: only its end is learned.
        equal: pairs whose answers are equal.
        endless: places of turns that no token ends at which generation stops.
        ends: turns by the id that ends them.
        unread: rows by the column or key of theirs that nothing read.
        added: rows by what the chat template put before them of its own.
        columns: rows by the column that they have.
        parts: (Source, rows made of it), in the order of the files.
        lengths: tokens of each row made.
        loss: tokens with loss of each.
        largest: the largest token id.
        longest: tokens of the longest sequence, and of other longest things, by their key in the manifest.
        content: what the hash of the data covers, in buffers.
        sample: a row, as a person reads it.
    """

    def __init__(self, name, noun, lack):
        self.name, self.noun, self.lack = name, noun, lack
        self.rows_in = self.truncated = self.lost_end = self.blank = self.equal = self.largest = 0
        self.read = Counter()
        self.unread, self.columns, self.ends, self.added = Counter(), Counter(), Counter(), Counter()
        self.empty, self.endless = Places(), Places()
        self.parts, self.longest, self.content, self.sample = [], {}, [], ""
        self.lengths, self.loss = array("q"), array("q")

    def took(self, source, made, row, is_empty):
        """Count one row of a source, as text and as tokens; whether anything can be learned of it."""
        self.rows_in += 1
        self.read[source.name] += 1
        for counter, names in ((self.columns, made.found), (self.unread, made.unread), (self.ends, () if is_empty else row.ends)):
            for name in names:
                counter[name] += 1
        if is_empty:
            self.empty.note([row.where])
            return False
        self.blank += made.blank
        if made.added:
            self.added[made.added] += 1
        self.truncated += row.truncated
        self.lost_end += row.lost_end
        self.endless.note([f"{row.where} message {number}" for number in row.endless])
        return True

    def add(self, other):
        """Count what another has counted of later rows."""
        for name in ("rows_in", "truncated", "lost_end", "blank", "equal"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("read", "unread", "columns", "ends", "added"):
            getattr(self, name).update(getattr(other, name))
        for name in ("empty", "endless"):
            getattr(self, name).note(list(getattr(other, name)), getattr(other, name).count)
        self.largest, self.sample = max(self.largest, other.largest), self.sample or other.sample

    def check(self, sources, spec):
        """Refuse a set without rows, and one with rows that do not serve, unless that is accepted."""
        files = ", ".join(file.name for source in sources for file in source.files)
        if not self.rows_in:
            raise Refused("bad_data", f"{files}: no rows")
        for name, theirs in spec.columns.items():
            if theirs not in (None, name) and theirs not in self.columns:
                raise Refused(
                    "bad_data",
                    f"{files}: data.columns.{name} is {theirs!r}, but no row has such a column, only "
                    f"{', '.join(sorted(map(repr, self.columns)))}: mend the name, or take it out of the recipe",
                )
        if self.endless and spec.require_stop:
            raise Refused(
                "no_stop_token",
                f"{self.name}: {self.endless.count} turns of the assistant end without a token with loss at which generation "
                f"stops, so the model would never learn to end a reply: {', '.join(self.endless)}: choose a chat template "
                "that ends each reply with such a token (data.chat_template), or set data.require_stop to false",
            )
        if self.empty.count == self.rows_in or (self.empty.count > BEARABLE * self.rows_in and not spec.drop_empty):
            raise Refused(
                "no_loss_tokens",
                f"{self.name}: {self.empty.count} of {self.rows_in} {self.noun} have {self.lack} "
                f"max_length, {spec.max_length}: {', '.join(self.empty)}: raise data.max_length, mend the rows, "
                "or let such rows be dropped (drop_empty), unless it is all of them",
            )

    def notes(self, tokens):
        """What a person should know of the rows, a line each."""
        few = {
            f"cut at max_length (data.max_length), {self.lost_end:,} of them without their end": self.truncated,
            f"left out: {self.lack} max_length, the first at {next(iter(self.empty), None)}": self.empty.count,
            "with an empty answer: only its end is learned": self.blank,
            "with two equal answers: nothing is learned": self.equal,
        }
        lines = [f"{self.name}: {count:,} of {self.rows_in:,} {self.noun} {what}" for what, count in few.items() if count]
        if self.unread:
            names = ", ".join(f"{name} ({count:,})" for name, count in sorted(self.unread.items()))
            lines.append(f"{self.name}: nothing reads these columns and keys ({self.noun}): {names}")
        for text, count in self.added.items():
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
            lines.append(
                f"{self.name}: the chat template puts a text of its own before {count:,} of {self.rows_in:,} {self.noun}: {shown!r} "
                "(data.system or data.chat_template gives another)"
            )
        if self.endless:
            lines.append(f"{self.name}: {self.endless.count:,} turns of the assistant end without a token that stops generation")
        foreign = sorted(tokens.name(one) for one in self.ends if one not in tokens.stops)
        if foreign and not any(one in tokens.stops for one in self.ends):
            stops = ", ".join(tokens.name(one) for one in sorted(tokens.stops)) or "none"
            lines.append(
                f"{self.name}: replies end with {', '.join(foreign)}, but the model's own settings stop at {stops}: "
                "name it to what serves the model as a stop token"
            )
        return lines

    def counted(self, tokens):
        """The figures; refused when the model cannot hold what is in the set."""
        import numpy as np

        longest = self.longest["longest"]
        if tokens.positions and longest > tokens.positions:
            raise Refused(
                "too_long",
                f"{self.name}: a row has {longest} tokens, but the model holds {tokens.positions} positions: "
                f"set data.max_length to at most {tokens.positions}",
            )
        if tokens.vocabulary and self.largest >= tokens.vocabulary:
            raise Refused(
                "bad_model",
                f"{self.name}: the tokenizer makes id {self.largest}, but the model's vocab_size is "
                f"{tokens.vocabulary}: tokenizer and model do not belong together",
            )
        return {
            "rows": len(self.lengths),
            "rows_in": self.rows_in,
            "tokens": int(np.sum(self.lengths)),
            "loss_tokens": int(np.sum(self.loss)),
            "truncated": self.truncated,
            "lost_end": self.lost_end,
            "dropped_empty": self.empty.count,
            "empty_answers": self.blank,
            "equal_answers": self.equal,
            "without_stop": self.endless.count,
            "template_text": sum(self.added.values()),
            "unread": dict(sorted(self.unread.items())),
            "notes": self.notes(tokens),
            **self.longest,
        }
