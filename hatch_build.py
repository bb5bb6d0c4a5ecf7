"""The wheel: `backends` and `orchestrator` lie below `tunesmith` there, since packages of users have these names, too.

A module that imports `backends.plan` imports it relatively in the wheel (`from ..backends.plan import Plan`), in the same line, so that
traces fit. Programs that run by themselves keep their text: the folder above `orchestrator` is put first in their path.
"""

from __future__ import annotations

import ast
import shutil
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = ("backends", "orchestrator")
PROGRAMS = (
    "orchestrator/agent/__main__.py",
    "orchestrator/transports/ray/cluster/",
    "backends/upstream/generate_keys.py",
    "backends/upstream/generate_defaults.py",
)
"""What is started as a file, here or where it was copied to, never imported."""


class WheelHook(BuildHookInterface):
    """Called by hatchling before it writes a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, dict[str, str]]) -> None:
        """Make the tree of a wheel; an editable install takes the checkout as it is."""
        if version == "editable":
            return
        root = Path(self.root)
        self._made = tempfile.TemporaryDirectory()
        made = Path(self._made.name)
        for room in ROOMS:
            shutil.copytree(root / room, made / room, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(root / "tunesmith.py", made / "__init__.py")
        for path in sorted(made.rglob("*.py")):
            name = path.relative_to(made).as_posix()
            if not name.startswith(PROGRAMS):
                path.write_text(relative(path.read_text("utf-8"), name), "utf-8")
        build_data["force_include"][str(made)] = "tunesmith"

    def finalize(self, version: str, *_: object) -> None:
        """Remove that tree."""
        if version != "editable":
            self._made.cleanup()


def relative(text: str, name: str) -> str:
    """A module's text with our packages imported relatively.

    Args:
        text: of the module.
        name: its path below `tunesmith`: `orchestrator/client/jobs.py`.

    Raises:
        ValueError: an import that cannot be written so: `import backends.plan` binds the name `backends`.
    """
    package = tuple(name.split("/")[:-1])
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(each.name.partition(".")[0] in ROOMS for each in node.names):
            raise ValueError(f"{name}:{node.lineno}: write `from ... import`: the wheel has the package below `tunesmith`")
        if not isinstance(node, ast.ImportFrom) or node.level or str(node.module).partition(".")[0] not in ROOMS:
            continue
        before, after = f"from {node.module} import", f"from {_from(package, tuple(str(node.module).split('.')))} import"
        line = lines[node.lineno - 1]
        column = len(line.encode()[: node.col_offset].decode())
        if not line.startswith(before, column):
            raise ValueError(f"{name}:{node.lineno}: should be `{before} ...` in one line")
        lines[node.lineno - 1] = line[:column] + after + line[column + len(before) :]
    return "".join(lines)


def _from(package: tuple[str, ...], module: tuple[str, ...]) -> str:
    """A module as seen from a package, by the nearest folder that has both: what is copied to hosts has none above."""
    shared = 0
    while shared < min(len(package), len(module)) and package[shared] == module[shared]:
        shared += 1
    return "." * (len(package) - shared + 1) + ".".join(module[shared:])
