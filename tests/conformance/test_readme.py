"""The README's commands, as they stand and in their order, from a fresh clone and in an empty folder.

Only what a reader has instead of us is put in: a model (a small one of the same family), rows, a config of axolotl's; and jobs for
hosts that are nowhere are planned and not sent.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
AXOLOTL = """\
base_model: {model}
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
datasets: [{{path: rows.jsonl, type: chat_template}}]
sequence_len: 2048
micro_batch_size: 4
gradient_accumulation_steps: 8
num_epochs: 3
learning_rate: 2.0e-4
lr_scheduler: cosine
"""

pytestmark = [pytest.mark.trainer, pytest.mark.thorough(3)]


def blocks(kind):
    """Blocks of code of one kind, in their order."""
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL) if name == kind]


@pytest.fixture
def clone(tmp_path):
    """A fresh clone."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    return folder


def typed(line, folder, path=""):
    """Run a line as a reader types it; what it said."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "UV_NO_SYNC")}
    env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.mark.timeout(3000)
def test_the_commands_run_in_their_order(clone, home, tmp_path, twin):
    """The first command trains; a recipe of one's own is planned, translated, shown, trained, imported and verified; Python does the
    same; a target's jobs are planned.
    """
    first, _, own, other, *_ = blocks("")
    assert "SUCCEEDED" in typed(first.strip().removeprefix("pip install uv && "), clone)
    folder, programs = tmp_path / "empty", str(clone / ".venv" / "bin")
    folder.mkdir()
    model = folder / "model"
    shutil.copytree(twin("qwen2.5-tied"), model)
    shutil.copy(clone / "recipes" / "data" / "chat.jsonl", folder / "rows.jsonl")
    recipe, clusters = blocks("yaml")
    (folder / "r.yaml").write_text(recipe.replace("Qwen/Qwen2.5-0.5B", "./model"))
    (folder / "axolotl.yml").write_text(AXOLOTL.format(model=model))
    said = {line.split("#")[0].strip(): typed(line, folder, programs) for line in own.splitlines()}
    assert "SUCCEEDED" in said["tune submit r.yaml --follow"]
    assert (folder / "new.yaml").exists()
    [python] = blocks("python")
    assert "SUCCEEDED" in typed(f"python - <<'END'\n{python}END", clone, programs)
    (folder / "clusters.yaml").write_text(clusters)
    check, *lines = other.splitlines()
    assert check.startswith("tune targets check ")
    for line in lines:
        assert "by torchtune on" in typed(f"{line} --dry-run", folder, programs)
