"""What vLLM is started with: the weights as they are stored, names, ranks, and refusals."""

import json

import pytest
import tune_server_vllm
import tune_vllm


@pytest.fixture
def spec(tmp_path):
    """Settings of a server of an adapter, with the folders' configs."""
    for name in ("base", "model", "adapter"):
        (tmp_path / name).mkdir()
        config = {"hidden_size": 128, "num_attention_heads": 4, "dtype": "float32"}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"r": 12}')
    base, adapter = (str(tmp_path / name) for name in ("base", "adapter"))
    models = [{"name": "tiny", "folder": base, "adapter": adapter}, {"name": "base", "folder": base}]
    more = {"max_length": None, "dtype": "auto", "prefix_cache": False, "accelerator": "cpu"}
    return {"host": "127.0.0.1", "models": models, "tokenizer": str(tmp_path / "model"), "key": None, **more}


def after(args, name):
    """The word after an option."""
    return args[args.index(name) + 1]


def test_weights_are_served_as_they_are_stored(spec):
    """Float32 stays float32, which vLLM's own `auto` makes 16 bits; the trained model's tokenizer and template go with the start model's
    weights, and there is room for the adapter's rank.
    """
    args = tune_server_vllm.argv(spec, "1234", cpu=True)
    assert (after(args, "--dtype"), after(args, "--served-model-name")) == ("float32", "base")
    assert (after(args, "--tokenizer"), after(args, "--max-lora-rank")) == (spec["tokenizer"], "16")
    assert after(args, "--lora-modules") == f"tiny={spec['models'][0]['adapter']}"
    assert "--no-enable-prefix-caching" in args
    assert after(tune_server_vllm.argv({**spec, "dtype": "bfloat16"}, "1", cpu=True), "--dtype") == "bfloat16"


def test_what_vllm_cannot_run_is_refused(spec, tmp_path):
    """Heads of a width that it has not on a CPU, a rank above its largest, and whole modules beside an adapter: with the way out."""
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"r": 600}')
    with pytest.raises(ValueError, match="up to rank 512"):
        tune_server_vllm.argv(spec, "1", cpu=True)
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"r": 8, "modules_to_save": ["norm"]}')
    with pytest.raises(ValueError, match=r"whole modules beside them \(norm\); use adapters: false"):
        tune_server_vllm.argv(spec, "1", cpu=True)
    (tmp_path / "base" / "config.json").write_text('{"hidden_size": 64, "num_attention_heads": 4}')
    with pytest.raises(ValueError, match="are 16 wide; use engine: transformers"):
        tune_server_vllm.argv(spec, "1", cpu=True)


def test_four_bits_without_a_kernel_are_refused(spec, tmp_path, monkeypatch):
    """On a CPU that has no AVX-512 weights in 4 bits are refused before the engine starts; 8 bits are not, nor is anything on CUDA."""
    monkeypatch.setattr(tune_vllm, "KERNELS", "no-such-flag")
    config = {"hidden_size": 128, "num_attention_heads": 4, "dtype": "float32"}
    place = tmp_path / "base" / "config.json"
    place.write_text(json.dumps({**config, "quantization_config": {"format": "pack-quantized"}}))
    with pytest.raises(ValueError, match=r"weights in 4 bits on a CPU that has .*use engine: transformers"):
        tune_server_vllm.argv(spec, "1", cpu=True)
    assert tune_server_vllm.argv(spec, "1", cpu=False)
    place.write_text(json.dumps({**config, "quantization_config": {"format": "int-quantized"}}))
    assert tune_server_vllm.argv(spec, "1", cpu=True)
