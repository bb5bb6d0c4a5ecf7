"""A recipe whose trainer is a script of the standard library, for tests of what is around a training."""

import json
from pathlib import Path

LOG = {"file": "lines.jsonl", "names": {"lr": "learning_rate", "tokens_per_second": "speed"}}
"""A script's usual metrics: a JSON object a step."""
LEAVES = ("model.id", "data.train", "train.steps", "train.batch.global", "train.precision", "optim.lr")


def script_values(
    *args: str, metrics: dict = LOG, files: tuple = ("model/*.json",), name: str = "script", **sections: dict
) -> dict:
    """The recipe as values; `train.py` and `rows.jsonl` lie beside it.

    Args:
        args: of the script; a leaf in braces is its value.
        metrics: where and how it says them.
        files: that make its checkpoint.
        name: of the recipe.
        sections: leaves that it has besides, or other than, the usual ones.
    """
    usual = {
        "model": {"id": "org/name"},
        "data": {"train": "rows.jsonl", "format": "text"},
        "train": {"steps": 500, "batch": {"global": 2}, "precision": "fp32"},
        "optim": {"lr": 0.1},
    }
    command = {"argv": ["python3", "train.py", *args], "inputs": ["./train.py"], "metrics": metrics, "files": list(files)}
    merged = {each: {**usual.get(each, {}), **sections.get(each, {})} for each in (*usual, *sections)}
    return {"version": 1, "name": name, **merged, "native": {"command": command}}


def accepted(values: dict) -> tuple[str, ...]:
    """The usual leaves that its script does not take: they are accepted by name."""
    args = values["native"]["command"]["argv"]
    return tuple(leaf for leaf in LEAVES if f"{{{leaf}}}" not in args)


def write(folder: Path, script: str, values: dict) -> tuple[str, ...]:
    """Put script, rows and recipe into a folder; the words that follow a command."""
    (folder / "train.py").write_text(script)
    (folder / "rows.jsonl").write_text('{"text": "a"}\n')
    (folder / "r.yaml").write_text(json.dumps(values))
    return ("r.yaml", "--to", "command", *(word for leaf in accepted(values) for word in ("--accept", leaf)))
