"""What a run of the families' matrix found: a line a cell, and with TUNE_FAMILIES=1 the file that the page of models is made from."""

import os
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).parents[2] / "backends" / "shims")
)  # what reads config.json on a host is of the standard library

from tests.families.matrix import keep


def pytest_terminal_summary(terminalreporter):
    """Each cell that was run, with its largest difference."""
    reports = terminalreporter.getreports("passed")
    found = {tuple(cell): gap for report in reports for name, (*cell, gap) in report.user_properties if name == "family"}
    for (trainer, name), gap in sorted(found.items()):
        terminalreporter.write_line(f"{trainer:10} {name:14} {gap:.1e}")
    if found and os.environ.get("TUNE_FAMILIES"):
        keep(found)
