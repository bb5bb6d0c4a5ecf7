"""Which rows reach the model, by digests: a job with a witness.json is asked for them.

    python tune_witness.py witness.json     a step: expected.json, what should reach it
    witness-RANK.jsonl                      what did: a line for each micro-batch of that process, a digest for each of its rows

witness.json: `{"data": the data step's spec as the recipe means it, "steps": optimizer steps to look at}`. expected.json:
`{"batch": rows of a step, "order": [numbers of the rows of these steps], "rows": {number: digest}}`, of a small set all rows.

A digest is `IDS:LABELS`, 16 hexadecimal digits each. Labels are unshifted; that of the first token is nobody's target. Padding is
left out, and with it tokens at the end of a row that equal the padding and carry no loss: nothing is learned of or from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_data
import tune_shared

if TYPE_CHECKING:
    from collections.abc import Callable

WISH = "witness.json"
MANY = 50_000
"""Rows of a set up to which all of them are written down: rows that come too early or too late can then be told from others."""


def main(path: str) -> int:
    """Write expected.json; 0, or 1 with a message and reason.json."""
    return tune_shared.guarded("bad_spec", lambda: _expect(json.loads(Path(path).read_text())))


def _expect(wish: dict[str, Any]) -> None:
    aside = Path("witness-data.json")
    aside.write_text(json.dumps(wish["data"]))
    try:
        folder = tune_data.ready(tune_data.read_spec(str(aside)))
    except tune_data.Refused as error:
        raise ValueError(str(error)) from error
    facts, rows = tune_shared.manifest(folder), tune_shared.Rows(folder)
    order = tune_shared.order(folder)[: wish["steps"] * facts["batch"]].tolist()
    wanted = range(len(rows)) if len(rows) <= MANY else sorted(set(order))
    digests = {number: digest(*rows.row(number), facts["pad_id"]) for number in wanted}
    Path("expected.json").write_text(json.dumps({"batch": facts["batch"], "order": order, "rows": digests}))


def digest(ids: Any, labels: Any, pad: int) -> str:
    """Of one row: arrays of its ids and its labels."""
    import numpy as np  # noqa: PLC0415 - this file is imported where no rows are looked at, too

    ids, labels = (np.asarray(each, dtype="<i8").copy() for each in (ids, labels))
    labels[:1] = tune_shared.NO_LOSS
    matters = np.flatnonzero((ids != pad) | (labels != tune_shared.NO_LOSS))
    end = matters[-1] + 1 if len(matters) else 0
    return ":".join(hashlib.sha256(each[:end].tobytes()).hexdigest()[:16] for each in (ids, labels))


def asked() -> bool:
    """The job has a witness.json."""
    return Path(WISH).exists()


class Witness:
    """Writes down the rows of one process, batch by batch."""

    def __init__(self, folder: str = "data", rank: int | None = None) -> None:
        place = int(os.environ.get("RANK", "0")) if rank is None else rank
        self._pad = tune_shared.manifest(folder)["pad_id"]
        self._file = Path(f"witness-{place}.jsonl").open("w", encoding="utf-8")  # noqa: SIM115 - open as long as training lasts

    def see(self, ids: Any, labels: Any, lengths: Any = None) -> None:
        """A micro-batch: ids and labels, a row each; tokens of each row where the trainer tells."""
        size = [len(row) for row in ids] if lengths is None else lengths
        rows = [digest(a[:n], b[:n], self._pad) for a, b, n in zip(ids, labels, size, strict=True)]
        self._file.write(f"{json.dumps(rows)}\n")
        self._file.flush()

    def held(
        self, collate: Callable[..., Any], tensors: Callable[[Any], tuple[Any, Any]]
    ) -> tuple[Callable[..., Any], Callable[[], None]]:
        """The collate function, and what is called when the batch that it made last is taken: only then it has been seen. For
        trainers that fetch a batch more than they train on.
        """
        waiting = []

        def holding(*args: Any, **kw: Any) -> Any:
            batch = collate(*args, **kw)
            waiting[:] = [tensors(batch)]
            return batch

        def taken() -> None:
            while waiting:
                self.see(*waiting.pop())

        return holding, taken


def watched(collate: Callable[..., Any], tensors: Callable[[Any], tuple[Any, Any]], folder: str = "data") -> Callable[..., Any]:
    """A collate function, each batch of which is witnessed where that is asked for.

    Args:
        collate: the trainer's.
        tensors: its batch -> ids and labels.
        folder: of the data step.
    """
    if not asked():
        return collate
    witness = Witness(folder)

    def watching(*args: Any, **kw: Any) -> Any:
        batch = collate(*args, **kw)
        witness.see(*tensors(batch))
        return batch

    return watching


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
