"""MaxText's defaults, which three modules of import read."""

from __future__ import annotations

from backends.upstream.defaults import Defaults

DEFAULTS = Defaults.beside(__file__)
