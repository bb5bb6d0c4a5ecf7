"""A small random Llama 3 with its tokenizer, and rows, as torchtune's own data path reads them. Runs in torchtune's environment.

python tiny_torchtune.py FOLDER
"""

import base64
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

SPECIAL = "begin_of_text end_of_text finetune_right_pad_id step_id start_header_id end_header_id eom_id eot_id python_tag image"
SPECIALS = [f"<|{name}|>" for name in SPECIAL.split()]
WIDTH, HEADS, KV, INNER, LAYERS, VOCAB = 32, 4, 2, 64, 2, 256 + len(SPECIALS)


def tokenizer(folder):
    """A byte is a token, in both forms in which Llama 3's vocabulary comes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=letter_order)
    lines = (f"{base64.b64encode(bytes([n])).decode()} {n}\n" for n in range(256))
    (folder / "original").mkdir()
    (folder / "original" / "tokenizer.model").write_text("".join(lines))
    made = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    made.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIALS[0], "eos_token": SPECIALS[7]}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def letter_order(letter):
    """The byte that a letter of the byte-level alphabet stands for: printable ones for themselves, the others from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [n for n in range(256) if n not in plain]
    return ord(letter) if ord(letter) < 256 else others[ord(letter) - 256]


def model(folder):
    """Weights in Hugging Face names, and config.json."""
    draw = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=draw) * 0.05

    out = {"model.embed_tokens.weight": normal(VOCAB, WIDTH), "model.norm.weight": torch.ones(WIDTH)}
    head = WIDTH // HEADS
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        for name, rows in (("q", HEADS * head), ("k", KV * head), ("v", KV * head), ("o", WIDTH)):
            out[f"{at}self_attn.{name}_proj.weight"] = normal(rows, WIDTH)
        for name, size in (("gate", (INNER, WIDTH)), ("up", (INNER, WIDTH)), ("down", (WIDTH, INNER))):
            out[f"{at}mlp.{name}_proj.weight"] = normal(*size)
        out |= {f"{at}{norm}_layernorm.weight": torch.ones(WIDTH) for norm in ("input", "post_attention")}
    save_file(out, folder / "model.safetensors", {"format": "pt"})
    scaling = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
    facts = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "head_dim": head,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {**scaling, "rope_type": "llama3"},
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": 256,
        "eos_token_id": 263,
    }
    (folder / "config.json").write_text(json.dumps(facts))


def main(base):
    """All of it, in a folder."""
    folder = base / "tiny"
    folder.mkdir()
    tokenizer(folder)
    model(folder)
    rows = [{"instruction": f"Count to {n}.", "input": "", "output": " ".join(map(str, range(n)))} for n in range(1, 13)]
    (base / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
