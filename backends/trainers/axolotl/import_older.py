"""axolotl's older spellings, as the pinned release says them. Part of dialect.py.

What a release still takes under an old name (src/axolotl/utils/schemas/deprecated.py, validation.py, config.py at the pinned tag) and
what earlier ones called it (their README and docs/config.qmd, 0.1 to 0.16).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from backends.mapping.rows import Flat, Value
from backends.trainers.axolotl.release import NEXT
from backends.upstream.defaults import Defaults

RENAMED = {
    "dpo_beta": "rl_beta",
    "evaluation_strategy": "eval_strategy",
    "noisy_embedding_alpha": "neftune_noise_alpha",
    "sequence_parallel_degree": "context_parallel_size",
    "dataset_processes": "dataset_num_proc",
    "pretrain_multipack_buffer_size": "streaming_multipack_buffer_size",
    "model_revision": "revision_of_model",
}
"""Old name -> the key of today, with the same values."""

ATTENTION = {
    "xformers_attention": "xformers",
    "sage_attention": "sage",
    "flex_attention": "flex_attention",
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}
"""Switch of older releases -> word of attn_implementation, the one that wins first (schemas/enums.py)."""

REMOVED = {
    "max_packed_sequence_len": "an old form of sample_packing, with a length of its own",
    "rope_scaling": "belongs below overrides_of_model_config",
    "s2_attention": "shifted sparse attention, which axolotl has no longer",
    "flash_attn_rms_norm": "a fused norm, which axolotl has no longer",
    "dpo_use_logits_to_keep": "TRL has it no longer",
    "dpo_generate_during_eval": "TRL has it no longer",
    "dpo_norm_loss": "TRL has it no longer",
    "rpo_alpha": "a second term of DPO's loss, which TRL takes as several loss types",
    "unsloth_*": "kernels of Unsloth's, in whose place axolotl has its lora_*_kernel",
}
"""Key that the pinned release refuses -> what it was. Such a key is told, and never carried."""


NEWER = {
    "export*": "axolotl 0.21 has it: the form of the exported model, which here is after.export",
    "diffusion_lm*": "axolotl 0.21 has it: training by denoising instead of next tokens",
    "use_dft": "axolotl 0.21 has it: weighs the loss of each token by its probability",
    "mixlora_*": "axolotl 0.21 has it: several adapters with a router",
    "balance_labels": "axolotl 0.21 has it: batches with as many of each label",
    "label_balance_*": "axolotl 0.21 has it: batches with as many of each label",
    "nf4_backend": "axolotl 0.21 has it: whose kernels compute with 4 bits",
    "nvfp4_merge_aware": "axolotl 0.21 has it: of quantization-aware training",
    "lora_fp32_gradients": "axolotl 0.21 has it: gradients of the adapter in fp32",
    "full_determinism": "axolotl 0.21 has it: kernels that repeat exactly",
    "torch_compile_regional": "axolotl 0.21 has it: compiles block by block; the same result but for rounding",
    "fa_varlen_kwargs_in_collator": "axolotl 0.21 has it: how rows are padded",
    "dpo_ld_alpha": "axolotl 0.21 has it: weighs the end of longer answers",
    "sync_profiler_*": "axolotl 0.21 has it: a profile of the run",
    "logging_nan_inf_filter": "axolotl 0.21 has it: what is printed",
    "*datasets.*.weight": "axolotl 0.21 has it: that share of the rows, drawn once; a recipe takes all of them",
}
"""Pattern of keys -> what a later release does with them (utils/schemas of its wheel beside the pinned one's)."""

RELEASES: dict[str, Flat] = {
    "0.12": {"tf32": None, "max_prompt_len": 512},
    "0.15": {"tf32": None},
    "0.17": {},
    "0.18": {},
    NEXT.short: dict(Defaults.beside(__file__, "defaults-next.txt").table),
}
"""Release -> defaults that are others than the pinned release's (utils/schemas of each); of one that a recipe may ask for, all of them."""


class Today(NamedTuple):
    """Keys as the pinned release spells them."""

    keys: Flat
    lines: dict[str, int]
    notes: list[str]


def today(keys: Flat, lines: dict[str, int]) -> Today:
    """Old names as the new ones. A new key that is there as well wins, and the old one stays, to be told."""
    out, places, notes = dict[str, Value](), dict(lines), list[str]()
    for key, value in keys.items():
        name = RENAMED.get(key, re.sub(r"^fsdp_config\.fsdp_(?!version)", "fsdp_config.", key))
        if name == key or keys.get(name) is not None:
            if out.get(key) is None:
                out[key] = value
            continue
        out[name] = value
        places |= {name: places[key]} if key in places else {}
        notes.append(f"{key} is an older name of {name}")
    _switches(out, places, notes)
    _whole_batch(out, places, notes)
    return Today(out, places, notes)


def _switches(keys: Flat, lines: dict[str, int], notes: list[str]) -> None:
    """`flash_attention: true` and its like as the one word of today; a switch that is off says nothing."""
    on = [switch for switch in ATTENTION if keys.get(switch) is True]
    if not on or keys.get("attn_implementation"):
        return
    keys["attn_implementation"] = ATTENTION[on[0]]
    notes.append(f"{on[0]} is an older way to say attn_implementation: {ATTENTION[on[0]]}")
    lines |= {"attn_implementation": lines[on[0]]} if on[0] in lines else {}
    del keys[on[0]]


def _whole_batch(keys: Flat, lines: dict[str, int], notes: list[str]) -> None:
    """`batch_size` of axolotl 0.1, all sequences of a step on one device, as the accumulation that it stands for."""
    total, micro = keys.get("batch_size"), keys.get("micro_batch_size", 1)
    if keys.get("gradient_accumulation_steps") or not _is_count(total) or not _is_count(micro) or total < micro:
        return
    keys["gradient_accumulation_steps"] = total // micro
    notes.append(f"batch_size = {total} is an older way to say gradient_accumulation_steps: {total // micro}")
    lines |= {"gradient_accumulation_steps": lines["batch_size"]} if "batch_size" in lines else {}
    del keys["batch_size"]


def _is_count(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
