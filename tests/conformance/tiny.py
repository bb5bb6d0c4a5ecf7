"""Small random models and rows for the conformance tests. `python tiny.py FOLDER`, in an environment with torch.

`python tiny.py FILE.safetensors` fills the B of a LoRA start with noise: zeros would hide that they were put in a wrong place.

FOLDER/llama (untied, two weight files), FOLDER/qwen2 (tied, biases on q, k and v), FOLDER/llama3 (tied, scaled rotary
embedding), FOLDER/data (50 steps of 8 rows, in an order that runs through 160 rows more than twice; 30 rows of eval).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

VOCAB, WIDTH, LAYERS, HEADS, KV, INNER = 211, 64, 2, 4, 2, 96
STEPS, BATCH, ROWS, EVAL = 50, 8, 160, 30


def config(**more):
    """A config.json with all sizes."""
    return {
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "intermediate_size": INNER,
        "max_position_embeddings": 256,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
    }


def weights(facts, draw):
    """Random weights in Hugging Face names; norms and biases random as well, or a mix-up of them would not show."""

    def normal(*size, std=0.05):
        return torch.randn(*size, generator=draw) * std

    head = WIDTH // HEADS
    sizes = {
        "self_attn.q_proj": (HEADS * head, WIDTH),
        "self_attn.k_proj": (KV * head, WIDTH),
        "self_attn.v_proj": (KV * head, WIDTH),
        "self_attn.o_proj": (WIDTH, HEADS * head),
        "mlp.gate_proj": (INNER, WIDTH),
        "mlp.up_proj": (INNER, WIDTH),
        "mlp.down_proj": (WIDTH, INNER),
    }
    made = {"model.embed_tokens.weight": normal(VOCAB, WIDTH), "model.norm.weight": 1 + normal(WIDTH)}
    for n in range(LAYERS):
        layer = f"model.layers.{n}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            made[f"{layer}{norm}.weight"] = 1 + normal(WIDTH)
        for name, size in sizes.items():
            made[f"{layer}{name}.weight"] = normal(*size, std=0.15)
            if facts["model_type"] == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                made[f"{layer}{name}.bias"] = normal(size[0], std=0.2)
    if not facts["tie_word_embeddings"]:
        made["lm_head.weight"] = normal(VOCAB, WIDTH)
    return made


def model(folder, *, shards=1, **more):
    """A Hugging Face folder, its weights dealt out over `shards` files."""
    folder.mkdir(parents=True)
    facts = config(**more)
    made = weights(facts, torch.Generator().manual_seed(7))
    parts = [dict(list(made.items())[n::shards]) for n in range(shards)]
    names = [f"model-{n + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors" for n in range(shards)]
    for name, part in zip(names, parts, strict=True):
        save_file(part, str(folder / name), {"format": "pt"})
    if shards > 1:
        where = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{n}": n for n in range(3, VOCAB)}}
    words = {"type": "WordLevel", "vocab": vocab, "unk_token": "<pad>"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": words}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))


def split(base, rows, draw):
    """Rows of 14 to 60 tokens, each prompt without loss; the text counts upwards, so that there is something to learn."""
    ids, labels, starts = [], [], [0]
    for _ in range(rows):
        length, first, pace = draw.integers(14, 61), draw.integers(3, VOCAB), draw.integers(1, 4)
        row = 3 + (first - 3 + pace * np.arange(length)) % (VOCAB - 3)
        row = np.where(draw.random(length) < 0.1, draw.integers(3, VOCAB, length), row)
        prompt = draw.integers(1, length - 2)
        ids.append(row)
        labels.append(np.where(np.arange(length) < prompt, -100, row))
        starts.append(starts[-1] + length)
    np.save(f"{base}.ids.npy", np.concatenate(ids).astype(np.int32))
    np.save(f"{base}.labels.npy", np.concatenate(labels).astype(np.int32))
    np.save(f"{base}.starts.npy", np.array(starts, dtype=np.int64))


def data(folder):
    """The data step's files."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(3)
    split(folder / "train", ROWS, draw)
    split(folder / "eval", EVAL, draw)
    order = np.concatenate([draw.permutation(ROWS) for _ in range(STEPS * BATCH // ROWS + 1)])[: STEPS * BATCH]
    np.save(folder / "train.order.npy", order.astype(np.int64))
    (folder / "manifest.json").write_text(json.dumps({"steps": STEPS, "batch": BATCH, "pad_id": 0}))


def noise(file):
    """Fill every B of a LoRA start."""
    draw = torch.Generator().manual_seed(11)
    start = load_file(file)
    for name, value in start.items():
        if ".lora_B." in name:
            start[name] = torch.randn(value.shape, generator=draw) * 0.05
    save_file(start, file)


def main(base):
    """Everything under one folder."""
    model(base / "llama", model_type="llama", shards=2, rope_theta=10000.0)
    # A small base: with a large one some biases of k have rounding noise for a gradient, and Adam makes whole steps of it
    model(base / "qwen2", model_type="qwen2", rope_theta=100.0, tie_word_embeddings=True)
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
    model(base / "llama3", model_type="llama", rope_parameters=scaling, tie_word_embeddings=True)
    data(base / "data")


if __name__ == "__main__":
    noise(sys.argv[1]) if sys.argv[1].endswith(".safetensors") else main(Path(sys.argv[1]))
