"""`tune convert --kv-heads`: fewer heads of keys and values, each the mean of a group."""

import json
import struct

import numpy as np
import pytest

CONFIG = {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 1, "hidden_size": 16}
KEY, VALUE, QUERY = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "kvq")


def save(folder, tensors, config=CONFIG, kind="F32", name="model.safetensors"):
    """A model folder: config.json, a tokenizer file, weights by the format's description."""
    folder.mkdir(exist_ok=True)
    header, data = {}, b""
    for key, values in tensors.items():
        raw = np.asarray(values, "<f4")
        raw = (raw.view("<u4") >> 16).astype("<u2").tobytes() if kind == "BF16" else raw.tobytes()
        header[key] = {"dtype": kind, "shape": list(np.shape(values)), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")


def read(file):
    """Name -> array, float32 or the bits of bfloat16."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    del header["__metadata__"]
    out = {}
    for name, about in header.items():
        first, last = about["data_offsets"]
        kind = {"F32": "<f4", "BF16": "<u2"}[about["dtype"]]
        out[name] = np.frombuffer(raw[8 + length + first : 8 + length + last], kind).reshape(about["shape"])
    return out


@pytest.fixture
def weights():
    """Of a layer with eight heads of two numbers each, and an embedding."""
    draw = np.random.default_rng(5)
    return {name: draw.normal(size=(16, 16)).astype("f4") for name in ("model.embed_tokens.weight", QUERY, KEY, VALUE)}


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_groups_become_their_mean(tune, weights, heads):
    """Heads that follow one another are a group; all else is as it was, and the config says the new number."""
    save(tune.cwd / "model", weights)
    said = tune.json("convert", "model", "--kv-heads", heads, "--out", "fewer")
    assert said == {"folder": "fewer", "heads": 8, "kv_heads_before": 8, "kv_heads": heads, "tensors": 2}
    made = read(tune.cwd / "fewer" / "model.safetensors")
    for name in (KEY, VALUE):
        due = weights[name].reshape(heads, 8 // heads, 2, 16).mean(1).reshape(heads * 2, 16)
        np.testing.assert_allclose(made[name], due, atol=1e-6)
    for name in ("model.embed_tokens.weight", QUERY):
        assert (made[name] == weights[name]).all()
    assert json.loads((tune.cwd / "fewer" / "config.json").read_text()) == CONFIG | {"num_key_value_heads": heads}
    assert (tune.cwd / "fewer" / "tokenizer.json").exists()


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_equal_heads_stay_as_they_are(tune, weights, kind):
    """To the last bit, in groups of a number that is no power of two as well."""
    config = CONFIG | {"num_attention_heads": 6, "num_key_value_heads": 6}
    one = np.random.default_rng(6).normal(size=(2, 1, 2, 16)).astype("f4")
    equal = np.repeat(one, 3, axis=1).reshape(12, 16)
    save(tune.cwd / "model", {KEY: equal, VALUE: equal}, config, kind)
    before = read_plain(tune.cwd / "model" / "model.safetensors", kind)
    tune("convert", "model", "--kv-heads", 2, "--out", "fewer")
    made = read(tune.cwd / "fewer" / "model.safetensors")
    assert (made[KEY] == before.reshape(2, 3, 2, 16)[:, 0].reshape(4, 16)).all()


def read_plain(file, kind):
    """The first tensor of a file that `save` has written."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    about = json.loads(raw[8 : 8 + length])[KEY]
    first, last = about["data_offsets"]
    return np.frombuffer(raw[8 + length + first : 8 + length + last], {"F32": "<f4", "BF16": "<u2"}[kind])


@pytest.mark.parametrize(
    ("change", "heads", "says"),
    [
        ({}, 3, "--kv-heads 3: should be one of 1, 2, 4; the model has 8 heads of keys and values"),
        ({}, 8, "should be one of 1, 2, 4"),
        ({"num_key_value_heads": 1}, 1, "cannot become fewer: there is one"),
        ({"num_hidden_layers": 2}, 2, "2 weights self_attn.k_proj and v_proj; fused or latent projections are not converted"),
        ({"vision_config": {}}, 2, "has a vision tower"),
    ],
)
def test_what_cannot_be_converted(tune, weights, change, heads, says):
    """A number that divides nothing, projections that are fused, a vision tower: named, and nothing is written."""
    save(tune.cwd / "model", weights, CONFIG | change)
    assert says in tune("convert", "model", "--kv-heads", heads, "--out", "fewer", code=2).stderr
    assert not (tune.cwd / "fewer").exists()


def test_wrong_places(tune, weights):
    """No such folder, a hub id, a folder in the way, a norm over all heads: each with its way out."""
    assert "hf download" in tune("convert", "meta-llama/Llama-2-7b-hf", "--kv-heads", 2, "--out", "x", code=2).stderr
    save(tune.cwd / "model", weights)
    assert "is there already" in tune("convert", "model", "--kv-heads", 2, "--out", "model", code=2).stderr
    save(tune.cwd / "olmo", weights | {"model.layers.0.self_attn.k_norm.weight": np.ones(16)})
    assert "is over all heads together" in tune("convert", "olmo", "--kv-heads", 2, "--out", "x", code=2).stderr
