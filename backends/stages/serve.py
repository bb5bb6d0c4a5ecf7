"""An OpenAI-compatible server of a model: the trained one, and beside it the start model with and without its adapter."""

from __future__ import annotations

from collections.abc import Mapping

from backends.plan import Plan
from backends.recipe.flat import Value
from backends.stages.stage import ADAPTER, BASE, MODEL, Stage, StageContext, Unplannable, stage_plan

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104  # only where the recipe says `expose`


def plan(settings: Mapping[str, Value], context: StageContext) -> Plan:
    """The plan of a server."""
    if settings["expose"] and not settings["key_name"]:
        raise Unplannable("expose", "would let anybody on the network use the model", "name a secret under key_name")
    adapted = settings["adapters"] and context.adapter and context.base
    models = [{"name": context.name, "folder": MODEL}]
    if adapted:
        models += [{"name": "base", "folder": BASE}, {"name": "adapter", "folder": BASE, "adapter": ADAPTER}]
    spec = {
        "host": EVERYWHERE if settings["expose"] else LOOPBACK,
        "port": settings["port"],
        "key": settings["key_name"],
        "models": models,
        "max_length": settings["max_length"],
        "dtype": settings["dtype"],
    }
    return stage_plan(
        "serve",
        context,
        spec,
        ("tune_serve.py", "tune_server.py"),
        secrets=(settings["key_name"],) if settings["key_name"] else (),
        retry={"unknown": 3, "out_of_memory": 1},
    )


SERVE = Stage("serve", "an OpenAI-compatible server", plan, serves=True)
