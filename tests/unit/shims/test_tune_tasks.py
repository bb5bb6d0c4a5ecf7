"""Rows of one's own as tasks, gates and changes: what the evaluation's program does without the harness."""

import json
import math

import pytest
import tune_evaluate
import tune_tasks

CHOICE = {"question": "2 + 2?", "choices": ["3", "4"], "answer": "4"}


def task(tmp_path, *rows, kind="auto"):
    """What the harness is given for these rows, and the rows."""
    file = tmp_path / "q.jsonl"
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    [made] = tune_tasks.tasks([{"name": "q", "rows": str(file), "kind": kind, "like": None}])
    return made, made["custom_dataset"].args[0]


@pytest.mark.parametrize(
    ("row", "kind", "output", "answer"),
    [
        (CHOICE, "auto", "multiple_choice", 1),
        ({**CHOICE, "answer": 0}, "auto", "multiple_choice", 0),
        ({"prompt": "a", "answer": 4}, "auto", "generate_until", "4"),
        ({"text": "some text"}, "auto", "loglikelihood_rolling", "some text"),
        ({"prompt": "a", "answer": "b"}, "generation", "generate_until", "b"),
    ],
)
def test_the_kind_is_seen_from_the_keys(tmp_path, row, kind, output, answer):
    """Each kind of row is the harness's kind of request, with the right answer as the harness wants it."""
    made, rows = task(tmp_path, row, kind=kind)
    assert made["output_type"] == output
    assert rows[0]["answer"] == answer


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((CHOICE, {**CHOICE, "answer": 2}), "q.jsonl:2: answer should be one of the choices"),
        ((CHOICE, {**CHOICE, "answer": True}), "q.jsonl:2: answer should be"),
        ((CHOICE, {"question": "x", "choices": ["a"], "answer": 0}), "q.jsonl:2: should have two texts or more"),
        ((CHOICE, "{half\n"), "q.jsonl:2: should be a JSON object"),
        (("[1]\n",), "q.jsonl:1: should be a JSON object"),
        ((), "should have rows, has none"),
        (({"id": 1},), "q.jsonl:1: should have question, choices and answer"),
        (({"prompt": "a", "answer": "b"}, {"prompt": "a", "answer": None}), "q.jsonl:2: should have a text under answer"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, rows, said):
    """A row that is no question of its kind is told by file and line, before any model is loaded."""
    with pytest.raises(tune_tasks.BadTask) as caught:
        task(tmp_path, *rows)
    assert said in str(caught.value)


def gate(comparison, number, *, base=False, metric="acc"):
    """One gate on the figure below."""
    return {"text": "t", "task": "q", "metric": metric, "comparison": comparison, "number": number, "base": base}


FIGURES = {"model": {"q": {"acc": 0.5, "bad": math.nan}}, "base": {"q": {"acc": 0.4}}}


@pytest.mark.parametrize(
    ("each", "met"),
    [
        (gate("<=", 0.5), True),
        (gate("<", 0.5), False),
        (gate(">=", 0.1, base=True), True),
        (gate(">", 0.1001, base=True), False),
        (gate(">=", 0.0, metric="bad"), False),
        (gate(">=", 0.0, metric="f1"), False),
    ],
)
def test_a_gate_is_met_or_not(each, met):
    """A gate that holds passes; one that does not, and one on no figure or no number, ends the job and says the figure."""
    if met:
        tune_evaluate._check([each], {"figures": FIGURES})
        return
    with pytest.raises(ValueError, match=r"q\.(acc|bad) is|there is no figure q\.f1; there are q\.acc"):
        tune_evaluate._check([each], {"figures": FIGURES})


def test_a_change_has_the_error_of_paired_rows():
    """The difference from the start model, and its standard error, are of the same rows one by one; a figure that is no mean over rows has
    the difference alone.
    """
    ours, theirs = [1, 0, 1, 1], [0, 0, 1, 0]
    results = {
        who: {"samples": {"q": [{"doc_id": n, "acc": value, "metrics": ["acc"]} for n, value in enumerate(values)]}}
        for who, values in (("model", ours), ("base", theirs))
    }
    figures = {
        "model": {"q": {"acc": 0.75, "acc_stderr": 0.2, "perplexity": 5.0}},
        "base": {"q": {"acc": 0.25, "perplexity": 8.0}},
    }
    [(_, changes)] = tune_evaluate._changes(results, figures)
    assert changes.keys() == {"acc", "perplexity"}
    assert changes["perplexity"] == (-3.0, None)
    mean, error = changes["acc"]
    assert mean == 0.5
    assert error == pytest.approx(math.sqrt((4 * 0.25 / 3) / 4))
