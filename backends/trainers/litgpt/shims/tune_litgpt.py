"""LitGPT 0.5.13's side: a data module (`data.class_path: tune_litgpt.Rows`) and an optimizer (`tune_litgpt.adamw`).

The data module is LitGPT's official way in, and it also is the first of our code that a run calls. What has no way in is
replaced there by name in `litgpt.finetune.full` and `.lora` (for `litgpt pretrain` see tune_litgpt_pretrain.py), each
replacement stated in `Rows.__post_init__`, which runs before LitGPT makes its Fabric, or in `Rows._put_in`, before the model.

`python tune_litgpt.py convert.json` is the same as `python tune_convert.py convert.json`.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports: a conversion that lies in the cache must not wait for torch
    import tune_convert

    sys.exit(tune_convert.main(sys.argv[1]))

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import litgpt.finetune.full
import litgpt.finetune.lora
import litgpt.lora
import litgpt.model
import torch
import tune_checkpoints
import tune_convert
import tune_lengths
import tune_litgpt_log
import tune_resolved
import tune_shared
import tune_witness
from jsonargparse import capture_parser
from litgpt.__main__ import PARSER_DATA
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.prompts import Default
from litgpt.utils import CLI
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tune_litgpt_parts import Ddp, TokenMean, by_products, keeping, no_example, noisy, one_embedding, own, recomputed, replace
from tune_litgpt_whole import marking, saving
from tune_shared import adamw

__all__ = ["Rows", "adamw"]

_FULL, _LORA = litgpt.finetune.full, litgpt.finetune.lora


class _Items(Dataset):
    """Rows in the order wanted, as LitGPT's collate function takes them."""

    def __init__(self, rows: tune_shared.Rows | None, order: Any, rates: Any) -> None:
        self._rows, self._order, self.rates = rows, order, rates
        """`rates[i]`: what one token of item i counts for, in units of its micro-batch's mean."""

    def begin(self, index: int) -> None:
        """Leave out the items before this one."""
        self._order, self.rates = self._order[index:], self.rates[index:]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids, labels = self._rows.row(self._order[index])
        learned = int((labels != tune_shared.NO_LOSS).sum())
        return {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "token_counts": {"raw": learned, "raw_plus_prompt_template": len(ids)},
            "weight": learned * float(self.rates[index]),
        }


class _Collate:
    """Pads the items of one micro-batch, and announces its weight to the loss."""

    def __init__(self, pad_id: int, longest: int, loss: TokenMean | None) -> None:
        self._pad, self._loss = get_sft_collate_fn(pad_id=pad_id), loss
        self._even = partial(tune_shared.even, pad=pad_id, longest=longest)

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        if self._loss:
            self._loss.weight = sum(item["weight"] for item in items)
        made = self._pad(items)
        made["input_ids"], made["labels"] = self._even(made["input_ids"], made["labels"])
        return made


@dataclass
class Rows(DataModule):
    """Rows that are already token ids and labels, in the order of the data step."""

    folder: str = "data"
    """What the data step wrote."""
    checkpoint: str = "lit"
    """The converted model; its config.json says whether the embeddings are tied."""
    token_weighted: bool = True
    """Weigh micro-batches (and processes) by their tokens, in the gradient and in the logged loss; see `TokenMean`."""
    ddp: bool = False
    """Each of several processes has the whole model, instead of a share of it by LitGPT's FSDP."""
    keep: int | None = None
    """How many of the checkpoints on the way remain; null: all."""
    recompute: bool = False
    """Recompute each block's activations in the backward pass. With FSDP, LitGPT's fine-tuning does so by itself."""
    compile: bool = False
    """Compile each block, which fine-tuning by itself does not."""
    neftune_alpha: float | None = None
    """Of the noise on embeddings; null: none."""
    train_fully: list[str] = field(default_factory=list)
    """Words of method.lora.train_fully."""
    trackers: list[str] = field(default_factory=list)
    """tensorboard, wandb, mlflow: what gets the metrics besides LitGPT's CSV file."""
    name: str = "run"
    """The recipe's; what the trackers call the run, unless `run` says so."""
    project: str | None = None
    run: str | None = None
    mlflow_uri: str | None = None

    loader: ClassVar = DataLoader
    by_block: ClassVar = True
    """Whether compiling is up to us, and block by block."""
    batch_size: int = field(default=1, init=False, repr=False)
    loss: Any = field(default=None, init=False, repr=False)
    looked: bool = field(default=False, init=False, repr=False)
    """An evaluation has been."""
    world: int = field(default=1, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        torch.set_float32_matmul_precision("highest")  # LitGPT's command says "high" before (__main__.py): TF32 on CUDA
        torch.backends.cudnn.allow_tf32 = False  # its LoRA of q, k and v is a convolution (lora.py, LoRAQKVLinear)
        self.prompt_style = Default()  # written beside every checkpoint
        self.facts = tune_shared.manifest(self.folder)
        named = {"project": self.project or "tunesmith", "run": self.run or self.name, "mlflow_uri": self.mlflow_uri}
        self.steps = tune_shared.OptimizerSteps(has_norm=self._has_norm)
        logger = tune_litgpt_log.chooser(self.trackers, named, self.facts.get("tokens_per_step", ()), self.steps)
        for module, strategy in self.commands().items():
            replace(module, "choose_logger", logger)
            last = self.written_last(module)
            replace(module, last, self._marking(own(module, last), module))
            if self.ddp:
                replace(module, strategy, Ddp)

    def _has_norm(self) -> bool:
        """The gradients of a step are all here, or FSDP2's, which finetune_lora splits by: FSDP1 has pieces of its own."""
        return self.world == 1 or self.ddp or "finetune_lora" in sys.argv

    @staticmethod
    def commands() -> dict[ModuleType, str]:
        """The commands that these rows are for, and what each calls its strategy for several devices."""
        return {_FULL: "FSDPStrategy", _LORA: "ModelParallelStrategy"}

    @staticmethod
    def written_last(_module: ModuleType) -> str:
        """The function by which a command writes the last file of a checkpoint; the second argument is the folder."""
        return "save_prompt_style"

    def _marking(self, write: Any, module: ModuleType) -> Any:
        """The same, after which the checkpoint is complete. The first process alone calls it."""
        lacks = "LitGPT saves no optimizer state with an adapter" if module is _LORA else ""

        def marking(what: Any, folder: Path) -> None:
            write(what, folder)
            kind, _, step = Path(folder).name.partition("-")
            if kind == "step":
                tune_checkpoints.complete(folder, int(step), keep=self.keep, lacks=lacks)

        return marking

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:  # noqa: ARG002
        """Called once, before the model is built: what has no way in is replaced here, by name.

        Raises:
            ValueError: the micro-batch does not divide the batch, or rows are longer than `max_seq_length`.
            RuntimeError: this LitGPT has not what is to be replaced.
        """
        self.batch_size = batch_size
        self.rank, self.world = _place()
        if sys.argv[1:] and sys.argv[1] in PARSER_DATA:  # not where these rows are used without LitGPT's command
            tune_resolved.record("litgpt.yaml", _parsed())
        self._check(max_seq_length)
        self._put_in_blocks()
        self._put_in()

    def _put_in_blocks(self) -> None:
        """A block's forward pass as it is wanted. What is recomputed is what was compiled."""
        forward = own(litgpt.model.Block, "forward")
        if self.compile and self.by_block:
            forward = tune_lengths.compiled_once(torch.compile(forward), self.folder)
            replace(litgpt.lora.LoRAQKVLinear, "conv1d", by_products)
        replace(litgpt.model.Block, "forward", recomputed(forward) if self.recompute else forward)

    def _put_in(self) -> None:
        for module in self.commands():
            # There is no instruction to generate from. And generating hangs several processes, while skipping it by
            # `eval.max_new_tokens` leaves the model in eval mode, dropout off, until the next validation.
            replace(module, "generate_example", no_example)
            if self.token_weighted:
                self.weigh(module, self._weighing(own(module, "validate")))
        if self.world > 1 and not self.ddp:
            replace(_LORA, "load_checkpoint", keeping(own(_LORA, "load_checkpoint")))
        if self.neftune_alpha:
            for model in (litgpt.model.GPT, litgpt.lora.GPT):
                replace(model, "forward", noisy(own(model, "forward"), self.neftune_alpha, self.folder))
        if self.train_fully:
            for name, make in (("mark_only_lora_as_trainable", marking), ("save_lora_checkpoint", saving)):
                replace(_LORA, name, make(own(_LORA, name), self.train_fully, tied=self.tied()))
        if self.tied():  # finetuning refuses `train.tie_embeddings`
            replace(_FULL, "GPT", one_embedding(own(_FULL, "GPT")))
        if "bitsandbytes" in sys.modules:
            # LitGPT swaps the embedding of a quantized base for one that normalizes what it looks up (finetune/lora.py, main)
            replace(sys.modules["bitsandbytes"].nn, "StableEmbedding", torch.nn.Embedding)

    def weigh(self, module: ModuleType, validate: Any) -> None:
        """Have the loss of a command be the mean over tokens, in training and in `validate`."""
        self.loss = self.loss or TokenMean(own(module, "chunked_cross_entropy"), self.world)
        replace(module, "chunked_cross_entropy", self.loss)
        replace(module, "validate", validate)

    def tied(self) -> bool:
        """Input and output embedding are one matrix."""
        return tune_convert.tied(self.checkpoint)

    def _check(self, max_seq_length: int | None) -> None:
        batch, step = self.facts["batch"], self.batch_size * self.world
        if batch % step:
            raise ValueError(f"the batch of {batch} rows is no multiple of micro_batch_size x processes = {step}")
        longest = self._longest()
        if max_seq_length and max_seq_length < longest:
            raise ValueError(f"train.max_seq_length: {max_seq_length} would cut rows of {longest} tokens; use null")

    def _longest(self) -> int:
        return max(tune_shared.Rows(self.folder, split).longest() for split in self._splits())

    def _splits(self) -> list[str]:
        return [split for split in ("train", "eval") if Path(self.folder, f"{split}.starts.npy").exists()]

    def setup(self, stage: str = "") -> None:  # noqa: ARG002
        """Open the files. A split that was not written is empty."""
        rows, order = tune_shared.Rows(self.folder), tune_shared.order(self.folder)
        self.train_dataset = _Items(rows, order, self._train_rates(rows, order))
        self.test_dataset = _Items(None, [], [])
        if "eval" in self._splits():
            rows = tune_shared.Rows(self.folder, "eval")
            filled = -len(rows) % self.world  # or the sampler would have some rows count twice
            self.test_dataset = _Items(rows, [*range(len(rows)), *[0] * filled], [0.0] * (len(rows) + filled))
            self.test_learned = rows.learned()

    def _train_rates(self, rows: tune_shared.Rows, order: Any) -> Any:
        """One token of a batch with n learned tokens, met in c micro-batches, counts for c / n."""
        batch = self.facts["batch"]
        learned = rows.learned()[order].reshape(-1, batch).sum(1).clip(1)
        return (batch // self.batch_size / learned).repeat(batch)

    def _weighing(self, validate: Any) -> Any:
        """LitGPT's `validate`; the batches that it is going to look at are weighed against each other first."""

        def weighed(fabric: Any, model: Any, loader: Any, settings: Any, *args: Any, **kw: Any) -> torch.Tensor:
            self.weigh_items(min(len(loader), settings.max_iters))
            return self.noted(fabric, settings, validate(fabric, model, loader, settings, *args, **kw))

        return weighed

    def noted(self, fabric: Any, settings: Any, loss: torch.Tensor) -> torch.Tensor:
        """The loss of an evaluation; that of one before the first step, which LitGPT only prints, is logged."""
        if settings.initial_validation and not self.looked and not tune_checkpoints.begun():
            mean = fabric.all_reduce(loss.detach().clone().to(fabric.device), reduce_op="mean")
            fabric.log_dict({"val_loss": mean, "val_ppl": mean.exp()}, step=0)
        self.looked = True
        return loss

    def weigh_items(self, batches: int) -> None:
        """Weigh the first `batches` micro-batches of each process's evaluation rows against each other."""
        if items := len(self.test_dataset):
            every, rows = batches * self.world, len(self.test_learned)
            seen = int(self.test_learned[: every * self.batch_size].sum())
            self.test_dataset.rates = [every / max(1, seen)] * rows + [0.0] * (items - rows)

    def _loader(self, items: _Items, collate: Any, *, drop_last: bool) -> DataLoader:
        several = self.world > 1 and len(items)
        return self.loader(
            items,
            batch_size=self.batch_size,
            # Process r takes rows r, r + world, ...: together they meet exactly the rows of the batch, step by step
            sampler=DistributedSampler(items, self.world, self.rank, shuffle=False) if several else None,
            collate_fn=collate,
            drop_last=drop_last,
            generator=torch.Generator(),  # or each evaluation would shift the random numbers of the dropout that follows
        )

    def _collate(self) -> Any:
        return _Collate(self.facts["pad_id"], self._longest(), self.loss)

    def _tensors(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and labels of what `_collate` makes."""
        return batch["input_ids"], batch["labels"]

    def train_dataloader(self) -> DataLoader:
        """The rows, once, in their order."""
        collate = self._collate()
        if self.loss and tune_witness.asked():
            collate, self.loss.taken = tune_witness.Witness(self.folder).held(collate, self._tensors)
        return self._loader(self.train_dataset, collate, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """The evaluation rows in file order; empty when there are none."""
        return self._loader(self.test_dataset, self._collate(), drop_last=False)


def _parsed() -> dict[str, Any]:
    """The command line as LitGPT's own parser resolves it; as LitGPT itself does for hyperparameters.yaml (parser_config.py)."""
    command, *rest = sys.argv[1:]
    parser = capture_parser(lambda: CLI(PARSER_DATA[command]))
    return json.loads(parser.dump(parser.parse_args(rest), format="json", skip_none=False))


def _place() -> tuple[int, int]:
    """Rank of this process, and how many there are."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()
