"""All backends, by name, the preferred first. One line each; packages of others join by the entry-point group `tunesmith.backends`."""

from __future__ import annotations

from backends.base import Backend
from backends.litgpt import LITGPT
from backends.torchtune import TORCHTUNE

BACKENDS: dict[str, Backend] = {b.name: b for b in (LITGPT, TORCHTUNE)}
