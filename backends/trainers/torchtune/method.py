"""torchtune: which of its recipes does what, and the rows of the method section. Part of backend.py."""

from __future__ import annotations

from backends.mapping.launch import LAUNCH
from backends.mapping.methods import (
    beta,
    distill_idle,
    kinds,
    lora_idle,
    lora_scale,
    no_qat,
    preference_idle,
    preferring,
    teacher,
)
from backends.mapping.rows import ABSENT, Context, Row, Unsupported, Value, Values, Variant, cannot, const, couple, same
from backends.report import Kind
from backends.trainers.torchtune.release import RELEASE

SEE = RELEASE.source()
RECIPES = SEE + "recipes/"
_LOSSES = SEE + "torchtune/rlhf/loss/dpo.py"
_MAIN = "https://github.com/pytorch/torchtune/tree/main/recipes/dev"
MANY = "_distributed"
"""How the names of upstream's recipes for several processes end."""


def learns(variant: Variant) -> str:
    """Which of our three tables a shape has: sft (pretraining is the same over other labels), dpo or distill. Kinds that
    torchtune has not are shown by the first.
    """
    return variant.kind if variant.kind in ("dpo", "distill") else "sft"


def upstream(variant: Variant, devices: int) -> str:
    """Name of upstream's recipe. Two have a form for several processes only, which a single one can take too: DPO of all
    weights, and DPO of DoRA, whose magnitudes lora_dpo_single_device leaves uninitialised.
    """
    many = devices > 1
    if learns(variant) == "dpo":
        stem = "lora_dpo" if variant.lora else "full_dpo"
        many |= variant.adapter in ("none", "dora")
    elif learns(variant) == "distill":
        stem = "knowledge_distillation"
    else:
        stem = "lora_finetune" if variant.lora else "full_finetune"
    return stem + (MANY if many else "_single_device")


def sharing(variant: Variant, context: Context) -> int:
    """Devices that share each matrix product; 1 where upstream's recipe has no tensor_parallel_dim."""
    return context.tensor if shares(variant) else 1


def shares(variant: Variant) -> bool:
    """Of upstream's recipes full_finetune_distributed alone shares matrices."""
    return upstream(variant, 2) == f"full_finetune{MANY}"


def kind(variant: Variant) -> Row:
    """method.kind."""
    has = ("sft", "pretrain", "dpo", *(("distill",) if variant.lora else ()))
    no_loss = f"{RELEASE.named} has the losses of DPO and RSO only, and hands them sums over tokens of two answers"
    lacks: dict[str, tuple[Kind, str, str]] = dict.fromkeys(("ipo", "orpo", "simpo", "kto"), ("never", no_loss, _LOSSES))
    return kinds(
        *has,
        lacks={
            **lacks,
            "reward": ("never", "torchtune loads reward models and trains none", SEE + "torchtune/rlhf"),
            "grpo": ("never", "GRPO came after the last release of torchtune", _MAIN),
            "distill": ("never", "torchtune distils into adapters only; use method.adapter", RECIPES),
        },
    )


def adapter(variant: Variant) -> Row:
    """method.adapter: upstream's recipe, and two switches of its LoRA builders."""
    words = {"lora": (False, False), "qlora": (True, False), "dora": (False, True)}
    if not variant.lora:
        return couple(
            ("method.adapter",),
            (f"{LAUNCH}:recipe",),
            lambda _word, context: (upstream(variant, context.devices),),
            lambda *_: ("none",),
            why="torchtune has a recipe for each method",
        )
    back = {switches: word for word, switches in words.items()}
    keys = (f"{LAUNCH}:recipe", "model.quantize_base", "model.use_dora")

    def to(word: str, context: Context) -> Values:
        recipe = upstream(variant, context.devices)
        if word == "qlora" and (why := _uneven(context)):
            fallback = dict(zip(keys, (recipe, *words["lora"]), strict=True))
            raise Unsupported("method.adapter", why, see=_NF4, fallback=fallback)
        return recipe, *words[word]

    return couple(
        ("method.adapter",),
        keys,
        to,
        lambda _recipe, quantized, dora, _context: (back[quantized, dora],),
        why="torchtune has a recipe for each method; QLoRA and DoRA are switches of its LoRA",
    )


_NF4 = "https://github.com/pytorch/ao/blob/v0.15.0/torchao/dtypes/nf4tensor.py"
_BLOCK = 64 * 256
"""Weights that torchao 0.15 quantizes together: 64 share a scale, and 256 scales one of their own."""


def _uneven(context: Context) -> str:
    """What NF4 cannot hold: layers whose weights are no whole blocks in each process; "" if there are none, or none are known."""
    whole = _BLOCK * context.devices
    for target, (inputs, outputs) in context.linear.items():
        if inputs * outputs % whole:
            return f"NF4 wants a multiple of {whole} weights a layer, {target} has {inputs} x {outputs}"
    return ""


_ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "output_proj"}
_MLP = ("gate", "up", "down")
_BUILDERS = SEE + "torchtune/models/llama3_2/_component_builders.py"


def _targets(wanted: list[str], context: Context) -> Values:
    chosen = [m for m in _MLP if m in wanted]
    modules = [native for ours, native in _ATTENTION.items() if ours in wanted]
    keys = {"model.lora_attn_modules": modules, "model.apply_lora_to_mlp": bool(chosen), "lora.json:targets": wanted}
    if chosen and len(chosen) < len(_MLP):
        raise Unsupported(
            "method.lora.targets",
            f"apply_lora_to_mlp is gate, up and down together; {', '.join(chosen)} alone is not possible",
            see=_BUILDERS,
            fallback=keys,
        )
    head = "head" in wanted
    if head and context.tied:
        raise Unsupported(
            "method.lora.targets",
            "the output embedding of this model is tied to the input; torchtune puts no adapter there",
            see=_BUILDERS,
            fallback=keys | {"lora.json:targets": [t for t in wanted if t != "head"]},
        )
    return modules, bool(chosen), head or ABSENT, wanted


def _wanted(modules: list[str], all_mlp: bool, head: Value, *_: Value) -> Values:
    named = [t for t, native in _ATTENTION.items() if native in modules]
    return ([*named, *(_MLP if all_mlp else ()), *(("head",) if head is True else ())],)


def _whole(variant: Variant) -> Row:
    """method.lora.train_fully."""
    see = SEE + "torchtune/modules/peft/_utils.py"
    if learns(variant) == "dpo":
        why = "torchtune's reference is the trained model with its adapters off, and whole modules have no such switch"
        return cannot("method.lora.train_fully", why, see=see)
    keys = ("model.train_fully", "checkpointer.train_fully", "export.json:train_fully")

    def to(words: list[str], context: Context) -> Values:
        if words and context.devices > 1:
            why = "torchtune's recipe for several processes draws anew what calls itself an adapter; one device works"
            raise Unsupported("method.lora.train_fully", why, kind="todo", see=see, fallback=dict.fromkeys(keys, ABSENT))
        return (words or ABSENT,) * len(keys)

    why = "our model component calls these modules adapters, which is what torchtune's recipes train"
    return couple(
        ("method.lora.train_fully",),
        keys,
        to,
        lambda *values: ([] if values[0] is ABSENT else values[0],),
        absent=keys,
        why=why,
        see=see,
    )


def lora(variant: Variant) -> tuple[Row, ...]:
    """method.lora."""
    if not variant.lora:
        return (*lora_idle(), const("optimizer_in_bwd", False, "it excludes accumulation and clipping"))
    return (
        couple(
            ("method.lora.rank",), ("model.lora_rank", "lora.json:rank"), lambda v, _: (v, v), lambda v, *_: (v,), status="same"
        ),
        lora_scale("model.lora_alpha"),
        same("method.lora.dropout", "model.lora_dropout"),
        couple(
            ("method.lora.targets",),
            ("model.lora_attn_modules", "model.apply_lora_to_mlp", "model.apply_lora_to_output", "lora.json:targets"),
            _targets,
            _wanted,
            why="attention by name; the MLP's three together",
            see=_BUILDERS,
            absent=("model.apply_lora_to_output",),
        ),
        _whole(variant),
        const("model.start", "lora/start.safetensors", "every trainer starts from the same A and B"),
        const("save_adapter_weights_only", False, "merged weights and the adapter"),
    )


def preference(variant: Variant) -> tuple[Row, ...]:
    """method.preference."""
    if learns(variant) != "dpo":
        return preference_idle()
    usual = beta("dpo", None)
    return preferring(
        couple(
            ("method.preference.beta",),
            ("loss.beta",),
            lambda value, _: (beta("dpo", value),),
            lambda value, _: (None if value == usual else value,),
            why="null means 0.1",
            status="same",
        ),
        same("method.preference.label_smoothing", "loss.label_smoothing"),
    )


def _teacher(name: str | None, _: Context) -> Values:
    spec, folder = teacher(name, RECIPES)
    return spec, folder, folder


def distill(variant: Variant) -> tuple[Row, ...]:
    """method.distill."""
    if learns(variant) != "distill":
        return distill_idle()
    keys = ("teacher.json:", "teacher_model.path", "teacher_checkpointer.checkpoint_dir")
    return (
        couple(
            ("method.distill.teacher",),
            keys,
            _teacher,
            lambda spec, *_: (spec["id"],),
            why="a second folder in Hugging Face layout, made ready by a step of its own",
        ),
        same("method.distill.ratio", "kd_ratio"),
    )


def qat(variant: Variant) -> tuple[Row, ...]:
    """method.qat: our model component rounds, so that any recipe over all weights trains so. Upstream's own (qat_distributed) has no
    schedule of the learning rate.
    """
    see = RECIPES + "qat_distributed.py"
    if variant.lora:
        why = "torchtune's QAT of adapters wants the FakeQuantizeConfig of an older torchao than the 0.15 of its environment"
        return no_qat("never", why, SEE + "torchtune/modules/peft/lora.py")
    if learns(variant) != "sft":
        return no_qat("never", "torchtune has quantization-aware training of supervised fine-tuning only", see)
    key = "model.qat_group"

    def to(scheme: str, group: int, context: Context) -> Values:
        if scheme != "none" and context.devices > 1:
            why = "rounding over weights that are split is not tried yet"
            raise Unsupported("method.qat.scheme", why, kind="todo", see=see, fallback={key: ABSENT})
        return (ABSENT if scheme == "none" else group,)

    return (
        couple(
            ("method.qat.scheme", "method.qat.group"),
            (key,),
            to,
            lambda group, _: ("none", 32) if group is ABSENT else ("int8-int4", group),
            absent=(key,),
            why="torchao rounds in the forward pass, all linear layers but a tied head",
            see=see,
        ),
    )


def losses(variant: Variant) -> tuple[Row, ...]:
    """The loss, and where a second set of weights comes from."""
    key, own = "loss._component_", "tune_torchtune_losses."
    if learns(variant) == "dpo":
        return _dpo(variant)
    if learns(variant) == "distill":
        why = "torchtune's own, whose recipe would divide the gradient by the tokens twice"
        see = RECIPES + "knowledge_distillation_single_device.py"
        return (
            const(key, f"{own}CEWithChunkedOutputLoss", why, see),
            const(
                "kd_loss._component_", f"{own}ForwardKLWithChunkedOutputLoss", why + "; the teacher's entropy is left out", see
            ),
            const("teacher_model._component_", "tune_torchtune.teacher", "built from the teacher's config.json"),
            *_second("teacher_checkpointer", "out/teacher", "the teacher's weights"),
        )
    return (const(key, "torchtune.modules.loss.CEWithChunkedOutputLoss", "mean over all tokens with loss of the global batch"),)


def _dpo(variant: Variant) -> tuple[Row, ...]:
    """DPO's loss; where one process trains adapters, with the rewards of the step."""
    key, usual, alone = "loss._component_", "torchtune.rlhf.loss.DPOLoss", "lora_dpo_single_device"
    if not variant.lora:
        second = _second("ref_checkpointer", "out/reference", "the start, which DPO compares with")
        return (const(key, usual, "mean over the pairs of the global batch"), *second)
    see = RECIPES + f"{alone}.py"
    return (
        const(
            key,
            lambda context: "tune_torchtune_losses.DPOLoss" if upstream(variant, context.devices) == alone else usual,
            "mean over the pairs of the global batch; one process would log the rewards of a step's last micro-batch",
            see,
        ),
    )


def _second(section: str, out: str, why: str) -> tuple[Row, ...]:
    return (
        const(f"{section}._component_", "tune_torchtune.checkpointer", why),
        const(f"{section}.output_dir", out, "nothing is written there"),
        const(f"{section}.model_type", "AUTO", "read from config.json"),
    )
