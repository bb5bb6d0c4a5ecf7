"""MaxText asked for its config keys and its defaults. Runs inside its environment, by `backends/upstream/generate_keys.py` and
`generate_defaults.py`, which print `keys.txt` and `defaults.txt`.
"""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any

from backends.upstream.introspection import Found, model_keys

RL = "post_train/rl.yml"
"""MaxText's config of reinforcement learning, which stands on no other: on the defaults of a class of its own."""


def keys() -> set[str]:
    """Fields of its config."""
    os.environ.update(DECOUPLE_GCLOUD="TRUE", JAX_PLATFORMS="cpu")
    return model_keys(importlib.import_module("maxtext.configs.types").MaxTextConfig)


def defaults() -> Found:
    """Values of base.yml, which every config stands on, and defaults of the fields that it does not name."""
    os.environ.update(DECOUPLE_GCLOUD="TRUE", JAX_PLATFORMS="cpu")
    types = importlib.import_module("maxtext.configs.types")
    configs = pathlib.Path(str(types.__file__)).parent
    yaml = importlib.import_module("yaml")
    usual = dict(fields(types.MaxTextConfig)) | yaml.safe_load((configs / "base.yml").read_text("utf-8"))
    yield from usual.items()
    for name, value in fields(types.RLConfig):
        if name not in usual or (value or None) != (usual[name] or None):
            yield f"{RL}:{name}", value
    for path in sorted(configs.glob("**/*.yml")):
        place = str(path.relative_to(configs))
        values = yaml.safe_load(path.read_text("utf-8"))
        if "base_config" in values or place == RL or place.startswith("models/"):  # the last win over what a config says
            yield from ((f"{place}:{key}", value) for key, value in dotted(values))


def fields(model: Any) -> Found:
    """Defaults of a class's fields."""
    for name, info in model.model_fields.items():
        if not info.is_required():
            yield name, getattr(info.default, "value", info.default)


def dotted(values: dict[str, Any], above: str = "") -> Found:
    """Nested mappings by dotted name."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
