"""An evaluation by vLLM and one by transformers are the same, and compressed folders are evaluated and served by what can load them."""

import json
import os
import subprocess
import urllib.request

import pytest

from backends.bundle import with_imports
from backends.plan import Input
from backends.stages.registry import STAGES
from backends.stages.stage import ADAPTER, BASE, MODEL, StageContext
from orchestrator.client.chat import endpoint
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
COMPRESS = """
import sys, tune_compress
from transformers import AutoModelForCausalLM, AutoTokenizer
for form in sys.argv[1:]:
    tune_compress.write(AutoModelForCausalLM.from_pretrained("model", dtype="auto"), form, form, None)
    AutoTokenizer.from_pretrained("model").save_pretrained(form)
"""
PLAIN = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto"), AutoTokenizer.from_pretrained(sys.argv[1])
start, ids = (tokenizer(text)["input_ids"] for text in (sys.argv[2], sys.argv[2] + sys.argv[3]))
assert ids[:len(start)] == start
with torch.inference_mode():
    said = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
print(json.dumps([said[place, id].item() for place, id in enumerate(ids[1:])][len(start) - 1:]))
"""
"""The log-probability of each token of a text that follows another."""


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
                assert [*map(whole, mine["filtered_resps"])] == [*map(whole, row["filtered_resps"])]
                continue
            for (said, *_), (wanted, *_) in zip(likelihoods(mine), likelihoods(row), strict=True):
                assert said == pytest.approx(wanted, abs=1e-5)
    for who, tasks in expected["figures"].items():
        for name in ("choice", "exact"):
            assert summary["figures"][who][name] == tasks[name]
        assert summary["figures"][who]["text"] == pytest.approx(tasks["text"], rel=1e-5)
    if model == "adapter":
        assert expected["figures"]["model"]["text"] != expected["figures"]["base"]["text"]


def whole(reply):
    """A reply that is cut within a character, without the halves at its end: vLLM leaves them out, and what is white before them is
    at the end then, where the harness strips it.
    """
    return reply.rstrip(HALF).rstrip()


def likelihoods(row):
    """(log-likelihood, ...) of each text that was asked about a row."""
    return [each if isinstance(each, list) else [each] for each in row["filtered_resps"]]


@pytest.fixture
def compressed(adapted, stage_environment, stage_python, tune, call):
    """Compresses the small model into a folder of its form's name; gives what transformers itself says of a text that follows another."""
    (tune.cwd / "model").symlink_to(adapted / "model")
    (tune.cwd / "choice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS["choice"]))
    for file in with_imports(("tune_compress.py",)):
        (tune.cwd / file.path).write_text(file.text)

    def make(form):
        call([stage_environment("compressed"), "-c", COMPRESS, form], tune.cwd)

        def plain(question, answer):
            done = call([stage_python, "-c", PLAIN, form, question, answer], tune.cwd)
            return json.loads(done.stdout.splitlines()[-1])

        return plain

    return make


@pytest.mark.thorough(3)
def test_a_compressed_folder_is_served(compressed, tune):
    """By its name alone, on a CPU by transformers: what it says of a text is what transformers itself says of it."""
    plain, words = compressed("w4a16"), ("add 1 and 1\n", " it is 2")
    try:
        tune("serve", "./w4a16", "--id", "served", "--follow", timeout=900)
        with endpoint("served") as where:
            body = {"model": "w4a16", "prompt": "".join(words), "echo": True, "logprobs": 0, "max_tokens": 0}
            head = {"Content-Type": "application/json"}
            asked = urllib.request.Request(f"{where.url}/completions", json.dumps(body).encode(), head)
            with urllib.request.urlopen(asked, timeout=300) as answer:
                said = json.load(answer)["choices"][0]["logprobs"]["token_logprobs"]
        expected = plain(*words)
        assert said[-len(expected) :] == pytest.approx(expected, abs=1e-5)
    finally:
        tune("cancel", "served", code=None)


@pytest.mark.parametrize(
    ("form", "engine", "nats"),
    [
        pytest.param("w8a8", "hf", 1e-4, marks=pytest.mark.thorough(3)),
        pytest.param("fp8-dynamic", "vllm", 1e-3, marks=pytest.mark.thorough(6)),
    ],
)
def test_a_compressed_folder_is_evaluated(compressed, tune, home, form, engine, nats):
    """By its name alone, by each engine: the log-likelihood of a choice is transformers' own."""
    plain = compressed(form)
    tune("evaluate", f"./{form}", "--task", "./choice.jsonl", "--engine", engine, "--id", "done", "--follow", timeout=1200)
    rows = lines(home / "jobs" / "done" / "1" / "work" / "out" / "samples-model-choice.jsonl")
    [row] = [row for row in rows if row["doc_id"] == 0]
    question, answer = row["arguments"][0]
    asked = question.rstrip()  # the harness counts the space at a question's end as the answer's
    assert likelihoods(row)[0][0] == pytest.approx(sum(plain(asked, question[len(asked) :] + answer)), abs=nats)
