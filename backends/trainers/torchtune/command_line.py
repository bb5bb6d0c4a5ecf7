"""How scripts start torchtune: `tune run [torchrun's options] RECIPE --config FILE key=value`."""

from __future__ import annotations

from backends.command_line import Arguments, CommandLine, Launcher, options, over, pairs
from backends.recipe.flat import Flat


def parse(found: CommandLine) -> Arguments:
    """torchrun's options, a recipe, --config FILE, key=value, ~key."""
    named, plain = options(found.words)
    recipe = next((word for word in plain if "=" not in word and not word.startswith("~")), "")
    taken = {f"~{word[1:]}": "" for word in plain if word.startswith("~")}
    return Arguments(named.get("config", ""), {**pairs(plain), **taken}, {"launch:recipe": recipe} if recipe else {})


def merged(keys: Flat, sets: Flat) -> tuple[Flat, Flat]:
    """A section with a component that is set as a whole gets another component, and keeps the rest
    (torchtune/config/_utils.py, _merge_yaml_and_cli_args).
    """
    return over(keys, {f"{key}._component_" if f"{key}._component_" in keys else key: value for key, value in sets.items()})


def files(config: str) -> tuple[str, ...]:
    """torchtune's own configs are named without their ending."""
    own = f"{config}.yaml"
    return config, own, own.rpartition("/")[2]


def way_out(config: str) -> str:
    """A config of torchtune's own can be copied."""
    if config.endswith((".yaml", ".yml")):
        return "import that file, or put it beside the script"
    return f"torchtune comes with it: its own `tune cp {config} {config.rpartition('/')[2]}.yaml` copies it beside the script"


LAUNCHER = Launcher(r"\btune\s+run\s+()(.*)", "tune run ", parse, files, way_out, merged=merged)
