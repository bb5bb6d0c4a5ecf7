"""torchtune's older spellings, as the pinned release says them. Part of dialect.py.

Components moved as torchtune grew (0.1 to 0.6: recipes/configs of each release): `torchtune.utils` became `torchtune.training`.
"""

from __future__ import annotations

from backends.mapping.rows import Flat, Value

_MOVED = {
    "torchtune.utils.": "torchtune.training.",
    "torchtune.modules.get_cosine_schedule_with_warmup": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
    "torchtune.modules.loss.DPOLoss": "torchtune.rlhf.loss.DPOLoss",
    "torchtune.training.profiler": "torchtune.training.setup_torch_profiler",
    "torchao.prototype.low_bit_optim.": "torchao.optim.",
    "torch.optim.adamw.AdamW": "torch.optim.AdamW",
    "torch.optim.sgd.SGD": "torch.optim.SGD",
    "bitsandbytes.optim.adamw.": "bitsandbytes.optim.",
}
"""Beginning of a component's path -> where it is today."""
_RENAMED = {"dataset.max_seq_len": "tokenizer.max_seq_len"}
"""Old name -> the key of today: until 0.2 a data set was told how long its rows may be."""


def today(keys: Flat) -> Flat:
    """Old paths of components and old names as those of today. A new key that is there as well wins, unless it says nothing."""
    out: Flat = {}
    for key, value in keys.items():
        name = _RENAMED.get(key, key)
        other = keys.get(name) if name != key else None
        out[key if other is not None else name] = _place(value) if key.endswith("_component_") else value
    return out


def _place(path: Value) -> Value:
    for _ in range(2 if isinstance(path, str) else 0):
        start = next((old for old in _MOVED if path.startswith(old)), None)
        path = _MOVED[start] + path.removeprefix(start) if start else path
    return path
