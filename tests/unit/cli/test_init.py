"""`tune init`: a recipe that runs as it is written, out of a file and a few answers."""

import json

import pytest

ROWS = {
    "chat": {
        "messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b, as a long answer that says why"}]
    },
    "preference": {"prompt": "a?", "chosen": "b", "rejected": "c"},
    "rated": {"prompt": "a?", "completion": "b, which is more than forty characters long, or so", "label": True},
    "completion": {"prompt": "a?", "completion": "b, which is more than forty characters long, or so"},
    "instruct": {"instruction": "Add.", "input": "1 1", "output": "It is two, which is one and one, as anybody knows."},
    "text": {"text": "Once upon a time."},
}


def written(folder, rows, name="rows.jsonl"):
    """A data file."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


@pytest.mark.parametrize(("form", "count"), [*((form, 500) for form in ROWS), ("chat", 5)])
def test_every_format_becomes_a_recipe(tune, form, count):
    """For each kind of rows the recipe is a plan of some trainer as it stands, and names the file from where it lies."""
    (tune.cwd / "data").mkdir()
    written(tune.cwd, [ROWS[form]] * count, "data/rows.jsonl")
    found = tune.json("init", "--data", "data/rows.jsonl", "--accelerator", "cpu")
    assert (found["data"]["format"], found["data"]["rows"]) == (form, count)
    assert 'train: "./data/rows.jsonl"' in (tune.cwd / "recipe.yaml").read_text()
    planned = tune("submit", "recipe.yaml", "--dry-run")
    assert "optimizer steps" in planned.stdout


@pytest.mark.parametrize(
    ("rows", "goal", "instead"),
    [
        ([ROWS["chat"]] * 20, "task", ["prompting"]),
        ([ROWS["chat"]] * 500, "facts", ["retrieval"]),
        ([{"prompt": f"mail {n}", "completion": ("spam", "ham")[n % 2]} for n in range(500)], "task", ["classifier"]),
        ([ROWS["chat"]] * 500, "style", []),
    ],
)
def test_when_something_else_may_serve_better(tune, rows, goal, instead):
    """Few rows, facts and a handful of labels each get their advice, with a reason and a source; else there is none."""
    found = tune.json("init", "--data", written(tune.cwd, rows), "--goal", goal)
    assert len(found["advice"]) == len(instead)
    for advice, word in zip(found["advice"], instead, strict=True):
        assert word in advice["instead"]
        assert advice["why"]
        assert "2304.13712" in advice["see"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1}\n', "has the columns a, which no format of a recipe has"),
        ('{"text": "a"}\nnot json\n', "rows.jsonl:2: should be JSON"),
        ("[1]\n", "rows.jsonl:1: should be an object"),
        ("", "has no rows"),
    ],
)
def test_a_file_that_fits_no_format(tune, text, words):
    """What is wrong with the file is named with its line, and nothing is written."""
    (tune.cwd / "rows.jsonl").write_text(text)
    assert words in tune("init", "--data", "rows.jsonl", code=2).stderr
    assert not (tune.cwd / "recipe.yaml").exists()


def test_nothing_is_overwritten(tune):
    """A recipe that is there stays; a missing file, and no file at all, are named."""
    (tune.cwd / "recipe.yaml").write_text("mine")
    assert "is there already" in tune("init", "--data", written(tune.cwd, [ROWS["text"]]), code=2).stderr
    assert (tune.cwd / "recipe.yaml").read_text() == "mine"
    assert "did you mean rows.jsonl?" in tune("init", "--data", "row.jsonl", code=2).stderr
    assert "--data is needed" in tune("init", code=2, stdin=-3).stderr
