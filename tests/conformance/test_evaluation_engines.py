"""An evaluation by vLLM and one by transformers are the same."""

import json
import os
import subprocess

import pytest

from backends.plan import Input
from backends.stages.registry import STAGES
from backends.stages.stage import ADAPTER, BASE, MODEL, StageContext
from orchestrator.client.stages import checked

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(1800)]

ROWS = {
    "choice": [
        {"question": f"add {n} and 1\n", "choices": [f"it is {n + 1}", "no idea of that", f"{n}"], "answer": 0} for n in range(12)
    ],
    "exact": [{"prompt": f"add {n} and 1\n", "answer": f"it is {n + 1}"} for n in range(6)],
    "text": [{"text": f"add {n} and 1 it is {n + 1}"} for n in range(6)],
}
"""Log-likelihoods of choices, greedy replies, and whole texts."""
HALF = "\ufffd"
SETTINGS = {"shots": 2, "limit": 5, "batch": 3, "seed": 7}


@pytest.fixture
def evaluated(adapted, tmp_path, stage_environment):
    """Evaluates the small model by the programs of its plan: engine and settings -> what it said of each row, and the figures."""
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(engine, model):
        folder = tmp_path / f"{engine}-{model}"
        context = StageContext(
            "tiny",
            threads=1,
            model=Input(MODEL, "model"),
            adapter=Input(ADAPTER, "adapter"),
            base=Input(BASE, "base"),
            base_dir=str(tmp_path),
        )
        settings = {
            **SETTINGS,
            "baseline": model == "adapter",
            "tasks": [f"./{name}.jsonl" for name in ROWS],
            "engine": engine,
            "model": model,
        }
        plan = STAGES["evaluate"].plan(checked("evaluate", settings), context)
        (folder / "inputs" / "tasks").mkdir(parents=True)
        for file in plan.files:
            (folder / file.path).write_text(file.text)
        for each in plan.inputs:
            (folder / each.path).symlink_to(each.source if each.source.startswith("/") else adapted / each.source)
        env = {**os.environ, **dict(plan.env), "VLLM_CPU_KVCACHE_SPACE": "1"}
        python = stage_environment(plan.environment.name.removeprefix("stage-"))
        done = subprocess.run(
            [python, *plan.steps[-1].argv[1:]], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-5000:]
        said = {file.name: sorted(lines(file), key=lambda row: row["doc_id"]) for file in (folder / "out").glob("samples-*")}
        return said, json.loads((folder / "summary.json").read_text())

    return run


def lines(file):
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.thorough(6)
@pytest.mark.parametrize("model", ["merged", "adapter"])
def test_vllm_evaluates_as_transformers_does(evaluated, model):
    """The same rows with the same examples before them; every log-likelihood within 1e-5 in float32 for each token, every greedy reply the
    same, and so every accuracy: of the start model, of the merged one and of the adapter beside the start model.
    """
    (ours, summary), (theirs, expected) = evaluated("vllm", model), evaluated("hf", model)
    assert ours.keys() == theirs.keys()
    assert len(ours) == len(ROWS) * (2 if model == "adapter" else 1)
    for name, rows in theirs.items():
        assert len(rows) == SETTINGS["limit"]
        for mine, row in zip(ours[name], rows, strict=True):
            assert mine["arguments"] == row["arguments"]
            if "exact" in name:
                # a reply that is cut within a character: vLLM leaves the half of it out
                assert [each.rstrip(HALF) for each in mine["filtered_resps"]] == [
                    each.rstrip(HALF) for each in row["filtered_resps"]
                ]
                continue
            for (said, *_), (wanted, *_) in zip(likelihoods(mine), likelihoods(row), strict=True):
                assert said == pytest.approx(wanted, abs=1e-5)
    for who, tasks in expected["figures"].items():
        for name in ("choice", "exact"):
            assert summary["figures"][who][name] == tasks[name]
        assert summary["figures"][who]["text"] == pytest.approx(tasks["text"], rel=1e-5)
    if model == "adapter":
        assert expected["figures"]["model"]["text"] != expected["figures"]["base"]["text"]


def likelihoods(row):
    """(log-likelihood, ...) of each text that was asked about a row."""
    return [each if isinstance(each, list) else [each] for each in row["filtered_resps"]]
