"""tune_model.py: the folder a job starts from."""

import json
import struct
from array import array

import pytest

FILES = {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"}
COMMIT = "c0ffee" * 6 + "c0ff"
REPOSITORY = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "model.safetensors": b"weights",
    "chat_template.jinja": b"x",
    "original/tokenizer.model": b"t",
    "merges.txt": b"m",
    "consolidated.safetensors": b"twice",
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
    "README.md": b"read",
    "model.gguf": b"g",
    "onnx/model.safetensors": b"o",
    "original/params.json": b"{}",
}


def tensors(folder):
    """Name -> (dtype, shape, values) of a safetensors file."""
    raw = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"}
    places = {name: slice(*(8 + size + at for at in one["data_offsets"])) for name, one in header.items()}
    return {name: (one["dtype"], tuple(one["shape"]), array("f", raw[places[name]])) for name, one in header.items()}


def names(folder):
    """Files of a folder, hidden ones aside."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}


def test_random_weights(job, tiny):
    """A random llama has every weight of its shape in float32: matrices from N(0, 0.02), norms 1."""
    job.run("tune_model", tiny)
    found = tensors(job.folder / "cache/models/tiny")
    assert len(found) == 3 + 2 * 9
    assert {dtype for dtype, _, _ in found.values()} == {"F32"}
    assert found["lm_head.weight"][1] == found["model.embed_tokens.weight"][1] == (320, 32)
    assert found["model.layers.1.self_attn.k_proj.weight"][1] == (16, 32)
    assert found["model.layers.1.mlp.down_proj.weight"][1] == (32, 48)
    assert set(found["model.norm.weight"][2]) == {1.0}
    values = found["model.embed_tokens.weight"][2]
    assert abs(sum(values) / len(values)) < 0.001
    assert abs((sum(value * value for value in values) / len(values)) ** 0.5 - 0.02) < 0.0005


def test_random_qwen2_tied(job, tiny):
    """A tied qwen2 has biases 0 on query, key and value, and no output matrix."""
    tiny["architecture"] |= {"family": "qwen2", "tied": True, "head_dim": 10}
    job.run("tune_model", tiny)
    found = tensors(job.folder / "cache/models/tiny")
    assert "lm_head.weight" not in found
    biases = {name: one for name, one in found.items() if name.endswith(".bias")}
    assert len(biases) == 2 * 3
    assert all(set(values) == {0.0} for _, _, values in biases.values())
    assert biases["model.layers.0.self_attn.q_proj.bias"][1] == (40,)
    config = json.loads((job.folder / "cache/models/tiny/config.json").read_text())
    assert (config["architectures"], config["tie_word_embeddings"], config["head_dim"]) == (["Qwen2ForCausalLM"], True, 10)


def test_random_qwen3(job, tiny):
    """A qwen3 has a norm for the queries and one for the keys of each layer, as wide as a head, and no biases."""
    tiny["architecture"] |= {"family": "qwen3", "head_dim": 12}
    job.run("tune_model", tiny)
    found = tensors(job.folder / "cache/models/tiny")
    assert len(found) == 3 + 2 * 11
    assert not any(name.endswith(".bias") for name in found)
    for name in ("q_norm", "k_norm"):
        assert found[f"model.layers.1.self_attn.{name}.weight"][1:] == ((12,), array("f", [1.0] * 12))


def test_families_differ_only_where_they_do(job, tiny):
    """The same seed draws the same matrices for every family: norms and biases draw nothing."""
    made = {}
    for family in ("llama", "mistral", "qwen2", "qwen3"):
        tiny["architecture"]["family"] = family
        job.run("tune_model", tiny | {"folder": f"cache/models/{family}"})
        made[family] = tensors(job.folder / f"cache/models/{family}")
        config = json.loads((job.folder / f"cache/models/{family}/config.json").read_text())
        assert (config["model_type"], config["architectures"]) == (family, [f"{family.capitalize()}ForCausalLM"])
    for family, found in made.items():
        assert {name: found[name] for name in made["llama"]} == made["llama"], family


def test_seed_decides_the_weights(job, tiny):
    """The same seed gives the same bytes, another seed others."""
    made = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        job.run("tune_model", tiny | {"folder": f"cache/models/{name}", "seed": seed})
        made[name] = (job.folder / f"cache/models/{name}/model.safetensors").read_bytes()
    assert made["a"] == made["b"] != made["c"]


def test_tokenizer_only_needs_no_torch(job, tiny, light):
    """--tokenizer-only makes the sibling folder with the standard library alone, and the same files as the whole model."""
    assert job.run("tune_model", tiny, "--tokenizer-only", **light) == "model: cache/models/tiny-tokenizer, made\n"
    job.run("tune_model", tiny)
    folder = job.folder / "cache/models"
    assert names(folder / "tiny-tokenizer") == FILES
    assert names(folder / "tiny") == FILES | {"model.safetensors"}
    assert all((folder / "tiny" / name).read_bytes() == (folder / "tiny-tokenizer" / name).read_bytes() for name in FILES)


def test_ready_folder_costs_nothing(job, tiny, light):
    """A folder that is ready is found without any heavy library, and is not made again."""
    assert job.run("tune_model", tiny) == "model: cache/models/tiny, made\n"
    assert job.run("tune_model", tiny, **light) == "model: cache/models/tiny, was ready\n"


def test_eight_at_once_make_one(job, tiny):
    """Of eight that start at once one makes the folder, and all find it whole."""
    started = [job.start("tune_model", tiny, "--tokenizer-only") for _ in range(8)]
    said = sorted(process.communicate()[0] for process in started)
    assert [process.returncode for process in started] == [0] * 8
    assert said == ["model: cache/models/tiny-tokenizer, made\n"] + ["model: cache/models/tiny-tokenizer, was ready\n"] * 7


def test_a_half_made_folder_is_not_taken(job, tiny):
    """What a killed run left, aside or in place but never ready, is made anew."""
    for name in (".tiny-tokenizer.part", "tiny-tokenizer"):
        (job.folder / "cache/models" / name).mkdir(parents=True)
        (job.folder / "cache/models" / name / "config.json").write_text("{half")
    job.run("tune_model", tiny, "--tokenizer-only")
    assert json.loads((job.folder / "cache/models/tiny-tokenizer/config.json").read_text())["vocab_size"] == 320


def test_every_problem_of_an_architecture_at_once(job, tiny):
    """Wrong figures are all named together, by path, rule and value."""
    tiny["architecture"] |= {"family": "gpt", "layers": 0, "vocab_size": 260, "norm_eps": "x", "head_dim": -2}
    reason, detail = job.refused("tune_model", tiny)
    assert reason == "bad_model"
    assert detail.splitlines() == [
        "model.architecture.layers: should be a positive integer, got 0",
        "model.architecture.norm_eps: should be a positive number, got 'x'",
        "model.architecture.family: should be one of llama, mistral, qwen2, qwen3, got 'gpt'",
        "model.architecture.vocab_size: should be at least 261 (bytes and special tokens), got 260",
        "model.architecture.head_dim: should be a positive integer or null, got -2",
    ]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"heads": 3, "kv_heads": 3}, "32 is not a multiple of heads"),
        ({"kv_heads": 3}, "3 does not divide heads"),
        ({"head_dim": 7}, "should be even"),
    ],
)
def test_shapes_that_do_not_divide(job, tiny, change, rule):
    """Heads that do not fit are refused before anything is written."""
    tiny["architecture"] |= change
    reason, detail = job.refused("tune_model", tiny)
    assert reason == "bad_model"
    assert rule in detail
    assert not (job.folder / "cache/models/tiny").exists()


@pytest.mark.parametrize(
    "spec",
    [
        {"init": "random", "folder": "../outside", "architecture": {}},
        {"init": "random", "folder": "/tmp/outside", "architecture": {"vocab_size": 1}},
        {"init": "magic", "folder": "cache/x"},
        {"init": "pretrained", "folder": "cache/x"},
        {"folder": "cache/x"},
        [],
    ],
)
def test_bad_specs(job, spec):
    """A spec that says nothing sensible, or leads outside the job's folder, is refused as such."""
    assert job.refused("tune_model", spec)[0] == "bad_spec"


def test_the_tokenizer_is_bytes(job, tiny):
    """Ids below 256 are the bytes, special tokens come from 256 on, and <s> opens every text."""
    job.run("tune_model", tiny, "--tokenizer-only")
    raw = json.loads((job.folder / "cache/models/tiny-tokenizer/tokenizer.json").read_text())
    assert sorted(raw["model"]["vocab"].values()) == list(range(256))
    assert [token["content"] for token in raw["added_tokens"]] == ["<s>", "</s>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    job.write("t.jsonl", [{"text": "naïve ☃ 😀\x00\n"}])
    spec = {
        "train": {"path": "t.jsonl"},
        "format": "text",
        "max_length": 99,
        "batch": 1,
        "epochs": 1,
        "tokenizer": "cache/models/tiny-tokenizer",
    }
    job.run("tune_data", spec)
    assert job.data().ids == [[256, *"naïve ☃ 😀\x00\n".encode(), 257]]


def test_a_folder_of_the_users(job, tiny, light):
    """A given folder is only looked at; what is missing is named, shards of an index too."""
    job.run("tune_model", tiny)
    given = job.folder / "cache/models/tiny"
    spec = {"init": "folder", "folder": str(given)}
    assert job.run("tune_model", spec, **light) == f"model: {given}, as given\n"
    (given / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    (given / "tokenizer.json").unlink()
    reason, detail = job.refused("tune_model", spec)
    assert reason == "bad_model"
    assert f"{given}: has no tokenizer.json, model-1.safetensors;" in detail
    assert job.refused("tune_model", spec | {"folder": "nowhere"}) == ("bad_model", "nowhere: no such folder")


def pretrained(name="org/good"):
    """The spec of a hub model."""
    return {"init": "pretrained", "id": name, "revision": "main", "folder": "cache/models/hub"}


def test_download_takes_what_training_needs(job, hub):
    """Of a repository come configuration, tokenizer and safetensors, once; the commit is noted; then no network is needed."""
    hub.repositories["org/good"] = REPOSITORY
    job.run("tune_model", pretrained(), **hub.env)
    folder = job.folder / "cache/models/hub"
    assert names(folder) == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "chat_template.jinja",
        "original/tokenizer.model",
        "merges.txt",
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / ".revision").read_text() == COMMIT
    asked = len(hub.asked)
    assert job.run("tune_model", pretrained(), **hub.env) == "model: cache/models/hub, was ready\n"
    assert len(hub.asked) == asked


def test_download_of_the_tokenizer(job, hub):
    """--tokenizer-only leaves the weights on the hub."""
    hub.repositories["org/good"] = REPOSITORY
    job.run("tune_model", pretrained(), "--tokenizer-only", **hub.env)
    assert names(job.folder / "cache/models/hub-tokenizer") == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "merges.txt",
    }
    assert not any("safetensors" in path for path in hub.asked)


def test_gated_models(job, hub):
    """A gated model without a token tells where to accept and what to set; with the token it comes."""
    hub.repositories["org/gated"] = REPOSITORY
    reason, detail = job.refused("tune_model", pretrained("org/gated"), **hub.env)
    assert reason == "gated_model"
    assert "https://huggingface.co/org/gated" in detail
    assert "HF_TOKEN" in detail
    job.run("tune_model", pretrained("org/gated"), **hub.env, HF_TOKEN="hf_good")
    assert not any(b"hf_good" in path.read_bytes() for path in job.folder.rglob("*") if path.is_file())


def test_models_that_are_not_there(job, hub):
    """An unknown id, an id that is none, a hub out of reach and weights in another format each have their word."""
    hub.repositories["org/pickles"] = {"config.json": b"{}", "pytorch_model.bin": b"p"}
    assert job.refused("tune_model", pretrained("org/unknown"), **hub.env)[0] == "no_model"
    assert job.refused("tune_model", pretrained("no id/at all/this"), **hub.env)[0] == "no_model"
    assert job.refused("tune_model", pretrained())[0] == "no_model"
    assert job.refused("tune_model", pretrained("org/pickles"), **hub.env)[0] == "bad_model"


def test_the_users_hub_cache_serves_offline(job, hub):
    """Without network a snapshot in the Hugging Face cache is taken; a part of one is not."""
    snapshot = job.folder / "hf/hub/models--org--good/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (job.folder / "hf/hub/models--org--good/refs").mkdir()
    (job.folder / "hf/hub/models--org--good/refs/main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    assert job.refused("tune_model", pretrained())[0] == "no_model"
    (snapshot / "tokenizer.json").write_text("{}")
    (snapshot / "model.safetensors").write_text("weights")
    job.run("tune_model", pretrained())
    assert names(job.folder / "cache/models/hub") == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (job.folder / "cache/models/hub/.revision").read_text() == COMMIT
