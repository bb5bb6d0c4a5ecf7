"""The trainers' own configs, out of their packages: fetched from the package registry, never kept in the repository."""

import contextlib
import json
import os
import posixpath
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import backends.upstream

HERE = Path(__file__).parent
PACKAGES = {
    "torchtune": ("torchtune==0.6.1", "torchtune-0.6.1-*.whl", (), "recipes/configs/"),
    "axolotl": ("axolotl==0.19.0", "axolotl-0.19.0.tar.gz", ("--no-binary", "axolotl"), "axolotl-0.19.0/examples/"),
    **{
        f"axolotl@{release}": (
            f"axolotl=={release}",
            f"axolotl-{release}.tar.gz",
            ("--no-binary", "axolotl"),
            f"axolotl-{release}/examples/",
        )
        for release in ("0.17.0", "0.18.0")  # no older one has its examples in the package
    },
    "maxtext": ("maxtext==0.2.5", "maxtext-0.2.5-*.whl", ("--only-binary", ":all:", "--python-version", "3.12"), "maxtext/"),
    "llamafactory": (
        "llamafactory==0.9.5",
        "llamafactory-0.9.5.tar.gz",
        ("--no-binary", "llamafactory"),
        "llamafactory-0.9.5/examples/",
    ),
}
"""Trainer, or an older release of it -> requirement, file, how pip gets just that, where its configs lie."""

SOURCES = {"llamafactory": ("llamafactory==0.9.5", "transformers==5.6.0")}
"""Trainer that no job is run with -> what pip unpacks so that its arguments can be read: transformers is the newest that it takes."""

SCRIPTS = ("generate_keys.py", "generate_defaults.py")
PRINTED = """
import contextlib, io, json, runpy, sys
said = []
for script in sys.argv[2:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(script, run_name="__main__")
    said.append(out.getvalue())
print(json.dumps(said))
"""
"""Of a trainer and scripts, what each of these prints."""

COUNTS = {"torchtune": 156, "axolotl": 269, "maxtext": 137, "litgpt": 46, "llamafactory": 82}
"""YAML files in each corpus."""


@dataclass(frozen=True)
class Corpus:
    """A trainer's configs by path."""

    trainer: str
    files: dict[str, str]
    around: dict[str, str] = field(default_factory=dict)
    """Other files of the package, by their path from where the trainer is started."""

    def beside(self, path):
        """How an import asks for a file that a config names: beside it, or from where the trainer is started."""
        return lambda name: self.files.get(
            posixpath.normpath(posixpath.join(posixpath.dirname(path), name)), self.around.get(posixpath.normpath(name))
        )


@pytest.fixture(scope="session")
def corpus(shared_home):
    """The corpus of a trainer by name."""
    found = {}

    def get(trainer: str) -> Corpus:
        if trainer not in found:
            found[trainer] = _own() if trainer == "litgpt" else _packaged(trainer, shared_home / "cache" / "corpora")
        return found[trainer]

    return get


@pytest.fixture(scope="session")
def asked(shared_home, trainer_python):
    """What a script of backends/upstream prints of a trainer: in its environment, or beside its unpacked source. Both scripts are run
    by one process, since to import a trainer takes the most of their time.
    """

    @cache
    def both(trainer: str) -> dict[str, str]:
        paths = [Path(backends.upstream.__file__).with_name(script) for script in SCRIPTS]
        source = _unpacked(trainer, shared_home / "cache" / "corpora") if trainer in SOURCES else None
        python = sys.executable if source else trainer_python(trainer)
        env = {**os.environ, **({"PYTHONPATH": str(source)} if source else {})}
        with TemporaryDirectory() as folder:
            done = subprocess.run(
                [python, "-c", PRINTED, trainer, *paths],
                capture_output=True,
                text=True,
                timeout=300,
                check=True,
                cwd=folder,
                env=env,
            )
        return dict(zip(SCRIPTS, json.loads(done.stdout.splitlines()[-1]), strict=True))

    return lambda script, trainer: both(trainer)[script]


def _unpacked(trainer, folder):
    """A folder with the packages' source, none of which is installed."""
    place = folder / f"{trainer}-source"
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as new:
            for requirement in SOURCES[trainer]:
                _fetch(requirement, ("--only-binary", ":all:"), Path(new))
            for wheel in Path(new).glob("*.whl"):
                with zipfile.ZipFile(wheel) as box:
                    box.extractall(Path(new) / "site")
            with contextlib.suppress(OSError):  # another process was faster
                (Path(new) / "site").rename(place)
    return place


def _own():
    return Corpus("litgpt", {path.name: path.read_text("utf-8") for path in sorted((HERE / "litgpt").glob("*.yaml"))})


def _packaged(trainer, folder):
    requirement, pattern, options, start = PACKAGES[trainer]
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(pattern)):
        _fetch(requirement, options, folder)
    (archive,) = folder.glob(pattern)
    texts = dict(_members(archive))
    kept = {name: text for name, text in texts.items() if name.startswith(start) and name.endswith((".yaml", ".yml", ".sh"))}
    root = f"{archive.name.removesuffix('.tar.gz')}/"
    around = {name.removeprefix(root): text for name, text in texts.items() if name.startswith(root)}
    return Corpus(trainer, dict(sorted(kept.items())), around)


def _fetch(requirement, options, folder):
    """Download a package; it is in the folder when it is whole, also for another process that looks."""
    refuse = pytest.fail if "corpora" in os.environ.get("TUNE_REQUIRE", "") else pytest.skip
    pip = shutil.which("pip")
    if pip is None:
        refuse("fetching the trainers' packages needs pip")
    with TemporaryDirectory(dir=folder) as new:
        command = [pip, "download", "-q", "--no-deps", "-d", new, *options, requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            refuse(f"{requirement} cannot be fetched: {done.stderr.strip()[-300:]}")
        for file in Path(new).iterdir():
            file.replace(folder / file.name)


def _members(archive):
    """Name and text of each file that is text."""
    wanted = (".yaml", ".yml", ".sh", ".json")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as box:
            yield from ((name, box.read(name).decode("utf-8")) for name in box.namelist() if name.endswith(wanted))
    else:
        with tarfile.open(archive) as box:
            for member in box:
                if member.isfile() and member.name.endswith(wanted):
                    yield member.name, box.extractfile(member).read().decode("utf-8")
