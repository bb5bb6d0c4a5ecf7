"""A first recipe out of a data file and a few answers; and whether fine-tuning is the answer at all."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from orchestrator.client.errors import AlreadyExists, InvalidRequest, NotFound, did_you_mean
from orchestrator.client.recipes import load_text

GOALS: Mapping[str, str] = {
    "task": "do a task as the rows do it",
    "style": "answer in a form or tone",
    "facts": "know things that the model does not know",
}
FORMATS = (
    ("chat", {"messages"}),
    ("preference", {"prompt", "chosen", "rejected"}),
    ("rated", {"prompt", "completion", "label"}),
    ("completion", {"prompt", "completion"}),
    ("instruct", {"instruction", "output"}),
    ("text", {"text"}),
)
"""Formats of `data.format` with the columns that they need, the first that fits."""
ANSWER = {"completion": "completion", "instruct": "output"}
LOOKED_AT = 2000
"""Rows that are looked at; all are counted."""
SURVEY = "https://arxiv.org/abs/2304.13712"
"""Yang et al., Harnessing the Power of LLMs in Practice: when fine-tuned models, and when large ones as they are."""


class DataFacts(NamedTuple):
    """What a data file holds."""

    path: Path
    format: str
    """As `data.format`."""
    rows: int
    longest: int
    """Characters of the longest row looked at."""
    answers: int
    """Different answers among the rows looked at, if all are short; 0: they are texts."""


class Advice(NamedTuple):
    """What may serve better than fine-tuning."""

    instead: str
    why: str
    see: str


class FirstRecipe(NamedTuple):
    """A recipe with comments, and what to think of first."""

    text: str
    facts: DataFacts
    advice: tuple[Advice, ...]


def look(path: str | Path) -> DataFacts:
    """Read a data file: .jsonl, .json or .txt.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it has no rows, or none of the formats of a recipe fits them; the message says which columns there are.
    """
    file = Path(path)
    if not file.is_file():
        beside = [str(each) for each in file.parent.glob("*.json*")] if file.parent.is_dir() else []
        raise NotFound(str(path), "no such file", argument="data", hint=did_you_mean(str(path), beside))
    try:
        if file.suffix == ".txt":
            lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
            return DataFacts(file, "text", len(lines), max(map(len, lines), default=0), 0)
        rows, count = _rows(file)
    except UnicodeDecodeError as error:
        raise InvalidRequest(str(path), f"should be UTF-8 text, byte {error.start} is not", argument="data") from None
    if not rows:
        raise InvalidRequest(str(path), "has no rows", argument="data")
    columns = set.intersection(*map(set, rows))
    found = next((name for name, needs in FORMATS if needs <= columns), "")
    if not found:
        rule = f"has the columns {', '.join(sorted(columns)) or 'none in all rows'}, which no format of a recipe has"
        needs = "; ".join(f"{name}: {', '.join(sorted(each))}" for name, each in FORMATS)
        raise InvalidRequest(str(path), rule, argument="data", hint=f"rename them (or set data.columns): {needs}")
    answers = [row.get(ANSWER.get(found, "")) for row in rows]
    short = all(isinstance(each, str) and len(each) <= 40 for each in answers)
    return DataFacts(file, found, count, max(len(json.dumps(row)) for row in rows), len(Counter(answers)) if short else 0)


def _rows(file: Path) -> tuple[list[dict[str, object]], int]:
    """The first rows, and how many there are."""
    if file.suffix == ".json":
        try:
            whole = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise InvalidRequest(str(file), f"should be JSON: {error}", argument="data") from None
        listed = whole if isinstance(whole, list) else []
        return [row for row in listed[:LOOKED_AT] if isinstance(row, dict)], len(listed)
    if file.suffix != ".jsonl":
        raise InvalidRequest(str(file), f"should be .jsonl, .json or .txt, got {file.suffix or 'no suffix'}", argument="data")
    with file.open(encoding="utf-8") as lines:
        rows = list(_parsed(file, islice(lines, LOOKED_AT)))
        return rows, len(rows) + sum(1 for line in lines if line.strip())


def _parsed(file: Path, lines: Iterator[str]) -> Iterator[dict[str, object]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidRequest(f"{file}:{number}", f"should be JSON: {error}", argument="data") from None
        if not isinstance(row, dict):
            raise InvalidRequest(f"{file}:{number}", "should be an object", argument="data")
        yield row


def advise(facts: DataFacts, goal: str) -> tuple[Advice, ...]:
    """What may serve better, with its reason; empty where fine-tuning fits."""
    found = []
    if goal == "facts":
        why = "facts change, and a model that is trained on them states others with the same confidence; passages can be quoted"
        found.append(Advice("retrieval: look passages up and put them into the prompt (examples/rag)", why, f"{SURVEY}, knowledge-intensive tasks"))  # fmt: skip
    if facts.rows < 100:
        why = f"{facts.rows} rows are few to learn from, and some of them fit into a prompt as examples"
        found.append(Advice("prompting: a larger model with some of the rows as examples", why, f"{SURVEY}, training data"))
    if 0 < facts.answers <= 20 and facts.rows >= 10 * facts.answers:
        why = f"all answers are one of {facts.answers} short texts; an encoder of 0.1 B parameters is much faster, and often as good"
        found.append(Advice("a small classifier", why, f"{SURVEY}, traditional language understanding"))
    return tuple(found)


def first_recipe(
    data: str | Path,
    *,
    model: str,
    goal: str = "task",
    accelerator: str = "cuda",
    name: str = "",
    out: str | Path = ".",
) -> FirstRecipe:
    """A recipe for a data file, checked as any other.

    Args:
        data: the file; see `look`.
        model: a hub id, or a folder in Hugging Face layout.
        goal: what the model is to learn; see `GOALS`.
        accelerator: what it is trained on.
        name: of the recipe; empty: after the data file.
        out: the folder in which the recipe will lie: the data file is named from there.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: the file does not fit a format, or a value does not fit a recipe.
    """
    facts = look(data)
    text = _text(facts, model, accelerator, name or _name(facts.path), Path(out))
    load_text(text, base=out)
    return FirstRecipe(text, facts, advise(facts, goal))


def write(recipe: FirstRecipe, path: str | Path) -> Path:
    """Write it to a new file.

    Raises:
        AlreadyExists: there is one.
    """
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(recipe.text)
    except FileExistsError:
        raise AlreadyExists(str(path), "is there already; nothing was written", argument="out") from None
    return Path(path)


def _name(path: Path) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).strip("-.") or "recipe"


def _text(facts: DataFacts, model: str, accelerator: str, name: str, out: Path) -> str:
    """YAML with a reason beside what was decided."""
    kind = {"preference": "dpo", "rated": "kto"}.get(facts.format, "sft")
    length = next((each for each in (256, 512, 1024, 2048) if each * 3 >= facts.longest), 4096)
    batch = max(1, min(16, facts.rows))
    epochs, rate = (3 if facts.rows < 5000 else 1), ("2e-4" if kind == "sft" else "5e-6")
    kinds = {"sft": "imitate the answers", "dpo": "prefer the chosen answer", "kto": "learn from verdicts"}
    steps = -(-facts.rows * epochs // batch)
    path = json.dumps(_from(out, facts.path), ensure_ascii=False)
    template = "  template: alpaca             # the text around an instruction\n" if facts.format == "instruct" else ""
    held = (
        "  eval_share: 0.05             # held out, to see overfitting: eval_loss rises while loss falls\n"
        if facts.rows >= 400
        else ""
    )
    evaluated = f"\neval:\n  every: {max(1, steps // 10)}\n" if held else ""
    return f"""\
# Written by tune init for {facts.rows:,} rows of {facts.format} data. `tune explain SETTING` says what a setting means.
# Next: tune preview FILE (rows as the model sees them), tune submit FILE --dry-run, tune submit FILE --follow
version: 1
name: {name}

model:
  id: {json.dumps(model, ensure_ascii=False)}

method:
  kind: {kind}                    # {kinds[kind]}
  adapter: lora                # trains about 1 % of the weights; none trains all of them
  lora: {{rank: 16, alpha: 32}}

data:
  train: {path}
  format: {facts.format}
{template}{held}  max_length: {length}             # tokens; the longest row looked at has {facts.longest:,} characters, longer ones are cut

train:
  epochs: {epochs}                    # {steps:,} optimizer steps; stop earlier if eval_loss rises
  batch: {{global: {batch}, micro: {min(4, batch) if batch % min(4, batch) == 0 else 1}}}  # micro is what fits into memory, and changes no result
  precision: {"bf16" if accelerator == "cuda" else "fp32"}

optim:
  lr: {rate}                     # the first thing to try others of: tune sweep FILE --grid optim.lr=...
  schedule: cosine
  warmup_steps: {max(1, min(100, steps // 20))}
{evaluated}
resources:
  accelerator: {accelerator}
"""


def _from(out: Path, file: Path) -> str:
    """The file as a recipe in a folder names it."""
    try:
        return f"./{file.resolve().relative_to(out.resolve())}"
    except ValueError:
        return str(file.resolve())
