"""What Unsloth's other two forms mean in leaves: the YAML of `unsloth train`, and the calls of a program (program.py).

Sources: https://github.com/unslothai/unsloth at the pinned tag: unsloth_cli/config.py and studio/backend/core/training/trainer.py say
what the command does with its keys, unsloth/models/rl.py what becomes of SFTConfig's defaults on a GPU, unsloth/models/loader.py and
llama.py how model and adapter are made.
"""

from __future__ import annotations

import re

from backends.dialect import ROWS, ImportRow, Unfit, idle, machine, note, number, text, unmodelled, whole
from backends.hf import import_arguments as arguments
from backends.hf.import_arguments import NOTHING, ArgumentNames
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.recipe.paths import FILES, HUB, is_file, is_foreign, is_path

_NATIVE = "native.unsloth."
_FOUR_BITS = re.compile(r"(?i)^(unsloth/.+?)(?:-unsloth)?-bnb-4bit$")


def _model(name: Value) -> Flat:
    """The model's own weights: of those that Unsloth has in 4 bits already, the ones that they were made of."""
    said = text(name)
    if found := _FOUR_BITS.match(said):
        return {
            "model.id": found[1],
            **note(f"{said} has its weights in 4 bits already: the recipe names those they were made of"),
        }
    return {"model.id": said if HUB.fullmatch(said) or is_path(said) else f"./{said}"}


_ENDS = ("embed_tokens", "lm_head")


def _targets(modules: Value, whole: Value) -> Flat:
    """Layers with an adapter. Embeddings among them Unsloth trains whole instead, and keeps them tied where they are."""
    named = [each.strip() for each in modules.split(",")] if isinstance(modules, str) else modules
    moved = [each for each in named if each in _ENDS] if isinstance(named, list) else []
    if moved:
        named = [each for each in named if each not in moved]
    asked = whole if isinstance(whole, list) else [] if whole in NOTHING else [whole]
    fully = arguments.train_fully(
        [*moved, *(each for each in asked if each not in moved)],
        ABSENT,
        {f"{_NATIVE}lora.modules_to_save": [*moved, *asked]},
        ties=not set(asked) & set(_ENDS),
    )
    if named in (*NOTHING, [], "all-linear", ["all-linear"]):
        return {"method.lora.targets": arguments.ALL, **fully}
    return {**arguments.targets(named, {f"{_NATIVE}lora.target_modules": named, **fully}), **fully}


def _adapter(variant: Variant, section: str, four: str) -> tuple[ImportRow, ...]:
    """Keys of an adapter, by the section that they stand in."""
    rank = "r" if section == "get_peft_model." else "lora_r"
    names = (rank, "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "modules_to_save")
    keys = [f"{section}{name}" for name in names]
    chosen = ImportRow((four,), lambda _: {}, "method.adapter")
    if not variant.lora:
        return chosen, ImportRow(tuple(keys), lambda *_: {}, "no adapter is trained")
    return (
        chosen,
        ImportRow((keys[0],), lambda n: {"method.lora.rank": whole(n)}),
        ImportRow((keys[1],), lambda n: {"method.lora.alpha": number(n)}),
        ImportRow((keys[2],), lambda n: {"method.lora.dropout": number(n)}),
        ImportRow((keys[3], keys[5]), _targets, "linear layers by Hugging Face's names; all of them where none is named"),
        ImportRow((keys[4],), lambda on: {"method.lora.rank_stabilized": True} if on is True else {}),
    )


def _loftq(config: Value) -> Flat:
    if config in (*NOTHING, {}):
        return {}
    raise Unfit("a start of the adapter that makes up for the rounding of the base", {f"{_NATIVE}lora.loftq_config": config})


def _memory(word: Value) -> Flat:
    """`unsloth` keeps in main memory what the backward pass needs."""
    off = word in (False, "false", "none", None)
    return {"train.activation_checkpointing": not off, "train.offload": word == "unsloth"}


def _path(name: Value, files: Value = None) -> str:
    """The hub id or the file.

    Raises:
        Unfit: a recipe takes neither.
    """
    first = files[0] if isinstance(files, list) and len(files) == 1 else None if files in NOTHING else files
    said = text(first if name in ("json", "parquet", "text", "csv") else name)
    if first and said == name:
        raise Unfit(f"{first} is some of the files of {name}, and a recipe takes all of them", {"data.train": ROWS})
    if is_foreign(said) or not (said.endswith(FILES) or HUB.fullmatch(said)):
        raise Unfit(f"{said} is neither a file that recipes take nor a data set of the hub", {"data.train": ROWS})
    return said


# The command


def command(variant: Variant) -> tuple[ImportRow, ...]:
    """The YAML of `unsloth train`."""
    return (
        ImportRow(("model",), _model),
        ImportRow(("training.training_type",), lambda _: {}, "method.adapter"),
        *_adapter(variant, "lora.", "training.load_in_4bit"),
        ImportRow(("data.dataset", "data.local_dataset"), _command_rows),
        ImportRow(("data.format_type",), lambda word: _format(variant, word), "what the rows are"),
        ImportRow(("training.max_seq_length",), lambda n: {"data.max_length": whole(n)}),
        ImportRow(("training.packing",), lambda on: {"data.pack": True} if on is True else {}),
        ImportRow(
            ("training.train_on_completions",),
            lambda alone: {} if variant.kind == "pretrain" else {"data.train_on_prompt": alone is not True},
            "all of a row carries loss unless it is denied",
        ),
        machine("training.batch_size"),
        ImportRow(("training.num_epochs", "training.max_steps"), _command_duration),
        ImportRow(("training.batch_size", "training.gradient_accumulation_steps"), _command_batch),
        ImportRow(("training.learning_rate",), lambda n: {"optim.lr": number(n)}),
        ImportRow(("training.warmup_steps",), lambda n: {"optim.warmup_steps": whole(n)} if number(n) else {}),
        ImportRow(("training.weight_decay",), arguments.decay, "transformers spares norms and biases"),
        ImportRow(("training.random_seed",), lambda n: {"train.seed": whole(n)}),
        ImportRow(("training.gradient_checkpointing",), _memory),
        ImportRow(
            ("training.save_steps",), lambda n: {"checkpoint.every": whole(n)} if number(n) else {}, "0: the end of the run alone"
        ),
        ImportRow(("logging.enable_wandb", "logging.enable_tensorboard", "logging.wandb_project"), _services),
        ImportRow((), lambda: _unsaid(variant)),
    )


def _unsaid(variant: Variant) -> Flat:
    """What the command decides by itself (start_training)."""
    return {
        "train.precision": "bf16-mixed" if variant.lora else "bf16",
        "train.grad_clip": 1.0,
        "optim.name": "adamw_8bit",
        "optim.betas": [0.9, 0.999],
        "optim.eps": 1e-8,
        "optim.schedule": "linear",
        "log.every": 1,
    }


def _command_rows(name: Value, files: Value) -> Flat:
    if name not in NOTHING:
        return {"data.train": _path(name), **idle("data.local_dataset", "dataset goes before")}
    listed = [_path(each) for each in files] if isinstance(files, list) else []
    if not listed:
        raise Unfit("no data set is named", {"data.train": ROWS})
    return {"data.train": listed[0] if len(listed) == 1 else [{"path": each, "split": "train", "weight": 1.0} for each in listed]}


def _format(variant: Variant, word: Value) -> Flat:
    if variant.kind == "pretrain":
        return {"data.format": "text"}
    if word == "alpaca":
        return {"data.format": "instruct", "data.template": "alpaca"}
    if word in ("chatml", "sharegpt", "conversational"):
        return {"data.format": "chat"}
    unsure = note("format_type is auto: Unsloth looks at the rows, the recipe takes them for chats; look at data.format")
    return {"data.format": "chat", **unsure}


def _command_duration(epochs: Value, steps: Value) -> Flat:
    if steps not in NOTHING and whole(steps) > 0:
        return {"train.steps": whole(steps), **idle("training.num_epochs", "max_steps ends the run")}
    return {"train.epochs": whole(epochs)}


def _command_batch(one: Value, times: Value) -> Flat:
    return {"train.batch.global": whole(one) * whole(times), "train.batch.micro": whole(one)}


def _services(wandb: Value, board: Value, project: Value) -> Flat:
    services = [name for name, on in (("wandb", wandb), ("tensorboard", board)) if on is True]
    named = {"log.project": project} if wandb is True and isinstance(project, str) else {}
    return {**({"log.trackers": services} if services else {}), **named}


# The program


def program(variant: Variant, arguments_of: str) -> tuple[ImportRow, ...]:
    """The calls of a program, whose trainer takes arguments of this class."""
    at = f"{arguments_of}."
    says = ArgumentNames(f"{_NATIVE}training.", at)
    return (
        ImportRow(("from_pretrained.model_name",), _model),
        ImportRow(("from_pretrained.full_finetuning",), lambda _: {}, "method.adapter"),
        ImportRow(("from_pretrained.revision",), lambda word: {} if word in NOTHING else {"model.revision": text(word)}),
        *_adapter(variant, "get_peft_model.", "from_pretrained.load_in_4bit"),
        ImportRow(("get_peft_model.loftq_config",), _loftq),
        *_program_data(at),
        machine(f"{at}per_device_train_batch_size"),
        arguments.duration(says),
        arguments.batch(says),
        ImportRow((f"{at}fp16", f"{at}bf16", "from_pretrained.dtype"), lambda *values: _precision(variant, at, *values)),
        ImportRow(
            (f"{at}seed", "get_peft_model.random_state", "from_pretrained.random_state"),
            lambda *values: _seed(variant, at, *values),
        ),
        arguments.clipping(says),
        ImportRow(
            (
                "get_peft_model.use_gradient_checkpointing",
                "from_pretrained.use_gradient_checkpointing",
                f"{at}gradient_checkpointing",
            ),
            lambda *values: _recomputed(variant, at, *values),
        ),
        *arguments.optimizer(says),
        arguments.neftune(says, sft=variant.kind == "sft"),
        *arguments.around(says),
    )


def _program_data(at: str) -> tuple[ImportRow, ...]:
    lengths = ("from_pretrained.max_seq_length", f"{at}max_seq_length", f"{at}max_length", "SFTTrainer.max_seq_length")
    packs = (f"{at}packing", "SFTTrainer.packing")
    fields = (f"{at}dataset_text_field", "SFTTrainer.dataset_text_field")
    return (
        ImportRow(("load_dataset.path", "load_dataset.data_files", "load_dataset.split", "load_dataset.name"), _loaded),
        ImportRow(
            ("launch:rows", "launch:answers", *fields, f"{at}assistant_only_loss", f"{at}completion_only_loss"),
            _rows,
            "by what the program does with its rows",
        ),
        ImportRow(("get_chat_template.chat_template",), _template, "how messages become text"),
        ImportRow(lengths, _length, "the shorter of the model's and the trainer's"),
        ImportRow(packs, lambda *on: {"data.pack": True} if True in on else {}),
    )


def _loaded(name: Value, files: Value, split: Value, configuration: Value) -> Flat:
    if name is ABSENT:
        raise Unfit("no call of load_dataset is read", {"data.train": ROWS})
    path = _path(name, files)
    part = split if isinstance(split, str) and not is_file(path) else "train"
    some = (
        unmodelled("load_dataset.name", "one of several configurations of the data set") if configuration not in NOTHING else {}
    )
    if not is_file(path) and "[" in part:
        some |= unmodelled("load_dataset.split", "a part of a split; a recipe takes a whole one")
        part = part.partition("[")[0]
    return {"data.train": path, **({} if is_file(path) else {"data.train_split": part}), **some}


def _rows(form: Value, answers: Value, field: Value, other: Value, assistant: Value, completion: Value) -> Flat:
    """All of a text carries loss, unless answers alone are asked for."""
    alone = answers is True or assistant is True or completion is True
    if form == "chat":
        return {"data.format": "chat", "data.train_on_prompt": not alone}
    if form == "instruct":
        unsure = note("rows are taken for Alpaca's by the text around them: look at data.format, data.columns and data.template")
        return {"data.format": "instruct", "data.template": "alpaca", "data.train_on_prompt": not alone, **unsure}
    column = next((each for each in (field, other) if each not in NOTHING), "text")
    return {"data.format": "text", "data.columns.text": text(column)}


_SHIPPED = {"chatml": "chatml", "llama-3": "llama-3", "zephyr": "zephyr", "gemma": "gemma", "mistral": "mistral"}


def _template(word: Value) -> Flat:
    if word in NOTHING:
        return {}
    if isinstance(word, str) and word in _SHIPPED:
        return {"data.chat_template": _SHIPPED[word]}
    raise Unfit(
        f"Unsloth's own template {word}; the recipe takes the tokenizer's: see that it is the same, or name data.chat_template"
    )


def _length(*values: Value) -> Flat:
    found = [whole(each) for each in values if each not in NOTHING]
    if not found:
        raise Unfit("no length is said", {"data.max_length": 2048})
    return {"data.max_length": min(found)}


def _precision(variant: Variant, at: str, fp16: Value, bf16: Value, dtype: Value) -> Flat:
    """Without fp16 and bf16 Unsloth takes what the device has, which is bfloat16; all weights are in it, without autocast."""
    if not variant.lora:
        return {"train.precision": "bf16", **idle(f"{at}bf16", "all weights are in bfloat16")}
    if fp16 is True or dtype == "float16":
        return {"train.precision": "fp16-mixed"}
    return {"train.precision": "bf16-mixed", **({} if bf16 is True else idle(f"{at}bf16", "taken for a device with bfloat16"))}


def _seed(variant: Variant, at: str, trained: Value, drawn: Value, loaded: Value) -> Flat:
    found = {"train.seed": whole(trained)}
    if variant.lora and drawn not in (*NOTHING, trained):
        found |= unmodelled("get_peft_model.random_state", f"the adapter's own seed; the recipe draws it by that of {at}seed too")
    return {**found, **(idle("from_pretrained.random_state", "nothing is drawn") if loaded not in NOTHING else {})}


def _recomputed(variant: Variant, at: str, adapter: Value, model: Value, trainer: Value) -> Flat:
    """The adapter's word goes before the model's, and both before the trainer's."""
    word = adapter if variant.lora and adapter is not ABSENT else model
    beaten = idle(f"{at}gradient_checkpointing", "what model and adapter say goes before") if trainer is not ABSENT else {}
    return {**_memory(word), **beaten}
