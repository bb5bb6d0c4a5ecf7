"""Stages over what trainers really trained: figures are the harness's own, what is served is what was trained."""

import json
import subprocess
import urllib.request

import pytest

from orchestrator.client.chat import endpoint

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(2400),
]  # three environments and five processes with torch, one after another

RECIPE = """
version: 1
name: tiny
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 96, layers: 2, heads: 4, kv_heads: 2, max_length: 256}
method: {adapter: lora, lora: {rank: 4, alpha: 32}}
data: {train: rows.jsonl, format: instruct, template: "{instruction}\\n", max_length: 64}
train: {steps: 6, batch: {global: 4}, precision: fp32}
optim: {lr: 2e-2, warmup_steps: 1}
after:
  evaluate:
    tasks: [./choice.jsonl, ./text.jsonl, ./exact.jsonl]
    baseline: true
    gates: ["choice.acc >= GATE"]
  export: {formats: [merged, adapter], prompts: 2, tokens: 4}
  serve: {key_name: SERVE_KEY, check: 4}
"""
LITGPT = """
import json, sys, torch
from litgpt import GPT, Config
folder, rows = sys.argv[1], json.loads(sys.argv[2])
model = GPT(Config.from_file(f"{folder}/model_config.yaml"))
state = torch.load(f"{folder}/lit_model.pth", weights_only=True)
model.load_state_dict(state.get("model", state))
with torch.inference_mode():
    for ids in rows:
        said = torch.log_softmax(model(torch.tensor([ids]))[0].float(), -1)
        print(json.dumps([said[place, id].item() for place, id in enumerate(ids[1:])]))
"""
HARNESS = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
import tune_tasks
spec, figures = json.load(open("evaluate.json")), {}
for task, args in zip(tune_tasks.tasks(spec["tasks"]), ({}, {"add_bos_token": False}, {}), strict=True):
    model = {"pretrained": "inputs/model", "dtype": "auto", **args}
    figures |= simple_evaluate(model="hf", model_args=model, tasks=[task], batch_size=8, random_seed=1234, numpy_random_seed=1234,
        torch_random_seed=1234, fewshot_random_seed=1234, device="cpu", task_manager=TaskManager(include_defaults=False))["results"]
print(json.dumps(figures))
"""
"""A text as a whole begins with BOS once, which the harness puts there itself."""
PLAIN = """
import json, math, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = (each.from_pretrained("inputs/model") for each in (AutoTokenizer, AutoModelForCausalLM))
right = rows = nats = size = 0
with torch.inference_mode():
    for line in open("inputs/tasks/choice.jsonl"):
        row, scores = json.loads(line), []
        for choice in row["choices"]:
            start = tokenizer(row["question"])["input_ids"]
            ids = tokenizer(f"{row['question']} {choice}")["input_ids"]
            said = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
            scores.append(sum(said[place - 1, ids[place]].item() for place in range(len(start), len(ids))))
        right += scores.index(max(scores)) == row["answer"]
        rows += 1
    for line in open("inputs/tasks/text.jsonl"):
        text = json.loads(line)["text"]
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        said = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
        nats -= sum(said[place - 1, ids[place]].item() for place in range(1, len(ids)))
        size += len(text.encode())
    replies = []
    for line in open("inputs/tasks/exact.jsonl"):
        ids, new = tokenizer(json.loads(line)["prompt"])["input_ids"], []
        while len(new) < 64 and "\\n" not in tokenizer.decode(new):
            new.append(model(torch.tensor([ids + new])).logits[0, -1].argmax().item())
            if new[-1] == tokenizer.eos_token_id:
                break
        replies.append(tokenizer.decode(new, skip_special_tokens=True).split("\\n")[0].strip())
print(json.dumps([right / rows, nats / size / math.log(2), replies]))
"""


def lines(path, rows):
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def trained(tune, monkeypatch, stage_python):
    """Submits the recipe with a gate and follows it to its end; the exit code."""
    monkeypatch.setenv("SERVE_KEY", "canary-serve-key-1")
    lines(tune.cwd / "rows.jsonl", [{"instruction": f"add {n} and 1", "output": f"it is {n + 1}"} for n in range(24)])
    sums = [{"question": f"add {n} and 1\n", "choices": [f"it is {n + 1}", "no idea"], "answer": 0} for n in range(10)]
    lines(tune.cwd / "choice.jsonl", sums)
    lines(tune.cwd / "exact.jsonl", [{"prompt": f"add {n} and 1\n", "answer": f"it is {n + 1}"} for n in range(4)])
    lines(tune.cwd / "text.jsonl", [{"text": f"add {n} and 1 it is {n + 1}"} for n in range(4)])

    def run(gate, code, trainer="litgpt", change=str):
        (tune.cwd / "recipe.yaml").write_text(change(RECIPE.replace("GATE", gate)))
        return tune("submit", "recipe.yaml", "--to", trainer, "--id", "job", "--follow", code=code, timeout=1800)

    yield run
    tune("cancel", "--all-of", "tiny", code=None)  # a server goes on until it is told to end, also where the test has failed


def test_a_recipe_to_its_server(tune, home, trained, stage_python, python, call):
    """Trained, evaluated, through its gate, exported, compared with LitGPT and served by one command: the figures are the harness's own
    and a plain loop's, the server's log-probabilities are those of LitGPT's own model, and the key is nowhere.
    """
    trained("0.0", 0)
    ids = ("job", "job.evaluate", "job.export", "job.score", "job.serve")
    assert [tune.json("status", id)[0]["state"] for id in ids] == [*["SUCCEEDED"] * 4, "READY"]
    [said] = [
        point["value"] for point in tune.json("metrics", "job.serve")["points"] if point["name"] == "served/largest_difference"
    ]
    assert said <= 1e-5
    assert "of LitGPT's own on 4 rows" in tune.json("status", "job.serve")[0]["detail"]
    work = home / "jobs" / "job.evaluate" / "1" / "work"
    found = {point["name"]: point["value"] for point in tune.json("metrics", "job.evaluate")["points"]}
    theirs = json.loads(call([stage_python, "-c", HARNESS], work).stdout.splitlines()[-1])
    for task, figures in theirs.items():
        for name, value in figures.items():
            if isinstance(value, float) and name.endswith(",none"):
                assert found[f"{task}.{name.removesuffix(',none')}"] == value
    accuracy, bits, replies = json.loads(call([stage_python, "-c", PLAIN], work).stdout.splitlines()[-1])
    assert found["choice.acc"] == accuracy
    assert found["text.bits_per_byte"] == pytest.approx(bits, rel=1e-4)
    samples = [json.loads(line) for line in (work / "out" / "samples-model-exact.jsonl").read_text().splitlines()]
    assert [row["filtered_resps"][0] for row in sorted(samples, key=lambda row: row["doc_id"])] == replies
    assert (
        found["exact.exact_match"] == sum(row["doc"]["answer"] == reply for row, reply in zip(samples, replies, strict=True)) / 4
    )

    rows = [[5, 9, 200, 31, 7], list(range(40, 70)), [65] * 20]
    folder = home / "jobs" / "job" / "1" / "work" / "out" / "final"
    own = call([python("litgpt"), "-c", LITGPT, folder, json.dumps(rows)], tune.cwd).stdout.splitlines()
    with endpoint("job") as where:
        assert set(where.models) == {"tiny", "base", "adapter"}
        for model in ("tiny", "adapter"):
            for ids, line in zip(rows, own, strict=True):
                assert served(where, model, ids) == pytest.approx(json.loads(line), abs=1e-5)
        assert served(where, "base", rows[1]) != pytest.approx(json.loads(own[1]), abs=1e-3)
    assert tune("chat", "job", "add 1 and 1", "--max-tokens", "4").stdout.strip()
    tune("cancel", "job.serve")
    found = subprocess.run(
        ["grep", "-rl", "canary-serve-key-1", home / "jobs", home / "store.db"], capture_output=True, check=False
    )
    assert found.stdout == b""


def served(where, model, ids):
    """Log-probabilities that a server gives to a text."""
    body = {"model": model, "prompt": ids, "echo": True, "logprobs": 0, "max_tokens": 0}
    head = {"Authorization": f"Bearer {where.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{where.url}/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)["choices"][0]["logprobs"]["token_logprobs"][1:]


def test_a_gate_that_is_not_met_serves_nothing(tune, home, trained):
    """The training has SUCCEEDED and keeps its checkpoint, the evaluation is FAILED by its gate with the figure, and nothing is served."""
    done = trained("1.5", 1)
    assert "gate: choice.acc >= 1.5: choice.acc is" in done.stderr
    states = {job["id"]: (job["state"], job["reason"]) for job in tune.json("status")}
    assert states == {"job": ("SUCCEEDED", ""), "job.evaluate": ("FAILED", "gate")}  # and no job.export, job.score, job.serve
    assert (home / "jobs" / "job" / "1" / "work" / "checkpoint" / "model.safetensors").exists()
    assert tune("wait", "job", code=1).stdout.splitlines()[-1].startswith("job.evaluate FAILED gate")


FULL = ("method: {adapter: lora, lora: {rank: 4, alpha: 32}}\n", ""), ("[merged, adapter]", "[merged]")


@pytest.mark.thorough(3)
@pytest.mark.parametrize(
    ("trainer", "adapter"),
    [(trainer, adapter) for trainer in ("litgpt", "torchtune", "trl") for adapter in ("lora", "none")],
)
def test_a_recipe_to_its_clients(tune, trained, clients, trainer, adapter):
    """By one command from the recipe to a server that is READY, with another trainer's own framework, over an adapter and over all weights,
    within 1e-5 of it; and LangChain, Haystack and LlamaIndex are answered by it.
    """

    def changed(text):
        for ours, theirs in FULL if adapter == "none" else ():
            text = text.replace(ours, theirs)
        return text.replace("max_length: 256", "max_length: 2048")  # passages come before the question

    trained("0.0", 0, trainer, changed)
    assert tune.json("status", "job.serve")[0]["state"] == "READY"
    [said] = [
        point["value"] for point in tune.json("metrics", "job.serve")["points"] if point["name"] == "served/largest_difference"
    ]
    assert said <= 1e-5
    with endpoint("job") as where:
        for name, done in clients(where.url, "tiny", where.key):
            assert done.returncode == 0, (name, done.stderr[-2000:])
