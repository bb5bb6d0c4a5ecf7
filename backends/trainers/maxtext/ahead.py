"""What XLA's compiler is asked about a training on a TPU slice, without a TPU (shims/tune_maxtext_memory.py)."""

from __future__ import annotations

import json

from backends.bundle import with_imports
from backends.memory.ahead import Question
from backends.memory.facts import Unknown
from backends.models import ModelFacts
from backends.plan import File, Plan
from backends.recipe.flat import Flat

SHIM, SPEC, CONFIG = "tune_maxtext_memory.py", "memory.json", "maxtext.yml"
BLOCK = 128
"""Rows are padded to whole blocks of the attention kernel; as in maxtext.json."""


def question(decided: Plan, flat: Flat, model: ModelFacts | None, topology: str) -> Question:
    """What is asked.

    Args:
        decided: the plan.
        flat: the recipe's leaves.
        model: sizes; None where only the host can tell.
        topology: the slice, as `v5e-16`.

    Raises:
        Unknown: the compiler is not asked about such a training; says why.
    """
    if model is None:
        raise Unknown(f"{flat['model.id']} is not in the table of models (docs/models.md)")
    if flat["method.kind"] not in ("sft", "pretrain") or flat["method.adapter"] != "none":
        raise Unknown(
            "it is asked about the step of MaxText's own loop, which trains all weights by rows or text; this is trained by Tunix's"
        )
    shape = {
        "family": model.family,
        "vocab": model.vocab_size,
        "width": model.hidden_size,
        "layers": model.layers,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "head": model.head_dim,
        "inner": model.intermediate_size,
        "positions": model.max_position,
        "eps": model.norm_eps,
        "theta": model.rope_theta,
        "tied": model.tied,
        "scaling": None,  # of the rotation: it takes no memory
    }
    length = -(-flat["data.max_length"] // BLOCK) * BLOCK
    spec = json.dumps({"topology": topology, "kind": flat["method.kind"], "length": length, "shape": shape}, sort_keys=True)
    config = next(file for file in decided.files if file.path == CONFIG)
    return Question((SHIM, SPEC), (*with_imports((SHIM,)), config, File(SPEC, spec)))
