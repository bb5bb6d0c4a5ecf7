"""Values of a job's secrets, when it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from orchestrator.home import Home, read_secrets


class NoValue(Exception):
    """A secret has no value, or the file that may have it cannot be trusted; the text says the way out."""


def secret_values(job: str, names: Sequence[str], heard: Mapping[str, str], home: Home) -> dict[str, str]:
    """Values for names: from whoever submitted, from the secrets file, from our own environment.

    Args:
        job: whose they are.
        names: of the secrets.
        heard: values that came with the submission.
        home: its secrets file is looked into.

    Raises:
        NoValue: one of them has none.
    """
    try:
        kept = read_secrets(home.secrets) if names else {}
    except PermissionError as error:
        raise NoValue(str(error)) from None
    values = {name: heard.get(name) or kept.get(name) or os.environ.get(name, "") for name in names}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise NoValue(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: export and `tune retry {job}`, or write it to {home.secrets}"
        )
    return values
