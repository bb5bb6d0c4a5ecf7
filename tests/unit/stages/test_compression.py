"""A folder whose weights are compressed: what it is called, and which stages and engines are refused it before anything runs."""

import json

import pytest

from backends.plan import Input
from backends.stages.compression import compression
from backends.stages.export import COMPRESSED
from backends.stages.registry import STAGES
from backends.stages.stage import MODEL, StageContext, Unplannable
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.stages import checked, plan_stage

FLOAT, INTS, FOUR = ({"num_bits": bits, "type": kind} for bits, kind in ((8, "float"), (8, "int"), (4, "int")))
GROUPS = {
    "fp8-dynamic": {"weights": FLOAT, "input_activations": {**FLOAT, "dynamic": True}},
    "fp8": {"weights": FLOAT, "input_activations": {**FLOAT, "dynamic": False}},
    "w8a8": {"weights": INTS, "input_activations": {**INTS, "dynamic": True}},
    "w4a16": {"weights": FOUR, "input_activations": None},
}
"""What llm-compressor 0.14.0.1 writes into config.json, as far as it is read."""


def config(kind):
    """A compressed folder's config.json."""
    return {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": GROUPS[kind]}}}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_compressed_folder_is_called_as_its_export(kind):
    """Read back, each kind has the name that it was asked for by."""
    assert compression(config(kind)) == kind
    assert kind in COMPRESSED


@pytest.mark.parametrize(
    ("wrong", "called"),
    [
        ({}, ""),
        ({"quant_method": "awq"}, "awq"),
        ({"bits": 4}, "quantized"),
        ([], ""),
        (config("fp8") | {"quant_method": 3}, "3"),
    ],
)
def test_other_configs_are_called_by_their_method(wrong, called):
    """Nothing, another method, and what is no such section: none ends in a crash."""
    assert compression({"quantization_config": wrong}) == called


def planned(stage, kind, accelerator="cpu", **settings):
    """The plan of a stage over a compressed folder."""
    more = {"evaluate": {"tasks": ["./q.jsonl"]}}.get(stage, {})
    context = StageContext("tiny", accelerator, model=Input(MODEL, "/m"), compressed=kind, base_dir="/here")
    return STAGES[stage].plan(checked(stage, {**more, **settings}), context)


@pytest.mark.parametrize("kind", GROUPS)
def test_each_engine_is_given_what_it_can_load(kind):
    """transformers loads all kinds wherever it runs, and vLLM on CUDA; on a CPU vLLM is refused the one that it has no kernel for, and
    llama.cpp all of them, each by its setting and with the way out.
    """
    assert planned("serve", kind).environment.name == planned("evaluate", kind).environment.name == "stage-hf"
    assert planned("serve", kind, "cuda").environment.name == "stage-vllm"
    assert planned("evaluate", kind, "cuda", engine="vllm").environment.name == "stage-vllm"
    with pytest.raises(Unplannable, match=f"engine: llama.cpp is given GGUF.* are {kind}") as error:
        planned("serve", kind, engine="llama.cpp")
    assert "use engine: transformers, or export gguf-q8_0" in error.value.hint
    for stage, other in (("serve", "transformers"), ("evaluate", "hf")):
        if kind != "fp8":
            assert planned(stage, kind, engine="vllm").environment.name == "stage-vllm"
            continue
        with pytest.raises(Unplannable, match=r"kernels on a CPU for fp8-dynamic, w8a8, w4a16, .* are fp8") as error:
            planned(stage, kind, engine="vllm")
        assert error.value.hint == f"use engine: {other}, or a target with CUDA"
    with pytest.raises(Unplannable, match=f"export is of weights as they are, and this folder's are {kind}"):
        planned("export", kind)


def test_a_folder_is_looked_at_when_it_is_planned(tune):
    """By its config.json, before anything runs; one that is no JSON is left to the engine."""
    folder = tune.cwd / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config("w8a8")))
    with pytest.raises(InvalidRequest, match="this folder's are w8a8"):
        plan_stage("serve", str(folder), {"engine": "llama.cpp"}, ask=False)
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        assert plan_stage("serve", str(folder), {"engine": "llama.cpp"}, ask=False).job.plan.backend == "serve"
