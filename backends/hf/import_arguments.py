"""What the arguments of transformers' trainer mean in leaves, for the import of configs of whatever stands on it.

Each function makes an import row in the trainer's own spelling. Sources: https://github.com/huggingface/transformers
(src/transformers/training_args.py, optimization.py) and PEFT's LoraConfig.
"""

from __future__ import annotations

from backends.dialect import ImportRow, Rule, Unfit, counted, idle, note, number, text, unmodelled, whole
from backends.mapping.rows import ABSENT, Flat, Value
from backends.records import dataclass

NOTHING: tuple[Value, ...] = (ABSENT, None, "")
"""Values that ask for nothing."""

_OPTIMIZES = "an optimizer or schedule in DeepSpeed's file, which goes before that of the config"
DEEPSPEED = (
    Rule("deepspeed.optimizer*", "unmodelled", _OPTIMIZES),
    Rule("deepspeed.scheduler*", "unmodelled", _OPTIMIZES),
    Rule("deepspeed.*", "kept", "memory and speed; the same result but for rounding"),
)
"""Keys of DeepSpeed's own config. Batch, clipping and precision in it are `auto`, or have to be those of the config: transformers
refuses others (integrations/deepspeed.py, trainer_config_finalize)."""


@dataclass(frozen=True)
class ArgumentNames:
    """How a trainer's configs spell the arguments of transformers."""

    native: str = ""
    """What the name follows where a key is set verbatim, `native.trl.` for example; empty: nobody takes it."""
    section: str = ""
    """What stands before each key: `training.`."""

    def __call__(self, name: str) -> str:
        """The key."""
        return f"{self.section}{name}"

    def carried(self, name: str, value: Value) -> Flat:
        """The key set verbatim for its own trainer."""
        return {f"{self.native}{name}": value} if self.native else {}


LINEAR = {f"{name}_proj": name for name in ("q", "k", "v", "o", "gate", "up", "down")} | {"lm_head": "head"}
"""Hugging Face's name of a linear layer -> the recipe's word."""
ALL = ["q", "k", "v", "o", "gate", "up", "down"]
"""Every linear layer but the output embedding, which is what `all-linear` means."""


def targets(named: list[str], carry: Flat) -> Flat:
    """Layers by Hugging Face's names.

    Args:
        named: the names.
        carry: what is set verbatim where some are no linear layers that recipes know.

    Raises:
        Unfit: some are not.
    """
    known = [LINEAR[each] for each in named if each in LINEAR]
    if len(known) < len(named):
        raise Unfit("layers that method.lora.targets has no word for", {"method.lora.targets": known or ALL, **carry})
    return {"method.lora.targets": [each for each in (*ALL, "head") if each in known]}


_WHOLE = {"embed_tokens": "embeddings", "lm_head": "head", "norm": "norms"}


def train_fully(named: Value, targeted: Value, carry: Flat, *, ties: bool = False) -> Flat:
    """Modules that are trained whole beside an adapter. PEFT takes all whose names end so: `norm` is every norm.

    Args:
        named: names, a list or one text with commas.
        targeted: names of the layers with an adapter.
        carry: what is set verbatim where recipes have no word for some.
        ties: the config keeps tied embeddings one matrix.

    Raises:
        Unfit: recipes have no word for some of them.
    """
    leaf = "method.lora.train_fully"
    listed = named.split(",") if isinstance(named, str) else named or []
    if named in NOTHING or not listed:
        return {}
    names = [str(each).strip().removeprefix("model.") for each in listed]
    words = [word for name, word in _WHOLE.items() if name in names]
    if "head" in words and isinstance(targeted, list | str) and "lm_head" in targeted:
        words.remove("head")
        raise Unfit("lm_head is among the layers with an adapter, too; the recipe gives it one", {leaf: words})
    rest = [each for each in names if each not in _WHOLE and not ("norm" in names and each.endswith("norm"))]
    if rest:
        raise Unfit(f"modules that {leaf} has no word for: {', '.join(rest)}", {leaf: words, **carry})
    told = note("tied embeddings stay one matrix with the recipe; PEFT alone trains a copy that parts them")
    return {leaf: words, **({} if ties or words == ["norms"] else told)}


def duration(says: ArgumentNames) -> ImportRow:
    """train.steps, or train.epochs."""
    epochs_key, steps_key = says("num_train_epochs"), says("max_steps")

    def make(epochs: Value, steps: Value) -> Flat:
        if steps not in (ABSENT, None) and whole(steps) > 0:
            return {"train.steps": whole(steps), **idle(epochs_key, f"{steps_key} ends the run")}
        times = number(epochs)
        if times != int(times):
            return {"train.epochs": int(times) + 1, **unmodelled(epochs_key, "recipes count whole epochs")}
        return {"train.epochs": int(times)}

    return ImportRow((epochs_key, steps_key), make, f"{steps_key} ends the run")


def batch(says: ArgumentNames) -> ImportRow:
    """train.batch, of a trainer that counts sequences."""

    def make(one: Value, times: Value, devices: Value, hosts: Value) -> Flat:
        micro = whole(one)
        return {"train.batch.global": micro * whole(times) * counted(devices, hosts), "train.batch.micro": micro}

    keys = (says("per_device_train_batch_size"), says("gradient_accumulation_steps"))
    return ImportRow(keys, make, "per device x accumulation x devices", also=("launch:devices", "launch:hosts"))


def seed(says: ArgumentNames) -> ImportRow:
    """train.seed."""
    return ImportRow((says("seed"),), lambda n: {"train.seed": whole(n)})


def neftune(says: ArgumentNames, *, sft: bool) -> ImportRow:
    """train.neftune_alpha, of a config that trains on answers."""
    key = says("neftune_noise_alpha")

    def make(alpha: Value) -> Flat:
        if alpha in NOTHING or not number(alpha):
            return {}
        if not sft:
            raise Unfit("recipes have noise on the embeddings with sft alone", says.carried("neftune_noise_alpha", number(alpha)))
        return {"train.neftune_alpha": number(alpha)}

    return ImportRow((key,), make, "tune draws it by row and step, transformers anew in each run")


def clipping(says: ArgumentNames) -> ImportRow:
    """train.grad_clip."""
    return ImportRow((says("max_grad_norm"),), lambda n: {"train.grad_clip": number(n) or None})


_OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw_32bit": "adamw",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}


def optimizer(says: ArgumentNames) -> tuple[ImportRow, ...]:
    """Optim: the optimizer, its rate, and how this goes."""
    word, kwargs = says("lr_scheduler_type"), says("lr_scheduler_kwargs.*")
    return (
        ImportRow((says("optim"),), lambda name: _optimizer(says, name), "transformers' names"),
        ImportRow((says("learning_rate"),), lambda n: {"optim.lr": number(n)}),
        ImportRow((says("adam_beta1"), says("adam_beta2")), lambda one, two: {"optim.betas": [number(one), number(two)]}),
        ImportRow((says("adam_epsilon"),), lambda n: {"optim.eps": number(n)}),
        ImportRow((says("weight_decay"),), decay, "transformers spares norms and biases"),
        ImportRow((word, kwargs), lambda name, more, rate: _schedule(says, name, more, rate), also=(says("learning_rate"),)),
        ImportRow(
            (says("warmup_steps"), says("warmup_ratio")),
            lambda steps, share, name: _warmup(says, steps, share, name),
            also=(word,),
        ),
    )


def _optimizer(says: ArgumentNames, word: Value) -> Flat:
    name = text(word)
    if name not in _OPTIMIZERS:
        raise Unfit(f"optim.name has no word for {name}", says.carried("optim", name))
    ours = _OPTIMIZERS[name]
    return {"optim.name": ours, **({"optim.fused": name.endswith("fused")} if ours == "adamw" else {})}


def decay(value: Value) -> Flat:
    """optim.weight_decay, and what it is of."""
    found = number(value)
    return {"optim.weight_decay": found, **({"optim.decay_on": "matrices"} if found else {})}


def _schedule(says: ArgumentNames, word: Value, more: Value, rate: Value) -> Flat:
    kwargs = more if isinstance(more, dict) else {}
    name = text(word)
    if name == "cosine_with_min_lr":
        low = kwargs.get("min_lr")
        share = kwargs.get("min_lr_rate")
        found = number(low) if low is not None else number(rate) * number(share or 0.0)
        return {"optim.schedule": "cosine", "optim.min_lr": found}
    if name not in _SCHEDULES:
        raise Unfit(f"optim.schedule has no word for {name}", says.carried("lr_scheduler_type", name))
    return {"optim.schedule": _SCHEDULES[name]}


def _warmup(says: ArgumentNames, steps: Value, share: Value, word: Value) -> Flat:
    """Until transformers 5 a share had a key of its own; now steps below 1 are one."""
    count_key, share_key = says("warmup_steps"), says("warmup_ratio")
    if word == "constant":
        why = f"has no effect with {says('lr_scheduler_type')}: constant"
        return {**idle(count_key, why), **idle(share_key, why)}
    beaten = idle(share_key, f"{count_key} goes before")
    found = 0.0 if steps in (ABSENT, None) else number(steps)
    if 0 < found < 1:
        return {"optim.warmup_share": found, **beaten}
    if found:
        return {"optim.warmup_steps": whole(found), **beaten}
    return {} if share in (ABSENT, None) or not number(share) else {"optim.warmup_share": number(share)}


SERVICES = ("tensorboard", "wandb", "mlflow")


def around(says: ArgumentNames) -> tuple[ImportRow, ...]:
    """Logs, checkpoints, services, and when rows for evaluation are looked at."""
    return (
        ImportRow((says("logging_steps"),), lambda n: _counted(says, "logging_steps", "log.every", n)),
        ImportRow((says("save_steps"), says("save_strategy")), lambda n, word: _saving(says, n, word)),
        ImportRow((says("save_total_limit"),), lambda n: {"checkpoint.keep": whole(n)} if n not in NOTHING else {}),
        ImportRow((says("report_to"), says("run_name")), lambda names, run: _trackers(says, names, run)),
        ImportRow(
            (says("eval_steps"), says("eval_strategy")),
            lambda n, word, epochs, steps: _evaluating(says, n, word, epochs, steps),
            "when rows for evaluation are looked at",
            also=(says("num_train_epochs"), says("max_steps")),
        ),
        ImportRow((says("eval_on_start"),), lambda on: {"eval.on_start": True} if on is True else {}),
    )


def _counted(says: ArgumentNames, key: str, leaf: str, steps: Value) -> Flat:
    if steps in NOTHING or number(steps) < 1:
        return unmodelled(says(key), "a share of the run; a recipe counts steps")
    return {leaf: whole(steps)}


def _saving(says: ArgumentNames, every: Value, strategy: Value) -> Flat:
    if strategy != "steps":
        why = f"checkpoints by {strategy}; a recipe counts steps"
        word = unmodelled(says("save_strategy"), why) if strategy not in ("no", False) else {}
        return {**word, **idle(says("save_steps"), f"has an effect with {says('save_strategy')}: steps alone")}
    return _counted(says, "save_steps", "checkpoint.every", every)


def _trackers(says: ArgumentNames, names: Value, run: Value) -> Flat:
    said = [names] if isinstance(names, str) else names if isinstance(names, list) else []
    services = [each for each in said if each in SERVICES]
    odd = [each for each in said if each not in (*SERVICES, "none")]
    missing = unmodelled(says("report_to"), f"log.trackers has no word for {', '.join(map(str, odd))}") if odd else {}
    named = {"log.run": run} if isinstance(run, str) and services else {}
    return {**({"log.trackers": services} if services else {}), **named, **missing}


def _evaluating(says: ArgumentNames, every: Value, strategy: Value, epochs: Value, steps: Value) -> Flat:
    unread = idle(says("eval_steps"), f"has an effect with {says('eval_strategy')}: steps alone")
    if strategy == "epoch" and (steps in NOTHING or whole(steps) <= 0) and number(epochs) == int(number(epochs)):
        return {**({"eval.every_share": 1 / whole(epochs)} if whole(epochs) > 1 else {}), **unread}
    if strategy != "steps":
        why = f"evaluates by {strategy}; a recipe counts steps"
        word = unmodelled(says("eval_strategy"), why) if strategy not in ("no", False) else {}
        return {**word, **unread}
    if every not in NOTHING and 0 < number(every) < 1:
        return {"eval.every_share": number(every)}
    return _counted(says, "eval_steps", "eval.every", every)
