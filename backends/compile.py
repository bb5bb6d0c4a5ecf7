"""A recipe, a target and a trainer become a plan. Pure: the same recipe and target give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from backends.backend import HF_LAYOUT, Backend, Inexpressible
from backends.bundle import CHAT_TEMPLATES, LOCKS, with_imports
from backends.checkpoints import reading
from backends.emit import as_json, as_yaml
from backends.mapping.data import CHAT_TEMPLATE, DATA, chat_template_path, reward_files, sources
from backends.mapping.launch import LAUNCH
from backends.mapping.model import MODEL, adds_tokens
from backends.mapping.rows import Context, Flat, Value, Variant, variant_of
from backends.mapping.translate import translate
from backends.models import MODELS, NAMED, ModelFacts, linear, sizes_of
from backends.plan import WRITTEN_RECIPE, Environment, File, Input, Plan, Promise, Step
from backends.recipe.flat import leaves, nest
from backends.recipe.paths import absolute, is_hub, is_template_file
from backends.records import replace
from backends.releases import of_release
from backends.report import Line, Report
from backends.smaller_batches import with_smaller
from backends.upstream.known_keys import KnownKeys

if TYPE_CHECKING:
    from backends.recipe.schema import Recipe
    from backends.target import Target

NEVER_ACCEPTABLE = frozenset({"method.kind", "data.format", "resources.devices", "resources.hosts", "native"})
"""Leaves whose loss cannot be accepted: without them it would be another job, or none."""


def plan(backend: Backend, recipe: Recipe, target: Target, accept: Iterable[str] = ()) -> Plan:
    """Decide everything about one job.

    Args:
        backend: the trainer.
        recipe: what shall be trained.
        target: the machine, as facts.
        accept: leaves whose loss is accepted by name.

    Raises:
        Inexpressible: with the report of all leaves.
    """
    accepted = frozenset(accept) - NEVER_ACCEPTABLE
    decided = _decided(backend, recipe, target, accepted)
    return with_smaller(
        decided, recipe, accepted, lambda smaller: _decided(backend, smaller, target, accepted), resumes=backend.resumes_smaller
    )


def _decided(backend: Backend, recipe: Recipe, target: Target, accepted: frozenset[str]) -> Plan:
    """The plan of the recipe as it is."""
    flat = recipe.flat()
    backend, asked = of_release(backend.fit(recipe) if backend.fit else backend, recipe, accepted)
    context = context_of(flat, target)
    native, report = _translated(backend, recipe, flat, context, accepted)
    report = Report(report.lines + asked + _misplaced(backend, flat, target, accepted))
    if report.refused:
        raise Inexpressible(backend.name, report)
    specs = _by_file(native, backend.config)
    python = target.interpreter(backend.name) or "env/bin/python"
    launch = specs.pop(LAUNCH, {})
    if DATA in specs and flat["train.epochs"] and flat["optim.warmup_steps"]:  # steps are known once the rows are counted
        specs[DATA]["warmup_steps"] = flat["optim.warmup_steps"]
    decided = Plan(
        recipe=recipe.name,
        backend=backend.name,
        environment=_environment(backend, context.variant, target),
        files=_files(backend, recipe, flat, specs),
        steps=(*_first_steps(python, specs), *backend.steps(launch, python)),
        inputs=_inputs(flat, recipe.base),
        env=tuple(sorted({**_ENV, **backend.env, **_hub(flat), **_trackers(flat), **_threads(target)}.items())),
        secrets=_secrets(flat),
        promise=Promise(flat["train.steps"], HF_LAYOUT),
        watch=backend.watch,
        reading=reading(flat),
        devices=flat["resources.devices"],
        hosts=flat["resources.hosts"],
        retry=_retry(flat, report),
        accepted=tuple(sorted(accepted)),
        report=report,
    )
    return _with_stages(backend.finish(decided), flat, recipe.base, accepted)


def _with_stages(trained: Plan, flat: Flat, base: str, accepted: frozenset[str]) -> Plan:
    """The plan with those of the stages that follow.

    Raises:
        Inexpressible: a stage asks for what this training does not leave.
    """
    wanted = {leaf.removeprefix("after."): flat[leaf] for leaf in leaves("after")}
    if not any(wanted.values()):
        return trained
    from backends.stages.registry import following  # noqa: PLC0415  # heavy, and few recipes have stages

    after, lacking = following(trained, wanted, base)
    lost = {line.leaf: line._replace(accepted=line.leaf in accepted) for line in lacking}
    report = Report(tuple(lost.get(line.leaf, line) for line in trained.report.lines))
    if report.refused:
        raise Inexpressible(trained.backend, report)
    return replace(trained, report=report, after=after)


def _translated(backend: Backend, recipe: Recipe, flat: Flat, context: Context, accepted: frozenset[str]) -> tuple[Flat, Report]:
    """Native keys, those of the user's own over ours, and what became of each leaf."""
    verbatim = dict(_dotted(recipe.native.get(backend.name, {})))
    table = backend.table(context.variant)
    made = translate(table, flat, context, written=recipe.written, accepted=accepted, verbatim=verbatim)
    native, over = _override(backend, made.native, verbatim, accepted)
    return native, Report(made.lines + over)


def for_others(backend: Backend, recipe: Recipe, accepted: frozenset[str]) -> Report:
    """Keys that the recipe writes for other trainers alone: this one reads none of them. Where it has keys of its own too, each trainer
    has its own, and nothing is lost. Who runs a recipe asks; who compares trainers side by side does not.
    """
    sections = [f"native.{name}" for name, keys in recipe.native.items() if keys]
    if f"native.{backend.name}" in sections:
        return Report()
    why = f"{backend.name} does not read it"
    return Report(tuple(Line(leaf, "lost", {}, why, "never", accepted=leaf in accepted) for leaf in sections))


_ENV = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": "",  # what the user has there is not for the trainer's environment
    "PYTHONNOUSERSITE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def _entry(flat: Flat) -> ModelFacts | None:
    """The model table's line, if the model is in it."""
    return MODELS.get(flat["model.id"]) if flat["model.init"] == "pretrained" else None


def _override(backend: Backend, native: Flat, verbatim: Flat, accepted: frozenset[str]) -> tuple[Flat, tuple[Line, ...]]:
    """The escape hatch: keys of the user's over everything else, each in the report; `~key` takes one away, and goes first. One that
    the trainer does not know is lost, unless it is accepted: then it is written all the same.
    """
    lines, own = [], frozenset(native)
    for name in sorted(verbatim, key=lambda each: "~" not in each):
        leaf, key = f"native.{backend.name}.{name}", name.replace("~", "")
        values = {key: verbatim[name]} if key == name else {}
        above = [each for each in native if each == key or each.startswith(f"{key}.") or key.startswith(f"{each}.")]
        native = {k: v for k, v in native.items() if k not in above or key.startswith(f"{k}.")} | values
        if backend.known_keys.is_unknown(key, written=own, verbatim=verbatim):
            lines.append(Line(leaf, "lost", values, _no_such(backend.known_keys, key), "never", accepted=leaf in accepted))
        else:
            lines.append(Line(leaf, "native", values, _over(above) if values else "taken away: the trainer's default decides"))
    return native, tuple(lines)


def _over(above: Sequence[str]) -> str:
    return f"set over what {', '.join(above)} had been given" if above else "set as it is"


def _no_such(known: KnownKeys, key: str) -> str:
    hint = known.hint(key)
    return f"{known.version} has no such key" + (f"; {hint}" if hint else "")


def _dotted(value: Mapping[str, Value], above: str = "") -> Iterable[tuple[str, Value]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _dotted(item, f"{above}{key}.")
        else:
            yield f"{above}{key}", item


def _misplaced(backend: Backend, flat: Flat, target: Target, accept: frozenset[str]) -> tuple[Line, ...]:
    """The machine must be what the recipe asks for, and one that the trainer can use."""
    wanted, memory = flat["resources.accelerator"], flat["resources.memory_gib"]
    faults = []
    if wanted not in ("any", target.accelerator):
        faults.append(("resources.accelerator", f"target {target.name} has {target.accelerator}, the recipe asks for {wanted}"))
    if target.accelerator not in backend.accelerators:
        faults.append(("resources.accelerator", f"{backend.name} does not run on {target.accelerator}"))
    for leaf, wanted_count, has in (
        ("devices", flat["resources.devices"], target.devices),
        ("hosts", flat["resources.hosts"], target.hosts),
    ):
        if wanted_count > has:
            faults.append((f"resources.{leaf}", f"target {target.name} has {has}, the recipe asks for {wanted_count}"))
    if memory and target.memory_gib and memory > target.memory_gib:
        faults.append(("resources.memory_gib", f"a device of target {target.name} has {target.memory_gib} GiB"))
    return tuple(Line(leaf, "lost", {}, why, "never", accepted=leaf in accept - NEVER_ACCEPTABLE) for leaf, why in faults)


def _by_file(native: Flat, config: str) -> dict[str, dict[str, Value]]:
    """Native keys, file by file, nested."""
    flat: dict[str, Flat] = {config: {}}
    for name, value in native.items():
        file, colon, key = name.partition(":")
        if not colon:
            file, key = config, name
        place = flat.setdefault(file, {})
        if key:
            place[key] = value
        else:
            place.update(value)
    return {file: nest(keys) for file, keys in flat.items()}


def _files(backend: Backend, recipe: Recipe, flat: Flat, specs: Mapping[str, Value]) -> tuple[File, ...]:
    head = f"# {backend.package}, written by tunesmith from the recipe {recipe.name}\n"
    out = [
        File(path, head + as_yaml(spec) if path.endswith((".yaml", ".yml")) else as_json(spec)) for path, spec in specs.items()
    ]
    if MODEL in specs:
        told = recipe.written
        written = {leaf: value for leaf, value in flat.items() if leaf in told}
        out.append(File(WRITTEN_RECIPE, as_json({"name": recipe.name, **written})))
    first = (script for spec, script in ((MODEL, "tune_model.py"), (DATA, "tune_data.py")) if spec in specs)
    shipped = [File(CHAT_TEMPLATE, CHAT_TEMPLATES[name])] if (name := _shipped_template(recipe)) and DATA in specs else []
    return (
        *out,
        *shipped,
        *with_imports((*first, *backend.shims)),
        *(File(name, text) for name, text in backend.scripts.items()),
    )


def _shipped_template(recipe: Recipe) -> str | None:
    name = recipe.data.chat_template
    return name if name and not is_template_file(name) else None


def _first_steps(python: str, specs: Mapping[str, Value]) -> tuple[Step, ...]:
    """The model, and the rows. A model in the cache is made once; one of the user's is looked at each time."""
    folder = specs[MODEL]["folder"] if MODEL in specs else ""
    made = f"{folder}/.ready" if folder.startswith("cache/") else ""
    model = (Step("model", (python, "tune_model.py", MODEL), made),) if folder else ()
    return (*model, Step("data", (python, "tune_data.py", DATA))) if DATA in specs else model


def _environment(backend: Backend, variant: Variant, target: Target) -> Environment:
    if python := target.interpreter(backend.name):
        return Environment(backend.name, python, "", target.accelerator, backend.requires)
    room = backend.room(variant, target.accelerator)
    lock = backend.locks.get(room) or LOCKS.get(f"{backend.name}-{room}", "")
    return Environment(backend.name, backend.python, lock, target.accelerator, backend.requires)


def _inputs(flat: Flat, base: str) -> tuple[Input, ...]:
    out = []
    if flat["model.init"] == "pretrained" and not is_hub(flat["model.id"]):
        out.append(Input("inputs/model", absolute(flat["model.id"], base)))
    files = [each for leaf in ("data.train", "data.eval") for each in sources(leaf, flat[leaf], "") if "path" in each]
    out += [Input(each["path"], absolute(each["name"], base)) for each in files]
    template = flat["data.chat_template"]
    if template and is_template_file(template):
        out.append(Input(chat_template_path(template), absolute(template, base)))
    out += [Input(place, absolute(path, base)) for place, path in reward_files(flat["method.grpo.rewards"]).items()]
    teacher = flat["method.distill.teacher"]
    if teacher and not is_hub(teacher):
        out.append(Input("inputs/teacher", absolute(teacher, base)))
    return tuple(out)


def _hub(flat: Flat) -> dict[str, str]:
    models = [flat["model.id"] if flat["model.init"] == "pretrained" else None, flat["method.distill.teacher"]]
    data = [each for leaf in ("data.train", "data.eval") for each in sources(leaf, flat[leaf], "")]
    online = any(name and is_hub(name) for name in models) or any("hub" in each for each in data)
    return {} if online else {"HF_HUB_OFFLINE": "1"}


def _trackers(flat: Flat) -> dict[str, str]:
    """What services read when they are imported, which trainers do in their own time."""
    services = flat["log.trackers"]
    offline = {"WANDB_MODE": "offline"} if "wandb" in services and flat["log.wandb_mode"] == "offline" else {}
    return offline | ({"TRACKIO_DIR": "out/trackio"} if "trackio" in services else {})


def _threads(target: Target) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(target.threads)} if target.threads else {}


def _secrets(flat: Flat) -> tuple[str, ...]:
    entry = _entry(flat)
    wanted = {
        "HF_TOKEN": bool(entry and entry.gated),
        "WANDB_API_KEY": "wandb" in flat["log.trackers"] and flat["log.wandb_mode"] == "online",
    }
    return tuple(dict.fromkeys([*flat["secrets"], *(name for name, is_wanted in wanted.items() if is_wanted)]))


def _retry(flat: Flat, report: Report) -> dict[str, Value]:
    """The section retry; to go on from a checkpoint may have been given up as lost."""
    lost = any(line.leaf == "checkpoint.resume" and line.status == "lost" for line in report.lines)
    return {
        **{leaf.removeprefix("retry."): flat[leaf] for leaf in leaves("retry") if not leaf.startswith("retry.oom.")},
        "resume": flat["checkpoint.resume"] and not lost,
    }


def context_of(flat: Flat, target: Target) -> Context:
    """What rows may know of a recipe's model, and of the machine."""
    entry, sizes = _entry(flat), sizes_of(flat)
    tokens = adds_tokens(flat)
    model = entry._asdict() if entry else {}
    return Context(
        accelerator=target.accelerator,
        devices=flat["resources.devices"] * flat["resources.hosts"],
        hosts=flat["resources.hosts"],
        slices=target.slices,
        tensor=flat["resources.tensor"],
        model={**model, **dict.fromkeys(NAMED, "")} if tokens and model else model,  # no name means a model with other ids
        tokens=tokens,
        parameters=sizes.parameters if sizes else None,
        tied=bool(sizes and sizes.tied),
        linear=linear(sizes) if sizes else {},
        memory_gib=target.memory_gib,
        steps=flat["train.steps"],
        rank=flat["method.lora.rank"],
        evaluates=flat["data.eval"] is not None or flat["data.eval_share"] is not None,
        variant=variant_of(flat),
    )
