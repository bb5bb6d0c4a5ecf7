"""What looks like a secret: it is neither shown nor written, wherever it is found.

By its key, or by the form of its value, which the services chose so that it can be found. A name of a variable is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_KEY = re.compile(
    r"(api_?key|(access|auth|hub|hf|bearer)_token|^token|password|passwd|secret(_key)?|private_key)$", re.IGNORECASE
)
_VALUE = re.compile(
    r"""\b(hf_[A-Za-z0-9]{30,}          # Hugging Face
        | wandb_v\d_[A-Za-z0-9_]{16,}   # Weights & Biases
        | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | glpat-[\w-]{16,}
        | sk-(?=[\w-]*\d)[\w-]{32,} | AKIA[0-9A-Z]{16} | AIza[\w-]{35} | xox[abeprs]-[\w-]{10,}
        | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)
        | ://[^/\s:@$]*:[^/\s@$]+@      # a URL with a password
        | -----BEGIN[A-Z ]*PRIVATE\ KEY""",
    re.VERBOSE,
)
WAY_OUT = "a secret has no place in a file: name it under secrets, give it in the environment"


def is_secret(key: str, value: object) -> bool:
    """Whether a value is one. `${VARIABLE}` and `$VARIABLE` say where one comes from.

    Args:
        key: dotted; the last part counts.
        value: a plain value, or a list or mapping of them.
    """
    if isinstance(value, dict):
        return any(is_secret(str(name), item) for name, item in value.items())
    if isinstance(value, list):
        return any(is_secret(key, item) for item in value)
    if not isinstance(value, str) or not value:
        return False
    named = _KEY.search(key.rpartition(".")[2]) and not value.startswith("$")
    return bool(named or _VALUE.search(value))


def places(values: Mapping[str, object], above: str = "") -> Iterator[str]:
    """Dotted names of the secrets in nested mappings."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from places(value, f"{name}.")
        elif is_secret(name, value):
            yield name


def without(key: str, value: object) -> object:
    """A list or mapping less the secrets in it."""
    if isinstance(value, dict):
        return {name: without(str(name), item) for name, item in value.items() if not _is_one(str(name), item)}
    if isinstance(value, list):
        return [without(key, item) for item in value if not _is_one(key, item)]
    return value


def _is_one(key: str, value: object) -> bool:
    return not isinstance(value, dict | list) and is_secret(key, value)


def variable(key: str, value: object) -> str:
    """The variable in which the secret's own library looks for it; empty where that is not known."""
    if isinstance(value, str) and value.startswith("hf_"):
        return "HF_TOKEN"
    last = key.rpartition(".")[2]
    return last.upper() if re.fullmatch(r"(wandb|comet|swanlab)_api_key", last) else ""
