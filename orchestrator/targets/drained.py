"""Machines that people have taken out of use: what runs there ends by itself, and nothing new is started."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress

from orchestrator.home import Home


def read_drained(home: Home) -> dict[str, str]:
    """Machine -> why, as people put it; all by name."""
    with suppress(OSError, ValueError, AttributeError):
        kept = json.loads((home.path / "drained.json").read_text("utf-8"))
        return {str(name): str(why) for name, why in kept.items()}
    return {}


def keep_drained(home: Home, found: Mapping[str, str]) -> None:
    """Keep which they are, in place of what was kept."""
    home.make()
    path = home.path / "drained.json"
    aside = path.with_suffix(".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(dict(found), file)
    aside.replace(path)


def drained_words(home: Home) -> dict[str, str]:
    """Machine -> what to say of it, with the way out."""
    return {
        name: f"drained{f' ({why})' if why else ''}; `tune targets undrain {name}` opens it"
        for name, why in read_drained(home).items()
    }
