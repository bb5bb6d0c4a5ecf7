"""Build twins: `python make.py OUT < DESCRIPTIONS`, in an environment with transformers. DESCRIPTIONS are lines of JSON
(families.py:described) with a `folder` below OUT each.

Weights are random and sharp: logits of tokens differ much, every norm, bias, sink and router is other than where training would
start it. So a trainer that leaves one out, mixes two up, or lacks an operation of the family has another loss.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
FLAGS = {**dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False), "special": True}


def sharp(model, seed):
    """Fill every parameter: matrices by their inputs, so that no layer drowns another."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in sorted(model.named_parameters()):
        noise = torch.randn(value.shape, generator=draw)
        with torch.no_grad():
            if value.ndim == 1:
                value.add_(0.2 * noise)
            elif "embed" in name or name.startswith("lm_head"):
                value.copy_(0.25 * noise)
            else:  # experts are stacked, and transposed in some families
                value.copy_(1.3 * noise / min(value.shape[-2:]) ** 0.5)
    for name, value in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            value.copy_(0.05 * torch.randn(value.shape, generator=draw))


def alphabet():
    """GPT-2's letter for each byte."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


def tokenizer(twin):
    """Files of a tokenizer of bytes with the family's special tokens behind them; `bos` opens a text where the family has one."""
    ids = {text: 256 + n for n, text in enumerate(twin["special"])}
    bos = twin["bos"]
    opened = [{"SpecialToken": {"id": bos, "type_id": 0}}] if bos else []
    texts = [*opened, {"Sequence": {"id": "A", "type_id": 0}}]
    used = {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}} if bos else {}
    pairs = [*texts, {"Sequence": {"id": "B", "type_id": 1}}]
    process = {"type": "TemplateProcessing", "single": texts, "pair": pairs, "special_tokens": used}
    named = {f"{name}_token": twin[name] for name in ("bos", "eos", "pad") if twin[name]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **named, "model_max_length": 512}
    settings |= {"clean_up_tokenization_spaces": False} | ({"chat_template": twin["template"]} if twin["template"] else {})
    model = {"type": "BPE", "vocab": {letter: byte for byte, letter in enumerate(alphabet())}, "merges": []}
    return {
        "tokenizer.json": {
            **{"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "model": model},
            **{"pre_tokenizer": BYTE_LEVEL, "post_processor": process, "decoder": BYTE_LEVEL},
            "added_tokens": [{"id": number, "content": text, **FLAGS} for text, number in ids.items()],
        },
        "tokenizer_config.json": settings,
        "special_tokens_map.json": named,
        "generation_config.json": {
            **{f"{name}_token_id": ids[twin[name]] for name in ("bos", "pad") if twin[name]},
            "eos_token_id": [ids[twin["eos"]], *(ids[text] for text in twin["stops"])],
        },
    }


def make(twin, folder):
    """A twin's folder. Weights are named as the publisher's are; config.json is the publisher's, not as transformers would rewrite it."""
    config = AutoConfig.for_model(**twin["config"])
    config.architectures = None
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    sharp(model, seed=7)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": [type(model).__name__], **twin["config"]}, indent=2))
    for name, content in tokenizer(twin).items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2))


def main(out):
    """All that stdin asks for, each aside first."""
    for line in sys.stdin:
        twin = json.loads(line)
        folder = Path(out, twin["folder"])
        aside = folder.with_name(f"{folder.name}.part")
        aside.mkdir(parents=True, exist_ok=True)
        make(twin, aside)
        aside.rename(folder)
        print(twin["name"], folder, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
