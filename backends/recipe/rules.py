"""Rules that no single leaf can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from backends.recipe.paths import FILES, HUB, is_file, is_path
from backends.recipe.problems import nearest, place_of, value_at
from backends.recipe.schema import FORMATS, PREFERENCE
from backends.recipe.secrets import WAY_OUT, places
from backends.recipe.yaml_source import Problem, Source


def _not_empty(keys: Mapping[str, Any], above: str = "") -> Iterable[str]:
    """Keys with `~` that have a value all the same."""
    for key, value in keys.items():
        if str(key).startswith("~") and value is not None:
            yield f"{above}{key}"
        elif isinstance(value, dict):
            yield from _not_empty(value, f"{above}{key}.")


def _method_rules(at: Callable[[str], Any], problem: Callable[..., Problem]) -> Iterable[Problem]:
    kind = at("method.kind") or "sft"
    owners = {"preference": PREFERENCE, "grpo": {"grpo"}, "distill": {"distill"}}
    for section, kinds in owners.items():
        if isinstance(at(f"method.{section}"), dict) and kind not in kinds:
            yield problem(f"method.{section}", f"has no effect with method.kind: {kind}")
    for leaf, kinds in _PREFERENCE_LEAVES.items():
        if kind in PREFERENCE and at(f"method.preference.{leaf}") is not None and kind not in kinds:
            yield problem(f"method.preference.{leaf}", f"has no effect with method.kind: {kind}")
    if kind == "distill" and not at("method.distill.teacher"):
        yield problem("method.distill.teacher", "is required with method.kind: distill")
    if kind == "grpo" and not at("method.grpo.rewards"):
        yield problem("method.grpo.rewards", "is required with method.kind: grpo")
    if at("method.qat.group") is not None and at("method.qat.scheme") in (None, "none"):
        yield problem("method.qat.group", "has no effect without method.qat.scheme")
    form = at("data.format")
    if isinstance(form, str) and kind in FORMATS and form not in FORMATS[kind]:
        fitting = [k for k, forms in FORMATS.items() if form in forms]
        rule = f"should be {' or '.join(sorted(FORMATS[kind]))} with method.kind: {kind}"
        yield problem("data.format", rule, f"{form} is for {', '.join(fitting)}" if fitting else "")


_PREFERENCE_LEAVES = {"label_smoothing": {"dpo"}, "margin": {"simpo"}, "desirable": {"kto"}, "undesirable": {"kto"}}


def _machine_rules(at: Callable[[str], Any], problem: Callable[..., Problem]) -> Iterable[Problem]:
    devices, hosts, tensor = (at(f"resources.{leaf}") or 1 for leaf in ("devices", "hosts", "tensor"))
    if not all(isinstance(count, int) for count in (devices, hosts, tensor)):
        return
    if devices * hosts % tensor:
        yield problem("resources.tensor", f"should divide all devices, which are {devices * hosts}")
    if devices * hosts == 1 and at("resources.strategy") not in (None, "auto"):
        yield problem("resources.strategy", "has no effect with one device")
    services = at("log.trackers") or []
    for leaf, needs in (("project", services), ("run", services), ("mlflow_uri", "mlflow" in services)):
        if at(f"log.{leaf}") is not None and not needs:
            yield problem(f"log.{leaf}", f"has no effect without {'mlflow in ' if leaf == 'mlflow_uri' else ''}log.trackers")


def _model_rules(at: Callable[[str], Any], problem: Callable[..., Problem]) -> Iterable[Problem]:
    random, shape = at("model.init") == "random", at("model.architecture")
    if random and shape is None and at("model.id"):
        yield problem("model.architecture", "is required with model.init: random")
    if not random and shape is not None:
        yield problem("model.architecture", "is only for model.init: random")
    heads, keys, width = (at(f"model.architecture.{k}") for k in ("heads", "kv_heads", "hidden_size"))
    if isinstance(heads, int) and isinstance(keys, int) and keys > 0 and heads % keys:
        yield problem("model.architecture.heads", f"should be a multiple of kv_heads, which is {keys}")
    if (
        isinstance(heads, int)
        and isinstance(width, int)
        and heads > 0
        and not at("model.architecture.head_dim")
        and width % heads
    ):
        yield problem("model.architecture.hidden_size", f"should be a multiple of heads, which is {heads}, or head_dim given")
    name = at("model.id")
    if isinstance(name, str) and not random and not is_path(name) and not HUB.fullmatch(name):
        yield problem("model.id", "should be a Hugging Face id (org/name) or a folder that begins with ./ ../ / or ~")


def _data_rules(at: Callable[[str], Any], problem: Callable[..., Problem]) -> Iterable[Problem]:
    many = at("data.train") if isinstance(at("data.train"), list) else []
    parts = [(f"data.train.{n}.path", part.get("path")) for n, part in enumerate(many) if isinstance(part, dict)]
    for leaf, name in (*((leaf, at(leaf)) for leaf in ("data.train", "data.eval")), *parts):
        if isinstance(name, str) and not is_file(name) and not HUB.fullmatch(name):
            yield problem(leaf, f"should be a file ({', '.join(FILES)}) or a Hugging Face data set id (org/name)", value=name)
    yield from _template_rules(at, problem)
    if at("data.eval") is None and (at("eval.every") is not None or at("eval.batches") is not None):
        yield problem("eval.every", "needs data.eval")
    if at("checkpoint.resume") and at("checkpoint.every") is None:
        yield problem("checkpoint.resume", "needs checkpoint.every: there is nothing else to go on from")
    if many and at("data.train_split") is not None:
        yield problem("data.train_split", "has no effect with a list in data.train: each has its own split")


def _template_rules(at: Callable[[str], Any], problem: Callable[..., Problem]) -> Iterable[Problem]:
    template, form = at("data.template"), at("data.format")
    if isinstance(template, str):
        if form == "instruct" and template not in TEMPLATES and "{instruction}" not in template:
            yield problem("data.template", f"should be {', '.join(TEMPLATES)} or a text with {{instruction}}")
        if form == "chat" and template != "chat":
            yield problem("data.template", "should be chat, the model's own template, with data.format: chat")
        if form == "text":
            yield problem("data.template", "has no effect with data.format: text")
        if form in ("completion", "preference", "rated", "prompts") and template not in ("plain", "chat"):
            yield problem("data.template", f"should be plain or chat with data.format: {form}")
    if at("data.loss_roles") is not None and (form != "chat" or at("data.train_on_prompt")):
        rule = "data.train_on_prompt, which gives loss to all" if form == "chat" else f"data.format: {form}"
        yield problem("data.loss_roles", f"has no effect with {rule}")
    if form in ("preference", "rated", "prompts"):
        for leaf in ("data.pack", "data.train_on_prompt"):
            if at(leaf):
                yield problem(leaf, f"should be false with data.format: {form}")
    if at("data.system") and form == "text":
        yield problem("data.system", "has no effect with data.format: text")


TEMPLATES = ("alpaca", "plain", "chat")


def check_rules(values: dict[str, Any], source: Source, changed: set[str], trainers: tuple[str, ...]) -> Iterable[Problem]:
    """What no single leaf can tell."""

    def at(path: str) -> Any:
        value = value_at(values, path)
        return None if value is ... else value

    def problem(path: str, rule: str, hint: str = "", value: Any = ...) -> Problem:
        got = value_at(values, path) if value is ... else value
        return Problem(path, rule, got, hint=hint, **place_of(path, source, changed))

    if isinstance(at("train"), dict) and (at("train.epochs") is None) == (at("train.steps") is None):
        yield problem("train.steps", "either train.steps or train.epochs is required, and not both")
    if at("optim.warmup_steps") is not None and at("optim.warmup_share") is not None:
        yield problem("optim.warmup_share", "should not be given together with optim.warmup_steps")
    total, micro = at("train.batch.global"), at("train.batch.micro")
    if isinstance(total, int) and isinstance(micro, int) and micro > 0 and total % micro:
        yield problem("train.batch.micro", f"should divide train.batch.global, which is {total}")
    steps, warm = at("train.steps"), at("optim.warmup_steps")
    if isinstance(steps, int) and isinstance(warm, int) and warm > steps:
        yield problem("optim.warmup_steps", f"should be at most train.steps, which is {steps}")
    lr, floor = at("optim.lr"), at("optim.min_lr")
    if isinstance(lr, int | float) and isinstance(floor, int | float) and floor > lr:
        yield problem("optim.min_lr", f"should be at most optim.lr, which is {lr}")
    if at("method.adapter") in (None, "none") and isinstance(at("method.lora"), dict):
        yield problem("method.lora", "has no effect with method.adapter: none", "set method.adapter: lora")
    yield from _method_rules(at, problem)
    yield from _model_rules(at, problem)
    yield from _data_rules(at, problem)
    yield from _machine_rules(at, problem)
    for path in places(values):
        yield problem(path, "looks like a secret", WAY_OUT, "***")
    native = at("native")
    for name, keys in native.items() if isinstance(native, dict) else ():
        if any(":" in str(key) for key in (keys if isinstance(keys, dict) else ())):
            yield problem(f"native.{name}", "should hold keys of the trainer's config, which have no colon in them")
        for key in _not_empty(keys) if isinstance(keys, dict) else ():
            yield problem(f"native.{name}.{key}", "should be null: ~ takes the key away")
    for name in native if isinstance(native, dict) and trainers else ():
        if name not in trainers:
            yield problem(f"native.{name}", "is not a trainer", nearest(name, trainers) or f"known: {', '.join(trainers)}")
