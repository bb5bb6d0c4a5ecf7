"""Recipes that come along, run by their own first line, on a machine without a GPU: nothing is set over them. Their models
come from a hub on this machine, which has each model's twin, by the model's name and with its number of positions; such a recipe goes to
TRL, as LitGPT, which comes first, knows the sizes that belong to the name and refuses a twin.
"""

import json
import shlex
from pathlib import Path

import pytest

from backends.models import MODELS
from backends.recipe.parse import parse
from tests.hub import hub
from tests.twins.families import twin_of

ROOT = Path(__file__).parents[2]
BY_TASK = {
    "instructions": ("qwen2.5-0.5b/lora", "llama-3.2-1b/full", "olmo-2-7b/lora"),
    "conversations": ("qwen3-0.6b/lora", "smollm3-3b/lora", "rehearsal/chat"),
    "text": ("qwen3-0.6b/pretrain", "rehearsal/pretrain", "rehearsal/lora"),
    "preferences": ("smollm2-135m/dpo", "rehearsal/dpo", "rehearsal/kto"),
    "rewards": ("qwen2.5-0.5b/reward", "rehearsal/reward", "rehearsal/grpo"),
}
"""Three recipes of each task, of those that ask for no GPU and bring their rows."""
FIRST = "rehearsal/dpo"
"""Run where the others are drawn."""
NAMES = [name for names in BY_TASK.values() for name in names]


def command(name):
    """The words of a recipe's first line."""
    first, words = (ROOT / "recipes" / f"{name}.yaml").read_text().partition("\n")[0], "# tune "
    assert first.startswith(words)
    return shlex.split(first.removeprefix(words))


@pytest.fixture(scope="module")
def models_hub():
    """A hub with nothing in it yet."""
    with hub() as server:
        yield server


@pytest.fixture
def hosted(twin, models_hub, tmp_path, home):
    """Serve a model's twin by the model's name; this machine's jobs are led there, and keep what they fetch to themselves."""
    (home / "cache").unlink()
    (home / "cache").mkdir()
    (home / "secrets.env").write_text("HF_TOKEN=accepted\n")  # some of these models are gated
    (home / "secrets.env").chmod(0o600)
    env = {**models_hub.env, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    targets = {"version": 1, "targets": {"local": {"kind": "local", "env": env}}}
    (tmp_path / "config" / "tune" / "clusters.yaml").write_text(json.dumps(targets))

    def serve(id):
        files = {file.name: file.read_bytes() for file in twin(twin_of(id)).iterdir()}
        config = json.loads(files["config.json"]) | {"max_position_embeddings": MODELS[id].max_position}
        models_hub.repositories[id] = {**files, "config.json": json.dumps(config).encode()}

    return serve


@pytest.mark.trainer
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name if name == FIRST else pytest.param(name, marks=pytest.mark.thorough(3)) for name in NAMES])
def test_a_recipe_runs_as_it_stands(tune, home, hosted, models_hub, trainer_interpreter, name):
    """The command of its first line ends SUCCEEDED, after all of its steps, with a checkpoint."""
    path = ROOT / "recipes" / f"{name}.yaml"
    recipe = parse(path.read_text(), name=str(path), base=str(path.parent))
    trainer = ()
    if recipe.model.init == "pretrained":
        hosted(recipe.model.id)
        trainer = ("--to", "trl")
    (tune.cwd / "recipes").symlink_to(ROOT / "recipes")  # beside no clusters.yaml, which would come before ours
    planned = tune.json("submit", path, "--dry-run", *trainer)
    trainer_interpreter(planned["backend"], {**dict(planned["env"]), **models_hub.env})
    job = tune(*command(name), *trainer, timeout=1700).stdout.strip()
    [row] = tune.json("status", job)
    assert row["state"] == "SUCCEEDED"
    assert row["step"] == row["steps"] > 0
    assert list((home / "jobs" / job / "1" / "work" / "checkpoint").glob("*.safetensors"))


def test_three_of_each_task():
    """Three recipes for each task, each once; each brings its rows and asks for no GPU."""
    assert {len(names) for names in BY_TASK.values()} == {3}
    assert len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        path = ROOT / "recipes" / f"{name}.yaml"
        assert parse(path.read_text(), name=str(path), base=str(path.parent)).resources.accelerator == "any"
