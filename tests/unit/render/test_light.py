"""What a module of this room may load."""

import subprocess
import sys

import pytest

HEAVY = ("rich", "plotext", "pydantic", "yaml", "dataclasses", "sqlite3")


@pytest.mark.parametrize("module", ["text", "plan", "status", "points", "plot", "live"])
def test_nothing_heavy_loads_with_a_module(module):
    """Importing a module loads none of the libraries that make a command start slowly: they come with their first use."""
    code = f"import sys, orchestrator.render.{module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
