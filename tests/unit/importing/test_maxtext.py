"""MaxText's configs in the wild: what they stand on, what the command says, and what only MaxText itself keeps."""

import pytest

from backends.analysis.porting import elsewhere, moved
from backends.backend import Inexpressible
from backends.compile import plan
from backends.dialect import MODEL, ROWS, Refused
from backends.importing import shell
from backends.importing.convert import convert
from backends.native_config import Unreadable
from backends.registry import BACKENDS
from backends.target import Target

TUNED = """
base_config: "post_train/sft.yml"
hf_path: org/chats
model_name: qwen3-0.6b
tokenizer_path: Qwen/Qwen3-0.6B
load_parameters_path: /weights/0/items
steps: 20
per_device_batch_size: 2
learning_rate: 1.e-5
"""

COMMAND = "python3 -m maxtext.trainers.pre_train.train maxtext/configs/base.yml steps=9 dataset_type=synthetic"


def found(text):
    """The import of a text, its recipe's leaves, and what became of each key."""
    made = convert(text, name="x.yml")
    return made, made.recipe.flat(), {entry.key: entry for entry in made.entries}


def kept(made):
    """What MaxText is told verbatim."""
    return made.recipe.native.get("maxtext", {})


def written(made, accept=()):
    """The keys of the plan's main config, as lines."""
    files = plan(BACKENDS["maxtext"], made.recipe, Target("here", made.recipe.resources.accelerator), accept=accept).files
    return next(file.text for file in files if file.path == "maxtext.yml").splitlines()


def test_a_base_that_comes_with_maxtext():
    """What a base of MaxText's own says counts as said in the file, but for those on which all configs stand."""
    made, leaves, keys = found("base_config: gpu/models/llama2_7b.yml\nlearning_rate: 1.e-4\n")
    assert leaves["train.steps"] == 30
    assert kept(made)["max_segments_per_seq"] == 32
    assert keys["steps"].line is None
    assert any("gpu/models/llama2_7b.yml is read as the base" in note for note in made.notes)


def test_a_base_that_upstream_has_moved():
    """A path of an older release names the config that has its name today, and the reader learns which."""
    made, leaves, _ = found("base_config: MaxText/configs/models/gpu/llama2_7b.yml\nlearning_rate: 1.e-4\n")
    assert leaves["train.steps"] == 30
    assert "gpu/models/llama2_7b.yml is read as the base of this file: 15 keys" in made.notes


def test_a_base_that_is_nowhere():
    """Nothing is guessed where a base is missing: the trainer could not load the file either."""
    with pytest.raises(Unreadable) as error:
        found("base_config: mine.yml\nsteps: 3\n")
    assert "neither beside it nor among MaxText's own" in error.value.rule
    assert error.value.hint == "put it beside the file"


def test_a_config_of_the_model_that_answers():
    """What stands on the shardings of GRPO's sampling model trains nothing: its program takes it beside the training config."""
    with pytest.raises(Refused, match="it is for inference"):
        found("base_config: rl_mt_jt.yml\nuse_grpo: true\nnum_generations: 4\n")


def test_a_config_from_where_a_script_starts():
    """A script names its config from elsewhere: it is found by the last parts of the path."""
    text = COMMAND.replace("maxtext/configs/base.yml", "src/mine/configs/one.yml")
    files = {"configs/one.yml": "base_config: base.yml\nlearning_rate: 5.e-3\n"}
    made = convert(text, name="x.sh", beside=files.get)
    assert made.recipe.optim.lr == 5e-3


def test_a_command_without_a_config():
    """The program's own config stands below the command."""
    made, leaves, _ = found(COMMAND.replace("pre_train.train maxtext/configs/base.yml", "post_train.sft.train_sft"))
    assert made.recipe.method.kind == "sft"
    assert leaves["optim.lr"] == 2e-5


def test_programs_as_scripts_name_them():
    """A program in quotes, or as a file of the package, is the module that it stands for."""
    name = "maxtext.trainers.pre_train.train"
    for written in (
        'python3 -m maxtext.trainers.pre_train."train" ',
        "cd /app/src && python3 maxtext/trainers/pre_train/train.py ",
    ):
        assert shell.command(f"{written} maxtext/configs/base.yml steps=9").module == name


def test_words_that_are_no_keys():
    """Nothing on the command line is dropped: what the script takes from elsewhere and what MaxText refuses are told."""
    _, _, keys = found(f"{COMMAND} ${{MORE}} enable_checkpointing: run_name=x")
    assert keys["outside:${MORE}"].why == "is set outside of the script: give it as KEY=VALUE"
    assert keys["word:enable_checkpointing:"].why == "no key=value: MaxText refuses it"


def test_a_script_with_several_commands():
    """The first is read, and the reader learns where the others stand."""
    made, leaves, _ = found(f"#!/bin/bash\n{COMMAND}\n\n{COMMAND} \\\n  learning_rate=1\n{COMMAND}\n")
    assert leaves["optim.lr"] == 3e-5
    assert "the script's other commands are left out: --line 4, --line 6" in made.notes


def test_steps_that_only_the_shell_knows():
    """A recipe needs steps: the key that says none is named."""
    with pytest.raises(Refused, match=r"no key says train\.steps, .*\(steps: should be a number, got None\)"):
        found(f"{COMMAND.replace('steps=9', 'steps=')} model_name=llama9-1b")


def test_made_up_tokens():
    """Tokens that measure speed are no rows: MaxText goes on making them, another trainer wants rows named."""
    made, leaves, keys = found(COMMAND)
    assert leaves["data.train"] == ROWS
    assert keys["dataset_type"].fate == "unmodelled"
    assert "dataset_type: synthetic" in written(made)


def test_rows_that_only_maxtext_reads():
    """Rows of another loader's form stay with MaxText, with all that the loader needs."""
    made, leaves, _ = found(f"{COMMAND.replace('synthetic', 'grain')} grain_train_files=/rows/*.arrayrecord")
    assert leaves["data.train"] == ROWS
    assert kept(made)["grain_train_files"] == "/rows/*.arrayrecord"
    assert "dataset_type: grain" in written(made)


def test_a_model_that_recipes_cannot_begin_with():
    """A model of another family that begins at random is named, and reported: only MaxText's own keys say the rest."""
    made, leaves, keys = found(f"{COMMAND} model_name=gemma2-9b")
    assert (leaves["model.id"], leaves["model.init"]) == ("google/gemma-2-9b", "pretrained")
    assert "begins at random" in keys["model_name"].why
    assert kept(made)["model_name"] == "gemma2-9b"
    assert kept(made)["load_parameters_path"] == ""


def test_a_model_by_its_sizes():
    """A scale of all sizes is multiplied out, as MaxText does."""
    _, leaves, keys = found(
        f"{COMMAND} base_emb_dim=64 base_num_decoder_layers=3 global_parameter_scale=16 enable_checkpointing=false"
    )
    sizes = leaves["model.architecture"]
    assert (sizes["hidden_size"], sizes["intermediate_size"], sizes["layers"], sizes["heads"]) == (128, 7168 * 4, 6, 64)
    assert keys["global_parameter_scale"].fate == "modelled"


def test_a_model_that_the_shell_names():
    """A name that the script takes from elsewhere is not taken for MaxText's default model."""
    _, leaves, _ = found(f"{COMMAND} model_name=$MODEL")
    assert leaves["model.id"] == MODEL


def test_two_seeds():
    """The order's seed is the recipe's; a start with another seed keeps it in MaxText."""
    made, leaves, _ = found(TUNED + "data_shuffle_seed: 3\ninit_weights_seed: 5\n")
    assert leaves["train.seed"] == 3
    assert kept(made)["init_weights_seed"] == 5
    assert "init_weights_seed: 5" in written(made)


def test_evaluation_by_its_own_loader():
    """A config that evaluates goes on doing so: its own keys make up for what the recipe's leaf cannot."""
    made, leaves, _ = found(TUNED + "eval_interval: 5\nhf_eval_split: test\n")
    assert (leaves["data.eval"], leaves["data.eval_split"], leaves["eval.every"]) == ("org/chats", "test", 5)
    assert "hf_eval_split: test" in written(made)


def test_two_columns():
    """Lists of messages in two columns are completions; columns that its loader takes with images only are its own affair."""
    made, leaves, _ = found(TUNED + "train_data_columns: [prompt, completion]\n")
    assert leaves["data.format"] == "completion"
    assert "train_data_columns" not in kept(made)
    assert any("prompt" in line and "completion" in line for line in written(made) if line.startswith("train_data_columns"))
    images, _, _ = found(TUNED + "train_data_columns: [query, label]\nuse_multimodal: true\n")
    assert kept(images)["train_data_columns"] == ["query", "label"]


def test_answers_that_are_scored():
    """Steps and prompts are counted as train_rl counts them, whose rate ends at 0; what only it has is reported, key by key."""
    made, leaves, keys = found(
        "python3 -m maxtext.trainers.post_train.rl.train_rl model_name=qwen3-0.6b num_batches=50 batch_size=4"
        " rl.num_generations=8 rl.num_iterations=2 rollout_data_parallelism=2"
    )
    assert made.recipe.method.kind == "grpo"
    assert (leaves["train.steps"], leaves["train.batch.global"], leaves["optim.min_lr"]) == (100, 4, 0.0)
    assert (leaves["data.train"], leaves["data.columns.prompt"]) == ("openai/gsm8k", "question")
    assert keys["rollout_data_parallelism"].why.startswith("of MaxText's own reinforcement learning")


TAUGHT = """
base_config: "post_train/distillation.yml"
hf_path: org/texts
tokenizer_path: Qwen/Qwen3-0.6B
student_overrides: {model_name: qwen3-0.6b, load_parameters_path: /weights/0/items}
teacher_overrides: {model_name: qwen3-8b, load_parameters_path: /teacher/0/items}
distill_alpha: 0.7
"""


def test_a_teacher():
    """The model and its teacher are leaves, the share of the teacher too; what only MaxText has goes on in its own words."""
    made, leaves, keys = found(TAUGHT + "distill_temperature: 2.0\n")
    assert (leaves["model.id"], leaves["method.distill.teacher"]) == ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B")
    assert (leaves["method.distill.ratio"], leaves["data.format"], leaves["data.add_eos"]) == (0.7, "text", True)
    assert keys["distill_temperature"].fate == "unmodelled"
    text = written(made, accept=("native.maxtext.distill_temperature",))
    assert {"distill_alpha: 0.7", "distill_temperature: 2.0", "use_sft: false", "add_eos: true"} <= set(text)


def test_a_teacher_in_chats():
    """Distillation over chats stays that: MaxText masks all but the answers, and adds no end token."""
    made, leaves, _ = found(TAUGHT + "use_sft: true\ntrain_data_columns: [messages]\n")
    assert (leaves["data.format"], leaves["data.add_eos"]) == ("chat", False)
    assert "use_sft: true" in written(made)


def test_a_teacher_that_is_not_converted():
    """A teacher whose weights have no way into MaxText's form is lost by name, before anything runs."""
    made, _, _ = found(TAUGHT.replace("model_name: qwen3-8b", "model_name: qwen3-30b-a3b-base"))
    with pytest.raises(Inexpressible) as error:
        written(made)
    assert [line.leaf for line in error.value.report.refused] == ["method.distill.teacher"]


def test_moving_off_tpu():
    """A recipe for TPU moves to a trainer that has none as one for any accelerator, and the reader learns it."""
    made, _, _ = found(TUNED + "hardware: tpu\n")
    assert elsewhere(made.recipe, BACKENDS["axolotl"]).resources.accelerator == "any"
    assert elsewhere(made.recipe, BACKENDS["maxtext"]).resources.accelerator == "tpu"
    told = [line for line in moved(BACKENDS["axolotl"], made.recipe) if line.leaf == "resources.accelerator"]
    assert [line.why for line in told] == ["axolotl does not run on tpu: it moves to cpu or cuda, with accelerator: any"]
    assert not any(line.leaf == "resources.accelerator" for line in moved(BACKENDS["maxtext"], made.recipe))


@pytest.mark.parametrize("part", ["y" * 300, "\\0"])
def test_a_name_that_no_file_can_have(tune, part):
    """A base, or a script's config, by a name too long for a file or with a zero byte is one that is not there."""
    (tune.cwd / "wild.yml").write_text(f'base_config: "{part}.yml"\nsteps: 3\nper_device_batch_size: 1\n')
    assert "wild.yml:1: base_config" in tune("import", "wild.yml", code=2).stderr
    (tune.cwd / "wild.sh").write_text(f"python3 -m maxtext.trainers.pre_train.train {part}.yml steps=9\n")
    assert "wild.sh" in tune("import", "wild.sh", code=2).stderr
