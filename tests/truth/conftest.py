"""The table: method x adapter x trainer, each with the largest differences from the truth. `TUNE_TRUTH_TABLE=docs/methods.md` writes
the rows of what was run into that page.
"""

import os
from pathlib import Path

from tests.truth.table import write


def pytest_terminal_summary(terminalreporter):
    """A line for each cell that was compared, whether it held or not, and how many leaves of each trainer were felt."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    cells = dict(value for report in reports for name, value in report.user_properties if name == "truth")
    leaves = {
        (trainer, kind, adapter, leaf)
        for report in reports
        for name, value in report.user_properties
        if name == "felt"
        for trainer, kind, adapter, effects in [value]
        for leaf in effects
    }
    for cell, found in sorted(cells.items()):
        terminalreporter.write_line(f"{cell:44}" + " ".join(f"{name} {gap:.1e}" for name, gap in found.items()))
    if leaves:
        terminalreporter.write_line(f"law of effect: {len(leaves)} leaves x trainers x methods")
    if page := os.environ.get("TUNE_TRUTH_TABLE"):
        write(Path(page), cells)
