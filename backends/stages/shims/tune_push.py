"""A folder to a hub. `python tune_push.py push.json`, in the job's folder.

push.json: `{"folder", "card": README.md to begin with, "figures": summary.json of an evaluation or null, "notes": [...], "name", "repo",
"private", "token_name": name of a variable, "branch" or null}`. The hub is that of HF_ENDPOINT. What arrived is asked for and compared,
file by file; out/pushed.json says what and where. On failure: exit 1, a message, and reason.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import tune_shared

OUT = Path("out")
CARD = "README.md"


class Differs(ValueError):
    """The hub has something else than was sent."""


def main(path: str) -> int:
    """Push and compare. 0, or 1 with a message and reason.json."""
    spec = json.loads(Path(path).read_text("utf-8"))
    OUT.mkdir(exist_ok=True)
    found: dict[str, Any] = {}
    return tune_shared.guarded("push_failed", lambda: found.update(_pushed(spec))) or tune_shared.guarded(
        "push_differs", lambda: _check(spec, found)
    )


def _token(spec: dict[str, Any]) -> str:
    token = os.environ.get(spec["token_name"], "")
    if not token:
        raise ValueError(f"{spec['token_name']} has no value: it is the hub's token, with the right to write")
    return token


def _pushed(spec: dict[str, Any]) -> dict[str, Any]:
    """Send all files in one commit."""
    from huggingface_hub import CommitOperationAdd, HfApi  # noqa: PLC0415  # seconds

    api, repo = HfApi(token=_token(spec)), spec["repo"]
    files = {name: Path(spec["folder"], name) for name in _names(Path(spec["folder"]))}
    (OUT / CARD).write_text(card(spec, sorted(files)), "utf-8")
    files[CARD] = OUT / CARD
    api.create_repo(repo, private=spec["private"], exist_ok=True)
    about = api.repo_info(repo)
    if spec["private"] and not about.private:
        raise ValueError(f"{repo} is there already and is public; set private: false, or choose another repo")
    if spec["branch"]:
        api.create_branch(repo, branch=spec["branch"], exist_ok=True)
    print(f"sending {len(files)} files to {repo}", flush=True)
    sent = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
    commit = api.create_commit(repo, sent, commit_message=f"Upload {spec['name']}", revision=spec["branch"])
    return {"api": api, "files": files, "commit": commit.oid, "url": f"{api.endpoint}/{repo}"}


def _names(folder: Path) -> list[str]:
    """All files of a folder, without hidden ones.

    Raises:
        ValueError: there is none.
    """
    found = [each.relative_to(folder).as_posix() for each in sorted(folder.rglob("*")) if each.is_file()]
    names = [name for name in found if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        raise ValueError(f"{folder} has no file")
    return names


def _check(spec: dict[str, Any], found: dict[str, Any]) -> None:
    """What the hub says it has is what was sent: size and, as the hub keeps each, its SHA-256 or git's own digest.

    Raises:
        Differs: names the file.
    """
    about = found["api"].repo_info(spec["repo"], revision=found["commit"], files_metadata=True)
    theirs = {each.rfilename: each for each in about.siblings}
    rows = {}
    for name, path in found["files"].items():
        there = theirs.get(name)
        if there is None:
            raise Differs(f"{name} did not arrive at {spec['repo']}")
        digest = there.lfs.sha256 if there.lfs else there.blob_id
        ours = _sha256(path) if there.lfs else _git(path)
        if digest != ours:
            raise Differs(f"{name} at {spec['repo']} has the digest {digest}, here it is {ours}")
        rows[name] = {"bytes": path.stat().st_size, "digest": ours}
    total = sum(row["bytes"] for row in rows.values())
    facts = {"url": found["url"], "commit": found["commit"], "private": about.private, "files": rows}
    (OUT / "pushed.json").write_text(json.dumps(facts, indent=1) + "\n")
    lines = [{"name": "files", "value": len(rows)}, {"name": "bytes", "value": total}]
    (OUT / "points.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    who = "private" if about.private else "public"
    detail = f"{len(rows)} files, {total / 2**20:.1f} MiB, at {found['url']} ({who}), commit {found['commit'][:12]}"
    Path("summary.json").write_text(json.dumps({"detail": detail}))
    print(detail, flush=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(path: Path) -> str:
    """Git's name of a file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def card(spec: dict[str, Any], files: list[str]) -> str:
    """The checkpoint's card (recipe, rows, last figures, versions), and below it what only later stages know."""
    start = Path(spec["card"])
    text = start.read_text("utf-8").rstrip() if start.exists() else f"---\ntags: [tunesmith]\n---\n\n# {spec['name']}"
    sections = {
        "Otherwise than the recipe says": spec["notes"],
        "Evaluation": list(_figures(spec["figures"])),
        "Reply check": list(_forms(Path(spec["folder"], "report.json"))),
        "Files": files,
    }
    parts = [f"## {title}\n\n{_code(lines)}" for title, lines in sections.items() if lines]
    return "\n\n".join([text, *parts]) + "\n"


def _code(lines: list[str]) -> str:
    """Lines as code: what they say is not read as Markdown."""
    return "\n".join(f"    {line}".replace("\n", "\n    ") for line in lines)


def _figures(path: str | None) -> list[str]:
    """Figures of the evaluation, and how far they are from the start model's."""
    if not path or not Path(path).exists():
        return []
    summary = json.loads(Path(path).read_text("utf-8"))
    return str(summary.get("detail", "")).split("; ")


def _forms(report: Path) -> list[str]:
    """How far each exported form is from the checkpoint."""
    if not report.exists():
        return []
    forms = json.loads(report.read_text("utf-8"))["forms"].items()
    return [
        f"{form}: log-probabilities within {facts['largest_difference']:.3g} nats of the checkpoint's" for form, facts in forms
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
