"""axolotl asked for its config keys and its defaults. Runs inside its environment, by `backends/upstream/generate_keys.py` and
`generate_defaults.py`, which print `keys.txt` and `defaults.txt`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pathlib
from collections.abc import Iterator
from typing import Any

from backends.upstream.introspection import Found, model_keys


def keys() -> set[str]:
    """Fields of its input schema, and what each of its own plugins adds to that."""
    own = model_keys(importlib.import_module("axolotl.utils.schemas.config").AxolotlInputConfig)
    return own | {f"{key} @ {plugin}" for plugin, arguments in plugins() for key in model_keys(arguments) - own}


def plugins() -> Iterator[tuple[str, Any]]:
    """Name and arguments of each plugin that comes with axolotl, but for those that want another package."""
    base = importlib.import_module("axolotl.integrations.base").BasePlugin
    for path in sorted(pathlib.Path(base.__init__.__code__.co_filename).parent.glob("*/__init__.py")):
        with contextlib.suppress(ImportError):
            offered: dict[str, Any] = dict(vars(importlib.import_module(f"axolotl.integrations.{path.parent.name}")))
            for name, made in offered.items():
                if base in getattr(made, "__mro__", ()) and (arguments := made().get_input_args()):
                    module, _, last = arguments.rpartition(".")
                    yield name, getattr(importlib.import_module(module), last)


def defaults() -> Found:
    """Defaults of its schema, and where that has none those of the trainer underneath, which axolotl leaves alone then."""
    schema = importlib.import_module("axolotl.utils.schemas.config").AxolotlInputConfig
    for name, info in schema.model_fields.items():
        yield name, (None if info.is_required() else getattr(info.default, "value", info.default))
    arguments = importlib.import_module("transformers").TrainingArguments
    for field in dataclasses.fields(arguments):
        if field.default is not dataclasses.MISSING:
            yield f"transformers.TrainingArguments:{field.name}", getattr(field.default, "value", field.default)
