"""The start model with tokens of the user's in it: model.tokens and model.special_tokens, the same for every trainer.

The step that makes the model folder ready (tune_model.py) calls this once a host; all trainers then start from one folder in Hugging
Face layout, so that ids and rows are the same everywhere.

Ids      follow the last id of the tokenizer, ordinary tokens first, in the order of the lists. They never take part in what a tokenizer
         does to a text before it splits it (`normalized`: false), so a token is one id wherever it stands in a row.
Rows     of new ids begin as the mean of the rows of all ids before them, in the input embedding and in the head (and its bias) alike:
         summed in float64, rounded to the type of the matrix. A matrix that has rows beyond the tokenizer's ids already, as Qwen's
         has, keeps its size, and those of its rows that become a token's are set to the mean; one that has not grows to the last id.
Known    tokens: one that is in the vocabulary already keeps its id and its row.

What nothing is changed of is a second name of the base's file, or a copy.
"""
# ruff: noqa: PLC0415 - what lies in the cache must be found without waiting for numpy

import json
import os

import tune_shared
from tune_cache import link_or_copy, made_once

CONFIG, TOKENIZER, AROUND = "config.json", "tokenizer.json", "tokenizer_config.json"
INDEX = "model.safetensors.index.json"
ENDS = ("embed_tokens.weight", "embed_in.weight", "word_embeddings.weight", "wte.weight")
"""How the names of input embeddings end."""
HEADS = ("lm_head.weight", "embed_out.weight", "lm_head.bias")
PIECE = 4096
"""Rows of a matrix in memory at a time."""
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


class Unfit(ValueError):
    """Tokens that this model cannot get; the text says why, and the way out."""


def made(base, tokens, special, link, *, tokenizer_only=False):
    """Have the folder made, unless it is in the cache, and `link` point at it.

    Args:
        base: folder of the model as it is.
        tokens: ordinary ones.
        special: special ones.
        link: where the job finds the result.
        tokenizer_only: without weights, for a look at rows.

    Returns:
        What a person should know of it, a line each.

    Raises:
        Unfit: the model cannot get them.
    """
    if not (tokens or special):
        tune_shared.point(link, os.path.realpath(base))
        return []
    key = tune_shared.key("1", tune_shared.identity(base), tokens, special, tokenizer_only)
    place = os.path.join("cache", "start", key)
    made_once(place, lambda aside: write(base, aside, tokens, special, tokenizer_only))
    tune_shared.point(link, os.path.realpath(place))
    return read(place, ".said")


def write(base, place, tokens, special, tokenizer_only):
    """Fill a folder; what is said of it is in `.said`."""
    tokenizer, ids, first = grown(read(base, TOKENIZER), tokens, special)
    fresh = [number for number in ids.values() if number >= first]
    config, before = read(base, CONFIG), None
    files = sorted(name for name in os.listdir(base) if name.endswith((".json", ".jinja", ".model", ".txt", ".safetensors")))
    files = [name for name in files if not (tokenizer_only and ".safetensors" in name)]
    if not tokenizer_only:
        before = sized(base, config, files, first)
        after = max(before, first + len(fresh))
    changed = {TOKENIZER: tokenizer}
    if AROUND in files:
        changed[AROUND] = around(read(base, AROUND), ids, special)
    if "tokenizer.model" in files:
        changed["added_tokens.json"] = (read(base, "added_tokens.json") if "added_tokens.json" in files else {}) | ids
    if before is not None:
        changed[CONFIG] = resized(config, after)
    more = 0
    for name in [each for each in files if each not in changed]:
        grew = rewritten(base, place, name, before, after, first, fresh) if name.endswith(".safetensors") else None
        more += grew or 0
        if grew is None:
            link_or_copy(os.path.realpath(os.path.join(base, name)), os.path.join(place, name))
    if more and INDEX in files:
        index = read(base, INDEX)
        changed[INDEX] = {**index, "metadata": {**(index.get("metadata") or {}), "total_size": total(index) + more}}
    for name, content in changed.items():
        save(place, name, content)
    proved(place, ids)
    save(place, ".said", notes(ids, first, before, fresh))


def read(folder, name):
    """The JSON in a file."""
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)


def save(folder, name, content):
    """Write JSON; a file that has another name, too, is left alone under that."""
    path = os.path.join(folder, name)
    if os.path.lexists(path):
        os.remove(path)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)


# The tokenizer


def grown(tokenizer, tokens, special):
    """tokenizer.json with the tokens, the id of each, and the first id that was free.

    Raises:
        Unfit: one is there as a token of the other kind.
    """
    added, vocab = list(tokenizer.get("added_tokens") or []), vocabulary(tokenizer)
    known, ids = {one["content"]: one for one in added}, {}
    first = max([len(vocab), *(one["id"] + 1 for one in added)])  # as tokenizers counts: src/tokenizer/added_vocabulary.rs
    following = first
    for text, is_special in [*((one, False) for one in tokens), *((one, True) for one in special)]:
        if text in known:
            if known[text]["special"] is not is_special:
                kind, where = ("a special", "special_") if known[text]["special"] else ("an ordinary", "")
                raise Unfit(f"{text!r} is {kind} token of this model already: leave it out, or put it under model.{where}tokens")
            ids[text] = known[text]["id"]
            continue
        ids[text] = vocab.get(text, following)
        following += ids[text] == following
        added.append({"id": ids[text], "content": text, **FLAGS, "special": is_special})
    return {**tokenizer, "added_tokens": sorted(added, key=lambda one: one["id"])}, ids, first


def vocabulary(tokenizer):
    """Text -> id of what the tokenizer's model knows by itself."""
    vocab = tokenizer["model"].get("vocab", {})
    return vocab if isinstance(vocab, dict) else {piece: number for number, (piece, _) in enumerate(vocab)}


def around(config, ids, special):
    """tokenizer_config.json, which may list tokens once more."""
    if "added_tokens_decoder" not in config:
        return config
    more = {str(number): {"content": text, **FLAGS, "special": text in special} for text, number in ids.items()}
    return {**config, "added_tokens_decoder": {**more, **config["added_tokens_decoder"]}}


def proved(place, ids):
    """Each token is one id, wherever it stands.

    Raises:
        Unfit: one is not.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(place, TOKENIZER))
    for text, number in ids.items():
        for row in (text, f"a{text}b"):
            if tokenizer.encode(row, add_special_tokens=False).ids.count(number) != 1:
                raise Unfit(
                    f"model.tokens: {text!r} is not one token of this tokenizer, as another takes a part of it: leave it out"
                )


# The matrices


def resized(config, rows):
    """config.json with as many ids; a model that sees has those of its language model apart."""
    inner = {"text_config": {**config["text_config"], "vocab_size": rows}} if "text_config" in config else {}
    return {**config, **({"vocab_size": rows} if "vocab_size" in config or not inner else {}), **inner}


def matrices(path):
    """(name, what the header says) of the embeddings and heads in a safetensors file; then all of the header, and where data begin."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: about for name, about in header.items() if name.endswith((*ENDS, *HEADS))}, header, 8 + length


def sized(base, config, files, first):
    """Rows of the embedding as they are.

    Raises:
        Unfit: there is none that can grow.
    """
    from tune_changed import WORDS

    rows = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    found = {}
    for name in files:
        if name.endswith(".safetensors"):
            found |= matrices(os.path.join(base, name))[0]
    odd = [name for name, about in found.items() if about["shape"][0] != rows or about["dtype"] not in WORDS]
    if odd or not any(name.endswith(ENDS) for name in found) or "vocab_size_per_layer_input" in json.dumps(config):
        which = (
            f"{odd[0]} has not the {rows} rows that config.json says" if odd else "no input embedding that could be made longer"
        )
        raise Unfit(f"model.tokens: {base}: {which}; add the tokens with transformers, and name that folder as model.id")
    if first > rows:
        raise Unfit(
            f"model.tokens: {base}: the tokenizer has {first} ids, the embedding {rows} rows: this model lacks some already"
        )
    return rows


def rewritten(base, place, name, before, after, first, fresh):
    """A file of weights that holds embeddings or head, written with their new rows: by how many bytes it grew; None where it holds
    neither, and nothing was written.
    """
    source = os.path.join(base, name)
    found, header, start = matrices(source)
    if not found or not fresh:
        return None
    where, sizes = {}, {}
    for one, about in sorted(
        ((k, v) for k, v in header.items() if k != "__metadata__"), key=lambda each: each[1]["data_offsets"]
    ):
        begin, end = about["data_offsets"]
        sizes[one] = (end - begin) // before * after if one in found else end - begin
        at = sum(sizes.values()) - sizes[one]
        shape = [after, *about["shape"][1:]] if one in found else about["shape"]
        where[one] = {**about, "shape": shape, "data_offsets": [at, at + sizes[one]]}
    text = json.dumps({**({"__metadata__": header["__metadata__"]} if "__metadata__" in header else {}), **where}).encode()
    text += b" " * (-len(text) % 8)
    target = os.path.join(place, name)
    if os.path.lexists(target):
        os.remove(target)
    with open(source, "rb") as old, open(target, "wb") as new:
        new.write(len(text).to_bytes(8, "little") + text)
        for one in where:
            begin, end = header[one]["data_offsets"]
            old.seek(start + begin)
            copied(old, new, end - begin)
            new.write(b"\0" * (sizes[one] - (end - begin)))
    for one in found:
        fill(target, 8 + len(text) + where[one]["data_offsets"][0], where[one], first, fresh)
    return sum(sizes.values()) - sum(header[one]["data_offsets"][1] - header[one]["data_offsets"][0] for one in where)


def total(index):
    """Bytes of all weights by an index."""
    return (index.get("metadata") or {}).get("total_size") or 0


def copied(old, new, count):
    """Copy bytes from one open file to another."""
    while count:
        part = old.read(min(count, 1 << 24))
        new.write(part)
        count -= len(part)


def fill(path, place, about, first, fresh):
    """Set the rows of the new ids in a matrix: the mean of those of the ids before them."""
    import numpy as np
    from tune_changed import WORDS, wide

    kind = about["dtype"]
    rows = np.memmap(path, WORDS[kind], "r+", place, tuple(about["shape"]))
    total = np.zeros(rows.shape[1:], np.float64)
    for start in range(0, first, PIECE):
        part = rows[start : min(start + PIECE, first)]
        total += (wide(part, kind) if kind == "BF16" else part).astype(np.float64).sum(axis=0)
    rows[fresh] = narrowed(total / first, kind)
    rows.flush()


def narrowed(values, kind):
    """Numbers of a mean in the type of a matrix; of two as near the even one."""
    import numpy as np
    from tune_changed import WORDS, rounded

    if kind != "BF16":
        return values.astype(WORDS[kind])
    return rounded(np.atleast_1d(values).astype("<f4"), kind).reshape(values.shape)


def notes(ids, first, before, fresh):
    """What a person should know."""
    old = [f"{text} ({number})" for text, number in ids.items() if number < first]
    lines = [f"tokens: {', '.join(old[:9])} in the vocabulary already: their rows stay as they are"] if old else []
    if fresh:
        size = "" if before is None else f"; the embedding has {max(before, first + len(fresh)):,} rows, and had {before:,}"
        lines.append(f"tokens: {len(fresh):,} new, ids {min(fresh)} to {max(fresh)}{size}")
    return lines
