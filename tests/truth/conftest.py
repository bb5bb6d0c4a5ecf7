"""The table: method x adapter x trainer, each with the largest differences from the truth."""


def pytest_terminal_summary(terminalreporter):
    """A line for each cell that was compared, whether it held or not."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    cells = dict(value for report in reports for name, value in report.user_properties if name == "truth")
    for cell, found in sorted(cells.items()):
        terminalreporter.write_line(f"{cell:64}" + " ".join(f"{name} {gap:.1e}" for name, gap in found.items()))
