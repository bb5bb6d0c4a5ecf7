"""Rules that no single leaf can tell."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

from backends.recipe.facts import Needs
from backends.recipe.flat import REQUIRED, Flat, Value, defaults
from backends.recipe.gates import gate
from backends.recipe.leaves import CHAT_TEMPLATES, FORMATS, SECTIONS, TEMPLATES, facts
from backends.recipe.needs import asks, is_met, needs_of
from backends.recipe.paths import FILES, HUB, is_file, is_path, is_template_file
from backends.recipe.problems import nearest, place_of, value_at
from backends.recipe.secrets import WAY_OUT, places
from backends.recipe.yaml_source import Problem, Source

At = Callable[[str], Value]
"""The value at a dotted path; None where nothing is written."""

Complain = Callable[..., Problem]
"""(path, rule, hint, value) -> the problem with its place."""


def _not_empty(keys: Mapping[str, Value], above: str = "") -> Iterable[str]:
    """Keys with `~` that have a value all the same."""
    for key, value in keys.items():
        if str(key).startswith("~") and value is not None:
            yield f"{above}{key}"
        elif isinstance(value, dict):
            yield from _not_empty(value, f"{above}{key}.")


def _method_rules(at: At, problem: Complain) -> Iterable[Problem]:
    kind, form = at("method.kind") or "sft", at("data.format")
    if isinstance(form, str) and kind in FORMATS and form not in FORMATS[kind]:
        fitting = [k for k, forms in FORMATS.items() if form in forms]
        rule = f"should be {' or '.join(sorted(FORMATS[kind]))} with method.kind: {kind}"
        yield problem("data.format", rule, f"{form} is for {', '.join(fitting)}" if fitting else "")
    if kind == "kto" and at("train.batch.global") == 1:
        hint = "its divergence is estimated from each prompt with the answer of another row of the step"
        yield problem("train.batch.global", "should be at least 2 with method.kind: kto", hint)
    targets, whole = at("method.lora.targets"), at("method.lora.train_fully")
    if isinstance(targets, list) and isinstance(whole, list) and "head" in targets and "head" in whole:
        yield problem("method.lora.train_fully", "should not name head, which method.lora.targets gives an adapter")


def _effects(values: dict[str, Value], problem: Complain) -> Iterable[Problem]:
    """What is given and has no effect, or is not given and has to be: what `leaves.py` says of each."""
    found = {leaf: default if (value := value_at(values, leaf)) is ... else value for leaf, default in defaults().items()}
    for section, needs in SECTIONS.items():
        if isinstance(value_at(values, section), dict):
            yield from (problem(section, _says(need, found), need.hint) for need in needs if _breaks(need, found))
    for leaf, value in found.items():
        fact, above = facts(leaf), needs_of(leaf)[: -len(facts(leaf).needs) or None]
        if any(_breaks(need, found) for need in above):
            continue
        if asks(value) and value_at(values, leaf) is not ...:
            yield from (problem(leaf, _says(need, found), need.hint) for need in fact.needs if _breaks(need, found))
        elif fact.required and not asks(value) and not any(_breaks(need, found) for need in fact.needs):
            yield problem(leaf, _says(needs_of(leaf)[-1], found).replace("has no effect", "is required"))


def _breaks(need: Needs, found: Flat) -> bool:
    """Whether a need is not met, as far as what is written can be judged."""
    try:
        return need.refused and not any(found[leaf] is REQUIRED for leaf in need.leaves) and not is_met(need, found)
    except TypeError:  # a value of another type, which is reported anyhow
        return False


def _says(need: Needs, found: Flat) -> str:
    value = found[need.leaves[0]]
    return need.otherwise.format(value if isinstance(value, str) else json.dumps(value, default=str))


def _machine_rules(at: At, problem: Complain) -> Iterable[Problem]:
    devices, hosts, tensor = (at(f"resources.{leaf}") or 1 for leaf in ("devices", "hosts", "tensor"))
    if not all(isinstance(count, int) for count in (devices, hosts, tensor)):
        return
    if devices * hosts % tensor:
        yield problem("resources.tensor", f"should divide all devices, which are {devices * hosts}")


def _model_rules(at: At, problem: Complain) -> Iterable[Problem]:
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
    if isinstance(name, str) and at("model.init") != "random" and not is_path(name) and not HUB.fullmatch(name):
        yield problem("model.id", "should be a Hugging Face id (org/name) or a folder that begins with ./ ../ / or ~")
    seen: set[str] = set()
    for leaf in ("model.tokens", "model.special_tokens"):
        for number, text in enumerate(at(leaf) if isinstance(at(leaf), list) else ()):
            if isinstance(text, str) and text in seen:
                yield problem(
                    f"{leaf}.{number}", "should be there once, in one of model.tokens and model.special_tokens", value=text
                )
            seen.add(text if isinstance(text, str) else "")


def _data_rules(at: At, problem: Complain) -> Iterable[Problem]:
    many = at("data.train") if isinstance(at("data.train"), list) else []
    parts = [(f"data.train.{n}.path", part.get("path")) for n, part in enumerate(many) if isinstance(part, dict)]
    for leaf, name in (*((leaf, at(leaf)) for leaf in ("data.train", "data.eval")), *parts):
        if isinstance(name, str) and not is_file(name) and not HUB.fullmatch(name):
            yield problem(leaf, f"should be a file ({', '.join(FILES)}) or a Hugging Face data set id (org/name)", value=name)
    yield from _template_rules(at, problem)
    named = at("data.chat_template")
    if isinstance(named, str) and not is_template_file(named) and named not in CHAT_TEMPLATES:
        rule = f"should be a file (./NAME.jinja) or one of {', '.join(CHAT_TEMPLATES)}"
        yield problem("data.chat_template", rule, nearest(named, CHAT_TEMPLATES))


def _after_rules(at: At, problem: Complain) -> Iterable[Problem]:
    gates = at("after.evaluate.gates")
    for number, text in enumerate(gates if isinstance(gates, list) else ()):
        if isinstance(text, str):
            try:
                gate(text)
            except ValueError as error:
                yield problem(f"after.evaluate.gates.{number}", str(error), value=text)


_ASKED = {"instruction", "input", "context", "question", "query", "history", "prompt", "system", "text", "messages"}
WORDS = _ASKED | {"output", "response", "completion", "answer"}
"""Words in braces that a template means to have replaced."""


def _template_rules(at: At, problem: Complain) -> Iterable[Problem]:
    template, form = at("data.template"), at("data.format")
    if isinstance(template, str):
        if form == "instruct" and template not in TEMPLATES and "{instruction}" not in template:
            yield problem("data.template", f"should be {', '.join(TEMPLATES)} or a text with {{instruction}}")
        if form == "chat" and template != "chat":
            yield problem("data.template", "should be chat, the model's own template, with data.format: chat")
        if form == "instruct":
            for braces, name in re.findall(r"(\{+ *(\w+) *\}+)", template):
                if name.lower() in WORDS and braces not in ("{instruction}", "{input}"):
                    rule = f"{braces} would be left as text: only {{instruction}} and {{input}} are replaced, the output follows"
                    yield problem("data.template", rule)
        if form in ("completion", "preference", "rated", "prompts") and template not in ("plain", "chat"):
            yield problem("data.template", f"should be plain or chat with data.format: {form}")


def check_rules(values: dict[str, Value], source: Source, changed: set[str], trainers: tuple[str, ...]) -> Iterable[Problem]:
    """What no single leaf can tell."""

    def at(path: str) -> Value:
        value = value_at(values, path)
        return None if value is ... else value

    def problem(path: str, rule: str, hint: str = "", value: Value = ...) -> Problem:
        got = value_at(values, path) if value is ... else value
        return Problem(path, rule, got, hint=hint, **place_of(path, source, changed))

    if isinstance(at("train"), dict) and (at("train.epochs") is None) == (at("train.steps") is None):
        yield problem("train.steps", "either train.steps or train.epochs is required, and not both")
    total, micro = at("train.batch.global"), at("train.batch.micro")
    if isinstance(total, int) and isinstance(micro, int) and micro > 0 and total % micro:
        yield problem("train.batch.micro", f"should divide train.batch.global, which is {total}")
    steps, warm = at("train.steps"), at("optim.warmup_steps")
    if isinstance(steps, int) and isinstance(warm, int) and warm > steps:
        yield problem("optim.warmup_steps", f"should be at most train.steps, which is {steps}")
    lr, floor = at("optim.lr"), at("optim.min_lr")
    if isinstance(lr, int | float) and isinstance(floor, int | float) and floor > lr:
        yield problem("optim.min_lr", f"should be at most optim.lr, which is {lr}")
    yield from _effects(values, problem)
    yield from _method_rules(at, problem)
    yield from _model_rules(at, problem)
    yield from _data_rules(at, problem)
    yield from _machine_rules(at, problem)
    yield from _after_rules(at, problem)
    for path in places(values):
        yield problem(path, "looks like a secret", WAY_OUT, "***")
    native = at("native")
    for name, keys in native.items() if isinstance(native, dict) else ():
        if any(":" in str(key) for key in (keys if isinstance(keys, dict) else ())):
            yield problem(f"native.{name}", "should hold keys of the trainer's config, which have no colon in them")
        for key in _not_empty(keys) if isinstance(keys, dict) else ():
            yield problem(f"native.{name}.{key}", "should be null: ~ takes the key away")
    for leaf in ("native", "release"):
        named = at(leaf)
        for name in named if isinstance(named, dict) and trainers else ():
            if name not in trainers:
                yield problem(f"{leaf}.{name}", "is not a trainer", nearest(name, trainers) or f"known: {', '.join(trainers)}")
