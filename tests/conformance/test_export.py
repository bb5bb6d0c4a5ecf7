"""Other forms of a model: each is the checkpoint by its own engine, and one that is not is caught."""

import json
import shutil
from pathlib import Path

import pytest

import backends

pytestmark = pytest.mark.trainer

ROOM = Path(backends.__file__).parent
TEMPLATE = """
import json, pathlib, sys
import tune_export_forms as forms
spec, report = json.load(open("export.json")), {}
forms.OUT.mkdir(exist_ok=True)
forms._expected(spec, report)
forms._write("merged", spec)
file = pathlib.Path("export/merged/chat_template.jinja")
file.write_text(file.read_text().replace("<|assistant|>", "<|user|>"))
try:
    forms._check("merged", spec, report)
except forms.Differs as error:
    print(error)
"""


@pytest.fixture
def export(adapted, stage_python, tmp_path, call):
    """A job's folder with the three folders in it; exports some forms, and gives the exit code."""
    for script in (*ROOM.glob("shims/tune_*.py"), *ROOM.glob("stages/shims/tune_*.py")):
        shutil.copy(script, tmp_path)
    for name in ("base", "model", "adapter"):
        shutil.copytree(adapted / name, tmp_path / name)

    def run(*formats, script=("tune_export_forms.py", "export.json")):
        spec = {**{name: name for name in ("model", "base", "adapter")}, "name": "tiny", "formats": formats, "dtype": "auto"}
        (tmp_path / "export.json").write_text(json.dumps({**spec, "prompts": 3, "tokens": 4}))
        return call([stage_python, *script], tmp_path, check=False)

    return run


def test_each_form_is_the_checkpoint(export, tmp_path):
    """Merged, adapter, and GGUF as it is and quantized: each within its tolerance by its own engine, the exact ones with its tokens."""
    done = export("merged", "adapter", "gguf-f32", "gguf-q8_0", "gguf-adapter")
    assert done.returncode == 0, done.stderr
    forms = json.loads((tmp_path / "export" / "report.json").read_text())["forms"]
    assert forms["merged"]["largest_difference"] <= 1e-6
    assert forms["adapter"]["largest_difference"] <= 1e-5
    assert forms["gguf-f32"]["largest_difference"] <= 1e-3
    assert forms["gguf-adapter"]["largest_difference"] <= 1e-3
    assert forms["gguf-f32"]["same_tokens"] == 1
    assert 1e-3 < forms["gguf-q8_0"]["largest_difference"] <= 0.2
    assert (tmp_path / "export" / "tiny-q8_0.gguf").stat().st_size < (tmp_path / "export" / "tiny-f32.gguf").stat().st_size / 3


def test_a_wrong_merge_is_caught(export, tmp_path):
    """An adapter whose alpha is twice what was trained is not the checkpoint, in PEFT form or as GGUF: the distance and its place are
    told.
    """
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    for form in ("adapter", "gguf-adapter"):
        assert export(form).returncode == 1
        reason = json.loads((tmp_path / "reason.json").read_text())
        assert reason["reason"] == "export_differs"
        assert f"{form}: a log-probability is" in reason["detail"]
        assert "prompt" in reason["detail"]


@pytest.mark.thorough
def test_a_wrong_template_is_caught(export):
    """A chat template that asks otherwise than the checkpoint's makes other tokens, and is caught by them."""
    done = export("merged", script=("-c", TEMPLATE))
    assert "merged: its tokenizer or chat template makes other tokens of prompt 1" in done.stdout
