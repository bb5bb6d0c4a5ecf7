"""`tune import` as a user runs it."""

import json
from pathlib import Path

from tests.unit.importing.test_dialects import AXOLOTL, TORCHTUNE


def test_a_recipe_that_translates(tune):
    """The recipe goes to stdout and the report to stderr; `tune translate` takes the recipe."""
    (tune.cwd / "wild.yaml").write_text(TORCHTUNE)
    done = tune("import", "wild.yaml")
    (tune.cwd / "recipe.yaml").write_text(done.stdout)
    assert "modelled" in done.stderr
    assert "torchtune (back)" in done.stderr
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
    assert (found["trainer"], found["unread"]) == ("axolotl", ["chat_template"])
    assert {each["fate"] for each in found["report"]} == {"modelled", "unmodelled"}
    assert found["recipe"]["optim"]["lr"] == 2e-4
    assert Path(tune.cwd / "recipe.yaml").read_text().startswith("# wild.yml, a config of axolotl 0.19.0")
    assert json.loads(json.dumps(found)) == found


def test_standard_input(tune):
    """`-` is what comes through a pipe: a recipe, or what is wrong with it."""
    done = tune("import", "-", "-o", "r.yaml", input=AXOLOTL)
    assert "axolotl, by base_model" in done.stderr
    assert Path(tune.cwd / "r.yaml").read_text().startswith("# standard input, a config of axolotl 0.19.0")
    assert "-:1: should be a mapping of keys" in tune("import", "-", input="", code=2).stderr
    assert "-:1: should be YAML" in tune("import", "-", input="]", code=2).stderr


def test_a_recipe_that_is_there_already(tune):
    """What may have been worked on is not written over; the same text is no harm."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    tune("import", "wild.yml", "-o", "r.yaml")
    tune("import", "wild.yml", "-o", "r.yaml")
    worked = Path(tune.cwd / "r.yaml").read_text() + "seed: 3\n"
    (tune.cwd / "r.yaml").write_text(worked)
    assert "-o r.yaml: is there already" in tune("import", "wild.yml", "-o", "r.yaml", code=2).stderr
    assert Path(tune.cwd / "r.yaml").read_text() == worked


def test_a_config_in_the_place_of_a_recipe(tune):
    """Who gives a trainer's config to another command learns of import, not of each key; a wrong recipe is one all the same."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    (tune.cwd / "run.sh").write_text("#!/bin/sh\nset -e\naxolotl train wild.yml\n")
    for command in ("translate", "submit"):
        said = tune(command, "wild.yml", code=2).stderr
        assert said.startswith("wild.yml: is no recipe but a config of axolotl (base_model = Qwen/Qwen2.5-0.5B)")
        assert said.endswith("hint: tune import wild.yml -o recipe.yaml\n")
    assert "run.sh: is no recipe but a script that runs axolotl (line 3)" in tune("translate", "run.sh", code=2).stderr
    (tune.cwd / "wrong.yaml").write_text(f"version: 1\n{AXOLOTL}")
    assert "wrong.yaml:1: name: is required" in tune("translate", "wrong.yaml", code=2).stderr


def test_words_that_import_does_not_know(tune):
    """An option that is not there is told with the nearest one, beside the command's own usage."""
    said = tune("import", "wild.yml", "--form", "axolotl", code=2).stderr
    assert said.startswith("usage: tune import")
    assert said.endswith("unrecognized arguments: --form axolotl\n\nhint: did you mean --from?\n")


def test_strict(tune):
    """`--strict` ends with 3 when a key is not modelled, and with 0 when all are."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL + "chat_template: llama3\n")
    assert "not modelled: chat_template" in tune("import", "wild.yml", "--strict", code=3).stderr
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    tune("import", "wild.yml", "--strict")


def test_command_line_of_the_trainer(tune):
    """Words after the file are those of the trainer's own command line."""
    (tune.cwd / "wild.yaml").write_text(TORCHTUNE)
    for words in (
        ("batch_size=4",),
        ("--from", "torchtune", "batch_size=4"),
        ("epochs=2", "--from", "torchtune", "batch_size=4"),
    ):
        assert tune.json("import", "wild.yaml", *words)["recipe"]["train"]["batch"]["micro"] == 4


def test_a_command_of_several(tune):
    """`--line` is the command in a line of a script; where there is none, the lines of those that there are."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    (tune.cwd / "run.sh").write_text(
        "#!/bin/sh\naxolotl train wild.yml\n\naxolotl train wild.yml \\\n  --learning-rate $LR --num-epochs=7\n"
    )
    first = tune.json("import", "run.sh")
    assert (first["recipe"]["train"]["epochs"], first["notes"][1]) == (3, "the script's other commands are left out: --line 4")
    assert tune.json("import", "run.sh", "--line", "4", "learning_rate=1e-3")["recipe"]["train"]["epochs"] == 7
    said = tune("import", "run.sh", "--line", "5", code=2).stderr
    assert said == "run.sh: this script has no command of a trainer's that trains in line 5: those are in 2, 4\n"


def test_wrong_files(tune):
    """What is no config ends with 2 and a line that says where and why."""
    (tune.cwd / "broken.yaml").write_text("a: [1\nb: 2\n")
    (tune.cwd / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    assert "broken.yaml:2: should be YAML" in tune("import", "broken.yaml", code=2).stderr
    assert "should be UTF-8 text" in tune("import", "binary.yaml", code=2).stderr
    assert "no such file" in tune("import", "nothing.yaml", code=2).stderr
    assert "0 recipes, 1 configs without one" in tune("import", ".").stdout
    assert "it is UTF-16: save it as UTF-8" in tune("import", "binary.yaml", code=2).stderr
    assert "--from peft: should be" in tune("import", "broken.yaml", "--from", "peft", code=2).stderr
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    assert "is the config itself" in tune("import", "wild.yml", "-o", "wild.yml", code=2).stderr
    assert "-o .: is a folder" in tune("import", "wild.yml", "-o", ".", code=2).stderr
    assert "there is no folder nowhere" in tune("import", "wild.yml", "-o", "nowhere/r.yaml", code=2).stderr


def test_secrets_are_nowhere(tune):
    """Neither the recipe, nor a report, nor a difference holds one; the recipe names the variables instead."""
    token = "hf_" + "a1B2" * 8
    (tune.cwd / "a.yml").write_text(f"{AXOLOTL}wandb_api_key: c0ffee\nhub_model_id: {token}\nwandb_name: [{token}]\n")
    (tune.cwd / "b.yml").write_text(AXOLOTL)
    runs = [
        tune("import", "a.yml", "-o", "r.yaml", "--verbose"),
        tune("import", "a.yml", "--json"),
        tune("diff", "a.yml", "b.yml", code=None),
    ]
    said = "".join(run.stdout + run.stderr for run in runs) + Path(tune.cwd / "r.yaml").read_text()
    assert "secrets: [WANDB_API_KEY, HF_TOKEN]" in said
    assert 'wandb_api_key = "***" (line 8)' in said
    assert "c0ffee" not in said
    assert token not in said


def test_there_and_back_without_words(tune):
    """A loss that the kept native keys make up for is none: the imported recipe goes back as it is."""
    (tune.cwd / "t.yaml").write_text(TORCHTUNE.replace("llama3_2.llama3_2_1b", "phi4.phi4_14b").replace("meta-llama", "nobody"))
    tune("import", "t.yaml", "-o", "r.yaml")
    made = tune.json("translate", "r.yaml", "--to", "torchtune")["backends"]["torchtune"]
    line = next(each for each in made["report"] if each["leaf"] == "data.rendering")
    assert (made["expressible"], line["status"]) == (True, "native")
    assert line["why"].startswith("tokenizer._component_ under native instead")


def test_what_is_not_modelled_comes_first(tune):
    """The report is a summary: what to look at, then where the run can go, beginning with the keys that no recipe says; --verbose
    has every key. "Nothing is lost" is never said beside a key that is lost.
    """
    (tune.cwd / "wild.yml").write_text(AXOLOTL + "chat_template: llama3\nrelora: true\n")
    said = tune("import", "wild.yml").stderr
    assert said.index("not modelled, so look at it") < said.index("moving to")
    assert "litgpt: lost: chat_template, relora" in said
    assert "nothing is lost" not in said.replace("axolotl (back): nothing is lost", "")
    assert "learning_rate = 0.0002" not in said
    assert "learning_rate = 0.0002" in tune("import", "wild.yml", "--verbose").stderr
    moves = tune.json("import", "wild.yml")["moves"]
    assert [line["leaf"] for line in moves["torchtune"]][:2] == ["chat_template", "relora"]
    assert "chat_template" not in [line["leaf"] for line in moves["axolotl"]]


def test_one_key(tune):
    """`--explain` says what one key became and why; a typo leads to the key that is meant."""
    (tune.cwd / "wild.yml").write_text(AXOLOTL)
    assert "optim.lr = 0.0002" in tune("import", "wild.yml", "--explain", "learning_rate").stdout
    assert "did you mean learning_rate?" in tune("import", "wild.yml", "--explain", "learning_rat", code=2).stderr


def test_a_folder(tune):
    """Each config of a folder becomes a recipe of its own; what they share and what is missing is said, and --check holds it."""
    (tune.cwd / "configs" / "deep").mkdir(parents=True)
    (tune.cwd / "configs" / "a.yml").write_text(AXOLOTL)
    (tune.cwd / "configs" / "deep" / "b.yaml").write_text(TORCHTUNE)
    (tune.cwd / "configs" / "pod.yaml").write_text("apiVersion: v1\nkind: Pod\n")
    said = tune("import", "configs", "-o", "recipes").stdout
    assert "2 recipes, 0 configs without one, 1 other files" in said
    assert sorted(path.relative_to(tune.cwd / "recipes").as_posix() for path in (tune.cwd / "recipes").rglob("*.yaml")) == [
        "a.yaml",
        "deep/b.yaml",
    ]
    tune("import", "configs", "-o", "recipes", "--check")
    (tune.cwd / "recipes" / "a.yaml").write_text("")
    assert "a.yaml" in tune("import", "configs", "-o", "recipes", "--check", code=3).stderr
    (tune.cwd / "configs" / "a.yml").write_text(AXOLOTL.replace("base_model", "base"))
    (tune.cwd / "configs" / "c.yml").write_text(AXOLOTL + "a: [\n")
    found = tune.json("import", "configs", "--check", code=3)
    assert {each["file"]: each["trains"] for each in found["files"]}["c.yml"] is True
