"""The job of docs/races.md as a person would write it for each trainer's own program: its best setting on one card, no part of tune.

Each has its trainer's own data path (torchtune has none for plain rows: a module of ten lines beside the config), the same random weights,
rows that fill the length, AdamW in one kernel, and what makes that trainer fast: compilation in torchtune, Liger's kernels in axolotl and
TRL; LitGPT has no such switch. tokens/s is the median of the steps after the first, by the trainer's own clock or by its log's lines.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

Json = dict[str, Any]
"""A document."""
ADAPTER = """\
  lora_attn_modules: [q_proj, k_proj, v_proj, output_proj]
  apply_lora_to_mlp: true
  lora_rank: 16
  lora_alpha: 32
  lora_dropout: 0.0
"""
TORCHTUNE = """\
output_dir: out
model:
  _component_: {builder}
{adapter_lines}\
  vocab_size: {vocab_size}
  num_layers: {layers}
  num_heads: {heads}
  num_kv_heads: {kv_heads}
  embed_dim: {hidden_size}
  intermediate_dim: {intermediate_size}
  max_seq_len: {length}
tokenizer: {{_component_: by_hand_rows.Tokenizer}}
dataset: {{_component_: by_hand_rows.rows, path: {texts}, count: {count}, length: {length}, packed: {packed}}}
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: {model}
  checkpoint_files: {files}
  output_dir: out
  model_type: {model_type}
resume_from_checkpoint: false
{recipe_lines}\
seed: 1
shuffle: false
batch_size: {batch}
gradient_accumulation_steps: 1
epochs: 1
max_steps_per_epoch: null
optimizer: {{_component_: torch.optim.AdamW, fused: {cuda}, lr: 2e-4, weight_decay: 0.0}}
lr_scheduler: {{_component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup, num_warmup_steps: 5}}
loss: {{_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}}
clip_grad_norm: null
compile: {cuda}
dtype: bf16
device: {device}
enable_activation_checkpointing: {recompute}
enable_activation_offloading: false
metric_logger: {{_component_: torchtune.training.metric_logging.DiskLogger, log_dir: out, filename: train.log}}
log_every_n_steps: 1
log_peak_memory_stats: {cuda}
"""
ROWS = """\
import json


class Tokenizer:
    pad_id = 0


def rows(tokenizer, *, path, count, length, packed):
    texts = [json.loads(line)["text"] for line in open(path)]
    ids = [[256, *text.encode()][:length] for text in texts]
    if packed:
        from torchtune.datasets import PackedDataset

        rows = [{"tokens": row, "labels": list(row)} for row in ids]
        return PackedDataset(rows, max_seq_len=length, max_packs=count)
    return [{"tokens": row, "labels": list(row)} for row in (ids[n % len(ids)] for n in range(count))]
"""
LITGPT = """\
checkpoint_dir: {lit}
out_dir: out
precision: bf16-true
lora_r: 16
lora_alpha: 32
lora_dropout: 0.0
lora_query: true
lora_key: true
lora_value: true
lora_projection: true
lora_mlp: true
lora_head: false
data: {{class_path: litgpt.data.JSON, init_args: {{json_path: pairs, num_workers: 2}}}}
train: {{save_interval: null, log_interval: 1, global_batch_size: {batch}, micro_batch_size: {batch}, lr_warmup_steps: 5, epochs: 1, max_seq_length: {length}}}
eval: {{interval: 100000, max_new_tokens: 1, max_iters: 1, initial_validation: false, final_validation: false}}
optimizer: {{class_path: torch.optim.AdamW, init_args: {{fused: {cuda}, lr: 2.0e-4, weight_decay: 0.0}}}}
"""
AXOLOTL = """\
base_model: {model}
output_dir: out
{adapter_lines}\
datasets: [{{path: rows.jsonl, ds_type: json, type: completion, field: text}}]
dataset_prepared_path: prepared
sequence_len: {length}
sample_packing: false
pad_to_sequence_len: true
micro_batch_size: {batch}
gradient_accumulation_steps: 1
num_epochs: 1
optimizer: adamw_torch_fused
learning_rate: 2.0e-4
lr_scheduler: cosine
warmup_steps: 5
weight_decay: 0.0
bf16: {cuda}
attn_implementation: sdpa
gradient_checkpointing: false
logging_steps: 1
save_strategy: "no"
val_set_size: 0.0
special_tokens: {{pad_token: "<pad>"}}
plugins: [axolotl.integrations.liger.LigerPlugin]
liger_rope: true
liger_rms_norm: true
liger_glu_activation: true
liger_fused_linear_cross_entropy: true
"""
AXOLOTL_LORA = """\
adapter: lora
lora_r: 16
lora_alpha: 32
lora_dropout: 0.0
lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
"""
TRL = """\
import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

cuda = torch.cuda.is_available()
model = AutoModelForCausalLM.from_pretrained("{model}", dtype=torch.bfloat16)
tokenizer = AutoTokenizer.from_pretrained("{model}")
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
settings = SFTConfig(
    output_dir="out", per_device_train_batch_size={batch}, num_train_epochs=1, max_length={length}, learning_rate=2e-4, warmup_steps=5,
    lr_scheduler_type="cosine", weight_decay=0.0, optim="adamw_torch_fused", logging_steps=1, save_strategy="no", report_to="none",
    bf16=cuda, use_cpu=not cuda, gradient_checkpointing=False, use_liger_kernel=cuda, max_grad_norm=0.0,
)
lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules="all-linear")
rows = load_dataset("json", data_files="rows.jsonl", split="train")
SFTTrainer(model, args=settings, train_dataset=rows, processing_class=tokenizer, peft_config={peft}).train()
print("peak", torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0)
"""


def by_hand(trainer: str, python: str, place: Path, facts: Json, log: Path) -> Json:
    """Train, and what its log says: tokens/s (median, quartiles), peak where it is told, losses.

    Args:
        trainer: whose program.
        python: an interpreter that has it.
        place: an empty folder.
        facts: sizes of the model, `length`, `batch`, `count` of rows, `texts` (a file of rows), `model` (its folder), `lit` (the same as LitGPT has it),
            `cuda` and `device`, `adapter` (none, lora, qlora), `recompute`, `packed`, `tied`.
        log: the file that its output goes to.
    """
    words = {**facts, **{name: str(facts[name]).lower() for name in ("cuda", "recompute", "packed")}}
    argv = _written(trainer, python, place, words)
    times: list[float] = []
    ran = subprocess.Popen(argv, cwd=place, stdout=subprocess.PIPE, stderr=log.with_suffix(".err").open("wb"), text=True)
    with log.open("w") as out:
        for line in ran.stdout or ():
            out.write(line)
            if "'loss'" in line:
                times.append(time.monotonic())
    if ran.wait():
        return {"kind": "hand", "trainer": trainer, "failed": f"exit code {ran.returncode}"}
    return {"kind": "hand", "trainer": trainer, **_figures(trainer, place, log.read_text(), times, facts)}


def _written(trainer: str, python: str, place: Path, words: Json) -> list[str]:
    """The files; the command."""
    place.mkdir(parents=True, exist_ok=True)
    texts = [json.loads(line)["text"] for line in Path(words["texts"]).read_text().splitlines()]
    count = words["count"]
    rows = [texts[number % len(texts)] for number in range(count)]
    (place / "rows.jsonl").write_text("".join(json.dumps({"text": row[: words["length"] - 2]}) + "\n" for row in rows))
    if trainer == "torchtune":
        (place / "by_hand.yaml").write_text(TORCHTUNE.format(**words, **_torchtune(words)))
        (place / "by_hand_rows.py").write_text(ROWS)
        recipe = f"{'full' if words['adapter'] == 'none' else 'lora'}_finetune_single_device"
        return [python, "-m", "torchtune._cli.tune", "run", recipe, "--config", "by_hand.yaml"]
    if trainer == "litgpt":
        (place / "by_hand.yaml").write_text(LITGPT.format(**words))
        (place / "pairs").mkdir()
        for name, some in (("train", rows), ("val", rows[:8])):
            pairs = [{"instruction": row[:8], "output": row[8:]} for row in some]
            (place / "pairs" / f"{name}.json").write_text(json.dumps(pairs))
        start = "from litgpt.finetune.lora import setup\nfrom jsonargparse import CLI, set_config_read_mode\n"
        return [python, "-c", f"{start}CLI(setup)", "--config", "by_hand.yaml"]
    if trainer == "axolotl":
        lines = AXOLOTL_LORA if words["adapter"] == "lora" else ""
        (place / "by_hand.yaml").write_text(AXOLOTL.format(**words, adapter_lines=lines))
        return [python, "-u", "-m", "axolotl.cli.train", "by_hand.yaml"]
    (place / "by_hand.py").write_text(TRL.format(**words, peft="lora" if words["adapter"] == "lora" else None))
    return [python, "-u", "by_hand.py"]


def _torchtune(words: Json) -> Json:
    """What torchtune's config has of the method: llama3_2 ties the head to the embedding, llama3 does not."""
    room = "llama3_2" if words["tied"] else "llama3"
    lora = words["adapter"] != "none"
    recipe = "save_adapter_weights_only: true\n" if lora else "optimizer_in_bwd: false\n"
    files = sorted(each.name for each in Path(words["model"]).glob("model*.safetensors"))
    return {
        "builder": f"torchtune.models.{room}.{'lora_' if lora else ''}{room}",
        "adapter_lines": (ADAPTER if lora else "") + ("  quantize_base: true\n" if words["adapter"] == "qlora" else ""),
        "model_type": room.upper(),
        "files": json.dumps(files),
        "recipe_lines": recipe,
    }


def _figures(trainer: str, place: Path, text: str, times: list[float], facts: Json) -> Json:
    tokens = facts["batch"] * facts["length"]
    memory: list[float] = []
    if trainer == "torchtune":
        text = (place / "out" / "train.log").read_text()
        speeds = [float(found) for found in re.findall(r"tokens_per_second_per_gpu:([0-9.e+]+)", text)]
        losses = re.findall(r"loss:([0-9.e+-]+)", text)
        memory = [float(found) for found in re.findall(r"peak_memory_alloc:([0-9.e+]+)", text)]
    elif trainer == "litgpt":
        speeds = [tokens / float(found) * 1000 for found in re.findall(r"iter time: ([0-9.]+) ms", text)]
        losses = re.findall(r"loss train: ([0-9.]+)", text)
    else:
        speeds = [tokens / (after - before) for before, after in pairwise(times)]
        losses = re.findall(r"'loss': '?([0-9.e+-]+)", text)
        memory = [float(found) for found in re.findall(r"^peak ([0-9.]+)", text, re.MULTILINE)]
    counted = speeds[max(5, len(speeds) // 3) :] or speeds[1:] or speeds
    low, _, high = quantiles(counted, n=4, method="inclusive")
    return {
        "tokens": {"median": median(counted), "low": low, "high": high},
        "memory_gib": max(memory, default=None),
        "losses": [float(each) for each in losses],
    }
