"""What a trainer's own framework says of a checkpoint, by the program that asks it: plain transformers' figures."""

import json
import shutil

import pytest

from backends.bundle import with_imports

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(900)]

ROWS = [[5, 9, 200, 31, 7], list(range(40, 70)), [65] * 20]
PLAIN = """
import json, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32)
for ids in json.loads(sys.argv[1]):
    with torch.inference_mode():
        said = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    print(json.dumps([said[place, id].item() for place, id in enumerate(ids[1:])]))
"""
DATA = """
import json, sys, numpy as np
rows = json.loads(sys.argv[1])
np.save("data/train.ids.npy", np.array(sum(rows, []), "int32"))
np.save("data/train.labels.npy", np.array(sum(rows, []), "int32"))
np.save("data/train.starts.npy", np.cumsum([0, *map(len, rows)]).astype("int64"))
"""


@pytest.mark.thorough(3)
@pytest.mark.parametrize("trainer", ["axolotl", "unsloth"])
def test_a_framework_gives_its_checkpoints_figures(trainer, trainer_python, adapted, stage_python, tmp_path, call):
    """In the trainer's own environment, over an adapter beside its start model and over whole weights: transformers' figures within 1e-5;
    an adapter of twice its alpha has others.
    """
    script = f"tune_score_{trainer}.py"
    for file in with_imports((script,)):
        (tmp_path / file.path).write_text(file.text)
    for name in ("base", "model", "adapter"):
        shutil.copytree(adapted / name, tmp_path / name)
    (tmp_path / "data").mkdir()
    call([stage_python, "-c", DATA, json.dumps(ROWS)], tmp_path)
    plain = [json.loads(line) for line in call([stage_python, "-c", PLAIN, json.dumps(ROWS)], tmp_path).stdout.splitlines()]
    python = trainer_python(trainer)

    def scored(trained):
        spec = {"trained": trained, "base": "base", "data": "data", "rows": 3, "longest": 256}
        (tmp_path / "score.json").write_text(json.dumps(spec))
        call([python, script, "score.json"], tmp_path)
        found = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert [row["ids"] for row in found["rows"]] == ROWS
        assert found["dtype"] == "float32"
        return [row["logprobs"] for row in found["rows"]]

    for trained in ("adapter", "model"):
        for theirs, ours in zip(scored(trained), plain, strict=True):
            assert theirs == pytest.approx(ours, abs=1e-5)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    assert scored("adapter")[0] != pytest.approx(plain[0], abs=1e-3)
