"""resources.tensor in torchtune: what its recipe is told, how rows are shared out, and what is refused."""

import pytest

from backends.backend import Inexpressible, Progress
from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

RECIPE = """
version: 1
name: t
model: {id: meta-llama/Llama-3.1-8B}
data: {train: rows.jsonl, format: chat}
train: {steps: 9, batch: {global: 8}}
optim: {lr: 1e-5}
resources: {devices: 4, tensor: 2}
"""


def planned(*sets, accelerator="cuda"):
    """The plan, and its config as text."""
    made = plan(BACKENDS["torchtune"], parse(RECIPE, sets=list(sets)), Target("there", accelerator, devices=4))
    return made, next(file.text for file in made.files if file.path == "torchtune.yaml")


def test_devices_that_share_a_matrix_count_once():
    """Two groups of two: each takes half of a batch, the optimizer is not fused, and tokens are counted once."""
    made, text = planned()
    for line in ("batch_size: 4", "gradient_accumulation_steps: 1", "tensor_parallel_dim: 2", "  fused: false", "  tensor: 2"):
        assert f"{line}\n" in text
    assert "full_finetune_distributed" in made.steps[-2].argv
    line = "Step 1 | loss:1.0 lr:0.1 tokens_per_second_per_gpu:10.0 "
    points = {point.name: point.value for point in BACKENDS["torchtune"].read(made.reading, Progress(), line)}
    assert points["loss_tokens_per_second"] == 20.0


def test_one_device_a_matrix_is_told_nothing():
    """Without resources.tensor the recipe is as it was."""
    made, text = planned("resources.tensor=1")
    assert "tensor" not in text
    assert "  fused: true\n" in text
    assert "tensor" not in made.reading


@pytest.mark.parametrize(
    ("sets", "leaf"),
    [
        (("method.adapter=lora",), "resources.tensor"),
        (("method.kind=dpo", "data.format=preference"), "resources.tensor"),
        (("optim.fused=true",), "optim.fused"),
    ],
)
def test_what_is_refused(sets, leaf):
    """Upstream's other recipes share no matrix, and this one no fused optimizer."""
    with pytest.raises(Inexpressible) as caught:
        planned(*sets)
    assert [line.leaf for line in caught.value.report.lines if line.status == "lost"] == [leaf]
