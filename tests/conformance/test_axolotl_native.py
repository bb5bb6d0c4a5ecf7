"""axolotl's own data sets, of methods whose rows have names of columns that no key of its config changes."""

import pytest

from tests.conformance.test_hf import recipe, run

pytestmark = pytest.mark.trainer
THIRD = pytest.mark.thorough(3)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["orpo", pytest.param("reward", marks=THIRD), pytest.param("grpo", marks=THIRD)])
def test_axolotls_own_data_sets_are_the_same_training(tune, home, kind):
    """orpo, reward and grpo from axolotl's own data sets, the column of the prompt called otherwise: each loss, norm and evaluation of three
    steps is that of data.rendering: shared, since tokens and order are the same.
    """
    found = {}
    for rendering in ("shared", "native"):
        data = {"eval": "val.jsonl", "shuffle": False, "rendering": rendering, "columns": {"prompt": "question"}}
        if kind == "reward" and rendering == "shared":
            data["template"] = "chat"
        wish = recipe(kind, data=data, train={"steps": 3, "batch": {"global": 4, "micro": 2}})
        points, work = run(tune, home, "axolotl", wish, column="question")
        found[rendering] = {name: points[name] for name in ("loss", "grad_norm", "eval_loss", "reward") if name in points}
        assert (work / "data").exists() == (rendering == "shared")
    assert list(found["native"]["loss"]) == [1, 2, 3]
    assert found["native"] == {name: pytest.approx(values, abs=1e-6) for name, values in found["shared"].items()}
