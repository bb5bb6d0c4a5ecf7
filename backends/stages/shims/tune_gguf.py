"""A Hugging Face folder, or a LoRA adapter, as one GGUF file.

Names, shapes and the order of rows are those of llama.cpp's convert_hf_to_gguf.py. A model or tokenizer that this does not know is
refused by name: a file that loads and replies otherwise would be worse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""model_type -> llama.cpp's name of the architecture."""
KINDS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
BLOCK = 32
"""Columns of a block of the quantized kinds: a row that is no multiple of it stays in 16 bits."""
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}
"""How a text is cut before its bytes are merged -> llama.cpp's name for it."""


def write(folder: Path, file: Path, kind: str) -> None:
    """Write a model as GGUF.

    Raises:
        ValueError: a model or tokenizer of a kind that this does not know.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    family = config.get("model_type")
    if family not in ARCHITECTURES:
        raise ValueError(f"gguf: models of type {family} are not written; {', '.join(ARCHITECTURES)} are")
    writer = gguf.GGUFWriter(str(file), ARCHITECTURES[family])
    _facts(writer, config)
    _tokenizer(writer, folder, config)
    for name, data in _tensors(folder, config):
        _add(writer, name, data, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _facts(writer: Any, config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"gguf: rotary embeddings of type {rope.get('rope_type', rope.get('type'))} are not written")
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_vocab_size(config["vocab_size"])


def _tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    model = whole["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or whole.get("normalizer"):
        raise ValueError("gguf: only byte-level BPE tokenizers without a normalizer are written")
    if not model["merges"]:
        raise ValueError("gguf: the tokenizer has no merges, and llama.cpp loads none without")
    tokens = [f"[unused{number}]" for number in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * config["vocab_size"]
    for text, number in model["vocab"].items():
        tokens[number], kinds[number] = text, gguf.TokenType.NORMAL
    for added in whole.get("added_tokens", ()):
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split(whole.get("pre_tokenizer") or {}))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in model["merges"]])
    _special(writer, folder, tokens)


def _split(pre: dict[str, Any]) -> str:
    """llama.cpp's name of how a text is cut first."""
    parts = pre.get("pretokenizers", [pre])
    last = parts[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        raise ValueError("gguf: only byte-level BPE tokenizers without a prefix space are written")
    if len(parts) == 1 and last.get("use_regex", True):
        return "gpt-2"
    if len(parts) == 2 and parts[0].get("type") == "Split" and parts[0]["pattern"].get("Regex") in SPLITS:  # a split, then bytes
        return SPLITS[parts[0]["pattern"]["Regex"]]
    raise ValueError("gguf: this tokenizer cuts texts in a way that has no name in llama.cpp")


def _special(writer: Any, folder: Path, tokens: list[str]) -> None:
    """Tokens with a meaning, and the chat template, as transformers reads them."""
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds, and refusals come before it

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("bos", "eos", "pad", "unk"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None and number < len(tokens):
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All weights in llama.cpp's names, as float32, one by one."""
    from safetensors import safe_open  # noqa: PLC0415  # with torch

    names, groups = _names(config), _groups(config)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no mapping
                if config.get("tie_word_embeddings") and name == "lm_head.weight":
                    continue
                theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if theirs is None:
                    raise ValueError(f"gguf: {name} has no name in llama.cpp")
                data = opened.get_tensor(name).float().numpy()
                layer = name.split(".")[-2]
                if layer in groups:
                    data = permuted(data, groups[layer])
                yield theirs, data


def write_adapter(base: Path, adapter: Path, file: Path) -> None:
    """Write a LoRA adapter in PEFT form as GGUF, to be loaded beside its start model; `convert_lora_to_gguf.py` is llama.cpp's own.

    Raises:
        ValueError: an adapter, or a start model, of a kind that llama.cpp or this does not know.
    """
    config = json.loads((base / "config.json").read_text("utf-8"))
    settings = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    family = config.get("model_type")
    if family not in ARCHITECTURES:
        raise ValueError(f"gguf: adapters of models of type {family} are not written; {', '.join(ARCHITECTURES)} are")
    if odd := [name for name in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if settings.get(name)]:
        raise ValueError(f"gguf: llama.cpp has plain LoRA of one rank and alpha alone; this adapter has {', '.join(odd)}")
    rank, alpha = settings["r"], float(settings["lora_alpha"])
    writer = gguf.GGUFWriter(str(file), ARCHITECTURES[family])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp scales by alpha / rank
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha * rank**0.5 if settings.get("use_rslora") else alpha)
    for name, data in _adapter_tensors(adapter, config):
        writer.add_tensor(name, np.ascontiguousarray(data, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _adapter_tensors(adapter: Path, config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A and B of each layer in llama.cpp's names; rows of B are ordered as the weight's are."""
    from safetensors import safe_open  # noqa: PLC0415

    names, groups = _names(config), _groups(config)
    with safe_open(adapter / "adapter_model.safetensors", "pt") as opened:
        for name in opened.keys():  # noqa: SIM118  # it is no mapping
            weight, dot, side = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
            theirs = names.get_name(f"{weight}.weight", try_suffixes=(".weight",))
            if not dot or side not in ("lora_A", "lora_B") or theirs is None or "embed" in theirs:
                raise ValueError(f"gguf: {name} has no name in llama.cpp's adapters")
            data = opened.get_tensor(name).float().numpy()
            layer = weight.split(".")[-1]
            if side == "lora_B" and layer in groups:
                data = permuted(data, groups[layer])
            yield f"{theirs}.{side.lower()}", data


def _names(config: dict[str, Any]) -> Any:
    """Hugging Face's names of weights -> llama.cpp's."""
    architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES[config["model_type"]].upper())
    return gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])


def _groups(config: dict[str, Any]) -> dict[str, int]:
    """Layers whose rows llama.cpp wants in another order -> their heads."""
    heads = config["num_attention_heads"]
    known = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    return known if ARCHITECTURES[config["model_type"]] == "llama" else {}


def permuted(data: Any, heads: int) -> Any:
    """Rows of q and k as llama.cpp's rotary embedding takes them: pairs side by side, instead of halves.

    `LlamaModel.permute` of convert_hf_to_gguf.py.
    """
    return data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def _add(writer: Any, name: str, data: Any, kind: str) -> None:
    """A matrix in the kind that is wanted; vectors stay in float32, as llama.cpp wants them."""
    types = gguf.GGMLQuantizationType
    wanted = types.F32 if data.ndim < 2 else types[KINDS[kind]]  # a matrix has two dimensions
    if kind.startswith("q") and data.ndim > 1 and data.shape[-1] % BLOCK:
        wanted = types.F16
    if wanted == types.F32:
        writer.add_tensor(name, np.ascontiguousarray(data, np.float32))
    elif wanted == types.F16:
        writer.add_tensor(name, np.ascontiguousarray(data, np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(data, np.float32), wanted), raw_dtype=wanted)
