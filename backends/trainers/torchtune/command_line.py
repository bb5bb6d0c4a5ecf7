"""How scripts start torchtune: `tune run [torchrun's options] RECIPE --config FILE key=value`."""

from __future__ import annotations

from backends.command_line import Arguments, CommandLine, Launcher, options, pairs
from backends.recipe.flat import Flat


def parse(found: CommandLine) -> Arguments:
    """torchrun's options, a recipe, --config FILE, key=value."""
    named, plain = options(found.words)
    names = {"nproc_per_node": "launch:devices", "nnodes": "launch:hosts"}
    more: Flat = {key: int(named[name]) for name, key in names.items() if named.get(name, "").isdigit()}
    recipe = next((word for word in plain if "=" not in word), "")
    return Arguments(named.get("config", ""), pairs(plain), {**more, **({"launch:recipe": recipe} if recipe else {})})


def files(config: str) -> tuple[str, ...]:
    """torchtune's own configs are named without their ending."""
    own = f"{config}.yaml"
    return config, own, own.rpartition("/")[2]


def way_out(config: str) -> str:
    """A config of torchtune's own can be copied."""
    if config.endswith((".yaml", ".yml")):
        return "import that file, or put it beside the script"
    return f"torchtune comes with it: its own `tune cp {config} {config.rpartition('/')[2]}.yaml` copies it beside the script"


LAUNCHER = Launcher(r"\btune\s+run\s+()(.*)", "tune run ", parse, files, way_out)
