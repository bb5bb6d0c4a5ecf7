"""What a set of rows amounts to: counted while its rows are made, refused when they do not serve, told in figures."""

# ruff: noqa: PLC0415 - numpy only where rows are made

from array import array

from tune_files import Refused


class Tally:
    """The counts of one set (train, eval).

    Args:
        name: train or eval.
        noun: what its rows are called.
        lack: what makes a row empty.

    Attributes:
        rows_in: rows of the files.
        truncated: rows that were cut at max_length.
        empty: places of rows from which nothing could be learned.
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
        self.rows_in = self.truncated = self.largest = 0
        self.empty, self.parts, self.longest, self.content, self.sample = [], [], {}, [], ""
        self.lengths, self.loss = array("q"), array("q")

    def check(self, sources, spec):
        """Refuse a set without rows, and one with empty rows, unless it is accepted that they are left out."""
        if not self.rows_in:
            raise Refused("bad_data", f"{', '.join(path for source in sources for path in source.paths)}: no rows")
        if len(self.empty) == self.rows_in or (self.empty and not spec.drop_empty):
            raise Refused(
                "no_loss_tokens",
                f"{self.name}: {len(self.empty)} of {self.rows_in} {self.noun} have {self.lack} "
                f"max_length, {spec.max_length}: {', '.join(self.empty[:10])}: raise data.max_length, mend the rows, "
                "or let such rows be dropped (drop_empty), unless it is all of them",
            )

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
            "dropped_empty": len(self.empty),
            **self.longest,
        }
