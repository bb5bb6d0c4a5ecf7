"""torchtune's recipes of DPO do not log the gradient's norm, and those of adapters do not clip: our schedule does both before a step."""

import json
import os
import subprocess
from pathlib import Path

import pytest

BACKENDS = Path(__file__).parents[3] / "backends"
SHIMS = (BACKENDS / "shims", BACKENDS / "trainers" / "torchtune" / "shims")
STEPS = """
import json, sys
import torch
from omegaconf import OmegaConf
from torchtune import config
from tune_torchtune_log import _NORMS
largest, told = json.loads(sys.argv[1]), []
weights = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
optimizer = torch.optim.SGD(weights, lr=1.0)
told_of_it = OmegaConf.create({"_component_": "tune_torchtune.schedule", "kind": "constant", "clip_grad_norm": largest})
config.instantiate(told_of_it, optimizer, num_training_steps=2, last_epoch=-1)
for size in (0.1, 4.0):
    before = [p.detach().clone() for p in weights]
    for p in weights:
        p.grad = torch.full_like(p, size)
    optimizer.step()
    moved = torch.cat([old - p.detach() for old, p in zip(before, weights)]).norm().item()
    told.append((_NORMS[-1], moved))
print(json.dumps(told))
"""


@pytest.mark.trainer
@pytest.mark.parametrize("largest", [1.0, "inf"])
def test_a_gradient_is_clipped_and_its_norm_before_that_is_logged(trainer_python, tmp_path, largest):
    """A step of gradients above the largest norm is made of as many as have it, a smaller one as it is; the log has what they were."""
    env = {**os.environ, "PYTHONPATH": ":".join(map(str, SHIMS))}
    argv = [trainer_python("torchtune"), "-c", STEPS, json.dumps(largest)]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    norms = [size * 3**0.5 for size in (0.1, 4.0)]
    for (logged, moved), norm in zip(told, norms, strict=True):
        assert logged == pytest.approx(norm, rel=1e-6)
        assert moved == pytest.approx(min(norm, float(largest)), rel=1e-6)
