"""Which config keys a trainer knows, read out of the trainer itself. Runs inside its environment, prints the table.

    env/bin/python backends/upstream/generate_keys.py litgpt > backends/trainers/litgpt/keys.txt

The trainer's folder has an `ask.py`, whose `keys()` reads them. One key a line, sorted; `key.*` says that anything may stand below
(keyword arguments, mappings that the trainer hands on); `key @ plugin`: the trainer knows the key when `plugins` names that class.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2]))  # tunesmith is not installed in a trainer's environment

from backends.upstream.introspection import of_folder


def main() -> None:
    """Print the table of the trainer that is named."""
    name = sys.argv[1]
    with contextlib.redirect_stdout(sys.stderr):  # some trainers greet when they are imported
        keys = of_folder(name).keys()
    print(f"# {name} {importlib.metadata.version(name)}")
    print("\n".join(sorted(keys)))


if __name__ == "__main__":
    main()
