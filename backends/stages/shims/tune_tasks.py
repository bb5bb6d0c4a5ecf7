"""Tasks of lm-evaluation-harness from rows of JSON: no YAML, no template, no hub."""
# ruff: noqa: PLC0415 - the harness takes seconds to import

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any]
QUESTION = ("question", "prompt", "instruction", "input")
ANSWER = ("answer", "output", "completion", "target", "label")
CHOICES = ("choices", "options")
STOP, LONGEST = ["\n"], 64
"""Where a reply ends, and tokens at most: of exact match."""


class BadTask(ValueError):
    """A task or its rows are not as they should be."""


def tasks(wanted: list[Row]) -> list[Any]:
    """What `simple_evaluate` takes, to be made anew for each model: names as they are, a config or a task for each file of rows.

    Raises:
        BadTask: names the file, the line and what is wrong with it.
    """
    return [each["name"] if "rows" not in each else _own(each) for each in wanted]


def _own(task: Row) -> Row:
    rows = read(task["rows"])
    if task["like"]:
        return _like(task["like"], {"task": task["name"], **_SPLITS, "custom_dataset": partial(_dataset, rows)})
    kind = task["kind"] if task["kind"] != "auto" else _kind(rows[0], task["rows"])
    checked = [_CHECKS[kind](row, f"{task['rows']}:{number}") for number, row in enumerate(rows, 1)]
    return {"task": task["name"], **_CONFIGS[kind], **_SHARED, "custom_dataset": partial(_dataset, checked)}


def _like(name: str, changes: Row) -> Any:
    """A task of the harness with other rows: its prompts, choices and figures. It is built as `TaskManager` builds it by name.

    Raises:
        BadTask: the harness has no such task.
    """
    known = manager(everything=True)
    entry = known.task_index.get(name)
    if entry is None or name not in known.all_subtasks:
        raise BadTask(f"like: the harness has no task {name}")
    return known._factory.build(
        entry, overrides=changes, registry=known.task_index
    )  # `_load_spec` takes no overrides of a named task


@cache
def manager(*, everything: bool) -> Any:
    """The harness's manager of tasks, made once: its index of all that it has takes ten seconds, longer than a small evaluation.

    Args:
        everything: with that index; without, it knows the tasks alone that it is given as configs.
    """
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=everything)


def read(path: str) -> list[Row]:
    """Rows of a file of JSON lines.

    Raises:
        BadTask: a line is no JSON object, or there is none.
    """
    rows = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadTask(f"{path}:{number}: should be a JSON object: {error}") from None
        if not isinstance(row, dict):
            raise BadTask(f"{path}:{number}: should be a JSON object, got {str(row)[:80]}")
        rows.append(row)
    if not rows:
        raise BadTask(f"{path}: should have rows, has none")
    return rows


def _dataset(rows: list[Row], **_: Any) -> Any:
    from datasets import Dataset, DatasetDict

    return DatasetDict({"test": Dataset.from_list(rows)})


def _kind(row: Row, path: str) -> str:
    if _of(row, CHOICES) is not None:
        return "choice"
    if _of(row, ANSWER) is not None:
        return "exact"
    if "text" in row:
        return "perplexity"
    raise BadTask(
        f"{path}:1: should have question, choices and answer, or prompt and answer, or text; has {', '.join(map(str, row)) or 'nothing'}"
    )


def _of(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _text(row: Row, names: tuple[str, ...], where: str) -> str:
    value = _of(row, names)
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise BadTask(f"{where}: should have a text under {' or '.join(names)}, got {value!r}")
    return str(value)


def _choice(row: Row, where: str) -> Row:
    """`answer` as the number of the choice, from 0: given so, or as the text of one of them."""
    choices, answer = _of(row, CHOICES), _of(row, ANSWER)
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(each, str) for each in choices):
        raise BadTask(f"{where}: should have two texts or more under choices, got {choices!r}")
    number = choices.index(answer) if isinstance(answer, str) and answer in choices else answer
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(choices):
        raise BadTask(f"{where}: answer should be one of the choices or its number from 0, got {answer!r}")
    return {"question": _text(row, QUESTION, where), "choices": choices, "answer": number}


def _exact(row: Row, where: str) -> Row:
    return {"question": _text(row, QUESTION, where), "answer": _text(row, ANSWER, where)}


def _perplexity(row: Row, where: str) -> Row:
    return {"question": "", "answer": _text(row, ("text",), where)}


def question(row: Row) -> str:
    """What the model is given."""
    return row["question"]


def answer(row: Row) -> Any:
    """What is right."""
    return row["answer"]


def choices(row: Row) -> list[str]:
    """What there is to choose from."""
    return row["choices"]


_CHECKS: dict[str, Callable[[Row, str], Row]] = {
    "choice": _choice,
    "exact": _exact,
    "generation": _exact,
    "perplexity": _perplexity,
}
_SPLITS: Row = {"test_split": "test", "fewshot_split": "test", "validation_split": None, "training_split": None}
_SHARED: Row = {"doc_to_text": question, "doc_to_target": answer, "metadata": {"version": 1}, **_SPLITS}
_CONFIGS: dict[str, Row] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_choice": choices,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "exact": {
        "output_type": "generate_until",
        "generation_kwargs": {"until": STOP, "max_gen_toks": LONGEST, "do_sample": False},
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match"}],
    },
    "generation": {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 256, "do_sample": False},
        "metric_list": [{"metric": "bleu"}, {"metric": "chrf"}],
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
}
"""Kind -> the config of a task of the harness; see its docs/task_guide.md."""
