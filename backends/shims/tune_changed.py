"""How far training has moved the weights, counted between the files of the base and the exported ones: no model is loaded.

In bfloat16 a number has 8 bits: an update below half of 1/128 of the weight is rounded away, and a run of thousands of steps can leave
almost all weights as they were while its loss goes up and down (https://arxiv.org/abs/2010.06192, section 3).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tune_shape

if TYPE_CHECKING:
    from collections.abc import Iterable

PIECE = 1 << 16  # elements: what is computed of them stays in a core's cache
FEW = 0.05
"""Share of the weights under which a run in bfloat16 is told that it has hardly trained. Measured: a run of 60 steps of SimPO at
1e-6 changes 0.75 % with weights in bfloat16, and 24.7 % where they are kept in float32.
"""
WORDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
INPUT_OUTPUT = ("embed_tokens.weight", "lm_head.weight")
"""Rows of tokens that no text has never change."""


def note(model: str, out: str, adapter: str = "adapter", told: Iterable[str] = ()) -> None:
    """Write what has changed to summary.json, with words where that is little; where it is nothing, whoever follows the job judges.

    Args:
        model: folder of the base.
        out: folder of the exported weights.
        adapter: folder of the exported adapter, if there is one; then its B is looked at, which begins with zeros, and what was trained
            whole beside it.
        told: what else a person should know of the training.
    """
    found = adapted(Path(adapter), model) if Path(adapter).is_dir() else compared(model, out)
    summary: dict[str, Any] = {}
    details = [*told, *_still(found)]
    if found and found["of"]:
        summary["changed"] = {**found, "share": found["changed"] / found["of"]}
        details += _little(found)
    if details:
        summary["detail"] = "; ".join(details)
        print(f"warning: {summary['detail']}")
    if summary:
        Path("summary.json").write_text(json.dumps(summary))


WHOLE = {"embeddings": "embed_tokens.weight", "head": "lm_head.weight", "norms": "norm.weight"}
"""Word of method.lora.train_fully -> how the names of its weights end."""


def _still(found: dict[str, Any] | None) -> list[str]:
    """Words where modules that were to learn whole beside an adapter are as they were."""
    parts, kind = (found.pop("whole", {}), found.pop("kind", "")) if found else ({}, "")
    still = [word for word, (changed, of) in parts.items() if of and not changed]
    why = ": in bf16 an update that is below 1/256 of its weight is rounded away; use train.precision bf16-mixed, or a higher optim.lr"
    said = f"method.lora.train_fully: none of the weights of {' and '.join(still)} changed"
    return [said + (why if kind == "BF16" else "")] if still else []


def _little(found: dict[str, Any]) -> list[str]:
    """Words where few weights have changed."""
    inner = found.get("inner", 1.0)
    if not found["changed"] or found["dtype"] != "BF16" or inner >= FEW:
        return []
    return [
        f"only {inner:.2%} of the weights changed: in bf16 an update that is below 1/256 of its weight is rounded away; "
        "use train.precision bf16-mixed (fp32 where the trainer has none), or a higher optim.lr"
    ]


def adapted(folder: Path, model: str) -> dict[str, Any] | None:
    """Elements of all B that are not zero, and those of modules beside them that differ from the base's; None where there is no adapter's
    file. `whole` and `kind`: of the latter alone, by their word, and what their numbers are.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return None
    found: dict[str, Any] = {"changed": 0, "of": 0, "dtype": "F32"}
    parts = {name.removeprefix("base_model.model."): each for name, each in stored(file).items()}
    beside = {name for name in parts if ".lora_" not in name}
    before = {name: each for base in _bases(model) for name, each in stored(base).items()} if beside else {}
    counts: dict[str, list[int]] = {}
    for name, (values, kind) in parts.items():
        if ".lora_B" in name:
            count = int(np.count_nonzero(values))
        elif name in before and before[name][0].size == values.size:
            count, found["kind"] = _differing(*before[name], values, kind)[0], kind
            word = next((word for word, end in WHOLE.items() if name.endswith(end)), "")
            counts[word] = [one + other for one, other in zip(counts.get(word, [0, 0]), (count, values.size), strict=True)]
        else:
            continue
        found["changed"] += count
        found["of"] += values.size
    return {**found, "whole": {word: count for word, count in counts.items() if word}}


def _bases(model: str) -> list[Path]:
    """The base's safetensors files; none where it has others."""
    try:
        return tune_shape.weight_files(model)
    except FileNotFoundError:
        return []


def compared(model: str, out: str) -> dict[str, Any] | None:
    """Weights that are in both folders: how many have changed, of how many, and by what share of their norm; None where the base has
    no safetensors files. What was saved in fewer bits is compared with the base in as many.
    """
    before = {name: each for file in _bases(model) for name, each in stored(file).items()}
    if not before:
        return None
    changed = of = inner = inner_of = 0
    moved = whole = 0.0
    dtype = ""
    for file in tune_shape.weight_files(out):
        for name, (values, kind) in stored(file).items():
            if name not in before or before[name][0].size != values.size:
                continue
            count, *norms = _differing(*before[name], values, kind)
            changed, of, moved, whole = changed + count, of + values.size, moved + norms[0], whole + norms[1]
            if not name.endswith(INPUT_OUTPUT):
                inner, inner_of, dtype = inner + count, inner_of + values.size, kind
    by = math.sqrt(moved / whole) if whole and math.isfinite(moved / whole) else None
    return {"changed": changed, "of": of, "inner": inner / inner_of if inner_of else 1.0, "by": by, "dtype": dtype}


def stored(file: Path) -> dict[str, tuple[np.ndarray, str]]:
    """Name -> the numbers of a tensor, flat and on the disk, and their kind; whole numbers are left out.

    https://github.com/huggingface/safetensors/blob/v0.7.0/README.md#format
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    out = {}
    for name, about in header.items():
        if name != "__metadata__" and about["dtype"] in WORDS:
            first, last = about["data_offsets"]
            word = np.dtype(WORDS[about["dtype"]])
            shape = (last - first) // word.itemsize
            values = np.memmap(file, word, "r", 8 + length + first, shape) if shape else np.empty(0, word)
            out[name] = values, about["dtype"]
    return out


def _differing(before: np.ndarray, of_before: str, after: np.ndarray, of_after: str) -> tuple[int, float, float]:
    """How many elements differ, the square of their difference's norm, and that of the norm before."""
    count, moved, whole = 0, 0.0, 0.0
    for start in range(0, after.size, PIECE):
        old, new = before[start : start + PIECE], after[start : start + PIECE]
        one = wide(old, of_before)
        if of_before != of_after:
            one = wide(rounded(one, of_after), of_after)
        whole += float(np.dot(one, one))
        if of_before == of_after and np.array_equal(old, new):
            continue
        with np.errstate(all="ignore"):  # weights of a run that went astray
            apart = wide(new, of_after) - one
        count += int(np.count_nonzero(apart))
        moved += float(np.dot(apart, apart))
    return count, moved, whole


def wide(values: np.ndarray, kind: str) -> np.ndarray:
    """As float32; bfloat16 is its upper half."""
    if kind == "BF16":
        return (values.astype("<u4") << 16).view("<f4")
    return values.astype("<f4")


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """Of float32 to a kind, the nearest, of two the even one."""
    if kind == "BF16":
        bits = values.view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return values.astype(WORDS[kind])
