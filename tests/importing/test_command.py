"""`tune import` as a user runs it."""

import json
from pathlib import Path

from tests.importing.test_dialects import AXOLOTL, TORCHTUNE


def test_a_recipe_that_translates(tune):
    """The recipe goes to stdout and the report to stderr; `tune translate` takes the recipe."""
    (tune.cwd / "wild.yaml").write_text(TORCHTUNE)
    done = tune("import", "wild.yaml")
    (tune.cwd / "recipe.yaml").write_text(done.stdout)
    assert "modelled" in done.stderr
    assert "moving to axolotl" in done.stderr
    there = tune.json("translate", "recipe.yaml", "--to", "axolotl")
    assert there["backends"]["axolotl"]["expressible"]


def test_what_tune_wrote(tune):
    """A config that tune itself wrote is sent back to its recipe."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL.replace("path: org/rows", "path: tatsu-lab/alpaca"))
    tune("import", "wild.yml", "-o", "recipe.yaml")
    tune(
        "translate", "recipe.yaml", "--set", "data.rendering=shared", "--set", "train.grad_clip=null", "--out", "made", code=None
    )
    for trainer, file in (("torchtune", "torchtune.yaml"), ("axolotl", "axolotl.yaml"), ("maxtext", "maxtext.yml")):
        assert "take the recipe that it is from" in tune("import", f"made/{trainer}/{file}", code=2).stderr


def test_the_document(tune):
    """`--json` is one document: whose it is, the recipe, each key's fate, what is not modelled."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL + "chat_template: llama3\n")
    found = tune.json("import", "wild.yml", "-o", "recipe.yaml")
    assert (found["backend"], found["unread"]) == ("axolotl", ["chat_template"])
    assert {each["fate"] for each in found["report"]} == {"modelled", "unmodelled"}
    assert found["recipe"]["optim"]["lr"] == 2e-4
    assert Path(tune.cwd / "recipe.yaml").read_text().startswith("# wild.yml, a config of axolotl 0.19.0")
    assert json.loads(json.dumps(found)) == found


def test_strict(tune):
    """`--strict` ends with 3 when a key is not modelled, and with 0 when all are."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL + "chat_template: llama3\n")
    assert "not modelled: chat_template" in tune("import", "wild.yml", "--strict", code=3).stderr
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    tune("import", "wild.yml", "--strict")


def test_command_line_of_the_trainer(tune):
    """Words after the file are those of the trainer's own command line."""
    (tune.cwd / "wild.yaml").write_text(TORCHTUNE)
    assert tune.json("import", "wild.yaml", "batch_size=4")["recipe"]["train"]["batch"]["micro"] == 4


def test_wrong_files(tune):
    """What is no config ends with 2 and a line that says where and why."""
    (tune.cwd / "broken.yaml").write_text("a: [1\nb: 2\n")
    (tune.cwd / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    assert "broken.yaml:2: should be YAML" in tune("import", "broken.yaml", code=2).stderr
    assert "should be UTF-8 text" in tune("import", "binary.yaml", code=2).stderr
    assert "no such file" in tune("import", "nothing.yaml", code=2).stderr
    assert "is a folder" in tune("import", ".", code=2).stderr
    assert "--from peft: should be" in tune("import", "broken.yaml", "--from", "peft", code=2).stderr
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    assert "is the config itself" in tune("import", "wild.yml", "-o", "wild.yml", code=2).stderr
