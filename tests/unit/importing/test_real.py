"""An imported config trains as the config itself does, in the trainer."""

import os
import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent

CONFIG = """
output_dir: out
tokenizer:
  _component_: torchtune.models.llama3.llama3_tokenizer
  path: tiny/original/tokenizer.model
  special_tokens_path: tiny/tokenizer.json
  max_seq_len: 512
model: {_component_: torchtune.models.llama3_2.llama3_2, vocab_size: 266, num_layers: 2, num_heads: 4, num_kv_heads: 2,
  embed_dim: 32, intermediate_dim: 64, max_seq_len: 512}
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: tiny
  checkpoint_files: [model.safetensors]
  output_dir: ${output_dir}
  model_type: LLAMA3_2
resume_from_checkpoint: False
dataset: {_component_: torchtune.datasets.alpaca_dataset, source: json, data_files: rows.jsonl, train_on_input: False}
seed: 42
shuffle: True
batch_size: 2
gradient_accumulation_steps: 2
epochs: 2
max_steps_per_epoch: null
optimizer: {_component_: torch.optim.AdamW, lr: 1e-2, weight_decay: 0.1}
lr_scheduler: {_component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup, num_warmup_steps: 2}
loss: {_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}
clip_grad_norm: 1.0
compile: False
metric_logger: {_component_: torchtune.training.metric_logging.DiskLogger, log_dir: out, filename: train.log}
log_every_n_steps: 1
log_peak_memory_stats: False
device: cpu
dtype: fp32
enable_activation_checkpointing: False
optimizer_in_bwd: False
"""


def losses(text):
    """Loss and norm of the gradient of each step, as torchtune writes them."""
    return re.findall(r"^Step (\d+) \| loss:(\S+) .*grad_norm:(\S+)", text, re.M)


@pytest.mark.thorough(2)
@pytest.mark.trainer
def test_torchtune_there_and_back(tune, home, trainer_python):
    """A config of a model that no table knows, run by torchtune as it is, and as the recipe that import made of it: the same losses
    to the last digit. Nothing has to be accepted.
    """
    python, quiet = trainer_python("torchtune"), {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "TIKTOKEN_CACHE_DIR": ""}
    (tune.cwd / "wild.yaml").write_text(CONFIG)
    wild = ("-m", "torchtune._cli.tune", "run", "full_finetune_single_device", "--config", "wild.yaml")
    for words in ((HERE / "tiny_torchtune.py", tune.cwd), wild):
        subprocess.run([python, *words], cwd=tune.cwd, env=quiet, check=True, capture_output=True, timeout=600)
    tune("import", "wild.yaml", "-o", "recipe.yaml")
    job = tune("submit", "recipe.yaml", "--to", "torchtune", "--follow").stdout.strip()
    own = losses((tune.cwd / "out" / "train.log").read_text())
    assert len(own) == 6
    assert losses((home / "jobs" / job / "1" / "work" / "out" / "logs" / "train.log").read_text()) == own
