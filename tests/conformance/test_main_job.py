"""The main job as a user runs it: one recipe really trains, by each trainer, and what is said about it is true."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
TRAINERS = ("litgpt", "torchtune")

pytestmark = [pytest.mark.trainer, pytest.mark.core]

LOADS = """
import json, sys
from pathlib import Path
from safetensors import safe_open
found = {}
for file in Path(sys.argv[1]).glob("*.safetensors"):
    with safe_open(file, "pt") as weights:
        found |= {name: list(weights.get_slice(name).get_shape()) for name in weights.keys()}
print(json.dumps(found))
"""


def folder(home, job):
    """The work folder of a job's first attempt."""
    return home / "jobs" / job / "1" / "work"


def curve(tune, job, name):
    """Values of a metric by step."""
    return {p["step"]: p["value"] for p in tune.json("metrics", job, "--name", name)["points"]}


def shapes(python, path):
    """Names and shapes of the weights in a folder, as safetensors reads them."""
    return json.loads(subprocess.run([python, "-c", LOADS, str(path)], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_quickstart_trains(tune, home, trainer_python, trainer):
    """The quickstart ends SUCCEEDED with exit code 0, its loss falls below 60 %, and the checkpoint it names loads."""
    said = tune("submit", QUICKSTART, "--to", trainer, "--follow")
    job = said.stdout.strip()
    [row] = tune.json("status", job)
    assert (row["state"], row["step"], row["steps"]) == ("SUCCEEDED", 150, 150)
    losses = curve(tune, job, "loss")
    assert list(losses) == list(range(1, 151))
    assert losses[150] < 0.6 * losses[1]
    assert str(folder(home, job) / "checkpoint") in said.stderr
    python = trainer_python(trainer)
    [base] = (home / "cache" / "models").glob(
        f"{json.loads((folder(home, job) / 'model.json').read_text())['folder'].rsplit('/')[-1]}"
    )
    assert shapes(python, folder(home, job) / "checkpoint") == shapes(python, base)
    assert json.loads((folder(home, job) / "checkpoint" / "config.json").read_text())["model_type"] == "llama"
    assert {p["name"] for p in tune.json("metrics", job)["points"]} >= {"loss", "lr", "tokens_per_second", "tokens"}
    assert "step 150/150" in said.stderr


def failed(tune, *words):
    """A job that fails; its reason."""
    job = tune("submit", *words, "--follow", code=1).stdout.strip()
    [row] = tune.json("status", job)
    assert row["state"] == "FAILED", row
    return row["reason"], row["detail"], job


def small(*more):
    """A few steps of the quickstart."""
    return (QUICKSTART, "--set", "train.steps=12", "--set", "optim.warmup_steps=2", *more)


def ended_with_0(home, job, step="train"):
    """The trainer's own step ended with exit code 0."""
    history = json.loads((home / "jobs" / job / "1" / "exit.json").read_text())["history"]
    return next(s["rc"] for s in history if s["step"] == step) == 0


def test_torchtune_with_a_batch_larger_than_the_data(tune, home):
    """torchtune ends with 0 without a step when the batch is larger than the data: FAILED, no_steps."""
    reason, _, job = failed(tune, *small("--to", "torchtune", "--set", "native.torchtune.batch_size=5000"))
    assert reason == "no_steps"
    assert ended_with_0(home, job)


def test_litgpt_with_prompts_that_fill_max_length(tune, home):
    """LitGPT's own data path trains on rows without any loss token and ends with 0: FAILED, no_loss_tokens."""
    words = ("--set", "data.rendering=native", "--set", "data.template=alpaca", "--set", "data.max_length=32")
    reason, _, job = failed(tune, *small("--to", "litgpt", *words))
    assert reason == "no_loss_tokens"
    assert ended_with_0(home, job)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_prompts_that_fill_max_length_are_refused_before_training(tune, trainer):
    """With shared rendering the data step names the rows without a loss token, and no trainer starts."""
    reason, detail, _ = failed(tune, *small("--to", trainer, "--set", "data.template=alpaca", "--set", "data.max_length=32"))
    assert reason == "no_loss_tokens"
    assert "row" in detail


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_loss_that_is_not_a_number(tune, home, trainer):
    """A diverged run ends with 0: FAILED, nan_loss, with the step."""
    reason, detail, job = failed(tune, *small("--to", trainer, "--set", "optim.lr=1e30", "--set", "optim.weight_decay=1e30"))
    assert reason == "nan_loss"
    assert "step" in detail
    assert ended_with_0(home, job)


def test_a_run_that_changes_nothing(tune, home):
    """A rate of 0 in a native key: the trainer ends with 0, every weight is as it was: FAILED, not_changed."""
    reason, detail, job = failed(tune, *small("--to", "litgpt", "--set", "native.litgpt.optimizer.init_args.lr=0.0"))
    assert reason == "not_changed"
    assert "the learning rate was 0" in detail
    assert ended_with_0(home, job)


@pytest.mark.thorough
def test_a_run_that_bf16_rounds_away(tune):
    """SUCCEEDED, and the job says that few weights have changed, and what to do; the same kept in float32 says nothing."""
    for precision, told in (("bf16", True), ("fp32", False)):
        words = ("--set", "optim.lr=1e-6", "--set", f"train.precision={precision}")
        job = tune("submit", *small("--to", "torchtune", *words), "--follow").stdout.strip()
        [row] = tune.json("status", job)
        assert row["state"] == "SUCCEEDED"
        assert ("of the weights changed: in bf16" in row["detail"]) is told


@pytest.mark.parametrize("trainer", ["litgpt", pytest.param("torchtune", marks=pytest.mark.thorough)])
def test_a_missing_checkpoint(tune, home, trainer):
    """The trainer ended with 0 and its checkpoint is not where it should be: FAILED, no_checkpoint."""
    keys = {"litgpt": "native.litgpt.out_dir=elsewhere/../../out2", "torchtune": "native.torchtune.checkpointer.output_dir=out2"}
    reason, _, job = failed(tune, *small("--to", trainer, "--set", keys[trainer]))
    assert reason in ("no_checkpoint", "no_steps")
    assert ended_with_0(home, job)


def test_preview(tune):
    """Rows are shown as the model will see them, loss tokens marked, without running anything."""
    said = tune("preview", QUICKSTART, "--rows", "2").stdout
    assert said.count("⟦") == 2
    rows = tune.json("preview", QUICKSTART, "--rows", "2")
    assert [r["row"] for r in rows] == [1, 2]


def test_preview_of_a_model_of_the_hub(tune, home, monkeypatch):
    """The tokenizer alone is fetched, here from the user's own cache: rows are shown although no weights are there."""
    (home / "cache").unlink()
    tune("preview", QUICKSTART, "--rows", "1")
    made, commit = next((home / "cache/models").glob("random-*-tokenizer")), "c0ffee" * 6 + "c0ff"
    repository = tune.cwd / "hf/hub/models--org--tiny"
    shutil.copytree(made, repository / "snapshots" / commit, ignore=shutil.ignore_patterns(".*"))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setenv("HF_HOME", str(tune.cwd / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changed = ("--set=model.id=org/tiny", "--set=model.init=pretrained", "--set=model.architecture=null")
    assert tune("preview", QUICKSTART, "--rows", "1", *changed).stdout.count("⟦") == 1
