"""Other forms of a model: each is the checkpoint by its own engine, and one that is not is caught."""

import json
import shutil
from pathlib import Path

import pytest

import backends
from backends.plan import Environment
from backends.stages.stage import LOCKS
from orchestrator.agent.provision import build

pytestmark = pytest.mark.trainer

ROOM = Path(backends.__file__).parent
MAKE = """
import json, pathlib, torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
torch.manual_seed(0)
made = Tokenizer(models.BPE())
made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
special = ["<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>"]
trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
made.train_from_iterator([f"add {n} and {n + 1} it is {2 * n + 1}" for n in range(64)], trainer)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
tokenizer.chat_template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"
model = LlamaForCausalLM(LlamaConfig(vocab_size=320, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=2))
for folder in ("base", "model"):
    tokenizer.save_pretrained(folder)
model.save_pretrained("base")
adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
for name, weight in adapted.named_parameters():
    if "lora_" in name:
        torch.nn.init.normal_(weight, std=0.15)
adapted.save_pretrained("adapter")
adapted.merge_and_unload().save_pretrained("model")
"""
TEMPLATE = """
import json, pathlib, sys
import tune_export_forms as forms
spec, report = json.load(open("export.json")), {}
forms.OUT.mkdir(exist_ok=True)
forms._expected(spec, report)
forms._write("merged", spec)
file = pathlib.Path("export/merged/chat_template.jinja")
file.write_text(file.read_text().replace("<|assistant|>", "<|user|>"))
try:
    forms._check("merged", spec, report)
except forms.Differs as error:
    print(error)
"""


@pytest.fixture(scope="module")
def stage_python(shared_home):
    """The interpreter of the stages' environment."""
    return str(build(shared_home / "envs", Environment("stage-hf", "3.11", LOCKS["hf-cpu"], "cpu"), say=print) / "bin" / "python")


@pytest.fixture(scope="module")
def folders(stage_python, tmp_path_factory, call):
    """A start model, an adapter, and the model that is both."""
    folder = tmp_path_factory.mktemp("made")
    call([stage_python, "-c", MAKE], folder)
    return folder


@pytest.fixture
def export(folders, stage_python, tmp_path, call):
    """A job's folder with the three folders in it; exports some forms, and gives the exit code."""
    for script in (*ROOM.glob("shims/tune_*.py"), *ROOM.glob("stages/shims/tune_*.py")):
        shutil.copy(script, tmp_path)
    for name in ("base", "model", "adapter"):
        shutil.copytree(folders / name, tmp_path / name)

    def run(*formats, script=("tune_export_forms.py", "export.json")):
        spec = {**{name: name for name in ("model", "base", "adapter")}, "name": "tiny", "formats": formats, "dtype": "auto"}
        (tmp_path / "export.json").write_text(json.dumps({**spec, "prompts": 3, "tokens": 4}))
        return call([stage_python, *script], tmp_path, check=False)

    return run


def test_each_form_is_the_checkpoint(export, tmp_path):
    """Merged, adapter, and GGUF as it is and quantized: each within its tolerance by its own engine, the exact ones with its tokens."""
    done = export("merged", "adapter", "gguf-f32", "gguf-q8_0")
    assert done.returncode == 0, done.stderr
    forms = json.loads((tmp_path / "export" / "report.json").read_text())["forms"]
    assert forms["merged"]["largest_difference"] <= 1e-6
    assert forms["adapter"]["largest_difference"] <= 1e-5
    assert forms["gguf-f32"]["largest_difference"] <= 1e-3
    assert forms["gguf-f32"]["same_tokens"] == 1
    assert 1e-3 < forms["gguf-q8_0"]["largest_difference"] <= 0.2
    assert (tmp_path / "export" / "tiny-q8_0.gguf").stat().st_size < (tmp_path / "export" / "tiny-f32.gguf").stat().st_size / 3


def test_a_wrong_merge_is_caught(export, tmp_path):
    """An adapter whose alpha is twice what was trained is not the checkpoint: the distance and its place are told."""
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    assert export("adapter").returncode == 1
    reason = json.loads((tmp_path / "reason.json").read_text())
    assert reason["reason"] == "export_differs"
    assert "adapter: a log-probability is" in reason["detail"]
    assert "prompt" in reason["detail"]


def test_a_wrong_template_is_caught(export):
    """A chat template that asks otherwise than the checkpoint's makes other tokens, and is caught by them."""
    done = export("merged", script=("-c", TEMPLATE))
    assert "merged: its tokenizer or chat template makes other tokens of prompt 1" in done.stdout
