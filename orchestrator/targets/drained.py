"""Machines that people have taken out of use: what runs there ends by itself, and nothing new is started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from orchestrator.agent.files import write_json
from orchestrator.home import Home


def read_drained(home: Home) -> dict[str, str]:
    """Machine -> why, as people put it; all by name."""
    with suppress(OSError, ValueError, AttributeError):
        kept = json.loads(_file(home).read_text("utf-8"))
        return {str(name): str(why) for name, why in kept.items()}
    return {}


def keep_drained(home: Home, found: Mapping[str, str]) -> None:
    """Keep which they are, in place of what was kept."""
    home.make()
    write_json(str(_file(home)), dict(found))


def drained_words(home: Home) -> dict[str, str]:
    """Machine -> what to say of it, with the way out."""
    return {
        name: f"drained{f' ({why})' if why else ''}; `tune targets undrain {name}` opens it"
        for name, why in read_drained(home).items()
    }


def _file(home: Home) -> Path:
    return home.path / "drained.json"
