"""LLaMA-Factory asked for its config keys and its defaults. Runs where its package and transformers are unpacked, by
`backends/upstream/generate_keys.py` and `generate_defaults.py`, which print `keys.txt` and `defaults.txt`.

Both are read as source and nothing of them is imported: no job is run with it, so no environment holds what it needs.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from backends.upstream.introspection import FREE, Found

FILES = {
    "llamafactory": tuple(f"hparams/{name}_args.py" for name in ("model", "data", "training", "finetuning", "generating")),
    "transformers": ("training_args.py", "training_args_seq2seq.py"),
}
"""Package -> the modules whose dataclasses are the arguments of `llamafactory-cli train` (hparams/parser.py)."""

CONSTANTS = "extras/constants.py"
"""The module of LLaMA-Factory's enumerations, which some defaults name."""

UNREAD = "EvaluationArguments"
"""A class beside them that the command does not take."""


def _tree(package: str, file: str) -> ast.Module:
    spec = importlib.util.find_spec(package)
    (home,) = (spec and spec.submodule_search_locations) or ("",)
    return ast.parse((Path(home) / file).read_text("utf-8"))


def _assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    """Plain names of a class or module -> what they stand for."""
    found = [each for each in body if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)]
    return {target.id: each.value for each in found if isinstance(target := each.targets[0], ast.Name)}


def _constants() -> dict[str, object]:
    """`Enumeration.MEMBER` -> value."""
    found: dict[str, object] = {}
    for each in _tree("llamafactory", CONSTANTS).body:
        if isinstance(each, ast.ClassDef):
            for name, node in _assigned(each.body).items():
                with contextlib.suppress(ValueError):
                    found[f"{each.name}.{name}"] = ast.literal_eval(node)
    return found


def _fields() -> Iterator[tuple[str, ast.expr | None, dict[str, object], bool]]:
    """Argument, its default as source, what names may stand in that, and whether anything may stand below it."""
    constants = _constants()
    for package, files in FILES.items():
        for file in files:
            for made in (each for each in _tree(package, file).body if isinstance(each, ast.ClassDef) and each.name != UNREAD):
                own = _assigned(made.body)
                named: dict[str, object] = {**constants, "default_optim": "adamw_torch_fused"}
                free = ast.literal_eval(own["_VALID_DICT_FIELDS"]) if "_VALID_DICT_FIELDS" in own else []
                for each in made.body:
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                        name, value = each.target.id, each.value
                        words = {word.arg: word.value for word in getattr(value, "keywords", [])}
                        if "init" not in words:
                            below = name in free or "dict" in ast.unparse(each.annotation)
                            yield name, words.get("default", None if words else value), named, below


def keys() -> set[str]:
    """Arguments of the command, and of `dataset_info.json` those of each data set."""
    known = {f"dataset_info{FREE}"}
    for name, _, _, below in _fields():
        known |= {name, *((f"{name}{FREE}",) if below else ())}
    return known


def defaults() -> Found:
    """Of all arguments; of a class that is derived, its own."""
    for name, node, named, _ in _fields():
        if node is None:
            continue
        try:
            yield name, named[text] if (text := ast.unparse(node)) in named else ast.literal_eval(node)
        except ValueError:
            continue
