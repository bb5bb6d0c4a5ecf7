"""What a trainer takes for a key that a config leaves out, read out of the trainer itself. Runs inside its environment.

    env/bin/python backends/upstream/generate_defaults.py litgpt > backends/trainers/litgpt/defaults.txt

The trainer's folder has an `ask.py`, whose `defaults()` reads them. One key a line, sorted: `key = JSON`. `place:key` is a key of one
command or of one component: `finetune_lora:train.epochs`, `torchtune.datasets.alpaca_dataset:train_on_input`. A default that is no
plain value is left out.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2]))  # tunesmith is not installed in a trainer's environment

from backends.upstream.introspection import of_folder

LONGEST = 300
"""Characters of a value. Longer ones are rules for spreading arrays over devices, which no row reads."""


def main() -> None:
    """Print the table of the trainer that is named."""
    name = sys.argv[1]
    table: dict[str, str] = {}
    with contextlib.redirect_stdout(sys.stderr):  # some trainers greet when they are imported
        for key, value in of_folder(name).defaults():
            with contextlib.suppress(TypeError, ValueError):
                if len(text := json.dumps(value, allow_nan=False)) <= LONGEST:
                    table[key] = text
    head = f"# {name} {importlib.metadata.version(name)}"
    sys.stdout.write("\n".join([head, *(f"{key} = {table[key]}" for key in sorted(table)), ""]))


if __name__ == "__main__":
    main()
