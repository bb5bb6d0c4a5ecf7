"""Which row is trained when, and which rows a run needs at all."""
# ruff: noqa: PLC0415 - what is ready needs no numpy

import random
from array import array
from collections import namedtuple

from tune_files import Refused
from tune_reading import count_rows

SOME = 20_000  # rows from which on only those that a run trains are read
LOOKED_AT = 2000  # rows of each source that are read and checked in any case


def check_warmup(spec, steps):
    """Refuse a run that never leaves its warm-up."""
    if spec.warmup_steps and spec.warmup_steps > steps:
        raise Refused(
            "bad_spec",
            f"optim.warmup_steps is {spec.warmup_steps}, but train.epochs: {spec.epochs} are {steps} steps of these rows: the rate "
            f"would never leave the warm-up. Set optim.warmup_steps to at most {steps}, or optim.warmup_share in its place",
        )


def check_steps(spec, rows):
    """The steps that are known before rows are drawn or packed; refused as those of the whole are."""
    per_epoch = rows // spec.batch
    if not per_epoch:
        raise no_batch(spec, rows)
    check_warmup(spec, spec.steps or spec.epochs * per_epoch)


def no_batch(spec, rows):
    """The complaint about too few rows."""
    return Refused(
        "no_steps",
        f"{rows} {'packed ' * spec.pack}rows do not fill one batch of {spec.batch}: set "
        f"train.batch.global to at most {rows}, or give more rows",
    )


def ordered(parts, spec):
    """Row numbers in the order in which they are trained, whole batches only. `parts` are (Source, how many rows it has)."""
    rows = len(drawn(parts, spec, 0))
    per_epoch = rows // spec.batch * spec.batch
    if not per_epoch:
        raise no_batch(spec, rows)
    total = spec.steps * spec.batch if spec.steps else spec.epochs * per_epoch
    order = array("q")
    for epoch in range(-(-total // per_epoch)):
        numbers = drawn(parts, spec, epoch)
        if spec.shuffle:
            random.Random(f"{spec.seed}:{epoch}").shuffle(numbers)  # noqa: S311 - an order, not a secret
        order.extend(numbers[:per_epoch])
    return order[:total]


def drawn(parts, spec, epoch):
    """The row numbers of one epoch in file order, each as often as its source's weight says."""
    numbers, start = array("q"), 0
    for at, (source, rows) in enumerate(parts):
        often, share = divmod(source.weight, 1)
        some = random.Random(f"{spec.seed}:{epoch}:{at}").sample(range(rows), int(rows * share + 0.5))  # noqa: S311 - see above
        if not often and not some:
            raise Refused(
                "no_data", f"{source.name}: none of its {rows} rows comes in an epoch at weight {source.weight}: raise it"
            )
        for _ in range(int(often)):
            numbers.extend(range(start, start + rows))
        numbers.extend(sorted(start + number for number in some))
        start += rows
    return numbers


Held = namedtuple("Held", "trained evaluated")
Held.__doc__ = "For each source, the numbers of the rows that are trained and of those that are held out."


def held_out(sources, spec):
    """The Held of the training rows' sources; None where none are held out. Which ones hangs on seed and source alone."""
    if not spec.eval_share:
        return None
    held = Held([], [])
    for at, source in enumerate(sources):
        rows = count_rows(source.files)
        count = max(1, round(rows * spec.eval_share))
        if count >= rows:
            raise Refused(
                "no_data",
                f"{source.name}: of {rows} rows {count} would be held out by data.eval_share: {spec.eval_share}: give more rows",
            )
        out = array("q", sorted(random.Random(f"{spec.seed}:eval:{at}").sample(range(rows), count)))  # noqa: S311 - as above
        aside = set(out)
        held.evaluated.append(out)
        held.trained.append(array("q", (number for number in range(rows) if number not in aside)))
    return held


def needed(sources, spec, trained=None):
    """What a run of a few steps over many rows needs: ([(Source, how many rows it has)], for each the numbers of the rows to read,
    the order of the rows by their numbers among those); None where all rows are to be read.

    All are where rows are packed or some may be left out, since the order then follows from what the others are. `trained` are the
    numbers of the rows of each source that are not held out.
    """
    if not spec.steps or spec.pack or spec.drop_empty:
        return None
    counts = [len(some) for some in trained] if trained else [count_rows(source.files) for source in sources]
    parts = list(zip(sources, counts, strict=True))
    if sum(rows for _, rows in parts) < SOME:
        return None
    import numpy as np

    order = np.asarray(ordered(parts, spec))
    wanted, ends = np.unique(order), np.cumsum([rows for _, rows in parts])
    firsts = [np.arange(end - rows, min(end, end - rows + LOOKED_AT)) for (_, rows), end in zip(parts, ends, strict=True)]
    wanted = np.unique(np.concatenate([wanted, *firsts]))
    if 2 * len(wanted) > ends[-1]:
        return None
    by_source = [
        (wanted[np.searchsorted(wanted, end - rows) : np.searchsorted(wanted, end)] - (end - rows)).tolist()
        for (_, rows), end in zip(parts, ends, strict=True)
    ]
    if trained:
        by_source = [np.asarray(some)[numbers].tolist() for some, numbers in zip(trained, by_source, strict=True)]
    return parts, by_source, np.searchsorted(wanted, order)


def by_step(train, parts, order, spec):
    """The schedule, and how many tokens each step trains."""
    rows, steps = len(drawn(parts, spec, 0)), len(order) // spec.batch
    return {
        "steps": steps,
        "epochs": steps / (rows // spec.batch),
        "batch": spec.batch,
        "left_out_per_epoch": rows % spec.batch,
        "tokens_per_step": summed(train.lengths, order, steps),
        "loss_tokens_per_step": summed(train.loss, order, steps),
    }


def summed(values, order, steps):
    """The sum of the rows' values in each step."""
    import numpy as np

    return np.asarray(values)[order].reshape(steps, -1).sum(1).tolist()
