"""The escape hatch: keys of the user's own, held against what the trainer knows."""

import json
from pathlib import Path

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.registry import BACKENDS, find
from backends.target import Target

ROOT = Path(__file__).parents[3]
KNOWN = {
    "litgpt": ("train.max_norm", "optimizer.init_args.whatever", "data.init_args.x", "lora_r", "train"),
    "torchtune": ("optimizer.lr", "clip_grad_norm", "dataset.whatever", "metric_logger.project", "profiler.with_stack"),
    "axolotl": ("learning_rate", "lora_r", "optim_args.whatever", "fsdp_config.offload_params", "trl.beta", "special_tokens"),
    "maxtext": ("learning_rate", "per_device_batch_size", "dpo.dpo_beta", "student_overrides.whatever"),
    "trl": ("learning_rate", "lora_r", "num_generations", "reward_funcs", "model_init_kwargs.whatever", "env.NAME"),
    "unsloth": ("model.load_in_4bit", "lora.r", "training.learning_rate", "training.lr_scheduler_kwargs.whatever"),
}
UNKNOWN = {
    "litgpt": {"train.max_nrom": "train.max_norm", "lora_rank": "lora_r"},
    "torchtune": {"optimizer.lerning_rate": "", "clip_grad_nrom": "clip_grad_norm"},
    "axolotl": {"lerning_rate": "learning_rate", "fsdp_config.ofload_params": "fsdp_config.offload_params"},
    "maxtext": {"lerning_rate": "learning_rate"},
    "unsloth": {"training.lerning_rate": "training.learning_rate", "model.load_in_4bits": "model.load_in_4bit"},
    "trl": {"lerning_rate": "learning_rate", "packing_stratgy": "packing_strategy"},
}


def decided(trainer, native, *accept):
    """The plan of a small recipe with keys of the user's."""
    values = {
        "version": 1,
        "name": "keys",
        "model": {"id": "Qwen/Qwen2.5-0.5B"},
        "data": {"train": "rows.jsonl", "format": "instruct"},
        "train": {"steps": 4, "batch": {"global": 2}},
        "optim": {"lr": 1e-4, "warmup_steps": 1},
        "native": {trainer: native},
    }
    return plan(BACKENDS[trainer], parse(json.dumps(values)), Target(), accept)


@pytest.mark.parametrize(("trainer", "key"), [(t, key) for t, known in KNOWN.items() for key in known])
def test_what_a_trainer_knows(trainer, key):
    """Keys, sections, and whatever stands below a free mapping."""
    assert not find(trainer).known_keys.is_unknown(key, written=(), verbatim={})


@pytest.mark.parametrize(("trainer", "key", "near"), [(t, k, near) for t, known in UNKNOWN.items() for k, near in known.items()])
def test_what_a_trainer_does_not_know(trainer, key, near):
    """A typo is unknown, and the nearest key is offered."""
    assert find(trainer).known_keys.is_unknown(key, written=(), verbatim={})
    assert not near or find(trainer).known_keys.nearest(key) == near


def test_what_no_table_can_know():
    """Keys of ours, keys below a class that the user names, and a trainer without a table."""
    assert not find("torchtune").known_keys.is_unknown("dataset.folder", written=("dataset.folder",), verbatim={})
    assert not find("torchtune").known_keys.is_unknown(
        "optimizer.q", written=(), verbatim={"optimizer._component_": "x", "optimizer.q": 1}
    )
    assert not find("command").known_keys.is_unknown("argv", written=(), verbatim={})


def test_what_plugins_know():
    """axolotl takes a plugin's keys where `plugins` names it; what a plugin of the user's own takes, no table knows."""
    key, home = "liger_rms_norm", "axolotl.integrations.liger.LigerPlugin"
    with pytest.raises(Inexpressible, match=f"native.axolotl.{key}") as error:
        decided("axolotl", {key: True})
    assert error.value.report.refused[0].why == "axolotl 0.19.0 has no such key; name its LigerPlugin under plugins"
    for plugin in (home, "mine.Plugin"):
        assert not decided("axolotl", {"plugins": [plugin], key: True}).report.refused


def test_a_key_is_taken_away():
    """`~key: null` takes away what would be written, wherever it stands among the others; with a value it is a mistake."""
    made = decided("torchtune", {"dataset": {"_component_": "mine.rows"}, "~dataset": None, "~clip_grad_norm": None})
    config = next(file.text for file in made.files if file.path == "torchtune.yaml")
    assert config.endswith("\ndataset:\n  _component_: mine.rows\n")
    assert "clip_grad_norm" not in config
    line = next(each for each in made.report.lines if each.leaf == "native.torchtune.~clip_grad_norm")
    assert (line.status, line.native, line.why) == ("native", {}, "taken away: the trainer's default decides")
    with pytest.raises(RecipeError) as error:
        decided("torchtune", {"~clip_grad_norm": 2.0})
    assert [problem.rule for problem in error.value.problems] == ["should be null: ~ takes the key away"]


def test_a_secret_is_no_key():
    """A recipe that holds one is refused, and the secret is not repeated."""
    with pytest.raises(RecipeError) as error:
        decided("axolotl", {"wandb_api_key": "0123456789"})
    [problem] = error.value.problems
    assert (problem.path, problem.rule) == ("native.axolotl.wandb_api_key", "looks like a secret")
    assert "0123456789" not in repr(problem)


def test_an_unknown_key_is_lost_by_name_and_written_when_accepted():
    """`native.x.y` stops the plan with the nearest name; accepted by that name it is written all the same."""
    with pytest.raises(Inexpressible) as error:
        decided("torchtune", {"clip_grad_nrom": 1.0})
    [line] = error.value.report.refused
    assert line.leaf == "native.torchtune.clip_grad_nrom"
    assert line.why == "torchtune 0.6.1 has no such key; did you mean clip_grad_norm?"
    made = decided("torchtune", {"clip_grad_nrom": 1.0}, line.leaf)
    assert "clip_grad_nrom: 1.0" in next(file.text for file in made.files if file.path == "torchtune.yaml")
    assert next(each for each in made.report.lines if each.leaf == line.leaf).accepted


def test_a_known_key_is_in_the_report():
    """What is set verbatim is listed by its whole name, with what it replaced."""
    line = next(each for each in decided("torchtune", {"optimizer": {"lr": 2.0}}).report.lines if each.status == "native")
    assert (line.leaf, line.native) == ("native.torchtune.optimizer.lr", {"optimizer.lr": 2.0})
    assert "optimizer.lr" in line.why


def test_accepted_on_the_command_line(tune):
    """--accept takes the whole name of a key that the recipe sets, and no other."""
    words = ("translate", ROOT / "recipes" / "quickstart.yaml", "--to", "torchtune", "--set", "native.torchtune.lerning=1")
    assert "to write it anyway: --accept native.torchtune.lerning" in tune(*words, code=3).stdout
    assert "lerning: 1" in tune(*words, "--accept", "native.torchtune.lerning").stdout
    assert "did you mean native.torchtune.lerning?" in tune(*words, "--accept", "native.torchtune.lernin", code=2).stderr
