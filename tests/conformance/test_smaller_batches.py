"""A trainer that runs out of memory for real goes on with smaller micro-batches, and learns what it would have learnt."""

import json

import pytest

RECIPE = """\
version: 1
name: memory
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4, kv_heads: 2, vocab_size: 40000}
data: {train: rows.jsonl, format: text, max_length: 512}
train: {steps: 3, batch: {global: 8, micro: 8}, precision: fp32}
optim: {lr: 1e-3, warmup_steps: 1}
retry: {oom: {micro: halve}}
"""
LIMIT = 2400 << 10
"""KiB of data that a process may have. Measured: torchtune takes 2,834 MiB with 8 rows at once, 1,967 with one."""


@pytest.mark.trainer
@pytest.mark.thorough
@pytest.mark.parametrize("trainer", ["torchtune"])
def test_out_of_memory_with_eight_rows_succeeds_with_fewer(tune, trainer_python, trainer):
    """Under a limit of its memory the job succeeds with a later attempt, with the losses of a job without a limit."""
    rows = [{"text": f"Row {n} says " + "so it goes, " * 60} for n in range(16)]
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tune.cwd / "r.yaml").write_text(RECIPE)
    limited = tune.cwd / "python"
    limited.write_text(f'#!/bin/sh\nulimit -d {LIMIT} && exec {trainer_python(trainer)} "$@"\n')
    limited.chmod(0o755)
    targets = {
        name: f"{{kind: local, python: {python}}}" for name, python in (("small", limited), ("big", trainer_python(trainer)))
    }
    text = "".join(f"  {name}: {target}\n" for name, target in targets.items())
    (tune.cwd / "clusters.yaml").write_text(f"version: 1\ndefaults: {{env: {{OMP_NUM_THREADS: '1'}}}}\ntargets:\n{text}")
    curves = {}
    for target in targets:
        tune("submit", "r.yaml", "--to", trainer, "--on", target, "--id", target, "--follow")
        points = tune.json("metrics", target)["points"]
        curves[target] = {point["step"]: point["value"] for point in points if point["name"] == "loss"}
    small, big = tune.json("status", "small", "big")
    assert (small["state"], big["state"], big["attempt"]) == ("SUCCEEDED", "SUCCEEDED", 1)
    assert small["attempt"] > 1
    assert "memory ran out with more" in small["detail"]
    assert list(curves["small"]) == list(curves["big"]) == [1, 2, 3]
    assert max(abs(curves["small"][step] - curves["big"][step]) for step in (1, 2, 3)) < 1e-5
