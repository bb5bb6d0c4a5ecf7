"""Which layers get an adapter, for families whose config.json we do not read: found in the weights themselves."""

import json

import pytest
import tune_lora


def folder(tmp_path, family, shapes):
    """A model folder whose one safetensors file has these shapes."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    return str(tmp_path)


def block(number):
    """Weights of one block."""
    at = f"model.layers.{number}."
    return {
        f"{at}mlp.down_proj.weight": (8, 24),
        f"{at}self_attn.v_proj.weight": (4, 8),
        f"{at}self_attn.q_proj.weight": (16, 8),
        f"{at}input_layernorm.weight": (8,),
    }


def test_layers_are_found_in_the_weights(tmp_path):
    """Inputs and outputs as stored, layer by layer by number, in the order of the targets; a vision tower has no part in it."""
    shapes = {**block(10), **block(2), "vision_tower.layers.0.self_attn.q_proj.weight": (4, 4), "lm_head.weight": (32, 8)}
    model = folder(tmp_path, "gemma2", shapes)
    assert tune_lora._layers(model, ["down", "q", "head"]) == [
        ("model.layers.2.self_attn.q_proj", 8, 16),
        ("model.layers.2.mlp.down_proj", 24, 8),
        ("model.layers.10.self_attn.q_proj", 8, 16),
        ("model.layers.10.mlp.down_proj", 24, 8),
        ("lm_head", 8, 32),
    ]


def test_a_target_that_is_not_there_is_named(tmp_path):
    """A target without a layer is never left out in silence."""
    with pytest.raises(ValueError, match=r"method.lora.targets: o, gate: this mixtral model has no layers self_attn.o_proj"):
        tune_lora._layers(folder(tmp_path, "mixtral", block(0)), ["q", "o", "gate"])


def test_of_other_families_the_trainer_draws(tmp_path, monkeypatch, capsys):
    """A folder of a family that is not among those of the plan gets no start, whatever its layers are called; the log says so."""
    monkeypatch.chdir(tmp_path)
    wish = {"model": folder(tmp_path, "phi3", block(0)), "rank": 4, "seed": 0, "targets": ["gate"], "families": ["llama"]}
    tune_lora.start(wish)
    assert not (tmp_path / "lora").exists()
    assert capsys.readouterr().out == "lora: the trainer draws its own A and B for models of the family phi3\n"


def test_whole_modules_need_a_start_of_ours(tmp_path):
    """What a plan refuses for a model's id is refused for its folder, before anything is trained."""
    wish = {"model": folder(tmp_path, "gemma2", block(0)), "families": ["llama"], "train_fully": ["norms"]}
    with pytest.raises(ValueError, match=r"method.lora.train_fully: norms: not tried yet with models of the family gemma2"):
        tune_lora.start(wish)
