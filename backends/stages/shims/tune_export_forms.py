"""The trained model in other forms. `python tune_export_forms.py export.json`, in the job's folder.

export.json: `{"model", "adapter", "base", "data": folders, "name", "formats": [...], "dtype", "prompts", "tokens"}`. Leaves export/merged,
export/adapter, export/NAME-KIND.gguf (of the adapter: NAME-adapter.gguf), export/SCHEME of the compressed ones, and export/report.json.
Each form is loaded again by its own engine, and its replies are compared with the checkpoint's: where they differ by more than its
tolerance, the job fails as `export_differs`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import tune_compress
import tune_gguf
import tune_replies
import tune_replies_gguf
import tune_score
import tune_shared
from transformers import AutoModelForCausalLM, AutoTokenizer

OUT = Path("export")
GGUF = {"f32": 1e-3, "f16": 0.05, "bf16": 0.1, "q8_0": 0.2, "q4_0": 3.0}
"""Kind -> nats by which a log-probability may differ from the checkpoint's."""
ROWS, LONGEST = 16, 256
"""Held out rows (of the training, where there are none) over which the checkpoint and a compressed form are compared, and tokens of each."""


class Differs(ValueError):
    """A form does not reply as the checkpoint does."""


def main(path: str) -> int:
    """Export and compare. 0, or 1 with a message and reason.json."""
    spec = json.loads(Path(path).read_text("utf-8"))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    report: dict[str, Any] = {}
    code = tune_shared.guarded("export_failed", lambda: _expected(spec, report))
    for form in spec["formats"]:
        code = code or tune_shared.guarded("export_failed", lambda f=form: _write(f, spec, report))
        code = code or tune_shared.guarded("export_differs", lambda f=form: _check(f, spec, report))
    if code == 0:
        _finish(report)
    return code


def _expected(spec: dict[str, Any], report: dict[str, Any]) -> None:
    """What the checkpoint replies."""
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    model = _loaded(spec["model"], "auto")
    asked = tune_replies.prompts(tokenizer, spec["prompts"])
    expected = tune_replies.replies(model, asked, spec["tokens"])
    report |= {"dtype": str(model.dtype).removeprefix("torch."), "expected": expected, "forms": {}}
    if spec["data"]:
        asked = tune_score.rows(spec["data"], ROWS, LONGEST)
        report["rows"] = [{"ids": ids, "logprobs": tune_replies.logprobs(model, ids)} for ids in asked]


def _loaded(folder: str | Path, dtype: str) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype if dtype == "auto" else getattr(torch, dtype)).to(device).eval()
    )


def _write(form: str, spec: dict[str, Any], report: dict[str, Any]) -> None:
    if form == "merged":
        _loaded(spec["model"], spec["dtype"]).save_pretrained(OUT / form)
        AutoTokenizer.from_pretrained(spec["model"]).save_pretrained(OUT / form)
    elif form in tune_compress.KINDS:
        facts = report["forms"].setdefault(form, {})

        def say(model: Any) -> None:
            facts["packed"] = _foretold(model, report["expected"])

        tune_compress.write(_loaded(spec["model"], "auto"), OUT / form, form, spec["data"], say)
        AutoTokenizer.from_pretrained(spec["model"]).save_pretrained(OUT / form)
    elif form == "adapter":
        shutil.copytree(spec["adapter"], OUT / "adapter")
    elif form == "gguf-adapter":
        tune_gguf.write_adapter(Path(spec["base"]), Path(spec["adapter"]), OUT / _file(form, spec["name"]))
    else:
        tune_gguf.write(Path(spec["model"]), OUT / _file(form, spec["name"]), form.removeprefix("gguf-"))
    print(f"wrote {form}", flush=True)


def _file(form: str, name: str) -> str:
    return f"{name}-{form.removeprefix('gguf-')}.gguf"


def _check(form: str, spec: dict[str, Any], report: dict[str, Any]) -> None:
    """Load it again, and compare.

    Raises:
        Differs: with the largest distance, and where it is.
    """
    expected = report["expected"]
    bound, exact, replies = _replies(form, spec, report)
    share = _share(expected, replies)
    distance, where = tune_replies.apart(expected, [each["logprobs"] for each in replies])
    facts = {"largest_difference": distance, "tolerance": bound, "same_tokens": share}
    report["forms"].setdefault(form, {}).update(facts)
    if not distance <= bound:
        raise Differs(
            f"{form}: a log-probability is {distance:.3g} nats from the checkpoint's ({where}), at most {bound:g} is allowed"
        )
    if exact and share < 1:
        raise Differs(f"{form}: {share:.1%} of the greedy tokens are the checkpoint's")
    print(f"{form}: log-probabilities within {distance:.3g} nats of the checkpoint's", flush=True)


def _replies(form: str, spec: dict[str, Any], report: dict[str, Any]) -> tuple[float, bool, list[dict[str, Any]]]:
    """How far a form's log-probabilities may be, whether its greedy tokens are to be the same, and what its own engine says. In 16 bits
    two tokens are often equally likely, and one in a longer text may be another.

    Raises:
        Differs: its tokenizer makes other tokens, or its folder is not what the compressor had.
    """
    expected = report["expected"]
    whole = report["dtype"] == "float32"
    if form == "merged":
        _same_prompts(OUT / form, spec, expected)
        kept = spec["dtype"] in ("auto", report["dtype"])
        bound = tune_replies.CLOSE if kept else tune_replies.HALF
        return bound, kept and whole, _foretold(_loaded(OUT / form, "auto"), expected)
    if form == "adapter":
        from peft import PeftModel  # noqa: PLC0415  # where there is an adapter

        model = PeftModel.from_pretrained(_loaded(spec["base"], "auto"), OUT / form).eval()
        return tune_replies.CLOSE if whole else tune_replies.HALF, whole, _foretold(model, expected)
    if form in tune_compress.KINDS:
        _same_prompts(OUT / form, spec, expected)
        return tune_compress.KINDS[form].tolerance, False, _compressed(form, report)
    file = OUT / _file(form, spec["name"])
    if form == "gguf-adapter":
        start = Path("base-f32.gguf")
        tune_gguf.write(Path(spec["base"]), start, "f32")
        replies = tune_replies_gguf.replies(start, expected, file)
        start.unlink()
        return GGUF["f32" if whole else "f16"], whole, replies
    kind = form.removeprefix("gguf-")
    bound = GGUF[kind] if whole else max(GGUF[kind], tune_replies.HALF)  # transformers runs it in 16 bits, llama.cpp sums in 32
    return bound, whole and kind == "f32", tune_replies_gguf.replies(file, expected)


def _compressed(form: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """What a compressed form says; what it changes over the rows goes into the report.

    Raises:
        Differs: what lies on the disk is not what the compressor had: a compression may change much, and this nothing.
    """
    model = _loaded(OUT / form, "auto")
    if getattr(model.config, "quantization_config", None) is None:
        raise Differs(f"{form}: the folder says nothing of its compression")
    replies = _foretold(model, report["expected"])
    facts = report["forms"].setdefault(form, {})
    apart, where = tune_replies.apart(facts.pop("packed"), [each["logprobs"] for each in replies])
    bound = tune_replies.CLOSE if report["dtype"] == "float32" else tune_replies.HALF
    if not apart <= bound:
        rule = f"the folder is {apart:.3g} nats from what the compressor had in memory ({where}), at most {bound:g} is allowed"
        raise Differs(f"{form}: {rule}")
    if rows := report.get("rows"):
        found = [tune_replies.logprobs(model, each["ids"]) for each in rows]
        facts["rows_mean_difference"] = tune_replies.mean_apart([each["logprobs"] for each in rows], found)
        facts["rows_largest_difference"], _ = tune_replies.apart(rows, found)
    return replies


def _share(expected: list[dict[str, Any]], replies: list[dict[str, Any]]) -> float:
    """How many of the greedy tokens are the same."""
    pairs = [pair for a, b in zip(expected, replies, strict=True) for pair in zip(a["reply"], b["reply"], strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def _same_prompts(folder: Path, spec: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    """The form's own tokenizer and chat template make the same tokens of the same prompts.

    Raises:
        Differs: they do not.
    """
    asked = tune_replies.prompts(AutoTokenizer.from_pretrained(folder), spec["prompts"])
    for number, (ids, each) in enumerate(zip(asked, expected, strict=True), 1):
        if ids != each["prompt"]:
            raise Differs(f"{folder.name}: its tokenizer or chat template makes other tokens of prompt {number}")


def _foretold(model: Any, expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [tune_replies.foretold(model, each) for each in expected]


def _finish(report: dict[str, Any]) -> None:
    (OUT / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    forms = report["forms"].items()
    Path("out").mkdir(exist_ok=True)
    lines = [
        {"name": f"{form.replace('-', '_')}/{name}", "value": value} for form, facts in forms for name, value in facts.items()
    ]
    Path("out/points.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = "; ".join(f"{form} within {facts['largest_difference']:.2g} nats of the checkpoint" for form, facts in forms)
    Path("summary.json").write_text(json.dumps({"detail": summary}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
