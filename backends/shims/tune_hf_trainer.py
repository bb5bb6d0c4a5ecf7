"""Trainers over transformers' Trainer, made to do what the recipe means: classes that go before a trainer's own.

Whoever names them has a class for each method: `class Dpo(Prepared, DPOTrainer)`. What is added comes from trainer.json, which has

    rows          folder of the data step; null: the trainer reads files itself
    eval          evaluation rows that TRL reads, as its DatasetConfig names them; only without `rows`
    kind          method.kind
    dtype         float32 or bfloat16: of weights, gradients and optimizer state
    decay_on      all or matrices
    shuffle       a new order each epoch, by the trainer; only without `rows`
    columns       a column's name -> what the trainer's own types of rows call it, where they leave no choice; only without `rows`
    eval_batches  micro-batches of an evaluation during training; null: all
    patience      null or evaluations in a row without a lower loss, after which training ends
    eval_on_start  an evaluation of all rows before the first step too
    strategy      one, ddp, fsdp, zero1, zero2 or zero3: what must have come of the config and the machine
    neftune_alpha  null or the alpha of NEFTune's noise; only with `rows`
    start         safetensors with A and B of LoRA in Hugging Face names; null: as PEFT draws them
    train_fully   words of method.lora.train_fully; only with an adapter
    ratio         of distill: the teacher's share in the loss
    muon          true: Muon for the matrices inside the layers, AdamW for the rest (tune_muon.py)
    liger         true: Liger's kernels in the place of the model's own, where weights are bfloat16 (in float32 sums are as they are written)

`metrics.jsonl` in the output folder gets a line for each step and each evaluation, with figures in full.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import tune_checkpoints
import tune_muon
import tune_noise
import tune_shared
import tune_trackers
import tune_whole
import tune_witness
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback

if TYPE_CHECKING:
    from datasets import Dataset


class Exact:
    """What all methods have in common. Goes before a trainer class."""

    seen: int | None = None
    """Tokens of this process so far, padding not counted, where a class counts them."""
    stopped = False
    """Training ends before its last step, since evaluations no longer get better."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.wish = json.loads(Path("trainer.json").read_text())
        settings = kw["args"]
        self.trackers, settings.report_to = settings.report_to, []  # transformers' callbacks have names of their own for all
        settings.train_sampling_strategy = "random" if self.wish["shuffle"] else "sequential"
        settings.shuffle_dataset = self.wish["shuffle"]
        settings.eval_on_start = self.wish["eval_on_start"] and not tune_checkpoints.begun()
        settings.disable_dropout = False  # TRL switches LoRA's off
        settings.logging_nan_inf_filter = False  # else a loss of NaN is logged as 0
        self.keep, settings.save_total_limit = settings.save_total_limit, None  # what is too old, the journal removes
        settings.average_tokens_across_devices = True  # else each process has a mean of its own
        settings.use_liger_kernel = self.wish.get("liger", False) and self.wish["dtype"] == "bfloat16"
        super().__init__(*args, **kw)
        self._check_strategy()
        self._leave_router()
        if self.wish["start"]:
            _preset(self.model, self.wish["start"])
        if whole := self.wish.get("train_fully"):
            tune_whole.check(self.model, whole)
        for model in (self.model, getattr(self, "ref_model", None)):
            if model is not None:
                _cast(model, getattr(torch, self.wish["dtype"]))
        if self.wish.get("neftune_alpha"):
            pad = self.processing_class.pad_token_id
            tune_noise.put_on(self.model.get_input_embeddings(), self.wish["neftune_alpha"], self.wish["rows"], {pad} - {None})
        _learn_padding(self.model)
        _name_quantized(self.model)
        self.add_callback(Journal(self))
        self.witness = tune_witness.Witness(self.wish["rows"]) if tune_witness.asked() else None

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kw: Any) -> torch.Tensor:
        """A micro-batch on its way into the model."""
        if self.witness:
            self.witness.see(inputs["input_ids"].cpu(), inputs["labels"].cpu())
        return super().training_step(model, inputs, *args, **kw)

    def _move_model_to_device(self, *args: Any, **kw: Any) -> None:
        """FSDP places what it has split. Where evaluations are in bfloat16 alone (`bf16_full_eval`, which axolotl's `bf16: full` is),
        transformers moves the model before that all the same (5.16, trainer.py, `train`), and on other ranks than the first it has no data.
        """
        if not self.is_fsdp_enabled:
            super()._move_model_to_device(*args, **kw)

    def _check_strategy(self) -> None:
        """accelerate takes what it can have, and says nothing: a wish for zero3 may have become ddp."""
        has = "zero" if self.is_deepspeed_enabled else "fsdp" if self.is_fsdp_enabled else "whole"
        due = {"one": "whole", "ddp": "whole"}.get(self.wish["strategy"], self.wish["strategy"][:4])
        if has != due:
            raise RuntimeError(f"resources.strategy: {self.wish['strategy']} is wanted, but the model would be trained {has}")

    def _leave_router(self) -> None:
        """A mixture trains without the loss of its router unless a key asks for it. What is given labels, and TRL's ORPO and SimPO, would take
        it from the model's config.json (`output_router_logits`).
        """
        config = self.model.config.get_text_config()
        if getattr(config, "output_router_logits", False) and not getattr(self.args, "router_aux_loss_coef", None):
            config.output_router_logits = self.aux_loss_enabled = False

    def _load_from_checkpoint(self, *args: Any, **kw: Any) -> None:
        """PEFT makes float32 of adapters that it loads."""
        super()._load_from_checkpoint(*args, **kw)
        _cast(self.model, getattr(torch, self.wish["dtype"]))

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """transformers spares norms and biases; the recipe says."""
        every = self.wish["decay_on"] == "all"
        # ds_shape: ZeRO 3 leaves an empty vector in place of a weight
        return [name for name, p in model.named_parameters() if every or len(getattr(p, "ds_shape", p.shape)) > 1]

    def create_optimizer(self, *args: Any, **kw: Any) -> Any:
        """transformers has no word for Muon."""
        if not self.wish.get("muon"):
            return super().create_optimizer(*args, **kw)
        if self.optimizer is None:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            decays = self.get_decay_parameter_names(self.model)
            given = {"lr": self.args.learning_rate, "weight_decay": self.args.weight_decay, "eps": self.args.adam_epsilon}
            self.optimizer = tune_muon.muon(self.model, betas=betas, decays=decays, **given)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Step k (from 1) runs with f(k - 1): a linear warm-up, then constant, linear or cosine down to `min_ratio`.

        transformers rounds shares in its own way, and knows a smallest rate with cosine only.
        """
        if self.lr_scheduler is None:
            factor = rate(str(self.args.lr_scheduler_type), num_training_steps, **self.args.lr_scheduler_kwargs)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(self, eval_dataset: Dataset | None = None, *args: Any, **kw: Any) -> dict[str, float]:
        """On the way, only the first `eval_batches` micro-batches; at either end all."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if self.wish["eval_batches"] and 0 < self.state.global_step < self.state.max_steps and not self.stopped:
            some = self.wish["eval_batches"] * self.args.eval_batch_size * self.args.world_size
            rows = rows.select(range(min(len(rows), some)))
        return super().evaluate(rows, *args, **kw)


def rate(kind: str, steps: int, *, min_ratio: float, warmup_steps: int = 0, warmup_share: float | None = None) -> Any:
    """The factor of the learning rate by finished steps.

    Raises:
        ValueError: another kind of schedule.
    """
    kind = kind.rpartition(".")[2].lower()
    if kind not in ("constant", "linear", "cosine"):
        raise ValueError(f"lr_scheduler_type: should be constant, linear or cosine, got {kind}")
    # round: 0.07 * 100 is a little more than 7 in binary, and must not become 8
    warm = warmup_steps if warmup_share is None else math.ceil(round(warmup_share * steps, 9))

    def factor(done: int) -> float:
        if done < warm:
            return done / warm
        if kind == "constant":
            return 1.0
        gone = min(1.0, (done - warm) / max(1, steps - warm))
        left = 1.0 - gone if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone))
        return min_ratio + (1.0 - min_ratio) * left

    return factor


def stalled(losses: list[float], patience: int) -> bool:
    """Whether the last `patience` of the losses are all no lower than the lowest before them."""
    before, last = losses[:-patience], losses[-patience:]
    return bool(before) and not min(last) < min(before)


_NAMES = {
    "loss": "loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "tokens": "tokens",
    "memory_gib": "memory_gib",
    "epoch": "epoch",
    "eval_loss": "eval_loss",
    "reward": "reward",
    "kl": "kl",
}
"""transformers' name of a metric -> tune's, for the services."""


class Journal(TrainerCallback):
    """Writes metrics.jsonl, reports to the services, asks for an evaluation at the end, and keeps the list of checkpoints."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._began = time.monotonic()
        folder, kind = trainer.wish["rows"], trainer.wish["kind"]
        facts = tune_shared.manifest(folder) if folder and kind != "grpo" else {}
        self._counts = {name: facts[f"{name}_per_step"] for name in ("tokens", "loss_tokens") if facts}
        self._seen: int | None = None
        asked = trainer.trackers if trainer.args.process_index == 0 else ()
        about = {name: trainer.wish.get(name) for name in ("project", "mlflow_uri")}
        self._runs = tune_trackers.begin(asked, _NAMES, run=trainer.args.run_name, **about)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers calls it so
        """transformers makes 8 of 0.07 of 100 steps, which is a little more than 7 in binary."""
        if args.eval_steps and args.eval_steps < 1:
            state.eval_steps = math.ceil(round(args.eval_steps * state.max_steps, 9))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers calls it so
        """After the last step the evaluation rows are looked at, all of them; and a checkpoint is one only if it is due then."""
        if self._trainer.seen is not None:
            self._seen = int(self._trainer.accelerator.reduce(torch.tensor(self._trainer.seen, device=self._trainer.args.device)))
        last = state.global_step >= state.max_steps
        control.should_evaluate |= last and self._trainer.eval_dataset is not None
        if last and control.should_save:
            control.should_save = state.global_step % state.save_steps == 0

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training ends where the last `patience` evaluations were no better than one before them. What was seen before a resume is in the
        checkpoint's log_history.
        """
        trainer, most = self._trainer, self._trainer.wish["patience"]
        losses = [line["eval_loss"] for line in state.log_history if "eval_loss" in line]
        if trainer.stopped or not most or state.global_step >= state.max_steps or not stalled(losses, most):
            return
        trainer.stopped = control.should_training_stop = True
        if state.is_world_process_zero:
            with Path(args.output_dir, "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": state.global_step, "stopped": most}) + "\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Where training ends early the last evaluation may have looked at some rows only."""
        if self._trainer.stopped and self._trainer.wish["eval_batches"]:
            self._trainer.evaluate()
        self._runs.end()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """A checkpoint is complete when every process has written its part."""
        self._trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            place = Path(args.output_dir, f"checkpoint-{state.global_step}")
            tune_checkpoints.complete(place, state.global_step, keep=self._trainer.keep)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """One line, by the first process."""
        if not logs or "train_runtime" in logs or not state.is_world_process_zero:
            return
        line = {"step": state.global_step, "seconds": time.monotonic() - self._began, **self._tokens(state.global_step)}
        line |= {name: value for name, value in logs.items() if isinstance(value, int | float)}
        if torch.cuda.is_available():
            # the peak since the last log, where a trainer reads it before us and begins anew (axolotl's utils/bench.py)
            line["memory_gib"] = logs.get("memory/max_allocated (GiB)") or torch.cuda.max_memory_allocated() / 2**30
        with Path(args.output_dir, "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._runs.log(state.global_step, line)

    def _tokens(self, step: int) -> dict[str, int]:
        """Tokens up to this step as the data step counted them, or as they went by where the trainer reads the rows. Nobody counts the
        answers of grpo before they are there.
        """
        here = {} if self._seen is None else {"tokens": self._seen}
        return here | {name: sum(counts[:step]) for name, counts in self._counts.items()}


class TokenMean(Exact):
    """An evaluation's loss is a mean over all its tokens; transformers averages the batches' means by rows."""

    _rate = 1.0

    def evaluation_loop(self, dataloader: Any, *args: Any, **kw: Any) -> Any:
        """`_rate` turns the mean over rows into the mean over tokens."""
        labels = [row["labels"] for row in dataloader.dataset.select_columns("labels")]
        self._rate = len(labels) / max(1, sum(len(row) - row.count(tune_shared.NO_LOSS) for row in labels))
        return super().evaluation_loop(dataloader, *args, **kw)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kw: Any) -> Any:
        """The mean of a batch, weighted by its tokens a row."""
        tokens, rows = self.counted(inputs["labels"])
        loss, *rest = super().prediction_step(model, inputs, *args, **kw)
        return loss * (tokens / rows * self._rate), *rest

    def counted(self, labels: torch.Tensor) -> tuple[int, int]:
        """Tokens with loss and rows of what the loss of an evaluation's batch is a mean over: here, of this process."""
        return int((labels != tune_shared.NO_LOSS).sum()), len(labels)


class Prepared(Exact):
    """TRL's trainers that tokenize texts first, unless the rows have ids already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kw: Any) -> Dataset:
        return dataset if "prompt_ids" in dataset.column_names else super()._prepare_dataset(dataset, *args, **kw)


class Ready(Exact):
    """TRL's older trainers, which tokenize row by row."""

    def tokenize_row(self, feature: dict[str, Any], *args: Any, **kw: Any) -> dict[str, Any]:
        """The ids of a row by the names that the trainer wants; or TRL's own, of texts."""
        if "prompt_ids" not in feature:
            return super().tokenize_row(feature, *args, **kw)
        prompt = feature["prompt_ids"]
        out = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for name in ("chosen", "rejected"):
            answer = feature[f"{name}_ids"]
            out |= {
                f"{name}_input_ids": prompt + answer,
                f"{name}_attention_mask": [1] * (len(prompt) + len(answer)),
                f"{name}_labels": [tune_shared.NO_LOSS] * len(prompt) + answer,
            }
        return out


@torch.no_grad()
def _preset(model: torch.nn.Module, start: str) -> None:
    """A and B as in the file, which has them all.

    Raises:
        ValueError: it has others than the model trains.
    """
    own = {name: p for name, p in model.named_parameters() if ".default." in name and (".lora_A." in name or ".lora_B." in name)}
    new = {f"base_model.model.{name.removesuffix('.weight')}.default.weight": value for name, value in load_file(start).items()}
    if odd := sorted(own.keys() ^ new.keys()):
        raise ValueError(f"{start}: {odd[0]} and {len(odd) - 1} others are in it or in the model, not in both")
    for name, parameter in own.items():
        parameter.copy_(new[name])


def _name_quantized(model: torch.nn.Module) -> None:
    """quantized.json: the layers that bitsandbytes keeps in 4 bits, by their names in the base, for the export."""
    names = [name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]
    if names:
        plain = [name.removeprefix("base_model.model.").removesuffix(".base_layer") for name in names]
        Path("quantized.json").write_text(json.dumps(plain))


def _learn_padding(model: torch.nn.Module) -> None:
    """The embedding of the token of padding learns like any other: rows may use it, as where it is the end of a turn. Padding itself
    carries no loss, so nothing comes of it.

    transformers gives its embeddings `padding_idx` (5.x, modeling_llama.py), whose row torch leaves without a gradient.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None


def _cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Weights and adapters in the recipe's type: trainers leave embeddings, norms or adapters in another one. What is
    quantized stays.
    """
    for parameter in model.parameters():
        if type(parameter).__name__ in ("Parameter", "Tensor") and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
