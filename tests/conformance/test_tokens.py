"""model.tokens: every trainer starts from the same model with the tokens in it, and learns as plain PyTorch does from transformers' own."""

import json
import subprocess

import pytest

from benchmarks.parity import LIMIT, Case, plain_loop
from tests.conformance.conftest import ENV
from tests.conformance.test_sameness import able, curve

pytestmark = pytest.mark.trainer

TOKENS, SPECIAL = ["<call>", "</call>"], ["<|end_call|>"]
RECIPE = """\
version: 1
name: tokens
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 96, layers: 2, heads: 4, kv_heads: 2, max_length: 256, VOCAB}
  tokens: [<call>, </call>]
  special_tokens: [<|end_call|>]
data: {train: rows.jsonl, format: text, max_length: 64}
train: {steps: 6, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, weight_decay: 0.1, warmup_steps: 1}
"""
GROWN = """
import sys, torch
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer
base, out, tokens, special = *sys.argv[1:3], *(each.split() for each in sys.argv[3:5])
tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
first = len(tokenizer)
tokenizer.add_tokens([AddedToken(each, normalized=False) for each in tokens])
tokenizer.add_tokens([AddedToken(each, normalized=False) for each in special], special_tokens=True)
model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size), mean_resizing=False)
with torch.no_grad():
    for matrix in {id(each): each.weight for each in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
        matrix[first : len(tokenizer)] = matrix[:first].double().mean(0).float()
model.save_pretrained(out)
tokenizer.save_pretrained(out)
"""
"""The start as transformers and torch make it: what each trainer is measured by."""
ASKED = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = tokenizer("a<call>b</call>c<|end_call|>", add_special_tokens=False).input_ids
print(json.dumps([ids, tokenizer.decode(ids, skip_special_tokens=True), list(model.get_output_embeddings().weight.shape)]))
"""
SIZES = {"grows": ("vocab_size: 262", 264), "has rows": ("vocab_size: 300", 300), "tied": ("vocab_size: 261, tied: true", 264)}


def call(python, code, *words):
    """What a program prints, in a trainer's environment."""
    done = subprocess.run([python, "-c", code, *map(str, words)], env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("size", "adapter", "trainers"),
    [
        pytest.param("grows", "none", ("litgpt", "torchtune"), id="grows"),
        pytest.param("grows", "none", None, id="grows-all", marks=pytest.mark.thorough(3)),
        pytest.param("has rows", "none", None, id="has-rows-all", marks=pytest.mark.thorough(3)),
        pytest.param("tied", "none", None, id="tied-all", marks=pytest.mark.thorough(3)),
        pytest.param("grows", "lora", None, id="lora-all", marks=pytest.mark.thorough(3)),
    ],
)
def test_every_trainer_starts_with_the_tokens(tune, home, tmp_path, trainer_python, size, adapter, trainers):
    """Losses lie within 1e-5 of plain PyTorch's from a start that transformers made; each token is one id in the rows of all; what is
    exported has tokenizer and rows, and an adapter names the start that has them.
    """
    vocab, rows = SIZES[size]
    (tune.cwd / "r.yaml").write_text(text := RECIPE.replace("VOCAB", vocab))
    lines = [f"row {n} <call>add({n})</call><|end_call|> and" + " on" * (n % 5) for n in range(60)]
    (tune.cwd / "rows.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    sets = ["--set=method.adapter=lora", "--set=method.lora.rank=4"] if adapter == "lora" else []
    jobs = {t: tune("submit", "r.yaml", "--to", t, *sets).stdout.strip() for t in trainers or able(text)}
    assert trainers or len(jobs) == 6
    tune("wait", *jobs.values())
    works = {t: home / "jobs" / job / "1" / "work" for t, job in jobs.items()}
    base = works["torchtune"] / json.loads((works["torchtune"] / "model.json").read_text())["base"]
    python = trainer_python("trl")
    call(python, GROWN, base, tmp_path / "grown", " ".join(TOKENS), " ".join(SPECIAL))
    lora = {"start": str(works["torchtune"] / "lora" / "start.safetensors"), "alpha": 32} if adapter == "lora" else None
    schedule = {"kind": "cosine", "warmup": 1, "min_ratio": 0.0}
    want = plain_loop(
        works["torchtune"],
        Case("full"),
        tmp_path / "plain.json",
        model=str(tmp_path / "grown"),
        schedule=schedule,
        micro=4,
        lora=lora,
    )
    for trainer, job in jobs.items():
        losses = list(curve(tune, job, "loss").values())
        assert len(losses) == 6, trainer
        gap = max(abs(one - other) for one, other in zip(losses, want.loss, strict=True))
        print(f"{trainer}: {gap:.1e}")
        assert gap < LIMIT, trainer
        assert (works[trainer] / "data").resolve() == (works["torchtune"] / "data").resolve(), "all read the very same rows"
        asked = json.loads(call(python, ASKED, works[trainer] / "checkpoint"))
        assert asked == [[97, 261, 98, 262, 99, 263], "a<call>b</call>c", [rows, 64]], trainer
        if adapter == "lora":
            config = json.loads((works[trainer] / "adapter" / "adapter_config.json").read_text())
            assert config["base_model_name_or_path"] == str((works[trainer] / "start").resolve()), trainer
            assert config["revision"] is None
