"""tune_added.py: the start model with tokens of the user's in it."""

import json
import shutil
import subprocess

import pytest

from tests.unit.shims.test_tune_model import names

BASE, START = "cache/models/tiny", "start"
LOOKED = """
import json, sys
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
before, after, tokens, special = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:5])
theirs, ours = Tokenizer.from_file(before + "/tokenizer.json"), Tokenizer.from_file(after + "/tokenizer.json")
first = theirs.get_vocab_size()
theirs.add_tokens([AddedToken(each, normalized=False) for each in tokens])
theirs.add_special_tokens([AddedToken(each, normalized=False) for each in special])
rows = [f"a{each}b {each}" for each in tokens + special]
alike = all(theirs.encode(row).ids == ours.encode(row).ids for row in rows) and theirs.get_vocab() == ours.get_vocab()
old, new, last = {}, {}, theirs.get_vocab_size()
from pathlib import Path
for folder, into in ((before, old), (after, new)):
    for file in sorted(Path(folder).glob("*.safetensors")):
        into.update(load_file(file))
ends = [name for name in old if "embed_tokens" in name or "lm_head" in name]
mean = {name: old[name][:first].double().mean(0).float().to(old[name].dtype) for name in ends}
print(json.dumps({
    "alike": alike,
    "skipped": ours.decode(ours.encode("".join(tokens + special), add_special_tokens=False).ids, skip_special_tokens=True),
    "kept": all(torch.equal(old[name], new[name][: len(old[name])] if name not in ends else new[name]) for name in old if name not in ends)
        and all(torch.equal(old[name][:first], new[name][:first]) for name in ends),
    "beyond": all(torch.equal(old[name][last:], new[name][last:]) for name in ends),
    "mean": all(torch.equal(row, mean[name]) for name in ends for row in new[name][first:last]),
    "rows": {name: len(new[name]) for name in ends},
}))
"""
CAST = """
import sys, torch
from safetensors.torch import load_file, save_file
weights = load_file(sys.argv[1])
save_file({name: value.to(getattr(torch, sys.argv[2])) for name, value in weights.items()}, sys.argv[1], {"format": "pt"})
"""


def asked(tiny, tokens=(), special=(), **architecture):
    """The spec of a model with tokens."""
    spec = {**tiny, "folder": START, "base": BASE, "architecture": {**tiny["architecture"], **architecture}}
    return {**spec, "tokens": list(tokens), "special_tokens": list(special)}


def run(job, code, *words):
    """What a program prints, in the environment of a trainer."""
    argv = [job.python, "-c", code, *map(str, words)]
    return subprocess.run(argv, cwd=job.folder, capture_output=True, text=True, check=True).stdout


def looked(job, tokens, special=(), base=BASE):
    """What torch and tokenizers find in the folder."""
    return json.loads(run(job, LOOKED, base, START, json.dumps(list(tokens)), json.dumps(list(special))))


@pytest.mark.parametrize(
    ("kind", "shape", "rows"),
    [
        ("float32", {"vocab_size": 261}, 264),
        ("bfloat16", {"vocab_size": 262, "tied": True}, 264),
        ("float16", {"vocab_size": 300}, 300),
    ],
)
def test_ids_as_tokenizers_has_it_and_rows_at_the_mean(job, tiny, kind, shape, rows):
    """The ids are those of `tokenizers`' own adding; rows of new ids are the mean of those of all ids before, rounded to the type of the
    matrix; every other weight keeps its bits, and config.json says how many rows there are.
    """
    tokens, special = ["<call>", "</call>"], ["<|end|>"]
    spec = asked(tiny, tokens, special, **shape)
    job.run("tune_model", {**tiny, "architecture": spec["architecture"]})
    run(job, CAST, f"{BASE}/model.safetensors", kind)
    process = job.start("tune_model", spec)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert f"tokens: 3 new, ids 261 to 263; the embedding has {rows} rows, and had {shape['vocab_size']}" in err
    found = looked(job, tokens, special)
    heads = 1 if shape.get("tied") else 2
    assert (found["alike"], found["kept"], found["beyond"], found["mean"]) == (True, True, True, True)
    assert list(found["rows"].values()) == [rows] * heads
    assert found["skipped"] == "<call></call>"
    assert json.loads((job.folder / START / "config.json").read_text())["vocab_size"] == rows


def test_known_tokens_keep_id_and_row(job, tiny):
    """A text that the vocabulary has already keeps its id, is told, and nothing grows; one that is there as the other kind is refused."""
    process = job.start("tune_model", asked(tiny, ["A"], ["<|im_end|>"]))
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "tokens: A (65), <|im_end|> (260) in the vocabulary already: their rows stay as they are" in err
    found = looked(job, ["A"], ["<|im_end|>"])
    assert (found["alike"], found["kept"], set(found["rows"].values())) == (True, True, {320})
    said = job.refused("tune_model", asked(tiny, ["<|im_end|>"]))
    assert said == (
        "bad_model",
        "'<|im_end|>' is a special token of this model already: leave it out, or put it under model.special_tokens",
    )


def test_a_folder_in_shards(job, tiny):
    """Of a folder of the user's the files that hold the matrices are written anew, and the index says the new size; the others are the
    user's own by a second name, and the folder itself stays as it is.
    """
    job.run("tune_model", {**tiny, "folder": BASE})
    user = job.folder / "inputs/model"
    shutil.copytree(job.folder / BASE, user)
    code = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
folder = Path(sys.argv[1])
weights = load_file(folder / "model.safetensors")
where = {name: "one.safetensors" if "embed" in name or "head" in name else "two.safetensors" for name in weights}
for file in set(where.values()):
    save_file({name: value for name, value in weights.items() if where[name] == file}, folder / file, {"format": "pt"})
(folder / "model.safetensors").unlink()
size = sum(value.nbytes for value in weights.values())
(folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}))
"""
    run(job, code, user)
    (user / "tokenizer.model").write_text("pieces")
    before = {path.name: path.read_bytes() for path in user.iterdir()}
    tokens = [f"<{n}>" for n in range(70)]
    job.run("tune_model", {"init": "folder", "folder": START, "base": "inputs/model", "tokens": tokens})
    found = looked(job, tokens, base="inputs/model")
    assert (found["alike"], found["kept"], found["mean"], set(found["rows"].values())) == (True, True, True, {331})
    assert {path.name: path.read_bytes() for path in user.iterdir()} == before
    start = job.folder / START
    assert (start / "two.safetensors").stat().st_ino == (user / "two.safetensors").stat().st_ino
    size = json.loads(before["model.safetensors.index.json"])["metadata"]["total_size"]
    index = json.loads((start / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == size + 2 * 11 * 32 * 4
    assert json.loads((start / "added_tokens.json").read_text())["<69>"] == 330


def test_made_once_and_anew_for_other_tokens(job, tiny):
    """The same model and tokens are the same folder of the cache; other tokens are another, and none at all is the model itself."""
    places = []
    for tokens in (["<a>"], ["<a>"], ["<b>"], []):
        job.run("tune_model", asked(tiny, tokens))
        places.append((job.folder / START).resolve())
    assert places[0] == places[1] != places[2]
    assert places[3] == (job.folder / BASE).resolve()
    assert len(list((job.folder / "cache/start").glob("[!.]*"))) == 2


def test_a_look_at_rows_makes_no_weights(job, tiny):
    """With --tokenizer-only the tokens are in the tokenizer, and there are no weights."""
    job.run("tune_model", asked(tiny, ["<call>"]), "--tokenizer-only")
    assert "tokenizer.json" in names(job.folder / START)
    assert not [name for name in names(job.folder / START) if "safetensors" in name]
    assert not (job.folder / BASE).exists()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"vocab_size": 999}, "has not the 999 rows that config.json says"),
        ({"vocab_size_per_layer_input": 320}, "no input embedding that could be made longer"),
    ],
)
def test_a_model_that_cannot_grow(job, tiny, config, says):
    """Matrices that are not as config.json says, and embeddings of each layer, are refused with a way out."""
    job.run("tune_model", {**tiny, "folder": BASE})
    shutil.copytree(job.folder / BASE, job.folder / "inputs/model")
    file = job.folder / "inputs/model/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    spec = {"init": "folder", "folder": START, "base": "inputs/model", "tokens": ["<a>"]}
    word, said = job.refused("tune_model", spec)
    assert word == "bad_model"
    assert says in said
    assert "add the tokens with transformers, and name that folder as model.id" in said


def test_one_token_that_takes_a_part_of_another(job, tiny):
    """A token that is not always found, since another takes a part of it, is refused: a row would not have it as one id."""
    word, said = job.refused("tune_model", asked(tiny, ["<x>", "a<x"]))
    assert (word, said.partition(",")[0]) == ("bad_model", "model.tokens: '<x>' is not one token of this tokenizer")
