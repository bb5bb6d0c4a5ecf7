"""The releases of axolotl that this folder is written for: said once, here. env.in and env-next.in pin the same (a test compares)."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release("axolotl", "axolotl", "0.19.0", "0.20", "https://github.com/axolotl-ai-cloud/axolotl/blob/v{}/")
"""The one that runs a recipe which asks for none."""

NEXT = RELEASE._replace(version="0.21.0", before="0.22")
"""The one that `release: {axolotl: ...}` may ask for. Its tables and its environment's lock are the files called `-next`."""
