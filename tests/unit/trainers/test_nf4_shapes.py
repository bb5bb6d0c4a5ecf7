"""NF4 holds whole blocks of weights only: what does not fit is refused when it is planned, not on the host."""

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

TEXT = """
version: 1
name: small
model:
  id: tiny
  init: random
  architecture: {{hidden_size: {wide}, intermediate_size: {inner}, layers: 2, heads: 4, kv_heads: 4}}
method: {{adapter: qlora}}
data: {{train: ./rows.jsonl, format: text}}
train: {{steps: 2, batch: {{global: 4}}, precision: bf16}}
optim: {{lr: 1e-4}}
"""


def planned(trainer, wide, inner, accelerator="cpu"):
    """The plan for a model of these widths."""
    return plan(BACKENDS[trainer], parse(TEXT.format(wide=wide, inner=inner)), Target("there", accelerator))


@pytest.mark.parametrize(
    ("trainer", "said"), [("torchtune", "a multiple of 16384 weights a layer, q has 64 x 64"), ("axolotl", "down has 96")]
)
def test_a_shape_that_nf4_cannot_hold_is_refused_by_its_layer(trainer, said):
    """The refusal names the layer and what would fit; lora is what is written where the loss is accepted."""
    with pytest.raises(Inexpressible) as caught:
        planned(trainer, 64, 96)
    line = next(line for line in caught.value.report.refused if line.leaf == "method.adapter")
    assert said in line.why
    assert "qlora" not in str(dict(line.native))


def test_a_shape_of_whole_blocks_is_planned():
    """Widths of 128 and 384 fit in both; on a GPU bitsandbytes takes any."""
    assert planned("torchtune", 128, 384)
    assert planned("axolotl", 128, 384)
    assert planned("axolotl", 64, 96, "cuda")


def test_a_model_of_the_table_is_looked_at_too():
    """Qwen 2.5 0.5B has 896 x 896 weights in its queries, 49 blocks: torchtune takes them on one device, and not on two."""
    text = TEXT[: TEXT.index("model:")] + "model: {{id: Qwen/Qwen2.5-0.5B}}\n" + TEXT[TEXT.index("method:") :]
    assert plan(BACKENDS["torchtune"], parse(text.format()), Target("there", "cuda"))
    with pytest.raises(Inexpressible) as caught:
        plan(BACKENDS["torchtune"], parse(text.format() + "resources: {devices: 2}\n"), Target("there", "cuda", 2))
    assert "a multiple of 32768 weights a layer, q has 896 x 896" in caught.value.report.refused[0].why
