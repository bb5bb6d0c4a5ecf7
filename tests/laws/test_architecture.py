"""The contract on imports bites: on a copy of the tree, each kind of wrong arrow makes lint-imports fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"


class Tree:
    """A copy of the packages, without what is no module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for package in ("backends", "orchestrator"):
            shutil.copytree(ROOT / package, path / package, ignore=self._left_out)
        shutil.copy(ROOT / "pyproject.toml", path)
        shutil.copy(ROOT / "tunesmith.py", path)

    @staticmethod
    def _left_out(folder, names):
        return [name for name in names if not (name.endswith(".py") or (Path(folder) / name).is_dir()) or name == "__pycache__"]

    def lint(self):
        """What lint-imports says of the copy: its exit code and its text. Files that did not change come from its cache."""
        env = {**os.environ, "PYTHONPATH": str(self.path)}
        argv = [sys.executable, "-c", LINT, "--cache-dir", str(self.path / "cache")]
        done = subprocess.run(argv, cwd=self.path, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One copy for all; whoever changes a file puts it back."""
    return Tree(tmp_path_factory.mktemp("tree"))


def test_the_tree_as_it_is(tree):
    """The copy keeps all contracts: what fails below fails for its own reason."""
    code, text = tree.lint()
    assert code == 0, text
    assert " 0 broken" in text


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("orchestrator/client/jobs.py", "import orchestrator.cli.status", "orchestrator.client is not allowed to import orchestrator.cli"),
        ("orchestrator/client/jobs.py", "import tunesmith", "orchestrator is not allowed to import tunesmith"),
        ("orchestrator/render/text.py", "import orchestrator.client", "orchestrator.render is not allowed to import orchestrator.client"),
        ("backends/trainers/maxtext/method.py", "import backends.trainers.litgpt.train", "backends.trainers.maxtext is not allowed to import backends.trainers.litgpt"),
        ("backends/trainers/newcomer.py", "import backends.trainers.litgpt.train", "backends.trainers.newcomer is not allowed to import backends.trainers.litgpt"),
        ("backends/compile.py", "import orchestrator.home", "backends is not allowed to import orchestrator"),
        ("orchestrator/newcomer.py", "", "- orchestrator.newcomer"),
        ("backends/newcomer.py", "", "- backends.newcomer"),
    ],
)  # fmt: skip
def test_a_wrong_arrow_fails(tree, file, line, reason):
    """An import upwards, between two trainers, or from deciding to acting, and a module in no layer, are each refused by name."""
    path = tree.path / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    code, text = tree.lint()
    if before is None:
        path.unlink()
    else:
        path.write_text(before)
    assert code == 1, text
    assert reason in text, text
