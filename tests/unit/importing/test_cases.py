"""Configs that were read wrongly once, each of another kind: claimed and not read, an old name, a condition, a launcher, a folder."""

import pytest

from backends.importing.convert import convert
from tests.unit.importing.test_dialects import AXOLOTL, TORCHTUNE, entry, leaves

LORA = TORCHTUNE.replace(
    "model: {_component_: torchtune.models.llama3_2.llama3_2_1b}",
    "model: {_component_: torchtune.models.llama3_2.lora_llama3_2_1b, lora_attn_modules: [q_proj, v_proj], lora_rank: 8, lora_alpha: 16}",
)


def axolotl(more, without=(), **rest):
    """What becomes of the small axolotl config with more lines and without some keys."""
    lines = [line for line in AXOLOTL.splitlines() if not line.startswith(tuple(without) or "\0")]
    return convert("\n".join([*lines, more]) + "\n", name="x.yaml", **rest)


def fates(found):
    """Key -> fate."""
    return {each.key: each.fate for each in found.entries}


def notes(found, word):
    """The notes in which a word stands."""
    return [note for note in found.notes if word in note]


@pytest.mark.parametrize(
    ("switch", "word"),
    [
        ("sdp_attention", "sdpa"),
        ("flash_attention", "flash_attention_2"),
        ("flex_attention", "flex_attention"),
        ("xformers_attention", "xformers"),
    ],
)
def test_attention_of_older_releases(switch, word):
    """A switch becomes the one word of today, beside which axolotl refuses it."""
    found = axolotl(f"{switch}: true")
    own = found.recipe.native["axolotl"]
    assert switch not in own
    assert word in (own.get("attn_implementation"), found.recipe.train.attention)
    assert notes(found, switch)


def test_a_switch_that_is_off_asks_for_nothing():
    """`flash_attention: false` is no wish, and goes nowhere."""
    found = axolotl("flash_attention: false")
    assert "flash_attention" not in found.recipe.native["axolotl"]
    assert fates(found)["flash_attention"] == "kept"


DPO = """
base_model: org/model
rl: dpo
learning_rate: 1e-5
micro_batch_size: 1
datasets:
  - path: pairs.jsonl
    ds_type: json
    type: {field_prompt: question, field_chosen: good, field_rejected: bad, prompt_format: "User: {prompt}", chosen_format: "{chosen}"}
"""


def test_pairs_of_ones_own():
    """The columns of a type of one's own are leaves; text around them is told, and axolotl keeps it with the file where a job has it."""
    found = convert(DPO, name="x.yaml")
    columns = found.recipe.data.columns
    assert (columns.prompt, columns.chosen, columns.rejected) == ("question", "good", "bad")
    said = fates(found)
    assert said["datasets.0.type.field_prompt"] == "modelled"
    assert said["datasets.0.type.prompt_format"] == "unmodelled"
    assert found.recipe.native["axolotl"]["datasets"][0]["path"] == "inputs/train.jsonl"
    assert found.recipe.native["axolotl"]["datasets"][0]["type"]["prompt_format"] == "User: {prompt}"


@pytest.mark.parametrize(
    ("kind", "column"), [("chatml.intel", "question"), ("chatml.icr", "input"), ("llama3.prompt_pairs", "prompt")]
)
def test_pairs_by_their_types_name(kind, column):
    """Each of axolotl's types of pairs has its own column for the prompt."""
    text = DPO[: DPO.index("datasets")] + f"datasets: [{{path: org/pairs, type: {kind}}}]\n"
    assert leaves(text)["data.columns.prompt"] == column


def test_styles_of_alpaca():
    """`alpaca:chat` has another text around a row than `alpaca`, which another trainer is told; one that nobody knows is not modelled."""
    found = axolotl("datasets: [{path: rows.jsonl, type: 'alpaca:chat'}]", ["datasets"])
    assert found.recipe.data.template.endswith("USER: {instruction}\n{input}\nASSISTANT:")
    assert found.recipe.data.template.startswith("SYSTEM: Below is an instruction")
    assert found.recipe.native["axolotl"]["datasets"][0]["type"] == "alpaca:chat"
    assert leaves(AXOLOTL)["data.template"] is None
    odd = axolotl("datasets: [{path: rows.jsonl, type: 'alpaca:sonnet'}]", ["datasets"])
    assert fates(odd)["datasets.0.type"] == "unmodelled"


def test_a_prompt_of_ones_own():
    """The system text of a type of one's own is before each row; a text for rows without input is told."""
    own = "{system_prompt: Be brief., field_instruction: q, field_output: a, format: '[{instruction}]', no_input_format: '<{instruction}>'}"
    found = axolotl(f"datasets: [{{path: org/rows, type: {own}}}]", ["datasets"])
    flat = found.recipe.flat()
    assert flat["data.template"] == "Be brief.[{instruction}]"
    assert (flat["data.columns.instruction"], flat["data.columns.output"]) == ("q", "a")
    assert fates(found)["datasets.0.type.no_input_format"] == "unmodelled"


def test_chats_of_older_releases():
    """`sharegpt` is chats, with the names of a message's keys, and not completions; axolotl gets its word of today."""
    found = axolotl("datasets: [{path: org/chats, type: sharegpt, conversation: chatml}]", ["datasets"])
    assert (found.recipe.data.format, found.recipe.data.columns.messages) == ("chat", "conversations")
    made = found.recipe.native["axolotl"]["datasets"][0]
    assert made["type"] == "chat_template"
    assert made["message_property_mappings"] == {"role": "from", "content": "value"}


def test_one_file_of_a_data_set():
    """A file inside a data set of the hub is not the whole of it: not modelled, and axolotl keeps both."""
    found = axolotl("datasets: [{path: org/rows, data_files: part.jsonl, type: alpaca}]", ["datasets"])
    assert fates(found)["datasets.0.data_files"] == "unmodelled"
    assert found.recipe.native["axolotl"]["datasets"][0]["data_files"] == "part.jsonl"


@pytest.mark.parametrize("name", ["data/rows.csv", "data/rows.jsonl.gz", "mine/rows.arrow"])
def test_a_file_is_no_hub_id(name):
    """Two words with a slash and the ending of a file are a file; one that recipes do not take is told."""
    found = axolotl(f"datasets: [{{path: {name}, type: alpaca}}]", ["datasets"])
    assert fates(found)["datasets.0.path"] == "unmodelled"
    assert found.recipe.data.train == "./rows.jsonl"


def test_four_bits_under_dora():
    """DoRA over 4 bits is DoRA, and the 4 bits are told and stay axolotl's."""
    found = axolotl("adapter: qlora\nload_in_4bit: true\npeft_use_dora: true\nlora_target_linear: true")
    assert found.recipe.method.adapter == "dora"
    assert (fates(found)["load_in_4bit"], fates(found)["adapter"]) == ("unmodelled", "modelled")
    assert found.recipe.native["axolotl"]["load_in_4bit"] is True


def test_the_head_beside_all_linear_layers():
    """lm_head joins the layers that lora_target_linear finds."""
    found = axolotl("adapter: lora\nlora_target_linear: true\nlora_target_modules: [lm_head]")
    assert found.recipe.method.lora.targets[-1] == "head"
    assert found.recipe.native["axolotl"]["lora_target_modules"] == ["lm_head"]


@pytest.mark.parametrize(
    ("line", "steps", "share"),
    [
        ("max_steps: 100000", 100, None),
        ("max_steps: 1000", 30, None),
        ("max_steps: 50", 2, None),
        ("warmup_ratio: 0.1", None, 0.1),
    ],
)
def test_the_warm_up_that_nobody_names(line, steps, share):
    """axolotl warms up for 3 % of the steps, at most 100 and never just one; a ratio that is named has no cap."""
    flat = leaves(AXOLOTL + line + "\n")
    assert (flat["optim.warmup_steps"], flat["optim.warmup_share"]) == (steps, share)


def test_the_cap_is_told_where_steps_are_not_known():
    """Of a run in epochs nobody knows yet whether the cap matters: the reader learns of it."""
    assert notes(convert(AXOLOTL, name="x.yaml"), "at most 100")


def test_a_lowest_rate_of_the_cosine_alone():
    """cosine_min_lr_ratio is a leaf with the cosine, and idle with another schedule."""
    assert leaves(AXOLOTL + "cosine_min_lr_ratio: 0.1\n")["optim.min_lr"] == pytest.approx(2e-5)
    found = axolotl("cosine_min_lr_ratio: 0.1\nlr_scheduler: linear")
    assert (found.recipe.optim.min_lr, fates(found)["cosine_min_lr_ratio"]) == (0.0, "kept")


def test_rows_for_evaluation():
    """One set of the same format is data.eval with eval_steps; without any rows eval_steps has no effect and is not carried."""
    found = axolotl("test_datasets: [{path: org/rows, type: alpaca, split: test}]\neval_steps: 50")
    flat = found.recipe.flat()
    assert (flat["data.eval"], flat["data.eval_split"], flat["eval.every"]) == ("org/rows", "test", 50)
    alone = axolotl("eval_steps: 50")
    assert (fates(alone)["eval_steps"], "eval_steps" in alone.recipe.native["axolotl"]) == ("kept", False)
    shared = axolotl("eval_steps: 50\nval_set_size: 0.1").recipe.flat()
    assert (shared["data.eval_share"], shared["eval.every"]) == (0.1, 50)


@pytest.mark.parametrize(
    ("keys", "share"),
    [("eval_steps: 0.05", 0.05), ("evals_per_epoch: 4\nnum_epochs: 2", 0.125), ("evals_per_epoch: 1\nnum_epochs: 1", None)],
)
def test_evaluations_by_shares(keys, share):
    """eval_steps below 1 and evals_per_epoch are the share of the run that axolotl makes of them; without rows neither has an effect."""
    found = axolotl(f"val_set_size: 0.1\n{keys}", ["num_epochs"] if "num_epochs" in keys else ())
    assert found.recipe.flat()["eval.every_share"] == share
    assert "unmodelled" not in (fates(found).get("eval_steps"), fates(found).get("evals_per_epoch"))
    assert axolotl("evals_per_epoch: 4").recipe.flat()["eval.every_share"] is None


def test_an_early_end():
    """early_stopping_patience is eval.patience where there are evaluations on the way."""
    patient = axolotl("val_set_size: 0.1\neval_steps: 20\nsave_steps: 40\nearly_stopping_patience: 3")
    assert patient.recipe.flat()["eval.patience"] == 3
    assert axolotl("early_stopping_patience: 3").recipe.flat()["eval.patience"] is None


def test_the_batch_of_the_first_releases():
    """batch_size is all sequences of a step, and becomes the accumulation, beside which axolotl refuses it."""
    found = axolotl("batch_size: 8", ["gradient_accumulation_steps"])
    assert (found.recipe.train.batch.global_, found.recipe.train.batch.micro) == (8, 2)
    assert "batch_size" not in found.recipe.native["axolotl"]


def test_a_share_of_the_run_between_checkpoints():
    """save_steps: 0.25 is no count of steps: told, and kept for axolotl."""
    found = axolotl("save_steps: 0.25")
    assert fates(found)["save_steps"] == "unmodelled"
    assert found.recipe.native["axolotl"]["save_steps"] == 0.25


def test_files_that_do_not_come_along():
    """A file or folder that a key names is brought along as a value, or told; its path is never written into a job."""
    told = axolotl("deepspeed: ds/zero3_bf16.json\nadapter: lora\nlora_model_dir: ./before\nchat_template_jinja: ./mine.jinja")
    said, own = fates(told), told.recipe.native["axolotl"]
    assert {said[key] for key in ("deepspeed", "lora_model_dir", "chat_template_jinja")} == {"unmodelled"}
    assert own.keys().isdisjoint({"deepspeed", "lora_model_dir", "chat_template_jinja"})
    many = convert(
        "#!/bin/bash\ndeepspeed --num_gpus 4 -m axolotl.cli.train x.yml\n",
        name="x.sh",
        beside=lambda name: f"{AXOLOTL}deepspeed: zero3.json\n" if name == "x.yml" else None,
    )
    assert many.recipe.resources.strategy == "zero3"
    brought = axolotl(
        "deepspeed: ds/mine.json", beside=lambda name: '{"zero_optimization": {"stage": 2}}' if name == "ds/mine.json" else None
    )
    assert brought.recipe.native["axolotl"]["deepspeed"] == {"zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("command", "devices", "hosts"),
    [
        ("accelerate launch --num_processes 8 -m axolotl.cli.train x.yml", 8, 1),
        ("accelerate launch --num-processes=8 --num-machines=2 -m axolotl.cli.train x.yml", 4, 2),
        ("torchrun --nproc-per-node=4 --nnodes 2 -m axolotl.cli.train x.yml", 4, 2),
        ("CUDA_VISIBLE_DEVICES=0,1,2 axolotl train x.yml", 3, 1),
        ("N=6\naxolotl train x.yml --launcher torchrun -- --nproc_per_node $N", 6, 1),
    ],
)
def test_devices_of_any_launcher(command, devices, hosts):
    """Whatever starts a trainer says how many devices share its batch."""
    found = convert(f"#!/bin/bash\n{command}\n", name="x.sh", beside=lambda _: AXOLOTL)
    flat = found.recipe.flat()
    assert (flat["resources.devices"], flat["resources.hosts"], flat["train.batch.global"]) == (
        devices,
        hosts,
        8 * devices * hosts,
    )


def test_devices_that_nobody_names():
    """A count that the script takes from elsewhere, and none at all, are noted: never one device in silence."""
    found = convert(
        "#!/bin/bash\ntorchrun --nproc_per_node $NGPU -m axolotl.cli.train x.yml\n", name="x.sh", beside=lambda _: AXOLOTL
    )
    assert fates(found)["launch:devices"] == "unmodelled"
    assert notes(found, "$NGPU")
    assert notes(convert(AXOLOTL, name="x.yaml"), "how many devices")


def test_a_loop_over_a_value():
    """A command in a loop is read with the loop's first value, and the others are told."""
    script = "#!/bin/bash\nfor LR in 1e-4 2e-4 3e-4; do\n  axolotl train x.yml --learning-rate $LR\ndone\n"
    found = convert(script, name="x.sh", beside=lambda _: AXOLOTL)
    assert found.recipe.optim.lr == 1e-4
    assert notes(found, "LR = 1e-4, 2e-4, 3e-4")


def test_comments_with_two_commands():
    """The first command of the comments counts as a whole; the other is told."""
    head = "# tune run full_finetune_single_device --config x.yaml\n"
    found = convert(head + TORCHTUNE, name="x.yaml")
    assert (found.recipe.resources.devices, found.recipe.train.batch.global_) == (1, 16)
    assert notes(found, "full_finetune_distributed, devices 4")


def test_a_component_over_a_section():
    """`optimizer=PATH` is another component, and the rest of the section stays, as torchtune has it."""
    flat = leaves(TORCHTUNE, sets=["optimizer=torchao.optim.AdamW8bit"])
    assert (flat["optim.name"], flat["optim.lr"]) == ("adamw_8bit", 3e-4)


@pytest.mark.parametrize("order", ["[q_proj, v_proj, k_proj]", "[v_proj, k_proj, q_proj]"])
def test_layers_in_any_order(order):
    """Which layers get an adapter does not depend on their order."""
    assert leaves(LORA.replace("[q_proj, v_proj]", order))["method.lora.targets"] == ["q", "k", "v"]


def test_torchtunes_own_grpo():
    """A recipe for GRPO is one, with answers to prompts, and asks for functions that score them."""
    text = TORCHTUNE.replace("torchtune.datasets.alpaca_dataset", "torchtune.dev.grpo.gsm8k.gsm8k_dataset").replace(
        "{_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}",
        "{_component_: torchtune.dev.grpo.loss.GRPOSimpleLoss, kl_coeff: 0.01}\ngrpo_samples: 16",
    )
    found = convert(text, name="x.yaml")
    flat = found.recipe.flat()
    assert (flat["method.kind"], flat["method.grpo.generations"], flat["method.grpo.kl"]) == ("grpo", 16, 0.01)
    assert (flat["data.train"], flat["data.format"], flat["data.columns.prompt"]) == ("openai/gsm8k", "prompts", "question")


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("torchao.prototype.low_bit_optim.AdamW8bit", "adamw_8bit"),
        ("torch.optim.adamw.AdamW", "adamw"),
        ("bitsandbytes.optim.adamw.AdamW8bit", "adamw_8bit"),
    ],
)
def test_components_that_moved(old, name):
    """An optimizer by the path of an older release is that of today."""
    assert leaves(TORCHTUNE.replace("_component_: torch.optim.AdamW,", f"_component_: {old},"))["optim.name"] == name


def test_a_length_of_the_data_set():
    """Until 0.2 torchtune's data sets were told how long rows may be."""
    text = TORCHTUNE.replace(
        "{_component_: torchtune.datasets.alpaca_dataset}", "{_component_: torchtune.datasets.alpaca_dataset, max_seq_len: 512}"
    )
    assert leaves(text)["data.max_length"] == 512


def test_weights_of_the_users():
    """A folder that torchtune did not fill holds its owner's weights, whatever it is called; a tokenizer from elsewhere is told."""
    bare = "\n".join(line for line in TORCHTUNE.splitlines() if not line.startswith("# tune download"))
    assert leaves(bare.replace("/models/one", "./mine/Llama-3.2-1B"))["model.id"] == "./mine/Llama-3.2-1B"
    assert leaves(bare.replace("/models/one", "/tmp/Llama-3.2-1B"))["model.id"] == "meta-llama/Llama-3.2-1B"
    found = convert(bare.replace("path: /models/one", "path: /models/two"), name="x.yaml")
    assert fates(found)["tokenizer.path"] == "unmodelled"


OLD_LITGPT = """
checkpoint_dir: checkpoints/meta-llama/Llama-3.2-1B
lora_r: 8
data: {class_path: litgpt.data.Alpaca2k}
train: {global_batch_size: 8, micro_batch_size: 4, epochs: 2, learning_rate: 0.0002, beta1: 0.9}
"""


def test_litgpt_of_earlier_releases():
    """The optimizer's settings below `train` are those of the optimizer; what is left out is that release's own default."""
    found = convert(OLD_LITGPT, name="x.yaml")
    optim = found.recipe.optim
    assert (optim.lr, list(optim.betas), optim.weight_decay) == (2e-4, [0.9, 0.95], 0.02)
    assert notes(found, "until 0.3")
    assert notes(found, "weight_decay")
    assert not [each for each in found.entries if each.fate == "unmodelled"]


COMMAND = "python3.12 -m maxtext.trainers.pre_train.train base.yml model_name=llama3.1-8b dataset_type=hf hf_path=org/rows steps=500 per_device_batch_size=2"


def script(more=""):
    """A script with MaxText's command."""
    return f"#!/bin/bash\n{COMMAND} {more}\n"


def test_any_python_starts_maxtext():
    """The interpreter may have a version in its name."""
    assert leaves(script())["train.steps"] == 500


def test_sizes_over_a_models_own():
    """Sizes that a command line sets over a model's file make another model, which begins at random."""
    shape = leaves(script("override_model_config=true base_num_decoder_layers=4 base_emb_dim=1024"))["model.architecture"]
    assert (shape["layers"], shape["hidden_size"], shape["heads"]) == (4, 1024, 32)
    begun = convert(script("load_parameters_path=gs://b/c override_model_config=true base_num_decoder_layers=4"), name="x.sh")
    assert fates(begun)["base_num_decoder_layers"] == "unmodelled"


def test_the_shape_of_a_model_without_a_name():
    """Its sizes and constants are leaves; a form that recipes have no word for is told."""
    text = "base_config: base.yml\nsteps: 5\nper_device_batch_size: 1\ndataset_type: hf\nhf_path: org/rows\nlearning_rate: 1e-4\nbase_emb_dim: 512\nrope_max_timescale: 50000\n"
    shape = leaves(text)["model.architecture"]
    assert (shape["hidden_size"], shape["rope_theta"]) == (512, 50000.0)
    found = convert(text + "use_qk_norm: true\n", name="x.yml")
    assert fates(found)["use_qk_norm"] == "unmodelled"


def test_devices_of_a_mesh():
    """The axes of the mesh say how many devices share the batch."""
    flat = leaves(script("ici_fsdp_parallelism=8 dcn_data_parallelism=4 gradient_accumulation_steps=4"))
    assert (flat["resources.devices"], flat["resources.hosts"], flat["train.batch.global"]) == (8, 4, 256)
    assert notes(convert(script(), name="x.sh"), "how many devices")


def test_maxtexts_older_names():
    """A key by its older name is read, and the reader is told."""
    found = convert(script("learning_rate=1e-5 cosine_learning_rate_final_fraction=0.0"), name="x.sh")
    assert found.recipe.optim.min_lr == 0.0
    assert notes(found, "cosine_learning_rate_final_fraction is an older name")


def test_weights_in_maxtexts_own_form():
    """A checkpoint that does not come along is told, as is the tokenizer of another model."""
    found = convert(script("load_parameters_path=gs://b/mine tokenizer_path=Qwen/Qwen3-0.6B"), name="x.sh")
    assert (fates(found)["load_parameters_path"], fates(found)["tokenizer_path"]) == ("unmodelled", "unmodelled")


def test_what_decides_nothing_is_not_called_modelled():
    """A key that no leaf says and that chose nothing is kept at most."""
    found = axolotl("output_dir: ./out\nnum_epochs: 1\nmax_steps: 3\nwandb_name: x", ["num_epochs"])
    assert {fates(found)[key] for key in ("output_dir", "num_epochs", "wandb_name")} == {"kept"}
    assert all(each.leaves or each.key in ("rl", "adapter") for each in found.entries if each.fate == "modelled")
    assert entry(found, "num_epochs").why == "max_steps ends the run"


def test_a_folder_that_is_there():
    """It holds its owner's weights, whatever its name looks like on the hub, and whatever a comment says of it."""
    there = {"is_folder": lambda name: name in ("Qwen/Qwen2.5-0.5B", "/models/one")}
    found = convert(AXOLOTL, name="x.yaml", **there)
    assert found.recipe.model.id == "./Qwen/Qwen2.5-0.5B"
    assert notes(found, "which is there")
    assert convert(TORCHTUNE, name="x.yaml", **there).recipe.model.id == "/models/one"
    assert leaves(TORCHTUNE)["model.id"] == "meta-llama/Llama-3.2-1B-Instruct"
