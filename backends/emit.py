"""Configs as text, as people write them: mappings in blocks, lists in brackets, a key a line.

PyYAML's dumper takes a third of a plan's millisecond; configs hold plain values only, so that this little is enough. What it
writes, PyYAML (YAML 1.1) and readers of YAML 1.2 read alike: a test holds that for any values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_json = json.JSONEncoder().encode
_text = json.encoder.encode_basestring_ascii
_CONSTANTS = {None: "null", True: "true", False: "false"}
_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
"""Of YAML 1.1, in any case; as texts they need quotes."""


def as_json(spec: Mapping[str, object]) -> str:
    """A JSON object, a key of the top a line."""
    return "{\n " + ",\n ".join([f"{_text(key)}: {_compact(value)}" for key, value in spec.items()]) + "\n}\n"


def _compact(value: object) -> str:
    """A value as JSON. The encoder is made anew for each that is no text, which takes longer than a number does, and looks at options
    for each that is one.
    """
    if type(value) is str:
        return _text(value)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    return repr(value) if type(value) is int else _json(value)


def as_yaml(spec: Mapping[str, object]) -> str:
    """A YAML document of a mapping of plain values.

    Raises:
        TypeError: a value is not plain.
    """
    return "".join(_block(spec, "")) or "{}\n"


def _block(spec: Mapping[str, object], indent: str) -> Iterator[str]:
    for key, value in spec.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_inline(key)}:\n"
            yield from _block(value, f"{indent}  ")
        else:
            yield f"{indent}{_inline(key)}: {_inline(value)}\n"


def _inline(value: object) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else _quoted(value)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, int):
        return repr(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_inline(key)}: {_inline(item)}' for key, item in value.items())}}}"
    raise TypeError(f"a config holds plain values, got {value!r}")


def _number(value: float) -> str:
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    whole, e, power = text.partition("e")
    return text if not e or "." in whole else f"{whole}.0e{power}"  # without the point it is a text in YAML 1.1


def _quoted(text: str) -> str:
    return '"' + "".join(_SHORT.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
