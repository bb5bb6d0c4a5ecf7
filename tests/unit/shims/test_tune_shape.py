"""tune_shape.py: what a model is made of, by its config.json."""

import json

import pytest
from tune_shape import FAMILIES, TARGETS, read

CONFIG = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}


@pytest.fixture
def folder(tmp_path):
    """Write a config.json with some changes; the folder."""

    def write(**changes):
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
        return str(tmp_path)

    return write


def test_what_families_differ_in(folder):
    """Biases of qwen2, norms of qwen3 and the window of mistral are told; the rest is alike."""
    shapes = {family: read(folder(model_type=family), FAMILIES) for family in FAMILIES}
    assert [family for family, shape in shapes.items() if shape.qkv_bias] == ["qwen2"]
    assert [family for family, shape in shapes.items() if shape.qk_norm] == ["qwen3"]
    assert {shape.window for shape in shapes.values()} == {None}
    assert read(folder(model_type="mistral", sliding_window=4096), FAMILIES).window == 4096
    assert read(folder(model_type="qwen3", sliding_window=4096, use_sliding_window=False), FAMILIES).window is None


def test_a_caller_gets_only_families_it_builds(folder):
    """A family that the caller did not name is refused by name, by default all but llama and qwen2."""
    for family in ("mistral", "qwen3"):
        with pytest.raises(ValueError, match=f"model_type is '{family}', not llama or qwen2"):
            read(folder(model_type=family))
        assert read(folder(model_type=family), (family,)).family == family
    with pytest.raises(ValueError, match="model_type is 'gemma', not llama or mistral or qwen2 or qwen3"):
        read(folder(model_type="gemma"), FAMILIES)


def test_everything_unlike_at_once(folder):
    """All that makes a model another one is told together."""
    with pytest.raises(ValueError, match="cannot build") as caught:
        read(folder(hidden_act="gelu", attention_bias=True, rope_scaling={"rope_type": "yarn"}, rope_theta=0.5))
    assert [part.split(" ")[0] for part in str(caught.value).split(": cannot build this model: ")[1].split("; ")] == [
        "hidden_act",
        "attention_bias",
        "the",
        "rope_theta",
    ]


def test_linear_layers(folder):
    """Each target is named as in the checkpoint, with the heads' own width, layer by layer, the head last."""
    shape = read(folder(model_type="qwen3", head_dim=12), FAMILIES)
    layers = shape.linear(["head", "q", "k", "down"])
    assert layers[:3] == [
        ("model.layers.0.self_attn.q_proj", 32, 48),
        ("model.layers.0.self_attn.k_proj", 32, 24),
        ("model.layers.0.mlp.down_proj", 48, 32),
    ]
    assert layers[-1] == ("lm_head", 32, 320)
    assert len(shape.linear(TARGETS)) == 2 * 7 + 1
    with pytest.raises(ValueError, match="no such layer: qkv"):
        shape.linear(["qkv"])
    with pytest.raises(ValueError, match="head is the embedding itself"):
        read(folder(tie_word_embeddings=True)).linear(["head"])
