"""A job's folder with the scripts in it, a trainer's interpreter to run them, and a small hub on this machine."""

import ast
import json
import os
import shutil
import struct
import subprocess
import sys
from array import array
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.hub import hub as running_hub

BACKENDS = Path(__file__).parents[3] / "backends"
FOLDERS = (BACKENDS / "shims", BACKENDS / "stages" / "shims", *sorted(BACKENDS.glob("trainers/*/shims")))
SCRIPTS = tuple(path for folder in FOLDERS for path in folder.glob("tune_*.py"))
sys.path[:0] = map(str, FOLDERS)  # the scripts import one another by their bare names, as in a job's folder
HEAVY = ("torch", "numpy", "tokenizers", "jinja2", "safetensors", "huggingface_hub")
TINY = {
    "family": "llama",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": None,
    "max_length": 4096,
    "rope_theta": 10000.0,
    "norm_eps": 1e-5,
    "tied": False,
}


class Job:
    """A job's folder, and what the scripts did in it."""

    def __init__(self, folder, python):
        self.folder, self.python = folder, python
        for script in SCRIPTS:
            shutil.copy(script, folder)

    def start(self, script, spec, *words, **env):
        """The script, started on a spec."""
        name = f"{script.removeprefix('tune_')}.json"
        (self.folder / name).write_text(json.dumps(spec))
        path = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
        env = {**path, "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hf"), "OMP_NUM_THREADS": "1", **env}
        return subprocess.Popen(
            [self.python, f"{script}.py", name, *map(str, words)],
            cwd=self.folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, script, spec, *words, **env):
        """The script's stdout, after a success."""
        process = self.start(script, spec, *words, **env)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out

    def refused(self, script, spec, **env):
        """(word, text) of a refusal that is told as promised."""
        process = self.start(script, spec, **env)
        out, err = process.communicate()
        said = json.loads((self.folder / "reason.json").read_text())
        assert (process.returncode, out) == (1, ""), (out, err)
        assert err.endswith(f"{script}: {said['detail']}\n")  # a download's progress may stand before it
        assert "Traceback" not in err
        return said["reason"], said["detail"]

    def write(self, name, rows):
        """A data file of rows; the source that names it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"path": name}

    def data(self, name="train"):
        """What the data step left: rows of ids and labels, order, manifest."""
        room = self.folder / "data"
        ids, labels, starts = (npy(room / f"{name}.{kind}.npy") for kind in ("ids", "labels", "starts"))
        spans = list(pairwise(starts))
        return SimpleNamespace(
            ids=[ids[a:b].tolist() for a, b in spans],
            labels=[labels[a:b].tolist() for a, b in spans],
            order=self.order(),
            manifest=json.loads((room / "manifest.json").read_text()),
        )

    def order(self):
        """The row numbers in the order in which they are trained."""
        return npy(self.folder / "data/train.order.npy").tolist()


def npy(path):
    """A one-dimensional array of NumPy's format 1.0, without NumPy."""
    raw = path.read_bytes()
    size = struct.unpack("<H", raw[8:10])[0]
    header = ast.literal_eval(raw[10 : 10 + size].decode())
    return array({"<i4": "i", "<i8": "q"}[header["descr"]], raw[10 + size :])


@pytest.fixture(scope="session")
def shim_python(trainer_python):
    """The interpreter of a trainer's environment."""
    return trainer_python("litgpt")


@pytest.fixture
def job(tmp_path, shim_python):
    """An empty job's folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Job(folder, shim_python)


@pytest.fixture
def tiny():
    """The spec of a small random model."""
    return {"init": "random", "folder": "cache/models/tiny", "seed": 0, "architecture": dict(TINY)}


@pytest.fixture
def data_job(job, tiny):
    """A job's folder with a tokenizer in it, and a spec for it."""
    job.run("tune_model", tiny, "--tokenizer-only")
    job.spec = {"format": "instruct", "max_length": 4096, "batch": 1, "epochs": 1, "tokenizer": "cache/models/tiny-tokenizer"}
    return job


@pytest.fixture
def light(tmp_path):
    """Environment in which every heavy library fails to import."""
    folder = tmp_path / "light"
    folder.mkdir()
    for name in HEAVY:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')\n")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def hub():
    """A hub on this machine."""
    with running_hub() as server:
        yield server
