"""Make the model folder a job starts from: `python tune_model.py model.json [--tokenizer-only]`, run in the job's folder.

The folder is in Hugging Face layout, whatever the trainer; each trainer's own format is made from it later. model.json is

    {"init": "random", "folder": "cache/models/KEY", "seed": 0, "architecture": {...}}      fresh weights, float32
    {"init": "pretrained", "folder": "cache/models/KEY", "id": "org/name", "revision": "main"}    from the Hugging Face hub
    {"init": "folder", "folder": "inputs/model"}                                            the user's own: only checked

With `"tokens": [...], "special_tokens": [...]` the model lies at `"base"` instead, and `folder` links to one that has them (tune_added.py).

A folder is made once, aside and under a lock, and renamed into place; eight processes may start at once. A revision
such as `main` is asked for once: delete the folder to ask again. With --tokenizer-only the configuration and the
tokenizer alone go to the sibling folder `FOLDER-tokenizer`, for a random model without importing torch.

Refusals go to stderr and, as {"reason": WORD, "detail": TEXT}, to reason.json; the exit code is then 1. Words: bad_spec,
bad_model (architecture or folder), no_model (unknown, private or out of reach), gated_model, io_error.
"""
# ruff: noqa: PLC0415 - torch and the hub client take seconds to import, and a folder that is ready needs neither

import json
import os
import sys

from tune_cache import link_or_copy, made_once, remove

SPECIAL = ("<s>", "</s>", "<|pad|>", "<|im_start|>", "<|im_end|>")  # ids 256 to 260; the ids below are the bytes
CHAT_TEMPLATE = (  # ChatML, opened by <s>
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
FAMILIES = {  # the class in transformers, and what its config.json says that others' do not
    "llama": ("LlamaForCausalLM", {"attention_bias": False, "mlp_bias": False}),
    "mistral": ("MistralForCausalLM", {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", {"use_sliding_window": False}),
    "qwen3": ("Qwen3ForCausalLM", {"attention_bias": False, "use_sliding_window": False}),
}
COUNTS = ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_length")
WANTED = (".safetensors", ".json", ".jinja", ".model", "merges.txt", "vocab.txt")


class Refused(Exception):
    """What the user can mend: one word for programs, one text for people."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason


def main(argv):
    """Exit code of the step: 0 made or found ready, 1 refused, 2 wrong words."""
    words = [word for word in argv if word != "--tokenizer-only"]
    if len(words) != 1:
        print("usage: tune_model.py model.json [--tokenizer-only]", file=sys.stderr)
        return 2
    try:
        print(make(read_spec(words[0]), tokenizer_only="--tokenizer-only" in argv))
    except (Refused, OSError) as error:
        reason = error.reason if isinstance(error, Refused) else "io_error"
        with open("reason.json", "w", encoding="utf-8") as file:
            json.dump({"reason": reason, "detail": str(error)}, file)
        print(f"tune_model: {error}", file=sys.stderr)
        return 1
    return 0


def make(spec, tokenizer_only):
    """Do what the spec asks, and say what is there now, first in one line."""
    if "base" not in spec:
        return made(spec, spec["folder"], tokenizer_only)[1]
    import tune_added

    base, said = made(spec, spec["base"], tokenizer_only)
    tokens, special = (spec.get(key) or [] for key in ("tokens", "special_tokens"))
    try:
        notes = tune_added.made(base, tokens, special, spec["folder"], tokenizer_only=tokenizer_only)
    except tune_added.Unfit as error:
        raise Refused("bad_model", str(error)) from None
    for note in notes:
        print(note, file=sys.stderr)
    return said


def made(spec, folder, tokenizer_only):
    """Have the model at a folder, or its tokenizer beside it: where it is, and in one line how it came there."""
    if spec["init"] == "folder":
        check(folder)
        return folder, f"model: {folder}, as given"
    fill = {"random": fill_random, "pretrained": fill_pretrained}[spec["init"]]
    folder += "-tokenizer" * tokenizer_only
    fresh = made_once(folder, lambda aside: fill(spec, aside, tokenizer_only))
    return folder, f"model: {folder}, {'made' if fresh else 'was ready'}"


def read_spec(path):
    """The spec, its words and folder checked; what the architecture holds is checked when it is made."""
    try:
        with open(path, encoding="utf-8") as file:
            spec = json.load(file)
        folder, needed = spec["folder"], {"random": ("architecture",), "pretrained": ("id",), "folder": ()}[spec["init"]]
        missing = [key for key in needed if not spec.get(key)]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("bad_spec", f"{path}: not a model spec: {error!r}") from None
    if missing:
        raise Refused("bad_spec", f"{path}: {missing[0]}: is missing")
    if spec["init"] != "folder" and (os.path.isabs(folder) or ".." in folder.split("/")):
        raise Refused("bad_spec", f"{path}: folder: should lie inside the job's folder, got {folder!r}")
    return spec


# A folder of the user's


def check(folder):
    """Refuse a folder that cannot be trained from, naming all that is missing."""
    if not os.path.isdir(folder):
        raise Refused("bad_model", f"{folder}: no such folder")
    there = set(os.listdir(folder))
    missing = [name for name in ("config.json", "tokenizer.json") if name not in there]
    if not any(name.endswith(".safetensors") for name in there):
        missing.append("*.safetensors")
    missing += sorted(shards(folder) - there)
    if missing:
        raise Refused(
            "bad_model",
            f"{folder}: has no {', '.join(missing)}; a model folder holds config.json, tokenizer.json "
            "and its weights as safetensors (transformers writes all three by save_pretrained)",
        )


def shards(folder):
    """The weight files which the index names; none without an index."""
    path = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(path):
        return set()
    try:
        with open(path, encoding="utf-8") as file:
            return set(json.load(file)["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise Refused("bad_model", f"{path}: not an index of weights: {error!r}") from None


# A model with fresh weights


def fill_random(spec, folder, tokenizer_only):
    """Write configuration, tokenizer and, unless only these are wanted, weights."""
    facts = spec["architecture"]
    if wrong := problems(facts):
        raise Refused("bad_model", "\n".join(f"model.architecture.{line}" for line in wrong))
    for name, content in {**configuration(facts), **tokenizer(facts["max_length"])}.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=2)
    if not tokenizer_only:
        write_weights(facts, spec.get("seed", 0), os.path.join(folder, "model.safetensors"))


def problems(facts):
    """Everything wrong with an architecture block, a line each."""

    def positive(key):
        return type(facts.get(key)) is int and facts[key] > 0

    wrong = [f"{key}: should be a positive integer, got {facts.get(key)!r}" for key in COUNTS if not positive(key)]
    wrong += [
        f"{key}: should be a positive number, got {facts.get(key)!r}"
        for key in ("rope_theta", "norm_eps")
        if type(facts.get(key)) not in (int, float) or facts[key] <= 0
    ]
    if facts.get("family") not in FAMILIES:
        wrong.append(f"family: should be one of {', '.join(FAMILIES)}, got {facts.get('family')!r}")
    if positive("vocab_size") and facts["vocab_size"] < 256 + len(SPECIAL):
        wrong.append(f"vocab_size: should be at least {256 + len(SPECIAL)} (bytes and special tokens), got {facts['vocab_size']}")
    if facts.get("head_dim") is not None and not positive("head_dim"):
        wrong.append(f"head_dim: should be a positive integer or null, got {facts['head_dim']!r}")
    return wrong or shape_problems(facts)


def shape_problems(facts):
    """What does not divide, once every figure alone is right."""
    hidden, heads, kv_heads = facts["hidden_size"], facts["heads"], facts["kv_heads"]
    wrong = []
    if facts.get("head_dim") is None and hidden % heads:
        wrong.append(f"hidden_size: {hidden} is not a multiple of heads, {heads}; give head_dim")
    elif head_dim(facts) % 2:
        wrong.append(f"head_dim: should be even for rotary positions, got {head_dim(facts)}")
    if heads % kv_heads:
        wrong.append(f"kv_heads: {kv_heads} does not divide heads, {heads}")
    return wrong


def head_dim(facts):
    """Width of one attention head."""
    return facts.get("head_dim") or facts["hidden_size"] // facts["heads"]


def configuration(facts):
    """config.json and generation_config.json; generation stops at </s> or at the end of a turn."""
    bos, eos, pad, _, turn_end = range(256, 256 + len(SPECIAL))
    name, own = FAMILIES[facts["family"]]
    config = {
        "architectures": [name],
        "model_type": facts["family"],
        "vocab_size": facts["vocab_size"],
        "hidden_size": facts["hidden_size"],
        "intermediate_size": facts["intermediate_size"],
        "num_hidden_layers": facts["layers"],
        "num_attention_heads": facts["heads"],
        "num_key_value_heads": facts["kv_heads"],
        "head_dim": head_dim(facts),
        "max_position_embeddings": facts["max_length"],
        "rope_theta": facts["rope_theta"],
        "rms_norm_eps": facts["norm_eps"],
        "hidden_act": "silu",
        "tie_word_embeddings": facts.get("tied", False),
        "torch_dtype": "float32",
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
    }
    return {
        "config.json": config | own,
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": [eos, turn_end], "pad_token_id": pad},
    }


def tokenizer(max_length):
    """The files of a tokenizer whose ids 0 to 255 are the bytes: no merges, nothing unknown, every text comes back."""
    bos, eos, pad = SPECIAL[:3]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    opened = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": 256 + n, "content": text, **flags} for n, text in enumerate(SPECIAL)],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": opened,
                "pair": [*opened, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {bos: {"id": bos, "ids": [256], "tokens": [bos]}},
            },
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": {letter: byte for byte, letter in enumerate(alphabet())}, "merges": []},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "pad_token": pad,
            "model_max_length": max_length,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
        "special_tokens_map.json": {"bos_token": bos, "eos_token": eos, "pad_token": pad},
    }


def alphabet():
    """The printable letter that stands for each byte in a byte-level vocabulary.

    A byte that is a visible Latin-1 character stands for itself, the others for U+0100 onwards, in order; this is
    GPT-2's table, which `tokenizers` expects (pre_tokenizers/byte_level.rs, v0.23).
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


def weight_shapes(facts):
    """Each weight's name and shape, in the order in which they are drawn; the order is part of the seed's meaning."""
    hidden, wide, head = facts["hidden_size"], facts["intermediate_size"], head_dim(facts)
    rows = {"q": facts["heads"] * head, "k": facts["kv_heads"] * head, "v": facts["kv_heads"] * head}
    yield "model.embed_tokens.weight", (facts["vocab_size"], hidden)
    for layer in range(facts["layers"]):
        at = f"model.layers.{layer}."
        for letter, size in rows.items():
            yield f"{at}self_attn.{letter}_proj.weight", (size, hidden)
            if facts["family"] == "qwen2":
                yield f"{at}self_attn.{letter}_proj.bias", (size,)
        if facts["family"] == "qwen3":
            yield f"{at}self_attn.q_norm.weight", (head,)
            yield f"{at}self_attn.k_norm.weight", (head,)
        yield f"{at}self_attn.o_proj.weight", (hidden, rows["q"])
        yield f"{at}mlp.gate_proj.weight", (wide, hidden)
        yield f"{at}mlp.up_proj.weight", (wide, hidden)
        yield f"{at}mlp.down_proj.weight", (hidden, wide)
        yield f"{at}input_layernorm.weight", (hidden,)
        yield f"{at}post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not facts.get("tied", False):
        yield "lm_head.weight", (facts["vocab_size"], hidden)


def write_weights(facts, seed, path):
    """Matrices from N(0, 0.02), norms 1, biases 0; one generator, so seed and shapes decide every number."""
    import numpy as np
    from safetensors.numpy import save_file

    draws = np.random.Generator(np.random.PCG64(seed))

    def start(name, shape):
        if name.endswith("norm.weight"):
            return np.ones(shape, np.float32)
        if name.endswith(".bias"):
            return np.zeros(shape, np.float32)
        return draws.standard_normal(shape, np.float32) * np.float32(0.02)

    save_file({name: start(name, shape) for name, shape in weight_shapes(facts)}, path, metadata={"format": "pt"})


# A model of the hub


def fill_pretrained(spec, folder, tokenizer_only):
    """Download what training needs of one commit, noted in `.revision`; HF_TOKEN and HF_HUB_OFFLINE mean what they do.

    Where the hub is out of reach, a snapshot in the user's own Hugging Face cache serves.
    """
    from huggingface_hub import HfApi, snapshot_download

    name, revision = spec["id"], spec.get("revision") or "main"
    try:
        info = from_hub(name, lambda: HfApi().model_info(name, revision=revision))
    except Refused:
        if not copy_cached(name, revision, folder, tokenizer_only):
            raise
    else:
        start_on(folder, info.sha)
        files = wanted([file.rfilename for file in info.siblings], tokenizer_only)
        patterns = [file.replace("[", "[[]") for file in files]
        from_hub(name, lambda: snapshot_download(name, revision=info.sha, local_dir=folder, allow_patterns=patterns))
        if lost := [file for file in files if not os.path.exists(os.path.join(folder, file))]:
            raise Refused("no_model", f"{name}: the download broke off before {', '.join(lost[:9])}: try again")
        remove(os.path.join(folder, ".cache"))
    if not tokenizer_only:
        check(folder)


def wanted(files, tokenizer_only):
    """The files of a repository that training reads: no second copy of the weights, no pickles, no other formats."""
    plain = [file for file in files if "/" not in file and file.endswith(WANTED) and not file.startswith("consolidated")]
    if tokenizer_only:
        return [file for file in plain if not file.endswith(".safetensors")]
    return plain + [file for file in files if file == "original/tokenizer.model"]


def from_hub(name, call):
    """What the call gives; its failures as refusals with the way out."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return call()
    except GatedRepoError:
        raise Refused(
            "gated_model",
            f"{name}: is gated: accept its terms at https://huggingface.co/{name}, then set HF_TOKEN "
            "to a token of that account and name it under `secrets`",
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise Refused(
            "no_model",
            f"{name}: not on the hub, or private: mind the spelling of model.id and model.revision, or "
            f"name HF_TOKEN under `secrets` ({first_line(error)})",
        ) from None
    except Exception as error:  # the client's HTTP library, and so its errors, differ by version
        if getattr(error, "errno", None):  # the disk's, not the hub's
            raise
        raise Refused(
            "no_model",
            f"{name}: the hub is out of reach: give a folder of this machine as model.id, or fill its "
            f"Hugging Face cache beforehand ({first_line(error)})",
        ) from None


def first_line(error):
    """The first line of an error's text, or its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def start_on(folder, commit):
    """Begin this commit's download; a part of it goes on, a part of another commit is thrown away."""
    path = os.path.join(folder, ".revision")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            if file.read() == commit:
                return
    remove(folder)
    os.makedirs(folder)
    with open(path, "w", encoding="utf-8") as file:
        file.write(commit)


def copy_cached(name, revision, folder, tokenizer_only):
    """Take the snapshot from the user's Hugging Face cache, by hard link where possible; False when it is not whole."""
    from huggingface_hub import snapshot_download

    try:
        snapshot = snapshot_download(name, revision=revision, local_files_only=True)
        if not tokenizer_only:
            check(snapshot)
    except Exception:  # no cache, nothing of this model, or a part: the hub's refusal says more
        return False
    start_on(folder, os.path.basename(snapshot))
    for file in wanted(os.listdir(snapshot), tokenizer_only):
        link_or_copy(os.path.realpath(os.path.join(snapshot, file)), os.path.join(folder, file))
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
