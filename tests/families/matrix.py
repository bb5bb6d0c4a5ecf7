"""The families' matrix: which cells there are, what was measured, and how the page of models shows it."""

import json
from pathlib import Path

from backends.registry import BACKENDS
from tests.twins.families import TWINS

MEASURED = Path(__file__).with_name("measured.json")
"""Trainer -> twin -> the largest difference of a loss or a weight from transformers', when it was run last. Written by a run of
test_families.py with TUNE_FAMILIES=1; the cells of the run replace those in it.
"""
TRAINERS = ("torchtune", "litgpt", "maxtext", "axolotl", "trl", "unsloth")
WINDOWLESS = ("torchtune", "maxtext")
"""Trainers without a sliding window of attention: rows within it are trained as they should be, others are refused on the host."""
KINDS = {"rope_type", "type"}


def facts(name):
    """What a plan knows of a model like this twin: the part of a line of the model table that decides."""
    settings = TWINS[name].settings()
    scaling = settings.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type", "")
    tied = settings.get("tie_word_embeddings", "gemma" in TWINS[name].family)
    heads = settings["num_attention_heads"]
    widths = {"hidden_size": settings["hidden_size"], "heads": heads, "head_dim": settings.get("head_dim")}
    return {"family": TWINS[name].family, "rope_scaling": kind and f"{kind}::", "tied": tied, **widths}


def lack(trainer, name):
    """Why a trainer has no such cell; empty where it has."""
    return BACKENDS[trainer].lacks(facts(name))


def windowed(name):
    """Does some layer of the twin see a window only?"""
    return bool(TWINS[name].settings().get("sliding_window"))


def stretched(name):
    """Do positions turn by other frequencies in a batch whose longest row is past a length (LongRoPE)?"""
    return "long_factor" in (TWINS[name].settings().get("rope_scaling") or {})


CELLS = [(t, name) for t in TRAINERS for name in TWINS if not lack(t, name)]
REFUSED = [(trainer, name) for trainer in TRAINERS for name in TWINS if lack(trainer, name)]


def measured():
    """Trainer -> twin -> largest difference."""
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else {}


def keep(found):
    """Put what a run found in place of what was there."""
    known = measured()
    for (trainer, name), gap in found.items():
        known.setdefault(trainer, {})[name] = float(f"{gap:.1e}")
    kept = {t: {n: known[t][n] for n in TWINS if n in known.get(t, {}) and not lack(t, n)} for t in TRAINERS}
    MEASURED.write_text(json.dumps(kept, indent=1) + "\n")


def shown(trainer, name, known, notes):
    """The cell's text on the page: a figure, a note of what is lacking, or that it was not run."""
    if why := lack(trainer, name):
        return f"no ({notes.setdefault(why, len(notes) + 1)})"
    gap = known.get(trainer, {}).get(name)
    if gap is None:
        return "not run"
    return f"{gap:.0e}" + (" \\*" if windowed(name) and trainer in WINDOWLESS else "")
