"""`data.rendering: native` in TRL: it reads, renders, masks and cuts the files itself, and trains; and what then differs from shared rows."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

SHIMS = Path(__file__).parents[2] / "backends" / "shims"

pytestmark = pytest.mark.trainer

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<a>{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}<u>{{ m.content }}</u>{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
"""Marks what the assistant says, as TRL wants it for assistant_only_loss."""
SHAPE = {
    "family": "llama",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
}
SHAPE |= {"max_length": 256, "rope_theta": 1e4, "norm_eps": 1e-5, "tied": False}
REWARDS = "def brief(prompts, completions, answer, **_):\n    return [-float(len(text)) for text in completions]\n"
TOKENS = """
import json, sys
if sys.argv[1] == "shared":
    import tune_shared
    rows = tune_shared.Rows("data")
    found = [[list(map(int, part)) for part in rows.row(n)] for n in range(len(rows))]
else:
    import tune_trl
    found = [[row["input_ids"], row["labels"]] for row in tune_trl.made("trl.yaml")[0].train_dataset]
print("FOUND " + json.dumps(sorted([ids, labels[1:]] for ids, labels in found)))
"""


@pytest.fixture
def base(tune, trainer_python):
    """The folder of a small model whose tokenizer has a chat template."""
    (tune.cwd / "model.json").write_text(json.dumps({"init": "random", "folder": "made/base", "seed": 0, "architecture": SHAPE}))
    argv = [trainer_python("trl"), str(SHIMS / "tune_model.py"), "model.json"]
    subprocess.run(argv, cwd=tune.cwd, check=True, capture_output=True)
    folder = tune.cwd / "made" / "base"
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def rows(form, count, word):
    """Rows of a format, of unequal lengths."""
    for n in range(count):
        prompt, good, bad = (
            f"{word} {n}: add {n} and 2. ",
            f"It is {n + 2}" + ", really" * (n % 3) + ".",
            "No idea" + "!" * (n % 5),
        )
        yield {
            "chat": {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": good}]},
            "text": {"text": prompt + good},
            "completion": {"prompt": prompt, "completion": good},
            "preference": {"prompt": prompt, "chosen": good, "rejected": bad},
            "rated": {"prompt": prompt, "completion": good if n % 2 else bad, "label": bool(n % 2)},
            "prompts": {"prompt": prompt, "answer": good},
        }[form]


def recipe(folder, base, form, kind="sft", rendering="native"):
    """Three steps of four rows, with the files that it names."""
    for name, count in (("rows", 14), ("val", 5)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(form, count, name)))
    (folder / "rewards.py").write_text(REWARDS)
    method = {"kind": kind}
    if kind == "grpo":
        method["grpo"] = {"rewards": ["./rewards.py:brief"], "generations": 2, "max_new_tokens": 8}
    data = {"train": "rows.jsonl", "eval": "val.jsonl", "format": form, "rendering": rendering, "max_length": 96}
    return {
        "version": 1,
        "name": f"{kind}-{form}",
        "model": {"id": str(base)},
        "method": method,
        "data": data,
        "train": {"steps": 3, "batch": {"global": 4, "micro": 2}, "precision": "fp32"},
        "optim": {"lr": 5e-3, "warmup_steps": 1},
    }


def trained(tune, home, wish):
    """The work folder of a job that has trained and evaluated."""
    (tune.cwd / "r.yaml").write_text(json.dumps(wish))
    job = tune("submit", "r.yaml", "--to", "trl", "--follow").stdout.strip()
    found = {(point["name"], point["step"]) for point in tune.json("metrics", job)["points"]}
    assert {("loss", 1), ("loss", 2), ("loss", 3), ("eval_loss", 3)} <= found
    work = home / "jobs" / job / "1" / "work"
    assert not (work / "data").exists()
    return work


def tokens(python, folder, rendering):
    """The rows that are trained on, sorted: ids, and labels but for that of the first token, which is nobody's target."""
    env = {**os.environ, "PYTHONPATH": str(folder), "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, "-c", TOKENS, rendering], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert "FOUND" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("FOUND ")[2])


def shared(python, base, form, folder):
    """The rows that the data step makes of the same files."""
    wish = recipe(folder, base, form, rendering="shared")
    made = plan(BACKENDS["trl"], parse(json.dumps(wish), base=str(folder)), Target())
    for file in made.files:
        (folder / file.path).write_text(file.text)
    for each in made.inputs:
        place = folder / each.path
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(each.source)
    subprocess.run([python, "tune_data.py", "data.json"], cwd=folder, check=True, capture_output=True)
    return tokens(python, folder, "shared")


@pytest.mark.parametrize("form", ["chat", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("text", "completion"))])
def test_rows_have_the_same_tokens(tune, home, base, trainer_python, tmp_path, form):
    """Three steps are trained, and what TRL makes of the rows is what the data step makes of them: ids, and which carry loss."""
    work = trained(tune, home, recipe(tune.cwd, base, form))
    folder = tmp_path / "shared"
    folder.mkdir()
    python = trainer_python("trl")
    assert tokens(python, work, "native") == shared(python, base, form, folder)


@pytest.mark.thorough(3)
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *(("pretrain", "text"), ("kto", "rated"), ("grpo", "prompts")),
        *((kind, "preference") for kind in ("dpo", "ipo", "orpo", "simpo", "reward")),
    ],
)
def test_every_method_trains(tune, home, base, kind, form):
    """Each method trains three steps on rows that TRL reads itself, and evaluates its own."""
    trained(tune, home, recipe(tune.cwd, base, form, kind))
