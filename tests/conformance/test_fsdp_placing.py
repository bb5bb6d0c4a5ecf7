"""What FSDP splits is placed by FSDP."""

import os
import subprocess
from pathlib import Path

import pytest

SHIMS = Path(__file__).parents[2] / "backends" / "shims"

pytestmark = pytest.mark.trainer

CODE = """
import torch, transformers, tune_hf_trainer

class Trainer(tune_hf_trainer.Exact, transformers.Trainer):
    pass

class Placed(torch.nn.Linear):
    def to(self, *args, **kw):
        print("placed")
        return self

trainer = object.__new__(Trainer)
trainer.args = transformers.TrainingArguments(use_cpu=True)
for split in (True, False):
    trainer.is_fsdp_enabled = split
    print(split)
    trainer._move_model_to_device(Placed(2, 2, device="meta"), torch.device("cpu"))
"""


def test_a_model_that_is_to_be_split_is_not_moved_before(trainer_python):
    """axolotl with `bf16: true` has transformers move the model before it is split, and on other ranks than the first its weights are not there
    yet (seen on two H200): under FSDP it is left where it is, else it is moved as before.
    """
    env = {**os.environ, "PYTHONPATH": str(SHIMS)}
    done = subprocess.run([trainer_python("axolotl"), "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False", "placed"], done.stderr[-2000:]
