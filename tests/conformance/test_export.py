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
forms._write("merged", spec, report)
file = pathlib.Path("export/merged/chat_template.jinja")
file.write_text(file.read_text().replace("<|assistant|>", "<|user|>"))
try:
    forms._check("merged", spec, report)
except forms.Differs as error:
    print(error)
"""

ROWS = """
import numpy as np
rows = [[(7 * row + 3 * place) % 250 + 8 for place in range(32)] for row in range(24)]
for split, chosen in (("train", rows[:16]), ("eval", rows[16:])):
    flat = np.array([token for row in chosen for token in row], "int32")
    np.save(f"data/{split}.ids.npy", flat)
    np.save(f"data/{split}.labels.npy", flat)
    np.save(f"data/{split}.starts.npy", np.arange(0, len(flat) + 1, 32))
"""
AGAIN = """
import json, sys
import tune_replies
from transformers import AutoModelForCausalLM
expected = json.load(open("export/report.json"))["expected"]
for form in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(f"export/{form}", dtype="auto").eval()
    print(tune_replies.apart(expected, [tune_replies.foretold(model, each)["logprobs"] for each in expected])[0])
"""
SCALES = """
import json
from pathlib import Path
from safetensors.torch import load_file, save_file
import tune_export_forms as forms
spec, report = json.load(open("export.json")), {}
forms.OUT.mkdir(exist_ok=True)
forms._expected(spec, report)
forms._write("w8a8", spec, report)
file = Path("export/w8a8/model.safetensors")
save_file({name: value * 1.1 if name.endswith("_scale") else value for name, value in load_file(file).items()}, file, {"format": "pt"})
try:
    forms._check("w8a8", spec, report)
except forms.Differs as error:
    print(error)
"""
NARROW = """
import torch, tune_compress
model = torch.nn.ModuleDict({"narrow": torch.nn.Linear(96, 32)})
try:
    tune_compress.write(model, "out", "w4a16", None)
except ValueError as error:
    print(error)
"""

SIXTEEN = """
import torch
from transformers import AutoModelForCausalLM
for folder in ("base", "model"):
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
"""


@pytest.fixture
def export(adapted, stage_environment, tmp_path, call):
    """A job's folder with the three folders in it; exports some forms, and gives the exit code."""
    for script in (*ROOM.glob("shims/tune_*.py"), *ROOM.glob("stages/shims/tune_*.py")):
        shutil.copy(script, tmp_path)
    for name in ("base", "model", "adapter"):
        shutil.copytree(adapted / name, tmp_path / name)

    def run(*formats, script=("tune_export_forms.py", "export.json"), environment="hf"):
        spec = {**{name: name for name in ("model", "base", "adapter")}, "name": "tiny", "formats": formats, "dtype": "auto"}
        spec["data"] = "data" if (tmp_path / "data").exists() else None
        (tmp_path / "export.json").write_text(json.dumps({**spec, "prompts": 3, "tokens": 4}))
        return call([stage_environment(environment), *script], tmp_path, check=False)

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
    assert {form for form, facts in forms.items() if facts["same_tokens"] == 1} >= {
        "merged",
        "adapter",
        "gguf-f32",
        "gguf-adapter",
    }
    assert 1e-3 < forms["gguf-q8_0"]["largest_difference"] <= 0.2
    assert (tmp_path / "export" / "tiny-q8_0.gguf").stat().st_size < (tmp_path / "export" / "tiny-f32.gguf").stat().st_size / 3


@pytest.mark.thorough
def test_each_form_of_16_bits_is_the_checkpoint(export, stage_python, tmp_path, call):
    """A checkpoint in bfloat16, as most are: each form of it passes, also where its own engine sums in 32 bits."""
    call([stage_python, "-c", SIXTEEN], tmp_path)
    done = export("merged", "adapter", "gguf-f32", "gguf-bf16", "gguf-adapter")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "export" / "report.json").read_text())
    assert report["dtype"] == "bfloat16"
    assert report["forms"]["merged"]["largest_difference"] <= 1e-5
    print({form: facts["largest_difference"] for form, facts in report["forms"].items()})


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


@pytest.fixture
def rows(tmp_path, stage_python, call):
    """Rendered rows in the job's folder, as a training leaves them."""
    (tmp_path / "data").mkdir()
    call([stage_python, "-c", ROWS], tmp_path)


@pytest.mark.thorough
@pytest.mark.timeout(1200)  # an environment is built, and llm-compressor imported twice
def test_compressed_forms_are_the_checkpoint(export, rows, stage_python, tmp_path, call):
    """FP8, INT8 and INT4 by llm-compressor, with the training's rows where a scheme is calibrated: each loads again in transformers, also
    in the environment that serves, within its tolerance; what it changes over the rows is told, and GPTQ changes less than rounding.
    """
    formats = ("fp8-dynamic", "fp8", "w8a8", "w4a16", "w4a16-gptq")
    done = export(*formats, environment="compressed")
    assert done.returncode == 0, done.stderr[-3000:]
    forms = json.loads((tmp_path / "export" / "report.json").read_text())["forms"]
    for form in formats:
        assert 0 < forms[form]["largest_difference"] <= forms[form]["tolerance"]
        assert 0 < forms[form]["rows_mean_difference"] <= forms[form]["rows_largest_difference"]
    assert forms["w4a16-gptq"]["rows_mean_difference"] < forms["w4a16"]["rows_mean_difference"]
    whole, four, eight = (
        sum(file.stat().st_size for file in (tmp_path / place).glob("*.safetensors"))
        for place in ("model", "export/w4a16", "export/w8a8")
    )
    assert four < eight < whole / 2
    apart = call([stage_python, "-c", AGAIN, *formats], tmp_path).stdout.splitlines()
    assert [float(line) for line in apart] == pytest.approx([forms[form]["largest_difference"] for form in formats], abs=1e-4)


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_a_compressed_form_that_is_not_the_checkpoint_is_caught(export, tmp_path):
    """A compressed folder whose scales are a tenth off ends as FAILED export_differs, and layers that are no whole groups are refused
    by name.
    """
    done = export("w8a8", script=("-c", SCALES), environment="compressed")
    assert "w8a8: the folder is" in done.stdout, done.stdout + done.stderr[-2000:]
    done = export("w4a16", script=("-c", NARROW), environment="compressed")
    assert "w4a16: narrow has 96 columns, which are no groups of 128" in done.stdout, done.stdout + done.stderr[-2000:]


@pytest.mark.thorough
def test_a_wrong_template_is_caught(export):
    """A chat template that asks otherwise than the checkpoint's makes other tokens, and is caught by them."""
    done = export("merged", script=("-c", TEMPLATE))
    assert "merged: its tokenizer or chat template makes other tokens of prompt 1" in done.stdout
