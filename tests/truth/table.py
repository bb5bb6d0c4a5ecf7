"""The table of docs/methods.md, made by the tests of this folder."""

import re

BEGIN, END = "<!-- made by tests/truth -->", "<!-- end -->"
COLUMNS = ("loss", "grad_norm", "eval_loss", "rewards", "checkpoint", "adapter")
REWARDS = re.compile("rewards/|reward$|kl$|class_loss|kd_loss")


def rows(text):
    """Cell -> its line, as a page has them."""
    part = text.partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in part.splitlines() if line.startswith("| ") and not line.startswith(("| method", "| ---"))]
    return {key(line): line for line in lines}


def key(line):
    """What a line is of: its first five columns."""
    return tuple(each.strip() for each in line.split("|")[1:6])


def line(cell, found):
    """The line of a cell, by the name that its test has."""
    trainer, kind, adapter, micro, processes, *more = cell.split("-")
    whole = f" + {', '.join(more)}" if more else ""
    worst = {}
    for name, gap in found.items():
        column = "rewards" if REWARDS.match(name) else name
        worst[column] = max(gap, worst.get(column, 0.0))
    figures = [f"{worst[name]:.0e}" if name in worst else "-" for name in COLUMNS]
    return (
        "| "
        + " | ".join([kind, adapter + whole, trainer, micro.removeprefix("micro"), processes.removesuffix("process"), *figures])
        + " |"
    )


def write(page, cells):
    """Put what was found in place of what the page has of the same cells."""
    text = page.read_text()
    found = rows(text) | {key(each): each for each in (line(cell, gaps) for cell, gaps in cells.items())}
    head = [
        "| method | adapter | trainer | micro | processes | " + " | ".join(COLUMNS) + " |",
        "| --- " * (5 + len(COLUMNS)) + "|",
    ]
    before, _, rest = text.partition(BEGIN)
    page.write_text(
        "\n".join([before + BEGIN, "", *head, *(found[each] for each in sorted(found)), "", END]) + rest.partition(END)[2]
    )
