"""How far training has moved the weights, told from files alone."""

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tune_changed as changed


def bits(values, kind):
    """Numbers as a file has them; bfloat16 by its definition: float32 without its lower half, to the nearest, ties to even."""
    if kind != "BF16":
        return np.asarray(values, {"F32": "<f4", "F16": "<f2"}[kind]).tobytes()
    out = []
    for value in np.ravel(values):
        whole = struct.unpack("<I", struct.pack("<f", value))[0]
        upper, lower = divmod(whole, 1 << 16)
        out.append(upper + (lower > 1 << 15 or (lower == 1 << 15 and upper % 2)))
    return struct.pack(f"<{len(out)}H", *out)


def save(folder: Path, kind="F32", name="model.safetensors", **tensors):
    """A safetensors file, written by the format's description."""
    folder.mkdir(exist_ok=True)
    header, data = {}, b""
    for key, values in tensors.items():
        raw = bits(values, kind)
        place = [len(data), len(data) + len(raw)]
        header[key.replace("__", ".")] = {"dtype": kind, "shape": [len(np.ravel(values))], "data_offsets": place}
        data += raw
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_what_has_changed_is_counted(tmp_path, monkeypatch):
    """The share of elements that differ and the size of the step, over files of any number; rows of tokens count apart."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    first, second, words = rng.normal(size=1000), rng.normal(size=500), rng.normal(size=300)
    save(tmp_path / "model", a__weight=first, model__embed_tokens__weight=words)
    save(tmp_path / "model", name="more.safetensors", b__weight=second)
    moved = first.copy()
    moved[:250] += 0.5
    save(tmp_path / "out", a__weight=moved, b__weight=second, model__embed_tokens__weight=words)
    changed.note("model", "out")
    found = json.loads(Path("summary.json").read_text())
    assert "detail" not in found
    assert (found["changed"]["changed"], found["changed"]["of"]) == (250, 1800)
    assert found["changed"]["inner"] == pytest.approx(250 / 1500)
    before = np.concatenate([first, second, words])
    assert found["changed"]["by"] == pytest.approx(0.5 * np.sqrt(250) / np.linalg.norm(before), rel=1e-5)


@pytest.mark.parametrize("kind", ["F32", "BF16", "F16"])
def test_nothing_has_changed(tmp_path, monkeypatch, kind):
    """Where every weight is as it was, rounded as it was saved, none counts as changed."""
    monkeypatch.chdir(tmp_path)
    values = np.concatenate([np.random.default_rng(2).normal(size=4096), [1 + 1 / 256, 1 + 3 / 256, -0.0, 0.0, 65504]])
    save(tmp_path / "model", a__weight=values)
    save(tmp_path / "out", kind, a__weight=values)
    changed.note("model", "out")
    found = json.loads(Path("summary.json").read_text())
    assert (found["changed"]["changed"], found["changed"]["of"]) == (0, 4101)
    assert "detail" not in found


def test_a_run_that_bf16_rounds_away_is_told(tmp_path, monkeypatch):
    """Few weights in bfloat16 that have changed: the job says how few, and the way out; in float32 few is no fault."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(3).normal(size=2000)
    moved = values.copy()
    moved[:20] *= 1.1
    save(tmp_path / "model", "BF16", a__weight=values)
    save(tmp_path / "out", "BF16", a__weight=moved)
    changed.note("model", "out")
    detail = json.loads(Path("summary.json").read_text())["detail"]
    assert detail.startswith("only 1.00% of the weights changed: in bf16")
    assert "bf16-mixed" in detail
    save(tmp_path / "model", a__weight=values)
    save(tmp_path / "out", a__weight=moved)
    changed.note("model", "out")
    assert "detail" not in json.loads(Path("summary.json").read_text())


def test_an_adapter_is_looked_at_itself(tmp_path, monkeypatch):
    """B of LoRA begins with zeros: where it still has nothing else, nothing was trained, whatever merging has rounded."""
    monkeypatch.chdir(tmp_path)
    zeros, some = np.zeros(64), np.random.default_rng(4).normal(size=64)
    save(tmp_path / "adapter", name="adapter_model.safetensors", x__lora_A__weight=some, x__lora_B__weight=zeros)
    changed.note("model", "out")
    assert json.loads(Path("summary.json").read_text())["changed"]["changed"] == 0
    save(tmp_path / "adapter", name="adapter_model.safetensors", x__lora_A__weight=some, x__lora_B__weight=some)
    changed.note("model", "out")
    assert json.loads(Path("summary.json").read_text())["changed"]["share"] == 1.0


def test_a_base_in_other_files_is_not_compared(tmp_path, monkeypatch):
    """Where the base has no safetensors there is nothing to say."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    save(tmp_path / "out", a__weight=np.ones(4))
    changed.note("model", "out")
    assert not Path("summary.json").exists()


def test_modules_beside_an_adapter_are_counted(tmp_path, monkeypatch):
    """What was trained whole beside an adapter counts by its difference from the base; a kind of it that stayed as it was is told by name,
    with the way out where bfloat16 explains it. B alone may be 0.
    """
    monkeypatch.chdir(tmp_path)
    words, norm = np.random.default_rng(4).normal(size=300), np.ones(40)
    save(tmp_path / "model", "BF16", model__embed_tokens__weight=words, model__norm__weight=norm)
    moved = words.copy()
    moved[:30] += 1
    own = {"base_model__model__model__embed_tokens__weight": moved, "base_model__model__model__norm__weight": norm}
    own |= {"base_model__model__a__lora_A__weight": words, "base_model__model__a__lora_B__weight": np.zeros(20)}
    save(tmp_path / "adapter", "BF16", name="adapter_model.safetensors", **own)
    changed.note("model", "out")
    found = json.loads(Path("summary.json").read_text())
    assert (found["changed"]["changed"], found["changed"]["of"]) == (30, 360)
    assert found["detail"].startswith("method.lora.train_fully: none of the weights of norms changed: in bf16")
    own["base_model__model__model__norm__weight"] = norm * 2
    save(tmp_path / "adapter", "BF16", name="adapter_model.safetensors", **own)
    changed.note("model", "out")
    found = json.loads(Path("summary.json").read_text())
    assert found["changed"]["changed"] == 70
    assert "detail" not in found
    save(tmp_path / "model", "BF16", model__embed_tokens__weight=moved, model__norm__weight=norm * 2)
    changed.note("model", "out")
    assert json.loads(Path("summary.json").read_text())["changed"]["changed"] == 0


def test_the_count_is_streamed(tmp_path):
    """Weights are read piece by piece: a count over sixteen million of them takes no more memory than a few pieces."""
    values = np.random.default_rng(5).normal(size=1 << 16).astype("<f4")
    for folder, many in (("model", values), ("out", values + 1)):
        (tmp_path / folder).mkdir()
        length = 4 * values.size * 256
        text = json.dumps({"a.weight": {"dtype": "F32", "shape": [length // 4], "data_offsets": [0, length]}}).encode()
        with (tmp_path / folder / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _ in range(256):
                file.write(many.tobytes())
    tracemalloc.start()
    try:
        found = changed.compared(str(tmp_path / "model"), str(tmp_path / "out"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found["changed"] == found["of"] == values.size * 256
    assert peak < 16 * changed.PIECE * 4
