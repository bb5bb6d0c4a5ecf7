"""The steps of CONTRIBUTING.md, done in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^ *```diff\n *# (?P<file>[\w/.]+), (?P<where>before|after): (?P<anchor>[^\n]+)\n(?P<text>.*?)^ *```", re.M | re.S
)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the tree with every block of the page put where the page says; runs Python in it."""
    root = tmp_path_factory.mktemp("changed")
    for name in ("backends", "orchestrator", "recipes", "tests/laws"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    blocks = list(BLOCK.finditer((ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    assert len(blocks) == 8
    for block in blocks:
        put(root / block["file"], block["where"], block["anchor"], re.sub(r"^ *\+ ", "", block["text"], flags=re.M))

    def run(*argv):
        env = {**os.environ, "PYTHONPATH": str(root), "TUNE_HOME": str(root / "home")}
        argv = [sys.executable, *argv]
        return subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False)

    return run


def put(path, where, anchor, text):
    """Put lines before or after the one line that begins with the anchor, as far indented as it is."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    [at] = [number for number, line in enumerate(lines) if line.strip().startswith(anchor)]
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines.insert(at + (where == "after"), textwrap.indent(text, indent))
    path.write_text("".join(lines), "utf-8")


def test_a_leaf_is_added_by_the_steps_of_the_page(changed):
    """With its field, its facts and its rows the new leaf keeps the laws, and both directions know it."""
    laws = ("tests/laws/test_leaves.py", "tests/laws/test_tables.py")
    only = "every_fact or nothing_else or optim.amsgrad or (read_once and sft-none-shared) or (order and sft)"
    done = changed("-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-k", only, *laws)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 8


def test_the_new_leaf_is_used(changed):
    """The trainers that have it write its key, and the others refuse the recipe that asks for it."""
    words = ("-m", "orchestrator.cli", "translate", "recipes/quickstart.yaml", "--set", "optim.amsgrad=true", "--to")
    assert "amsgrad: true" in changed(*words, "torchtune").stdout
    assert "amsgrad: true" in changed(*words, "litgpt").stdout
    refused = changed(*words, "axolotl")
    assert refused.returncode == 3
    assert "optim.amsgrad" in refused.stdout + refused.stderr
