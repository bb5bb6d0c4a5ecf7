"""How the store keeps a job's request."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any


def packed(request: Mapping[str, Any]) -> str:
    """A job's request as the store keeps it."""
    return b64encode(zlib.compress(json.dumps(request, sort_keys=True).encode(), 6)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """The request again."""
    return dict(json.loads(zlib.decompress(b64decode(text))))
