"""A recipe is read strictly, and everything that is wrong with it is said at once."""

import pytest

from backends.recipe.docs import about, json_schema, meanings
from backends.recipe.flat import leaves
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError

GOOD = """\
version: 1
name: good
model:
  id: org/name
data:
  train: rows.jsonl
  format: instruct
train:
  steps: 10
  batch:
    global: 8
optim:
  lr: 3e-4
"""


def problems(text, **kw):
    """What is wrong, by line and path."""
    with pytest.raises(RecipeError) as caught:
        parse(text, name="r.yaml", **kw)
    return {(p.line, p.path): p for p in caught.value.problems}


def test_the_least_recipe():
    """Few leaves are required; the others have our defaults, and are known not to be written."""
    recipe = parse(GOOD)
    assert recipe.optim.lr == 3e-4
    assert recipe.flat()["train.batch.global"] == 8
    assert "optim.lr" in recipe.written
    assert "optim.eps" not in recipe.written
    assert tuple(recipe.flat()) == leaves()


@pytest.mark.parametrize(
    ("text", "value"), [("3e-4", 3e-4), ("3E-4", 3e-4), (".5", 0.5), ("1_0.0", 10.0), ("1", 1), ("0.0003", 3e-4)]
)
def test_numbers(text, value):
    """What looks like a number is one: PyYAML alone reads 3e-4 as text."""
    assert parse(GOOD.replace("3e-4", text)).optim.lr == value


def test_five_mistakes():
    """Five different mistakes are five lines, each with its line number, rule, value and the nearest known name."""
    text = (
        GOOD.replace("name: good", "name: bad name")
        .replace("format: instruct", "format: instrct")
        .replace("steps: 10", "stpes: 10")
    )
    text = text.replace("global: 8", "global: 16x").replace("lr: 3e-4", "lr: -1")
    found = problems(text)
    assert {(2, "name"), (7, "data.format"), (9, "train.stpes"), (11, "train.batch.global"), (13, "optim.lr")} <= set(found)
    assert found[9, "train.stpes"].hint == "did you mean steps?"
    assert found[7, "data.format"].hint == "did you mean instruct?"
    assert found[11, "train.batch.global"].value == "16x"
    assert found[13, "optim.lr"].rule == "should be greater than 0"


@pytest.mark.parametrize(
    ("old", "new", "place", "rule"),
    [
        ("  lr: 3e-4", "  lr: 3e-4\n  lr: 1e-4", (14, "optim.lr"), "already set on line 13"),
        ("steps: 10", "steps: 10\n  epochs: 1", (9, "train.steps"), "not both"),
        ("  steps: 10\n", "", (8, "train.steps"), "is required"),
        ("steps: 10", "steps: 10\n  seed: yes", (10, "train.seed"), "whole number"),
        ("global: 8", "global: 8\n    micro: 3", (12, "train.batch.micro"), "should divide"),
        ("lr: 3e-4", "lr: .nan", (13, "optim.lr"), "finite"),
        ("lr: 3e-4", "lr: 3e-4\n  warmup_steps: 11", (14, "optim.warmup_steps"), "at most train.steps"),
        ("lr: 3e-4", "lr: 3e-4\n  min_lr: 1", (14, "optim.min_lr"), "at most optim.lr"),
        ("id: org/name", "id: nowhere", (4, "model.id"), "Hugging Face id"),
        ("id: org/name", "id: x\n  init: random", (3, "model.architecture"), "is required"),
        ("train: rows.jsonl", "train: rows", (6, "data.train"), "should be a file"),
        ("optim:", "native: {axolotle: {a: 1}}\noptim:", (12, "native.axolotle"), "is not a trainer"),
        ("optim:", "native: {axolotl: {'a:b': 1}}\noptim:", (12, "native.axolotl"), "no colon"),
        ("format: instruct", "format: chat\n  template: alpaca", (8, "data.template"), "should be chat"),
        ("format: instruct", "format: instruct\n  template: 'no place'", (8, "data.template"), "{instruction}"),
        ("optim:", "method: {lora: {rank: 4}}\noptim:", (12, "method.lora"), "no effect"),
        ("version: 1", "version: 2", (1, "version"), "should be 1"),
        ("  id: org/name", "\tid: org/name", (4, ""), "should be YAML"),
        ("id: org/name", "id: !!python/object/apply:os.system ['true']", (4, "model.id"), "should be text"),
    ],
)
def test_mistakes(old, new, place, rule):
    """Each kind of mistake is found where it stands."""
    found = problems(GOOD.replace(old, new), trainers=("axolotl",))
    assert place in found, found
    assert rule in found[place].rule


def test_kto_compares_rows_of_a_step():
    """A step of one row has no other row's answer: the recipe is refused where the number stands."""
    text = GOOD.replace("format: instruct", "format: rated").replace("global: 8", "global: 1")
    found = problems(text.replace("optim:", "method: {kind: kto}\noptim:"))
    assert any(path == "train.batch.global" and "at least 2" in problem.rule for (_, path), problem in found.items()), found


def test_set_replaces_and_is_checked():
    """--set goes through the same checks, and says that it is to blame."""
    assert parse(GOOD, sets=["optim.lr=1e-3", "method.adapter=lora", "method.lora.rank=4"]).method.lora.rank == 4
    found = problems(GOOD, sets=["optim.lrr=1", "train.seed=x", "nothing"])
    assert {p.file for p in found.values()} == {"--set"}
    assert found[None, "optim.lrr"].hint == "did you mean optim.lr?"


def test_a_section_is_left_out():
    """--set SECTION=null takes a section away, whatever it held; one that is needed is then missing, and a word that is none is refused."""
    adapted = GOOD.replace("optim:", "method: {adapter: lora, lora: {rank: 4}}\noptim:")
    assert parse(adapted, sets=["method.adapter=none", "method.lora=null"]).method.lora == parse(GOOD).method.lora
    assert parse(GOOD, sets=["method.lora=null", "method.grpo=null"]) == parse(GOOD)
    [problem] = problems(adapted, sets=["method.adapter=none"]).values()
    assert "--set method.lora=null" in problem.hint
    assert (None, "lora") in problems(adapted, sets=["lora=null"])
    assert any(path == "data" for _, path in problems(adapted, sets=["data=null"]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: [",
        "- 1",
        "\x00",
        "a: &a [*a]",
        "x: " + "[" * 5000,
        "a: b: c",
        "? {a: 1}\n: 2",
        "%YAML 9.9\n---\na: 1",
        "version: 1\n\tname: x",
    ],
)
def test_hostile_text(text):
    """No text brings more than a list of problems."""
    assert problems(text)


def test_a_bomb_is_defused():
    """Aliases that unfold into billions end early, with a word about it."""
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"] + [
        f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert any("smaller" in p.rule for p in problems("\n".join(lines)).values())


def test_what_is_nested_too_deep_ends_early():
    """A hundred thousand open brackets are a complaint with its line, not the end of the process."""
    for text in ("[" * 100_000, "{a: " * 100_000, "\n".join(f"{' ' * n}a:" for n in range(2000))):
        [problem] = problems(text).values()
        assert problem.rule == "should be at most 50 levels deep"
        assert problem.line in (1, 51)


def test_every_leaf_is_documented():
    """Each leaf has a type and a default; the schema for editors says what the source says."""
    for leaf in leaves():
        assert about(leaf).keys() == {"meaning", "type", "default"}
        assert about(leaf)["meaning"], leaf
    assert about("train.batch.global")["meaning"].startswith("Sequences per optimizer step over all devices.")
    assert about("optim.lr") == {"meaning": "Highest learning rate.", "type": "number > 0", "default": "required"}
    assert about("method.adapter")["type"] == "none|lora|qlora|dora"
    assert json_schema()["$defs"]["Batch"]["properties"]["global"]["description"] == meanings()["Batch", "global_"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("optim.learning_rate", "known here: name, fused, lr, "),
        ("optim.shedule", "did you mean optim.schedule?"),
        ("train.batch.globl", "did you mean train.batch.global?"),
        ("optm.lr", "did you mean optim.lr?"),
    ],
)
def test_a_path_of_set_that_is_none(path, hint):
    """The nearest name in its section, or what there is; a name of which only the section is alike is not offered."""
    with pytest.raises(RecipeError) as caught:
        parse(GOOD, sets=[f"{path}=1"])
    [problem] = [each for each in caught.value.problems if each.path == path]
    assert problem.hint.startswith(hint)
