"""An OpenAI-compatible server of a model: the trained one, and beside it the start model with and without its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from backends.plan import Plan
from backends.recipe.flat import Value
from backends.records import replace
from backends.stages.compression import check_engine
from backends.stages.stage import ADAPTER, BASE, Stage, StageContext, Unplannable, stage_plan

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104  # only where the recipe says `expose`
REPLICAS = "tune_replicas.py"
"""Started in the engine's place where there are several: it keeps them behind one port."""
SCORED = "inputs/scores.json"
"""What the trainer's own framework says of rows."""


class Engine(NamedTuple):
    """A program that serves models."""

    program: str
    """Started by tune_serve.py with the settings and a port."""
    environment: str
    """A folder of `backends/stages` with locks."""
    accelerators: tuple[str, ...] = ("cpu", "cuda")
    merged_beside: bool = True
    """Can serve the merged weights beside the start model; else the recipe's name is the adapter on the start model."""
    adapters: bool = True
    whole: bool = True
    """Takes an adapter with whole modules beside it."""


ENGINES: Mapping[str, Engine] = {
    "transformers": Engine("tune_server.py", "hf"),
    "vllm": Engine("tune_server_vllm.py", "vllm", merged_beside=False, whole=False),
    "llama.cpp": Engine("tune_server_llama.py", "hf", ("cpu",), adapters=False),
}


def plan(settings: Mapping[str, Value], context: StageContext) -> Plan:
    """The plan of a server."""
    if settings["expose"] and not settings["key_name"]:
        raise Unplannable("expose", "would let anybody on the network use the model", "name a secret under key_name")
    name, engine = _engine(settings["engine"], context)
    check_engine(name, context, "engine: transformers")
    if settings["gguf"] != "auto" and name != "llama.cpp":
        raise Unplannable("gguf", f"is llama.cpp's, and the engine is {name}", "set engine: llama.cpp, or leave gguf out")
    if name == "llama.cpp" and settings["dtype"] != "auto":
        raise Unplannable("dtype", "is not llama.cpp's", "choose the weights by gguf")
    if settings["check"] and not context.scores:
        raise Unplannable("check", "needs a training job whose trainer's own checkpoint is there: this is none")
    spec = {
        "check": SCORED if settings["check"] else None,
        "program": REPLICAS if settings["replicas"] > 1 else engine.program,
        "engine": engine.program,
        "replicas": settings["replicas"],
        "accelerator": context.accelerator,
        "host": EVERYWHERE if settings["expose"] else LOOPBACK,
        "port": settings["port"],
        "key": settings["key_name"],
        "models": _models(engine, settings, context),
        "tokenizer": context.folder,
        **{key: settings[key] for key in ("max_length", "dtype", "gguf", "prefix_cache")},
    }
    made = stage_plan(
        "serve",
        context,
        spec,
        ("tune_serve.py", engine.program, *([REPLICAS] if settings["replicas"] > 1 else [])),
        environment=engine.environment,
        inputs=[replace(context.scores, path=SCORED)] if context.scores else [],
        secrets=(settings["key_name"],) if settings["key_name"] else (),
        retry={"unknown": 3, "out_of_memory": 1},
    )
    return replace(made, devices=settings["replicas"]) if context.accelerator == "cuda" else made


def _engine(wanted: str, context: StageContext) -> tuple[str, Engine]:
    """The engine that is asked for; `auto` is vLLM on CUDA, transformers on a CPU."""
    name = wanted if wanted != "auto" else ("vllm" if context.accelerator == "cuda" else "transformers")
    engine = ENGINES[name]
    if context.accelerator not in engine.accelerators:
        others = ", ".join(each for each, facts in ENGINES.items() if context.accelerator in facts.accelerators)
        raise Unplannable("engine", f"{name} is not run on {context.accelerator}", f"use {others}" if others else "")
    return name, engine


def _models(engine: Engine, settings: Mapping[str, Value], context: StageContext) -> list[dict[str, str]]:
    """What is served under which name; the first is the main one."""
    adapter = {"folder": BASE, "adapter": ADAPTER}
    if not (engine.adapters and settings["adapters"] and context.adapter and context.base):
        return [{"name": context.name, "folder": context.folder}]
    if context.whole and not engine.whole:
        why = f"should be false: vLLM takes adapters of low rank alone, and {' and '.join(context.whole)} learned whole beside it"
        raise Unplannable("adapters", why, "the merged model has all of it")
    main = {"folder": context.folder} if engine.merged_beside else adapter
    return [{"name": context.name, **main}, {"name": "base", "folder": BASE}, {"name": "adapter", **adapter}]


SERVE = Stage("serve", "an OpenAI-compatible server", plan, serves=True)
