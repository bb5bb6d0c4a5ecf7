"""One registry: a trainer is its folder and one line of it, and its release is written once."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.registry import BACKENDS, READ_ONLY
from backends.upstream.known_keys import KnownKeys

ROOT = Path(__file__).parents[2]
TRAINERS = ROOT / "backends" / "trainers"


def modules() -> list[Path]:
    """Every module of the two storeys that runs here; shims run inside a trainer's environment."""
    return [path for room in ("backends", "orchestrator") for path in (ROOT / room).rglob("*.py") if "shims" not in path.parts]


KNOWN = {**BACKENDS, **READ_ONLY}
"""Trainers with a folder: those that run jobs, and those whose configs are only read."""


RELEASES = [(name, "", each.package) for name, each in KNOWN.items()]
RELEASES += [(name, "-next", other.package) for name, each in BACKENDS.items() for other in each.releases]
"""Trainer, what the names of its tables end with, package with version: the pinned releases, and those that a recipe may ask for."""


@pytest.mark.parametrize(("trainer", "package"), [(trainer, package) for trainer, _, package in RELEASES])
def test_a_release_is_written_once(trainer, package):
    """The version stands in the trainer's release.py, and in no other module."""
    version = re.compile(rf"(?<![\d.]){re.escape(package.split()[1])}(?![\d.])")
    places = [path.relative_to(ROOT) for path in modules() if version.search(path.read_text("utf-8"))]
    assert places == [Path("backends/trainers") / trainer / "release.py"]


@pytest.mark.parametrize(("trainer", "end", "package"), RELEASES)
def test_everything_is_of_that_release(trainer, end, package):
    """The declaration of the environment, its locks, the known keys and the defaults are of the version in release.py."""
    folder = TRAINERS / trainer
    locks = [path for path in folder.glob(f"env{end}-*.txt") if end or "-next-" not in path.name]
    for path in (*folder.glob(f"env{end}.in"), *locks):
        assert re.search(rf"^{package.replace(' ', '==')}\b", path.read_text("utf-8"), re.MULTILINE), path
    assert trainer in READ_ONLY or (locks and (folder / f"env{end}.in").is_file())
    for name in (f"keys{end}.txt", f"defaults{end}.txt"):
        assert (folder / name).read_text("utf-8").startswith(f"# {package}\n")


@pytest.mark.parametrize("trainer", list(KNOWN))
def test_only_the_registry_imports_a_trainer(trainer):
    """Outside of a trainer's folder one module imports it, or names its modules: the registry, in one line."""
    named = re.compile(rf"^.*\btrainers\.{trainer}\..*$", re.MULTILINE)
    outside = [path for path in modules() if TRAINERS / trainer not in path.parents]
    found = {path.relative_to(ROOT): named.findall(path.read_text("utf-8")) for path in outside}
    assert {path: len(lines) for path, lines in found.items() if lines} == {Path("backends/registry.py"): 1}


@pytest.mark.parametrize("trainer", list(KNOWN))
def test_a_trainer_carries_what_is_its_own(trainer):
    """Known keys, signs of failure and a dialect with its launcher are values of the trainer itself."""
    backend = KNOWN[trainer]
    assert backend.known_keys.text == KnownKeys.beside(str(TRAINERS / trainer / "release.py")).text
    assert trainer in READ_ONLY or BACKENDS[trainer].signs
    assert backend.dialect
    assert backend.dialect().name == trainer
    assert backend.dialect().launcher


NAMED_OUTSIDE = {
    "backends/hf/method.py": "reasons that name TRL as a library, on which another trainer stands too",
    "backends/registry.py": "the one line",
    "backends/models.py": "columns of models.csv: a trainer's own names of models",
    "backends/shims/tune_card.py": "packages whose versions a model card lists",
    "backends/shims/tune_convert.py": "the checkpoint format of one trainer, in which others may begin",
    "backends/shims/tune_convert_described.py": "as tune_convert.py, what the trainer says of a model",
    "backends/shims/tune_convert_named.py": "as tune_convert.py, for models that the trainer knows by name",
    "backends/shims/tune_export.py": "a way out of each checkpoint format",
    "backends/shims/tune_hf_losses.py": "the same library",
    "orchestrator/client/doctor.py": "another program on PATH that is called tune",
}
"""Files outside of a trainer's folder whose code names one, and why. A new trainer adds none."""


def code_words(path: Path) -> Iterator[str]:
    """Identifiers and strings of a module; neither comments nor docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in prose:
            yield from (value for _, value in ast.iter_fields(node) if isinstance(value, str))


def test_code_names_a_trainer_in_its_folder_only():
    """Outside of trainers' folders no identifier and no string has a trainer's name, but in the files that say why."""
    everywhere = [ROOT / "tunesmith.py", *(path for room in ("backends", "orchestrator") for path in (ROOT / room).rglob("*.py"))]
    shared = [path for path in everywhere if TRAINERS not in path.parents]
    names = re.compile(rf"(?<![a-z])({'|'.join(KNOWN)})(?![a-z])", re.IGNORECASE)  # "ctrl" names no trainer
    named = {path.relative_to(ROOT).as_posix() for path in shared if any(map(names.search, code_words(path)))}
    assert named == set(NAMED_OUTSIDE)
