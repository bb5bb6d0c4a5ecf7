"""A checkpoint with fewer key and value heads: grouped-query attention out of multi-head attention (https://arxiv.org/abs/2305.13245).

Section 2.1 there: the key and value projections of the heads of a group become their mean; training goes on from it (uptraining, 5 % of
the pre-training's steps in the paper). Files are read and written tensor by tensor, without a model in memory.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from orchestrator.client.errors import ActionFailed, AlreadyExists, InvalidRequest, NotFound

if TYPE_CHECKING:
    import numpy as np  # an extra
    from numpy.typing import NDArray

POOLED = re.compile(r"(?:^|\.)self_attn\.[kv]_proj\.(?:weight|bias)$")
"""Weights that are pooled, as transformers names them."""
KEY_NORM = re.compile(r"\.self_attn\.k_norm\.weight$")
WORDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Kinds of numbers that have a mean -> how NumPy reads them; bfloat16 is the upper half of float32."""
INDEX = "model.safetensors.index.json"


class Converted(NamedTuple):
    """What was written."""

    folder: Path
    heads: int
    """Of queries, as before."""
    kv_heads_before: int
    kv_heads: int
    tensors: int
    """Pooled ones: weights and biases of keys and values."""


class _Tensor(NamedTuple):
    """A tensor of a file, and what becomes of it."""

    name: str
    dtype: str
    shape: list[int]
    first: int
    """Of its bytes in the file."""
    last: int


def convert(model: str | Path, kv_heads: int, out: str | Path) -> Converted:
    """Write a model folder with `kv_heads` heads of keys and values, each the mean of a group of those that were there.

    Args:
        model: folder in Hugging Face layout, weights in safetensors.
        kv_heads: a divisor of the model's.
        out: folder that is made.

    Raises:
        NotFound: there is no such folder, or no weights in it.
        AlreadyExists: `out` is there.
        InvalidRequest: the number does not divide, or the model has no separate projections of keys and values.
        ActionFailed: NumPy is not installed.
    """
    source, target = Path(model).expanduser(), Path(out).expanduser()
    config = _config(source)
    inner = _language(config)
    before = _divided(source, inner, kv_heads)
    if target.exists():
        raise AlreadyExists(str(target), "is there already; nothing was written", argument="out")
    files = {path: list(_tensors(path)) for path in sorted(source.glob("*.safetensors"))}
    pooled = _check(source, [each for some in files.values() for each in some], inner, before)
    _need_numpy()
    aside = target.with_name(f"{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for path, tensors in files.items():
        _write(path, tensors, aside / path.name, before // kv_heads, before)
    _around(source, aside, config, inner, kv_heads)
    aside.replace(target)
    return Converted(target, int(str(inner["num_attention_heads"])), before, kv_heads, pooled)


def _language(config: dict[str, object]) -> dict[str, object]:
    """What says how the language model is built: some configs have it in a section."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _config(source: Path) -> dict[str, object]:
    if not source.is_dir():
        hint = "of a model of the hub, download it first: hf download ORG/NAME --local-dir FOLDER"
        raise NotFound(str(source), "no such folder", hint=hint)
    if not (file := source / "config.json").is_file():
        raise NotFound(str(file), "no such file: a model folder in Hugging Face layout has one")
    config = json.loads(file.read_text("utf-8"))
    if not isinstance(config, dict):
        raise InvalidRequest(str(file), "should be a JSON object")
    if "vision_config" in config:
        raise InvalidRequest(str(file), "has a vision tower, whose heads are others; only language models are converted")
    return config


def _divided(source: Path, config: Mapping[str, object], kv_heads: int) -> int:
    """How many heads of keys and values there are."""
    heads = config.get("num_attention_heads")
    before = config.get("num_key_value_heads") or heads
    if not isinstance(heads, int) or not isinstance(before, int):
        raise InvalidRequest(str(source / "config.json"), "has no num_attention_heads")
    if kv_heads < 1 or before % kv_heads or kv_heads == before:
        fits = ", ".join(str(n) for n in range(1, before) if before % n == 0)
        way = f"should be one of {fits}" if fits else "cannot become fewer: there is one"
        raise InvalidRequest(str(kv_heads), f"{way}; the model has {before} heads of keys and values", argument="kv-heads")
    return before


def _tensors(path: Path) -> Iterator[_Tensor]:
    """Of a safetensors file, by its header: https://github.com/huggingface/safetensors/blob/v0.7.0/README.md#format."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    for name, about in header.items():
        if name != "__metadata__":
            first, last = about["data_offsets"]
            yield _Tensor(name, about["dtype"], about["shape"], 8 + length + first, 8 + length + last)


def _check(source: Path, tensors: list[_Tensor], config: Mapping[str, object], before: int) -> int:
    """How many tensors are pooled.

    Raises:
        NotFound: there are no weights.
        InvalidRequest: keys and values cannot be pooled head by head.
    """
    if not tensors:
        raise NotFound(str(source), "no weights in safetensors in it")
    pooled = [each for each in tensors if POOLED.search(each.name)]
    weights = sum(each.name.endswith("weight") for each in pooled)
    kind = config.get("model_type")
    if weights != 2 * int(str(config.get("num_hidden_layers", 0))):
        why = f"{kind}: {weights} weights self_attn.k_proj and v_proj; fused or latent projections are not converted"
        raise InvalidRequest(str(source), why)
    for each in pooled:
        if each.dtype not in WORDS or each.shape[0] % before:
            why = f"{each.name} is {each.dtype} {each.shape}: should be floating point, a multiple of {before} heads"
            raise InvalidRequest(str(source), why)
    width = pooled[0].shape[0]
    if norm := next((each for each in tensors if KEY_NORM.search(each.name) and each.shape[0] == width), None):
        why = f"{kind}: {norm.name} is over all heads together, and has no mean that is a norm of fewer"
        raise InvalidRequest(str(source), why)
    return len(pooled)


def _need_numpy() -> None:
    try:
        import numpy  # noqa: F401, PLC0415  # an extra, and heavy
    except ImportError as error:
        raise ActionFailed("tune convert", f"needs NumPy ({error})", hint="pip install 'tunesmith[convert]'") from None


def _write(source: Path, tensors: list[_Tensor], target: Path, group: int, before: int) -> None:
    """A file's tensors in their order, the pooled ones smaller."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for each in tensors:
        size, shape = each.last - each.first, each.shape
        if POOLED.search(each.name):
            size, shape = size // group, [shape[0] // group, *shape[1:]]
        header[each.name] = {"dtype": each.dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as old, target.open("wb") as new:
        new.write(struct.pack("<Q", len(text)) + text)
        for each in tensors:
            old.seek(each.first)
            if POOLED.search(each.name):
                new.write(_mean(old.read(each.last - each.first), each, group, before))
            else:
                _copy(old, new, each.last - each.first)


def _copy(old: BinaryIO, new: BinaryIO, size: int) -> None:
    """In pieces: an embedding has gigabytes."""
    while size and (piece := old.read(min(size, 1 << 24))):
        new.write(piece)
        size -= len(piece)


def _mean(data: bytes, tensor: _Tensor, group: int, before: int) -> bytes:
    """Heads that follow one another are a group, as queries share them (transformers' `repeat_kv`); their mean in float64, so that equal
    heads come out as they were.
    """
    import numpy as np  # noqa: PLC0415

    numbers = np.frombuffer(data, WORDS[tensor.dtype])
    if tensor.dtype == "BF16":
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    heads = numbers.reshape(before // group, group, -1).astype(np.float64)
    return _stored(heads.mean(axis=1), tensor.dtype)


def _stored(values: NDArray[np.float64], dtype: str) -> bytes:
    """To the nearest number of a kind, of two the even one."""
    if dtype != "BF16":
        return bytes(values.astype(WORDS[dtype]).data)
    bits = values.astype("<f4").view("<u4")
    return bytes(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").data)


def _around(source: Path, aside: Path, config: Mapping[str, object], inner: dict[str, object], kv_heads: int) -> None:
    """config.json with the new number, the index with the new size, and all else as it is."""
    for path in source.iterdir():
        if path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt") and path.name not in ("config.json", INDEX):
            shutil.copyfile(path, aside / path.name)
    inner["num_key_value_heads"] = kv_heads
    (aside / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    if (source / INDEX).is_file():
        index = json.loads((source / INDEX).read_text("utf-8"))
        size = sum(each.last - each.first for path in aside.glob("*.safetensors") for each in _tensors(path))
        index["metadata"] = {**index.get("metadata", {}), "total_size": size}
        (aside / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
