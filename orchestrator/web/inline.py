"""Our own styles and scripts inside a page, and the sums by which the page's policy knows them."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from markupsafe import Markup

STATIC = Path(__file__).parent / "static"


def own(name: str) -> Markup:
    """The text of one of our static files, as it stands inside `style` or `script`."""
    return Markup((STATIC / name).read_text("utf-8"))  # noqa: S704  # our own file


def sums(*texts: str) -> str:
    """Sources of a content security policy that let in just these texts."""
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)


STYLE = own("page.css")
"""Of every page. It comes with the page: a file of its own would be one request more before anything is painted."""
