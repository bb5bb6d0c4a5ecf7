"""torchtune's configs in the wild: OmegaConf's interpolation, components by dotted name, and comments that say the rest.

The hub id of the model, upstream's recipe and the number of devices stand on no key: they are in the commands that a config's
comments quote, and are read from there as `launch:model`, `launch:recipe`, `launch:devices`. What a component means is in
import_keys.py. Sources: https://github.com/pytorch/torchtune (recipes/configs, torchtune/config/_parse.py).
"""

from __future__ import annotations

import re

from backends.command_line import machine
from backends.dialect import Beside, Dialect, Refused, Rule
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.native_config import NativeConfig, Unreadable
from backends.trainers.torchtune.command_line import LAUNCHER
from backends.trainers.torchtune.import_keys import FOLDERS, reads
from backends.trainers.torchtune.import_older import today
from backends.upstream.defaults import Defaults

NAME = "torchtune"
DEFAULTS = Defaults.beside(__file__)

_DOWNLOAD = re.compile(r"tune download (\S+)(?:.*?--output-dir[ =](\S+))?")
_RUN = re.compile(r"tune run ((?:--\S+(?:[ =]\S+)? )*?)([\w/]+) --config")
_REFERENCE = re.compile(r"\$\{([^${}:]+)\}")


def sure(keys: Flat) -> str:
    """A component of torchtune's."""
    for key, value in keys.items():
        if key.endswith("_component_") and isinstance(value, str) and value.startswith(("torchtune.", "tune_torchtune.")):
            return f"{key} = {value}"
    return ""


def resolve(config: NativeConfig, _: Beside) -> NativeConfig:
    """References filled in, and what the comments say as keys of `launch`."""
    keys = {key: _filled(key, value, config) for key, value in config.keys.items()}
    quoted, lines, notes = _quoted(keys, config.text)
    if "launch:recipe" in keys:  # a command line, which the comments' go behind as a whole
        quoted, notes = {key: value for key, value in quoted.items() if key in ("launch:model", "launch:teacher")}, []
    missing = {key: value for key, value in quoted.items() if key not in keys}
    return NativeConfig(today({**keys, **missing}), {**config.lines, **lines}, (*config.notes, *notes), config.text)


def _filled(key: str, value: Value, config: NativeConfig, depth: int = 0) -> Value:
    """A value with `${other.key}` replaced; alone it keeps the other's type. Resolvers (`${oc.env:X}`) stay as they are."""
    if isinstance(value, list):
        return [_filled(key, item, config, depth) for item in value]
    if isinstance(value, dict):
        return {name: _filled(key, item, config, depth) for name, item in value.items()}
    if not isinstance(value, str) or "${" not in value:
        return value
    if depth > 8 or len(value) > 2000:
        raise Unreadable("refers to itself", line=config.line(key), key=key)
    alone = _REFERENCE.fullmatch(value)
    if alone:
        return _filled(key, _referred(key, alone[1], config), config, depth + 1)
    changed = _REFERENCE.sub(lambda found: str(_referred(key, found[1], config)), value)
    return changed if changed == value else _filled(key, changed, config, depth + 1)


def _referred(key: str, name: str, config: NativeConfig) -> Value:
    """Value of a reference; a name that begins with dots starts at the key's own section."""
    above = key.split(".")
    dots = len(name) - len(name.lstrip("."))
    path = ".".join([*above[: len(above) - dots], name.lstrip(".")]) if dots else name
    if path not in config.keys:
        raise Unreadable(f"refers to {name}, which is not in the file", line=config.line(key), key=key)
    return config.keys[path]


def _quoted(keys: Flat, text: str) -> tuple[Flat, dict[str, int], list[str]]:
    """What the quoted commands say, with their lines, and what else they quote."""
    out: Flat = {}
    lines: dict[str, int] = {}
    folders = {
        "model": _folder(keys.get("checkpointer.checkpoint_dir")),
        "teacher": _folder(keys.get("teacher_checkpointer.checkpoint_dir")),
    }
    runs: list[Flat] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("#"):
            continue
        ran = _ran(line)
        found = {**_downloaded(line, folders), **({} if runs else ran)}  # the first command as a whole, never parts of two
        runs += [ran] if ran and ran not in runs else []
        for name, value in found.items():
            if f"launch:{name}" not in out:
                out[f"launch:{name}"], lines[f"launch:{name}"] = value, number
    notes = [f"the comments quote another command too, which is left out: {_listed(each)}" for each in runs[1:]]
    return out, lines, notes


def _listed(ran: Flat) -> str:
    return ", ".join(f"{name} {value}" for name, value in ran.items())


def _downloaded(line: str, folders: dict[str, str]) -> Flat:
    """The hub id behind a folder, by the command that fills it."""
    found = _DOWNLOAD.search(line)
    if not found or not re.fullmatch(r"[\w.-]+/[\w.-]+", found[1]):
        return {}
    where = _folder(found[2]) or f"/tmp/{found[1].rpartition('/')[2]}"  # noqa: S108  # torchtune's own default
    return {name: found[1] for name, folder in folders.items() if folder and folder == where}


def _folder(path: Value) -> str:
    return re.sub(r"(/original)?/*$", "", path) if isinstance(path, str) else ""


def _ran(line: str) -> Flat:
    """Upstream's recipe, devices and hosts, by the command that starts them."""
    found = _RUN.search(line)
    if not found:
        return {}
    counts = {key.removeprefix("launch:"): count for key, count in machine(found[1].split()).items()}
    alone = {"devices": 1} if found[2].endswith("_single_device") else {}
    return {"recipe": found[2], **alone, **counts}


def shape(keys: Flat) -> Variant:
    """Kind and adapter, by upstream's recipe where it is known and by the components."""
    recipe = str(keys.get("launch:recipe", ""))
    if "policy_model._component_" in keys or recipe.startswith("ppo"):
        raise Refused("this is PPO with a reward model of its own; recipes have grpo and preferences instead")
    if not any(key.startswith(("dataset.", "datasets.")) or key in ("dataset", "datasets") for key in keys):
        what = recipe or next((key for key in ("tasks", "prompt", "quantizer._component_") if key in keys), "no data set")
        raise Refused(
            f"this is not a training config: it is for {what}" if recipe else f"this is not a training config: it has {what}"
        )
    loss = str(keys.get("loss._component_", ""))
    if "grpo" in recipe or "GRPO" in loss or "grpo_samples" in keys:
        return Variant("grpo", adapter(keys), native=True)
    kind = "distill" if "kd_loss._component_" in keys else "dpo" if "DPOLoss" in loss else "sft"
    return Variant(kind, adapter(keys), native=True)


def adapter(keys: Flat) -> str:
    """What the model's builder and its switches make."""
    name = str(keys.get("model._component_", "")).rpartition(".")[2]
    if not name.startswith(("lora_", "qlora_")) and "model.lora_attn_modules" not in keys:
        return "none"
    if keys.get("model.use_dora") is True:
        return "dora"
    return "qlora" if name.startswith("qlora_") or keys.get("model.quantize_base") is True else "lora"


def default(keys: Flat, key: str) -> Value:
    """By the component that the key's section names, else by the recipe."""
    section, _, name = key.rpartition(".")
    if not section:
        return DEFAULTS.get(key)
    component = str(keys.get(f"{section}._component_", ""))
    if component.startswith("bitsandbytes.optim."):  # of bitsandbytes 0.4x, where AdamW in all forms begins as torch's does
        component = "torch.optim.AdamW"
    return DEFAULTS.get(name, component) if component else ABSENT


_MEMORY = "memory and speed; the same result"

RULES = (
    Rule("output_dir", "job", FOLDERS),
    *(
        Rule(f"{section}.{key}", "job", FOLDERS)
        for section in ("checkpointer", "ref_checkpointer", "teacher_checkpointer")
        for key in ("output_dir", "checkpoint_files*", "model_type", "checkpoint_dir", "_component_")
    ),
    Rule("metric_logger.log_dir", "job", FOLDERS),
    Rule("metric_logger.filename", "job", FOLDERS),
    Rule("save_adapter_weights_only", "job", "every job leaves the adapter, and the merged weights beside it"),
    Rule("log_peak_memory_stats", "job", "tune reads the memory where the device can tell"),
    Rule("launch:recipe", "job", "chosen by the method and the devices"),
    Rule("log_level", "job", "tune reads metrics, not messages"),
    Rule("profiler.output_dir", "job", FOLDERS),
    Rule("profiler*", "kept", "how it is measured, not what is trained"),
    Rule("optimizer_in_bwd", "kept", "steps while gradients are made: " + _MEMORY),
    Rule("fsdp_cpu_offload", "kept", _MEMORY),
    Rule("fsdp_reshard_after_forward", "kept", _MEMORY),
    Rule("custom_sharded_layers", "kept", _MEMORY),
    Rule("low_cpu_ram", "kept", _MEMORY),
    Rule("ac_mode", "kept", "which layers recompute: " + _MEMORY),
    Rule("ac_option", "kept", "which layers recompute: " + _MEMORY),
    Rule("enable_async_checkpointing", "kept", "when files are written"),
    Rule("tensor_parallel_plan*", "kept", "which layers are shared by resources.tensor"),
    Rule("dataloader.*", "kept", "how rows are loaded"),
    Rule("optimizer.foreach", "kept", _MEMORY),
    Rule("optimizer.capturable", "kept", _MEMORY),
    Rule("loss.num_output_chunks", "kept", _MEMORY),
    Rule("kd_loss.num_output_chunks", "kept", _MEMORY),
    Rule("cudnn_deterministic_mode", "kept", "which kernels are allowed"),
    Rule("fsdp.cpu_offload", "kept", _MEMORY),
    Rule("memory_efficient_fsdp_wrap", "kept", _MEMORY),
    Rule("model.*_trainable", "unmodelled", "which parts of a model with images are trained", carried=True),
    Rule("collate_fn", "unmodelled", "how rows become a batch", carried=True),
    Rule("model.lora_attn_modules", "unmodelled", "layers that get an adapter, in a model with images", carried=True),
    Rule("model.apply_lora_to_*", "unmodelled", "layers that get an adapter, in a model with images", carried=True),
    Rule("model.attn_dropout", "unmodelled", "drops attention weights in training", carried=True),
    Rule("model.*", "unmodelled", "a size of a model that its folder's config.json gives", carried=True),
    Rule("tokenizer.*", "unmodelled", "how text becomes tokens", carried=True),
    Rule("dataset.subset", "unmodelled", "one of several configurations of the data set", carried=True),
    Rule("dataset.name", "unmodelled", "one of several configurations of the data set", carried=True),
    Rule("dataset.filter_fn", "unmodelled", "leaves rows out", carried=True),
    Rule("dataset.split_across_pack", "unmodelled", "packed rows may go on in the next sequence", carried=True),
    Rule("dataset.*", "unmodelled", "handed on to datasets.load_dataset", carried=True),
    Rule("fake_quant_after_n_steps", "unmodelled", "when quantization-aware training begins"),
    Rule("*.recipe_checkpoint", "unmodelled", "goes on from the state of an earlier run"),
    Rule("*.adapter_checkpoint", "unmodelled", "goes on from an adapter of an earlier run"),
    Rule("resume_from_checkpoint", "unmodelled", "goes on from the output of an earlier run"),
    Rule("optimizer.*", "unmodelled", "of the optimizer", carried=True),
    Rule("loss.*", "unmodelled", "of the loss", carried=True),
    Rule("kd_loss.*", "unmodelled", "of the loss", carried=True),
    Rule("quantizer.*", "unmodelled", "how quantization-aware training rounds"),
)

DIALECT = Dialect(
    NAME,
    sure,
    resolve,
    shape,
    reads,
    RULES,
    default,
    LAUNCHER,
    {"checkpointer.checkpoint_dir": "launch:model", "teacher_checkpointer.checkpoint_dir": "launch:teacher"},
)
