"""How each trainer's configs are read as they are in the wild: spelling, defaults, what wins over what."""

import json

import pytest
import yaml

from backends.compile import plan
from backends.dialect import Refused
from backends.importing import shell
from backends.importing.convert import convert
from backends.native_config import Unreadable, flat, read
from backends.registry import BACKENDS, dialects
from backends.target import Target
from orchestrator.client.importing import moves_of

TORCHTUNE = """
# tune download meta-llama/Llama-3.2-1B-Instruct --output-dir /models/one
# tune run --nproc_per_node 4 full_finetune_distributed --config this.yaml
output_dir: /runs
model: {_component_: torchtune.models.llama3_2.llama3_2_1b}
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, path: /models/one/original/tokenizer.model}
checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer, checkpoint_dir: /models/one, output_dir: "${output_dir}", checkpoint_files: [a], model_type: LLAMA3_2}
dataset: {_component_: torchtune.datasets.alpaca_dataset}
optimizer: {_component_: torch.optim.AdamW, lr: 3e-4}
loss: {_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}
batch_size: 2
gradient_accumulation_steps: 8
epochs: 1
max_steps_per_epoch: 50
seed: 7
shuffle: True
device: cuda
dtype: bf16
resume_from_checkpoint: False
metric_logger: {_component_: torchtune.training.metric_logging.DiskLogger, log_dir: "${output_dir}/logs"}
"""

AXOLOTL = """
base_model: Qwen/Qwen2.5-0.5B
datasets: [{path: org/rows, type: alpaca}]
micro_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 2e-4
num_epochs: 3
"""


def leaves(text, **more):
    """The recipe's leaves."""
    return convert(text, name="x.yaml", **more).recipe.flat()


def entry(found, key):
    """What became of a key."""
    return next(each for each in found.entries if each.key == key)


def test_numbers_and_switches():
    """`3e-4` is a number and `yes` is true, as the trainers read them; a date stays text."""
    keys = read("a: 3e-4\nb: yes\nc: 2024-01-01\nd: 1_000\ne: '3e-4'\nf: .inf").keys
    assert keys == {"a": 0.0003, "b": True, "c": "2024-01-01", "d": 1000, "e": "3e-4", "f": "inf"}


def test_anchors_and_merges():
    """Aliases and merge keys unfold."""
    assert read("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}").keys == {"a.x": 1, "a.y": 2, "b.y": 3, "b.x": 1}


def test_a_key_given_twice():
    """The last counts, as with the trainers' loaders, and the reader is told."""
    found = convert(AXOLOTL + "num_epochs: 2\n", name="x.yaml")
    assert found.recipe.train.epochs == 2
    assert "num_epochs is given twice, in lines 7 and 8: the last counts" in found.notes


def test_tabs_are_pointed_at():
    """A tab as indentation is an error with its line and the way out."""
    with pytest.raises(Unreadable) as error:
        read("a:\n\tb: 1")
    assert error.value.line == 2
    assert error.value.hint == "indent with spaces"


def test_quoted_numbers():
    """A number in quotes is one, where the trainer takes it so."""
    assert leaves(AXOLOTL.replace("2e-4", "'2e-4'"))["optim.lr"] == 2e-4


def test_torchtune_comments_and_references():
    """The hub id and the devices come from the commands in comments, `${...}` from the file."""
    found = convert(TORCHTUNE, name="x.yaml")
    flat = found.recipe.flat()
    assert flat["model.id"] == "meta-llama/Llama-3.2-1B-Instruct"
    assert (flat["resources.devices"], flat["train.batch.global"], flat["train.batch.micro"]) == (4, 64, 2)
    assert entry(found, "metric_logger.log_dir").value == "/runs/logs"
    assert (flat["train.steps"], flat["train.epochs"]) == (50, None)


def test_torchtune_command_line():
    """`key=value` wins over the file, `~key` takes a key away."""
    flat = leaves(
        TORCHTUNE, sets=["optimizer.lr=1e-3", "~max_steps_per_epoch", "dataset.packed=True", "tokenizer.max_seq_len=512"]
    )
    assert (flat["optim.lr"], flat["train.epochs"], flat["data.pack"], flat["data.max_length"]) == (1e-3, 1, True, 512)


def test_a_reference_to_nothing():
    """It is an error that names the key and what it refers to."""
    with pytest.raises(Unreadable, match="refers to nowhere, which is not in the file"):
        convert(TORCHTUNE.replace('"${output_dir}/logs"', '"${nowhere}/logs"'), name="x.yaml")


def test_absent_keys_are_the_trainers_default():
    """What a config leaves out is what its own trainer takes then: torch's AdamW decays, axolotl's does not and clips at 1."""
    torchtune, axolotl = leaves(TORCHTUNE), leaves(AXOLOTL)
    assert (torchtune["optim.weight_decay"], torchtune["optim.betas"], torchtune["train.grad_clip"]) == (0.01, [0.9, 0.999], None)
    assert (axolotl["optim.weight_decay"], axolotl["train.grad_clip"], axolotl["data.max_length"]) == (0.0, 1.0, 512)
    assert (torchtune["data.train_on_prompt"], axolotl["data.train_on_prompt"]) == (True, False)
    assert (torchtune["optim.schedule"], axolotl["optim.schedule"]) == ("constant", "cosine")


def test_the_default_is_told():
    """A leaf that no key says stands in a list of its own."""
    assert convert(TORCHTUNE, name="x.yaml").assumed["optim.weight_decay"] == 0.01


def test_axolotl_older_names():
    """An older name is read as the new one, and the reader is told."""
    found = convert(AXOLOTL + "fsdp_config: {fsdp_offload_params: true}\n", name="x.yaml")
    assert "fsdp_config.fsdp_offload_params is an older name of fsdp_config.offload_params" in found.notes
    assert found.recipe.native["axolotl"]["fsdp_config"] == {"offload_params": True}


def test_axolotl_several_data_sets():
    """A list of data sets of one kind is a list; of several kinds it is not modelled, and said so."""
    two = AXOLOTL.replace("type: alpaca}]", "type: alpaca}, {path: org/more, type: alpaca, split: 'train[:5%]'}]")
    assert [each["path"] for each in leaves(two)["data.train"]] == ["org/rows", "org/more"]
    mixed = convert(two.replace("org/more, type: alpaca", "org/more, type: completion"), name="x.yaml")
    assert entry(mixed, "datasets.1.type").fate == "unmodelled"


@pytest.mark.parametrize(
    ("key", "value", "fate"),
    [
        ("train_on_eos", "turn", "kept"),
        ("train_on_eos", "last", "unmodelled"),
        ("train_on_eot", "none", "unmodelled"),
        ("drop_system_message", False, "kept"),
        ("drop_system_message", True, "unmodelled"),
        ("chat_template", "tokenizer_default", "kept"),
        ("chat_template", "chatml", "unmodelled"),
        ("chat_template_jinja", "{{ messages }}", "unmodelled"),
        ("message_property_mappings", {"role": "from", "content": "value"}, "kept"),
        ("message_property_mappings", {"content": "text"}, "unmodelled"),
        ("message_field_training", "train", "kept"),
        ("message_field_training", "learn", "unmodelled"),
        ("message_field_training_detail", "spans", "unmodelled"),
        ("roles", {"user": ["human"], "assistant": ["gpt"]}, "kept"),
        ("roles", {"assistant": ["bot"]}, "unmodelled"),
        ("field_tools", "functions", "unmodelled"),
        ("split_thinking", True, "unmodelled"),
        ("shards", 10, "unmodelled"),
        ("name", "extra", "unmodelled"),
        ("revision", "v2", "unmodelled"),
        ("preprocess_shards", 4, "kept"),
    ],
)
def test_axolotl_what_it_does_with_rows(key, value, fate):
    """A key of a data set that a recipe has no word for is carried for axolotl, and told as lost for every other trainer, unless it
    asks for what recipes do in any case.
    """
    rows = {"path": "a.jsonl", "type": "chat_template", key: value}
    found = convert(
        AXOLOTL.replace("datasets: [{path: org/rows, type: alpaca}]", yaml.safe_dump({"datasets": [rows]})), name="x.yaml"
    )
    told = [each for each in found.entries if each.key.startswith(f"datasets.0.{key}")]
    assert {each.fate for each in told} == {fate}
    lost = {name: {line.leaf for line in lines if line.leaf.startswith("datasets.")} for name, lines in moves_of(found).items()}
    assert lost == {name: {each.key for each in told} if fate == "unmodelled" and name != "axolotl" else set() for name in lost}
    [carried] = found.recipe.native["axolotl"]["datasets"]
    assert carried[key] == value


@pytest.mark.parametrize(
    "said", ['{"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lamb"}}', '{"scheduler": {"type": "WarmupLR"}}']
)
def test_an_optimizer_in_deepspeeds_file(said):
    """It goes before that of the config, so it is told as lost elsewhere, beside what only shares the work out."""
    found = convert(AXOLOTL + "deepspeed: ds.json\n", name="x.yaml", beside=lambda name: said if name == "ds.json" else None)
    fates = {each.key: each.fate for each in found.entries if each.key.startswith("deepspeed.")}
    assert fates == {key: "kept" if "zero" in key else "unmodelled" for key in flat(json.loads(said), "deepspeed.")}
    assert found.recipe.native["axolotl"]["deepspeed"] == json.loads(said)


@pytest.mark.parametrize(
    "key", ["attention_sink=true", "attention_type=local_sliding", "reuse_example_batch=1", "max_segments_per_seq=2"]
)
def test_maxtext_what_changes_the_model_or_its_rows(key):
    """A key beside those of the attention's kernel and the loader's threads is told as not modelled, and stays MaxText's own."""
    found = convert(f"python3 -m maxtext.trainers.pre_train.train model_name=qwen3-0.6b steps=5 {key}", name="run.sh")
    assert entry(found, key.partition("=")[0]).fate == "unmodelled"
    assert key.partition("=")[0] in found.recipe.native["maxtext"]


def test_axolotl_warm_up_by_a_share():
    """A share in warmup_steps, which axolotl refuses, is what its writer means; the reader learns its right name."""
    made = convert(AXOLOTL + "warmup_steps: 0.1\n", name="x.yaml")
    assert made.recipe.optim.warmup_share == 0.1
    assert (
        entry(made, "warmup_steps").why == "axolotl 0.19.0 refuses 0.1, a share: read as warmup_ratio, which is its word for one"
    )


@pytest.mark.parametrize(
    ("lines", "batch"),
    [
        ("trl: {reward_funcs: [a.b], num_generations: 4}", (2, 1)),
        ("trl: {reward_funcs: [a.b], num_generations: 2}", (4, 1)),
        ("trl: {reward_funcs: [a.b]}", (1, 1)),
    ],
)
def test_axolotl_answers(lines, batch):
    """With GRPO axolotl counts answers and a recipe their prompts; trl makes 8 answers where no number is said."""
    found = leaves(f"{AXOLOTL}rl: grpo\n{lines}\n")
    assert (found["train.batch.global"], found["train.batch.micro"]) == batch


def test_litgpt_both_forms():
    """`data: Alpaca2k` and its class_path with init_args mean the same."""
    head = "checkpoint_dir: checkpoints/meta-llama/Llama-3.2-1B\ntrain: {global_batch_size: 8, micro_batch_size: 2, epochs: 1}\nlora_r: 4\n"
    short = head + "data: Alpaca2k\noptimizer: {class_path: AdamW, lr: 1e-4}\n"
    long = (
        head
        + "data: {class_path: litgpt.data.Alpaca2k, init_args: {}}\noptimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-4}}\n"
    )
    assert leaves(short) == leaves(long)
    assert leaves(long)["model.id"] == "meta-llama/Llama-3.2-1B"


MAXTEXT = """
base_config: post_train/sft.yml
model_name: qwen3-0.6b
tokenizer_path: Qwen/Qwen3-0.6B
load_parameters_path: /weights/0/items
per_device_batch_size: 4
steps: 100
base_emb_dim: 64
"""


def test_maxtext_bases_and_models():
    """Bases that come with MaxText fill what the file leaves out, and the model's own file wins over the file."""
    found = convert(MAXTEXT, name="x.yml")
    flat = found.recipe.flat()
    assert (flat["optim.lr"], flat["data.train"], flat["data.train_split"]) == (2e-5, "HuggingFaceH4/ultrachat_200k", "train_sft")
    assert flat["model.id"] == "Qwen/Qwen3-0.6B"
    assert any(note.startswith("base_emb_dim = 64 has no effect") for note in found.notes)


def test_maxtext_bases_of_ones_own():
    """A base beside the file is read; one that leads back to itself is an error."""
    text = MAXTEXT.replace("post_train/sft.yml", "mine.yml")
    mine = "base_config: post_train/sft.yml\nlearning_rate: 1e-3\n"
    assert leaves(text, beside=lambda name: mine if name == "mine.yml" else None)["optim.lr"] == 1e-3
    with pytest.raises(Unreadable, match="chain of bases without end"):
        convert(text, name="x.yml", beside=lambda _: "base_config: mine.yml\n")


SCRIPT = """#!/bin/bash
set -e
export MODEL=qwen3-0.6b
LR="1e-5"
python3 -m maxtext.trainers.post_train.sft.train_sft "${CONFIGS:-$PWD/src/maxtext/configs}"/post_train/sft.yml \\
  model_name=$MODEL tokenizer_path=Qwen/Qwen3-0.6B steps=10 per_device_batch_size=2 \\
  learning_rate=$LR base_output_directory=$OUT && echo done
"""


def test_shell_scripts():
    """The command in a script is the config: variables that the script sets are filled in, others stay."""
    found = shell.command(SCRIPT)
    assert (found.trainer, found.module, found.line) == ("maxtext", "maxtext.trainers.post_train.sft.train_sft", 5)
    assert found.words[1] == "model_name=qwen3-0.6b"
    assert found.words[-1] == "base_output_directory=$OUT"
    found = convert(SCRIPT, name="x.sh")
    assert entry(found, "outside:base_output_directory").why == "is set outside of the script: give it as KEY=VALUE"
    flat = found.recipe.flat()
    assert (flat["optim.lr"], flat["train.steps"], flat["data.format"]) == (1e-5, 10, "chat")


def test_a_script_that_names_a_config():
    """`tune run ... --config FILE key=value` reads the file, and the words win over it."""
    script = "tune run --nproc_per_node 2 full_finetune_distributed --config it.yaml epochs=3 max_steps_per_epoch=null\n"
    flat = leaves(script, beside=lambda name: TORCHTUNE if name == "it.yaml" else None)
    assert (flat["resources.devices"], flat["train.epochs"]) == (2, 3)
    with pytest.raises(Unreadable, match=r"names it\.yaml, which is not there"):
        convert(script, name="x.sh")


def test_a_script_that_names_one_of_torchtunes_own():
    """A config that torchtune comes with is named without its ending: it is looked for beside the script, or how to get it is said."""
    script = "tune run full_finetune_single_device --config llama3_2/1B_full\n"
    with pytest.raises(Unreadable) as error:
        convert(script, name="x.sh")
    assert "`tune cp llama3_2/1B_full 1B_full.yaml` copies it beside the script" in error.value.hint
    assert leaves(script, beside=lambda name: TORCHTUNE if name == "1B_full.yaml" else None)["train.steps"] == 50


def test_a_wrong_trainer_is_explained():
    """`--from` another trainer says whose config it is, and by what."""
    with pytest.raises(Refused, match=r"no config of axolotl: it is torchtune's: .*_component_ = torchtune\."):
        convert(TORCHTUNE, name="x.yaml", wanted="axolotl")


def test_nobodys_config():
    """A file of no trainer's says how many of its keys each knows."""
    with pytest.raises(Refused, match=r"a config of none of .*: 0 of 2 keys are litgpt's"):
        convert("apiVersion: v1\nkind: Pod\n", name="x.yaml")


def test_unknown_keys_are_told():
    """A key that the trainer does not know is not modelled, and the reader learns that it has no effect there; of a typo, what it
    may mean. A key of a plugin's is known where the plugin is named.
    """
    found = convert(AXOLOTL + "learning_rat: 1\nzzz: 2\nliger_rope: true\n", name="x.yaml")
    assert entry(found, "learning_rat").why == "axolotl 0.19.0 knows no such key; did you mean learning_rate?"
    assert entry(found, "zzz").why == "axolotl 0.19.0 knows no such key"
    assert entry(found, "liger_rope").why == "axolotl 0.19.0 knows no such key; name its LigerPlugin under plugins"
    assert found.recipe.native["axolotl"].keys().isdisjoint({"learning_rat", "zzz", "liger_rope"})
    plugged = convert(AXOLOTL + "plugins: [axolotl.integrations.liger.LigerPlugin]\nliger_rope: true\n", name="x.yaml")
    assert entry(plugged, "liger_rope").fate == "kept"
    assert plugged.recipe.native["axolotl"]["liger_rope"] is True


def test_a_recipe_is_no_config():
    """A recipe is told to be one."""
    with pytest.raises(Refused, match="this is a recipe already"):
        convert("version: 1\nmodel: {id: a/b}\noptim: {lr: 1.0}\n", name="x.yaml")


IMAGES = """
model: {_component_: torchtune.models.llama3_2_vision.llama3_2_vision_11b, image_size: 560}
tokenizer: {_component_: torchtune.models.llama3_2_vision.llama3_2_vision_transform, path: /m/t.model, image_size: 560}
dataset: {_component_: torchtune.datasets.multimodal.the_cauldron_dataset, subset: ocrvqa}
checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer, checkpoint_dir: /m, model_type: LLAMA3_VISION}
"""


def test_images_are_told():
    """A model that sees images is told as such even at torchtune's defaults; torchtune itself keeps its own components, without the
    arguments that ours take.
    """
    rest = "".join(
        line for line in TORCHTUNE.splitlines(True) if not line.startswith(("model", "tokenizer", "dataset", "checkp"))
    )
    found = convert(IMAGES + rest, name="x.yaml")
    assert {entry(found, f"{section}.image_size").fate for section in ("model", "tokenizer")} == {"unmodelled"}
    own = found.recipe.native["torchtune"]
    assert own["dataset"].keys() >= {"~conversation_column", "~conversation_style", "~train_on_input"}
    assert own["model"] == {
        "_component_": "torchtune.models.llama3_2_vision.llama3_2_vision_11b",
        "image_size": 560,
        "~path": None,
    }


@pytest.mark.parametrize(
    ("line", "key"),
    [("optimizer: lion_pytorch", "optimizer"), ("lr_scheduler: rex", "lr_scheduler"), ("num_epochs: 0.5", "num_epochs")],
)
def test_what_a_recipe_cannot_say(line, key):
    """A value without counterpart is not modelled, and axolotl itself keeps it."""
    found = convert("\n".join(each for each in AXOLOTL.splitlines() if not each.startswith(key)) + f"\n{line}\n", name="x.yaml")
    assert entry(found, key).fate == "unmodelled"
    assert key in found.recipe.native["axolotl"]


def test_dora_over_four_bits():
    """DoRA over quantized weights has no word: it is not modelled, and torchtune itself keeps both switches."""
    model = "model: {_component_: torchtune.models.llama3.lora_llama3_8b, lora_attn_modules: [q_proj], use_dora: true, quantize_base: true}"
    found = convert(TORCHTUNE.replace("model: {_component_: torchtune.models.llama3_2.llama3_2_1b}", model), name="x.yaml")
    assert found.recipe.method.adapter == "dora"
    assert entry(found, "model.quantize_base").fate == "unmodelled"
    assert found.recipe.native["torchtune"]["model"]["quantize_base"] is True


def test_litgpt_data_sets_of_other_releases():
    """Dolly, which is not in the pinned version, does not mask the prompt when nothing is said, as all of LitGPT's sets."""
    text = "checkpoint_dir: checkpoints/microsoft/phi-2\ndata: Dolly\ntrain: {global_batch_size: 8, micro_batch_size: 8, epochs: 1}\n"
    assert leaves(text)["data.train_on_prompt"] is True


def test_torchtune_tokenizers_that_no_table_knows():
    """Their files go back by the names that the component has for them, and by no other."""
    own = "tokenizer: {_component_: torchtune.models.phi4.phi4_tokenizer, vocab_path: /models/one/v.json, merges_path: /models/one/m.txt}"
    text = "\n".join(own if line.startswith("tokenizer") else line for line in TORCHTUNE.splitlines())
    text = text.replace("llama3_2.llama3_2_1b", "phi4.phi4_14b").replace("meta-llama/Llama-3.2-1B-Instruct", "microsoft/phi-4")
    recipe = convert(text, name="x.yaml").recipe
    native = {f"native.torchtune.{key}" for key in flat(recipe.native["torchtune"])}
    made = plan(BACKENDS["torchtune"], recipe, Target(accelerator="cuda", devices=4), accept=native)
    [config] = [file.text for file in made.files if file.path == BACKENDS["torchtune"].config]
    assert "path" not in yaml.safe_load(config)["tokenizer"]
    assert {"_component_", "vocab_path", "merges_path"} <= set(yaml.safe_load(config)["tokenizer"])


def test_litgpt_loads_texts_by_processes_of_its_own():
    """Rows of pre-training are tune's own, which has no word for that."""
    text = (
        "model_name: Llama-3.2-1B\ndata: {class_path: TinyStories, init_args: {num_workers: 4}}\ntrain: {max_tokens: 1000000}\n"
    )
    found = convert("# litgpt pretrain\n" + text, name="x.yaml")
    assert entry(found, "data.init_args.num_workers").fate == "kept"
    assert "num_workers" not in str(found.recipe.native)


def test_maxtext_weights_that_do_not_decay():
    """A mask of norms and biases is a leaf; of other weights it is not modelled, and MaxText itself keeps it."""
    assert leaves(MAXTEXT + "adamw_mask: ['.*norm.*', '.*bias.*']\n")["optim.decay_on"] == "matrices"
    found = convert(MAXTEXT + "adamw_mask: ['token_embedder/embedding']\n", name="x.yml")
    assert entry(found, "adamw_mask").fate == "unmodelled"
    assert found.recipe.native["maxtext"]["adamw_mask"] == ["token_embedder/embedding"]


def test_maxtext_pairs_without_a_prompt():
    """Two columns of answers that repeat the prompt are no preference rows of a recipe's, and that is told."""
    found = convert(MAXTEXT.replace("sft.yml", "dpo.yml") + "train_data_columns: ['chosen', 'rejected']\n", name="x.yml")
    assert entry(found, "train_data_columns").why.startswith("pairs without a column for the prompt")
    assert found.recipe.data.format == "preference"


TOKEN = "hf_" + "a1B2" * 8


@pytest.mark.parametrize(
    ("line", "key", "variable"),
    [
        ("wandb_api_key: 0123456789abcdef", "wandb_api_key", ["WANDB_API_KEY"]),
        (f"hub_token: {TOKEN}", "hub_token", ["HF_TOKEN"]),
        (f"revision_of_model: {TOKEN}", "revision_of_model", ["HF_TOKEN"]),
        ("mlflow_tracking_uri: https://me:pa55word@ml.example", "mlflow_tracking_uri", []),
        ("comet_api_key: 'x y'", "comet_api_key", ["COMET_API_KEY"]),
    ],
)
def test_secrets_stay_out(line, key, variable):
    """What looks like a secret is in no entry, no leaf, no native key; the recipe asks for the variable by name."""
    found = convert(f"{AXOLOTL}{line}\n", name="x.yaml")
    told = entry(found, key)
    assert (told.value, told.fate, told.why[:8]) == ("***", "modelled", "a secret")
    assert found.recipe.secrets == variable
    secret = line.partition(": ")[2].strip("'")
    assert secret not in repr(found.entries) + json.dumps(found.values)


def test_secrets_inside_lists():
    """Of a list the rest is kept, and a note says what was left out; a variable's name is no secret."""
    found = convert(f"{AXOLOTL}lora_modules_to_save: [a, {TOKEN}]\nhub_token: ${{HF_TOKEN}}\n", name="x.yaml")
    assert entry(found, "lora_modules_to_save").value == ["a"]
    assert found.notes[0].startswith("lora_modules_to_save holds a secret")
    assert entry(found, "hub_token").value == "${HF_TOKEN}"
    assert TOKEN not in repr(found.entries) + json.dumps(found.values)


def test_label_smoothing_that_trl_does_not_read_is_not_taken_for_one():
    """With TRL's sigmoid loss the config trains without smoothing, and so does the recipe; the sum of losses that tune writes itself
    comes back as label_smoothing.
    """
    pairs = AXOLOTL.replace("type: alpaca", "type: chatml.intel") + "rl: dpo\ndpo_label_smoothing: 0.2\n"
    found = convert(pairs, name="x.yaml")
    assert found.recipe.flat()["method.preference.label_smoothing"] == 0.0
    assert "does not read dpo_label_smoothing" in entry(found, "dpo_label_smoothing").why
    ours = pairs + "dpo_loss_type: [sigmoid, robust]\ndpo_loss_weights: [1.6, -0.6]\n"
    assert leaves(ours)["method.preference.label_smoothing"] == 0.2


@pytest.mark.parametrize("line", ["use_dft: true", "export: {format: gguf}", "mixlora_top_k: 2", "torch_compile_regional: true"])
def test_keys_of_a_later_axolotl(line):
    """They are told with the release that has them, and what they do there; never carried to one that has not."""
    found = convert(f"{AXOLOTL}{line}\n", name="x.yaml")
    told = next(each for each in found.entries if each.key.startswith(line.partition(":")[0]))
    assert (told.fate, "; axolotl 0.21 has it: " in told.why) == ("unmodelled", True)
    assert line.partition(":")[0] not in found.recipe.native.get("axolotl", {})


def test_a_config_of_the_other_axolotl_that_recipes_may_ask_for():
    """Named by its release it is read with that release's keys and defaults: the recipe asks for it, and a key that only it has is carried
    and planned; one that it has no longer is told by its name.
    """
    lines = "use_dft: true\nfsdp_version: 2\nfsdp_config: {use_orig_params: true}\n"
    found = convert(f"{AXOLOTL}{lines}", name="x.yaml", wanted="axolotl@0.21.0")
    assert found.recipe.release == {"axolotl": "0.21"}
    assert found.recipe.native["axolotl"]["use_dft"] is True
    assert "axolotl 0.21.0 knows no such key" in entry(found, "fsdp_config.use_orig_params").why
    dialect = dialects()["axolotl"]
    assert (dialect.default({}, "fsdp_version"), dialect.of_release("0.21").default({}, "fsdp_version")) == (None, 2)
    assert convert(AXOLOTL, name="x.yaml", wanted="axolotl@0.18").recipe.release == {}


def test_a_share_of_a_data_set_of_a_later_axolotl():
    """Within a list it is told as a note, since the list is kept as it stands."""
    found = convert(AXOLOTL.replace("type: alpaca}", "type: alpaca, weight: 0.5}"), name="x.yaml")
    assert any(note.startswith("datasets.0.weight: axolotl 0.21 has it") for note in found.notes)


def test_another_release_of_axolotl():
    """A release may be named: its own defaults count, and one of which nothing is known is refused with those that are."""
    assert leaves(AXOLOTL, wanted="axolotl@0.15")["optim.lr"] == leaves(AXOLOTL)["optim.lr"]
    same = convert(AXOLOTL + "max_prompt_len: 512\n", name="x.yaml", wanted="axolotl@0.12.2")
    assert entry(same, "max_prompt_len").why == "the trainer's default"
    assert entry(convert(AXOLOTL + "max_prompt_len: 512\n", name="x.yaml"), "max_prompt_len").why != "the trainer's default"
    with pytest.raises(Refused, match=r"nothing is known of axolotl 0\.3 .*: known are 0\.12, 0\.15"):
        convert(AXOLOTL, name="x.yaml", wanted="axolotl@0.3")
    with pytest.raises(Refused, match="known are none"):
        convert(TORCHTUNE, name="x.yaml", wanted="torchtune@0.5")


def test_axolotls_tokens():
    """`tokens` and additional special tokens are the recipe's, and the way back writes the same start for axolotl; where axolotl draws
    their rows at random, as it does unless it is told otherwise, it is told, and what is no list of texts stays axolotl's own.
    """
    more = "tokens: [<a>, <b>]\nspecial_tokens: {additional_special_tokens: [<c>]}\n"
    found = convert(AXOLOTL + more, name="x.yaml")
    assert (found.recipe.model.tokens, found.recipe.model.special_tokens) == (["<a>", "<b>"], ["<c>"])
    assert found.recipe.native.get("axolotl", {}).get("tokens") is None
    assert (
        entry(found, "tokens").why == "rows of new tokens are drawn at random; those of a recipe begin as the mean of the others"
    )
    spec = json.loads(next(f.text for f in plan(BACKENDS["axolotl"], found.recipe, Target()).files if f.path == "model.json"))
    assert (spec["folder"], spec["tokens"], spec["special_tokens"]) == ("start", ["<a>", "<b>"], ["<c>"])
    mean = convert(AXOLOTL + more + "mean_resizing_embeddings: true\n", name="x.yaml")
    assert (mean.recipe.model.tokens, entry(mean, "tokens").fate) == (["<a>", "<b>"], "modelled")
    assert any("leaves those that the model has beyond its tokenizer" in each for each in mean.notes)
    odd = convert(AXOLOTL + "tokens: [<a>, <a>]\n", name="x.yaml")
    assert (odd.recipe.model.tokens, odd.recipe.native["axolotl"]["tokens"]) == ([], ["<a>", "<a>"])
    bos = convert(AXOLOTL + "special_tokens: {eos_token: <|im_end|>}\n", name="x.yaml")
    assert (bos.recipe.model.special_tokens, entry(bos, "special_tokens.eos_token").why) == (
        [],
        "other tokens than the model's own",
    )
