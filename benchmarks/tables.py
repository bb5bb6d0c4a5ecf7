"""A table between two marks of a page."""

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "races.md"


def put(begin: str, end: str, text: str, page: Path = PAGE) -> None:
    """Put a text between two marks, in the place of what is there.

    Raises:
        ValueError: the page has no such marks.
    """
    before, found, rest = page.read_text().partition(begin)
    if not found or end not in rest:
        raise ValueError(f"{page} has no {begin} ... {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}")
