"""The plan of an export: its environment, its rows, and what is refused before anything runs."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import backends
from backends.plan import Environment, Input
from backends.stages.export import CALIBRATED, COMPRESSED
from backends.stages.registry import STAGES
from backends.stages.stage import Native, StageContext, Unplannable
from orchestrator.client.stages import checked

sys.path[:0] = [str(Path(backends.__file__).parent / room) for room in ("shims", "stages/shims")]

import tune_compress  # noqa: E402  # by its bare name, as in a job's folder

CONTEXT = StageContext("tiny", model=Input("inputs/model", "checkpoint"))
OWN = Native("litgpt", Environment("litgpt", "3.11", "torch==2.13.0", "cpu"), "out/final", quantized=False)


def planned(*formats, **known):
    """The plan of an export."""
    return STAGES["export"].plan(checked("export", {"formats": list(formats)}), replace(CONTEXT, **known))


def test_compressed_forms_run_where_the_compressor_is():
    """An export with one of them has the compressor's environment and the rows of the training, where those are known; others have none."""
    plan = planned("merged", "w8a8", native=OWN)
    assert plan.environment.name == "stage-compressed"
    assert ("inputs/data", "data", "train") in [(each.path, each.source, each.made_by) for each in plan.inputs]
    assert "export/w8a8/config.json" in plan.promise.files
    assert planned("merged", "gguf-q8_0", native=OWN).environment.name == "stage-hf"
    assert "inputs/data" not in [each.path for each in planned("w8a8").inputs]


@pytest.mark.parametrize("form", CALIBRATED)
def test_a_calibrated_form_needs_rows(form):
    """Without rendered rows it is refused, with those that need none."""
    for native in (None, replace(OWN, data="")):
        with pytest.raises(Unplannable, match=f"{form} is calibrated") as error:
            planned(form, native=native)
        assert error.value.hint == "fp8-dynamic, w8a8 and w4a16 need no rows"


def test_the_plan_knows_the_compressor_s_kinds():
    """What may be asked for is what the program has, and rows are asked for where it takes them."""
    assert tuple(tune_compress.KINDS) == COMPRESSED
    assert tuple(name for name, kind in tune_compress.KINDS.items() if kind.calibrated) == CALIBRATED
