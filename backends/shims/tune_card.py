"""What others need beside weights: where the base is, the chat template that was learned, and a model card.

Everything is read in the job's folder, and what is not there is left out.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("litgpt", "torchtune", "axolotl", "maxtext", "trl", "unsloth", "torch", "jax", "transformers", "tokenizers")
WATCHED = ("out/metrics.jsonl", "out/logs/csv/version_*/metrics.csv", "out/logs/train.log")
"""Where the trainers write their figures."""
FIGURES = ("rows_in", "rows", "tokens", "loss_tokens", "truncated", "dropped_empty", "steps", "epochs", "sha256")


def finish(place: Path) -> None:
    """Complete a folder with a model or an adapter: adapter_config.json, chat_template.jinja, README.md."""
    base, revision = base_model()
    model, config = found("model.json"), place / "adapter_config.json"
    if config.exists():
        start = (
            (base, revision) if "base" not in model else (str(Path(model["folder"]).resolve()), None)
        )  # with model.tokens in it
        facts = json.loads(config.read_text()) | {"base_model_name_or_path": start[0], "revision": start[1]}
        config.unlink()  # it may be the trainer's own file, by another name
        config.write_text(json.dumps(facts, indent=2) + "\n")
    template = (found("data.json").get("chat_template") or {}).get("path")
    if template and Path(template).exists():
        (place / "chat_template.jinja").write_text(Path(template).read_text("utf-8"), "utf-8")
    (place / "README.md").write_text(card(base, revision, is_adapter=config.exists()), "utf-8")


def found(path: str) -> dict[str, Any]:
    """The object in a file; empty when there is none."""
    try:
        value = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def base_model() -> tuple[str | None, str | None]:
    """The base model's name on the hub and its commit, or its folder on this host; as it is without model.tokens."""
    model = found("model.json")
    folder = Path(model.get("base") or model.get("folder") or "")
    if model.get("init") != "pretrained":
        return (str(folder.resolve()) if model else None), None
    noted = folder / ".revision"
    return model["id"], noted.read_text("utf-8").strip() if noted.exists() else model.get("revision")


def card(base: str | None, revision: str | None, *, is_adapter: bool) -> str:
    """A model card: recipe, rows, figures and versions."""
    data, recipe = found("data/manifest.json"), found("recipe.json")
    on_hub = found("model.json").get("init") == "pretrained"
    head = {"base_model": base if on_hub else None, "library_name": "peft" if is_adapter else "transformers"}
    rows = {name: data[name] for name in FIGURES if name in data}
    sections = {
        "Base": {"model": base, "revision": revision},
        "Recipe": recipe,
        "Rows": {**rows, **{f"source {n}": one.get("name") for n, one in enumerate(data.get("sources", []), 1)}},
        "Figures of the last step": last_figures(),
        "Versions": {name: version for name in PACKAGES if (version := installed(name))},
    }
    front = "\n".join(
        ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items() if value), "tags: [tunesmith]", "---"]
    )
    parts = [f"## {title}\n\n{listed(facts)}" for title, facts in sections.items() if any(facts.values())]
    return "\n\n".join([front, f"# {recipe.get('name', 'A fine-tuned model')}", *parts]) + "\n"


def listed(facts: dict[str, Any]) -> str:
    """Facts, a line each, as code: what they say is not read as Markdown."""
    lines = (
        f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in facts.items() if value is not None
    )
    return "\n".join(f"    {line}".replace("\n", "\n    ") for line in lines)


def last_figures() -> dict[str, Any]:
    """What the trainer wrote of its last step, in its own names."""
    for pattern in WATCHED:
        for path in sorted(Path().glob(pattern), reverse=True):
            lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
            if lines and path.suffix == ".csv":
                return {key: value for key, value in zip(lines[0].split(","), lines[-1].split(","), strict=False) if value}
            if lines:
                return {"line": lines[-1][:2000]}
    return {}


def installed(name: str) -> str | None:
    """The version of a package; None when it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
