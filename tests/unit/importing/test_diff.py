"""`tune diff` as a user runs it, and what it takes for the same."""

import json
from itertools import pairwise

import pytest

from backends.analysis.diff import compare, decides, of_native, of_recipe
from backends.dialect import Refused
from backends.importing.convert import convert
from backends.native_config import Unreadable
from backends.recipe.flat import leaves
from backends.recipe.parse import parse
from orchestrator.render.diff import diff_text, document
from tests.unit.importing.conftest import COUNTS
from tests.unit.importing.test_dialects import AXOLOTL, TORCHTUNE

LITGPT = """
checkpoint_dir: checkpoints/Qwen/Qwen2.5-0.5B
data: {class_path: litgpt.data.JSON, init_args: {json_path: ./rows.jsonl, mask_prompt: false, val_split_fraction: 0.1}}
train: {global_batch_size: 8, micro_batch_size: 2, epochs: 3, max_seq_length: 512}
lora_r: 8
"""


def side(text, name="x.yaml"):
    """A native config."""
    return of_native(name, convert(text, name=name))


def apart(one, other):
    """Leaf -> both values, where two configs differ."""
    return {each.leaf: (each.a, each.b) for each in compare(side(one), side(other)).leaves}


def test_two_trainers(tune):
    """Values side by side with their origin and the leaf's meaning, and the difference in words; the exit code is 1."""
    (tune.cwd / "a.yml").write_text(AXOLOTL)
    (tune.cwd / "l.yaml").write_text(LITGPT)
    text = tune("diff", "a.yml", "l.yaml", code=1).stdout
    assert "axolotl masks the prompt, litgpt trains on the prompt too" in text
    assert "B  true  (data.init_args.mask_prompt)" in text
    assert "A  1.0  (axolotl's default)" in text
    assert "Prompt tokens carry loss too." in text
    assert "litgpt: data.init_args.val_split_fraction  A -  B 0.1" in text
    assert "LitGPT averages the means of micro-batches instead of all tokens" in " ".join(text.split())


def test_a_config_and_its_recipe(tune):
    """What import made of a config means the same, from either side; the exit code is 0."""
    for name, text in (("t.yaml", TORCHTUNE), ("a.yml", AXOLOTL)):
        (tune.cwd / name).write_text(text)
        tune("import", name, "-o", f"{name}.recipe")
        assert tune("diff", name, f"{name}.recipe").stdout.endswith("equal in meaning\n")
        assert tune.json("diff", f"{name}.recipe", name)["equal"]


def test_the_document(tune):
    """`--json` has both sides, each leaf with its values and origin, keys with no recipe equivalent, ways of each trainer."""
    (tune.cwd / "a.yml").write_text(AXOLOTL + "chat_template: llama3\n")
    (tune.cwd / "b.yml").write_text(AXOLOTL.replace("2e-4", "1e-4") + "logging_steps: 5\n")
    found = tune.json("diff", "a.yml", "b.yml", code=1)
    assert (found["equal"], found["a"]["trainer"], found["ways"]) == (False, "axolotl", [])
    rate, logged = found["leaves"]
    assert (rate["leaf"], rate["decides"], rate["a"]) == ("optim.lr", True, {"value": 2e-4, "from": "learning_rate"})
    assert (logged["leaf"], logged["decides"]) == ("log.every", False)
    assert rate["meaning"] == "Highest learning rate."
    assert [(each["key"], each["a"], each["b"]) for each in found["keys"]] == [
        ("chat_template", {"value": "llama3"}, {"value": None})
    ]


def test_wrong_words(tune):
    """No file, no config, no such trainer, a third trainer: the exit code is 2."""
    (tune.cwd / "a.yml").write_text(AXOLOTL)
    (tune.cwd / "pod.yml").write_text("kind: Pod\n")
    (tune.cwd / "bad.yml").write_text("version: 1\nmodel: {id: x/y}\ntrain: {steps: -1}\n")
    assert "no such file" in tune("diff", "a.yml", "b.yml", code=2).stderr
    assert "a config of none of" in tune("diff", "a.yml", "pod.yml", code=2).stderr
    assert "bad.yml:3: train.steps" in tune("diff", "bad.yml", "a.yml", code=2).stderr
    assert "--from peft: should be" in tune("diff", "a.yml", "a.yml", "--from", "peft", code=2).stderr
    assert "given once or twice" in tune("diff", "a.yml", "a.yml", *["--from", "axolotl"] * 3, code=2).stderr


def test_whose_config(tune):
    """`--from` given twice names the trainer of A, then of B."""
    (tune.cwd / "a.yml").write_text(AXOLOTL)
    (tune.cwd / "t.yaml").write_text(TORCHTUNE)
    assert tune.json("diff", "a.yml", "t.yaml", "--from", "axolotl", "--from", "torchtune", code=1)["b"]["trainer"] == "torchtune"
    assert "no config of axolotl" in tune("diff", "a.yml", "t.yaml", "--from", "axolotl", code=2).stderr


def test_defaults_count():
    """A default that is written out is no difference; that of another trainer is one."""
    assert not apart(AXOLOTL, AXOLOTL + "max_grad_norm: 1.0\nwarmup_ratio: 0.03\nsequence_len: 512\n")
    found = apart(AXOLOTL, LITGPT)
    assert found["train.grad_clip"] == (1.0, None)
    assert found["optim.weight_decay"] == (0.0, 0.01)


def test_spellings_do_not_count():
    """Warm-up in steps or as a share, one device with more accumulation, a list in another order: the same."""
    steps = AXOLOTL.replace("num_epochs: 3", "max_steps: 100")
    assert not apart(steps + "warmup_ratio: 0.1\n", steps + "warmup_steps: 10\n")
    lora = AXOLOTL + "adapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: "
    assert not apart(lora + "[q_proj, v_proj]\n", lora + "[v_proj, q_proj]\n")
    assert "train.batch.global" not in apart(
        AXOLOTL, AXOLOTL.replace("micro_batch_size: 2", "micro_batch_size: 1").replace("steps: 4", "steps: 8")
    )


@pytest.mark.parametrize("line", ["logging_steps: 10", "gradient_checkpointing: true", "save_steps: 7", "wandb_project: x"])
def test_the_same_result(line):
    """What is saved, watched, or moved in memory is told, but both learn the same."""
    assert compare(side(AXOLOTL), side(f"{AXOLOTL}{line}\n")).equal


def test_a_key_that_no_leaf_says():
    """It is listed with what it does, and makes a difference; of the same trainer its default counts."""
    found = compare(side(AXOLOTL + "relora: true\n"), side(AXOLOTL))
    assert ([each.key for each in found.keys], found.equal) == (["relora"], False)
    assert "axolotl: relora  A true" in diff_text(found)


def test_every_leaf_has_a_place():
    """Each leaf but names and native keys either decides what is learnt or is said not to."""
    quiet = {leaf for leaf in leaves() if not decides(leaf)}
    assert {"train.batch.micro", "eval.every", "checkpoint.keep", "log.every", "resources.devices"} <= quiet
    assert quiet.isdisjoint({"train.batch.global", "train.precision", "data.pack", "data.max_length", "optim.lr", "train.seed"})


def sample(corpus):
    """Every sixth config that is one."""
    for trainer in COUNTS:
        texts = corpus(trainer)
        for path, text in list(texts.files.items())[::6]:
            try:
                yield path, convert(text, name="x.yaml", beside=texts.beside(path))
            except (Refused, Unreadable):
                continue


def test_each_config_means_what_its_recipe_means(corpus):
    """Leaf by leaf; the keys in which they differ are those that import reports as not modelled."""
    count = 0
    for path, found in sample(corpus):
        native = of_native(path, found)
        recipe = of_recipe("recipe.yaml", parse(json.dumps(found.values), base="/"))
        difference = compare(native, recipe)
        told = {each.key for each in found.entries if each.fate == "unmodelled"}
        assert (difference.leaves, {each.key for each in difference.keys} - told) == ((), set()), path
        count += 1
    assert count > 60


def test_each_config_beside_the_next(corpus):
    """A config is the same as itself; two that differ make a text and a document, whichever trainers they are for."""
    sides = [of_native(path, found) for path, found in sample(corpus)]
    for one, other in pairwise([*sides, sides[0]]):
        assert compare(one, one).equal
        found = compare(one, other)
        assert json.loads(json.dumps(document(found)))["equal"] == found.equal == diff_text(found).endswith("equal in meaning")
