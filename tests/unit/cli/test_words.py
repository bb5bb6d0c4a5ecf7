"""The command line as a user meets it: exit codes, what is printed where, and that looking changes nothing."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from backends.recipe.flat import leaves
from backends.registry import BACKENDS
from orchestrator.cli.argument_parser import GROUPS
from orchestrator.cli.examples import EXAMPLES
from orchestrator.cli.parser import parser

ROOT = Path(__file__).parents[3]

QUICKSTART = ROOT / "recipes" / "quickstart.yaml"


def everything(folder):
    """Paths below a folder, but for the shared rooms."""
    return sorted(str(p) for p in folder.rglob("*") if "/envs/" not in str(p) and "/cache/" not in str(p))


def test_help(tune):
    """`tune` alone and `tune --help` list the commands."""
    assert tune().stdout == tune("--help").stdout
    assert "submit" in tune("--help").stdout


def test_every_command_is_in_one_group():
    """The groups by which commands are made name exactly the commands there are."""
    from orchestrator.cli import parser as words  # noqa: PLC0415

    def names(first=""):
        return set(words.parser(first)._subparsers._group_actions[0].choices)

    groups = [words.COMPILING, words.TRACKING, words.FOLLOWING, words.INSPECTING]
    shown = [name for names in GROUPS.values() for name in names]
    assert sorted(shown) == sorted(name for group in groups for name in group)
    assert names() == {name for group in groups for name in group}
    assert all(names(name) == set(group) for group in groups for name in group)


@pytest.mark.parametrize("command", [name for names in GROUPS.values() for name in names])
def test_every_command_has_two_examples(command, capsys):
    """The help of each command ends with two examples of it, or three, and each is a command line that it takes."""
    assert len(EXAMPLES[command]) in (2, 3)
    for line in EXAMPLES[command]:
        name, *args = shlex.split(line.partition(" > ")[0])
        assert (name, args[0]) == ("tune", command)
        assert parser(command).parse_args(args).command == command
    with pytest.raises(SystemExit):
        parser(command).parse_args([command, "--help"])
    assert capsys.readouterr().out.splitlines()[-1 - len(EXAMPLES[command]) :] == [
        "examples:",
        *(f"  {line}" for line in EXAMPLES[command]),
    ]


def test_a_dry_run_is_pure(tune, home):
    """A dry run without any network prints files, commands and report, writes nothing, and twice the same bytes."""
    prefix = ("unshare", "-n") if shutil.which("unshare") and os.geteuid() == 0 else ()
    before = everything(home.parent)
    first, second = (tune("submit", QUICKSTART, "--dry-run", prefix=prefix).stdout for _ in range(2))
    assert first == second
    assert everything(home.parent) == before
    for word in ("litgpt.yaml", "-m litgpt finetune_full", "150 optimizer steps", "defaulted"):
        assert word in first


def test_a_dry_run_is_what_is_sent(tune):
    """The plan of a dry run, as JSON, is the plan that is stored on submit."""
    assert tune.json("submit", QUICKSTART, "--dry-run")["steps"][0]["argv"] == ["env/bin/python", "tune_model.py", "model.json"]


@pytest.mark.parametrize(("word", "meant"), [("sumbit", "submit"), ("ls", "status"), ("stop", "cancel"), ("help", "--help")])
def test_a_command_by_another_name(tune, word, meant):
    """A mistyped command, and what other tools call it, leads to the one that is there."""
    said = tune(word, code=2).stderr
    assert f"there is no command '{word}'" in said
    assert f"did you mean tune {meant}?" in said


@pytest.mark.parametrize(
    ("key", "leaf"),
    [
        ("learning_rate", "optim.lr"),
        ("lora_r", "method.lora.rank"),
        ("micro_batch_size", "train.batch.micro"),
        ("num_generations", "method.grpo.generations"),
    ],
)
def test_explain_knows_the_trainers_names(tune, key, leaf):
    """Who asks by a trainer's own key is told which leaf it is, and whose key."""
    said = " ".join(tune("explain", key, code=2).stderr.split())
    assert leaf in said
    assert "min_lr" not in said  # which its row reads, too, and which never changes that key
    assert "axolotl" in said


def test_translate_contract(tune):
    """`tune translate --to all --json` is the document that the design promises, for every trainer."""
    said = tune.json("translate", ROOT / "recipes" / "llama-3.2-1b" / "lora.yaml", "--to", "all")
    assert said["recipe"] == "llama-3.2-1b-lora"
    assert set(said["backends"]) == set(BACKENDS)
    for each in said["backends"].values():
        assert set(each) == {"files", "steps", "env", "report", "expressible"}
        assert each["expressible"] is True
        assert all(isinstance(word, str) for step in each["steps"] for word in step)
        assert {"leaf", "status", "native", "why"} <= set(each["report"][0])
        assert {line["status"] for line in each["report"]} <= {"same", "converted", "defaulted", "approximated", "lost", "native"}


def test_five_mistakes_are_five_lines(tune):
    """A recipe with five mistakes names all five with line numbers and ends with 2."""
    (tune.cwd / "r.yaml").write_text(
        "version: 1\nname: bad name\nmodel: {id: org/name}\ndata:\n  train: a.jsonl\n  formt: text\ntrain:\n  steps: 1.5\n  batch: {global: 0}\noptim: {lr: fast}\n"
    )
    said = tune("submit", "r.yaml", code=2).stderr
    for place in (
        "r.yaml:2: name:",
        "r.yaml:6: data.formt:",
        "r.yaml:8: train.steps:",
        "r.yaml:9: train.batch.global:",
        "r.yaml:10: optim.lr:",
    ):
        assert place in said, said
    assert "did you mean format?" in said


def test_what_litgpt_cannot_express(tune):
    """A recipe that LitGPT cannot express ends with 3 and names each leaf with its reason; accepted by name, it goes on."""
    (tune.cwd / "r.yaml").write_text(
        "version: 1\nname: hard\nmodel: {id: Qwen/Qwen2.5-0.5B}\nmethod: {adapter: lora}\n"
        "data: {train: rows.jsonl, format: instruct}\ntrain: {steps: 10, grad_clip: 1.0, batch: {global: 8}}\n"
        "optim: {lr: 1e-4, schedule: linear, warmup_steps: 2}\ncheckpoint: {every: 5, resume: true}\n"
    )
    said = tune("submit", "r.yaml", "--to", "litgpt", code=3).stderr
    lost = ("train.grad_clip", "optim.schedule", "checkpoint.resume")
    for leaf in lost:
        assert leaf in said
    words = [word for leaf in lost for word in ("--accept", leaf)]
    assert "accepted" in tune("submit", "r.yaml", "--to", "litgpt", "--dry-run", *words).stdout


def test_what_cannot_be_accepted_is_not_offered(tune):
    """A loss that would make it another job is no hint, and stands even when it is accepted."""
    (tune.cwd / "r.yaml").write_text(
        "version: 1\nname: hard\nmodel: {id: Qwen/Qwen2.5-0.5B}\nmethod: {kind: dpo}\n"
        "data: {train: rows.jsonl, format: preference}\ntrain: {steps: 10, batch: {global: 8}}\n"
        "optim: {lr: 1e-4, schedule: linear, warmup_steps: 2}\n"
    )
    said = tune("submit", "r.yaml", "--to", "litgpt", "--accept", "method.kind", code=3).stderr
    assert "never    method.kind" in said
    assert "--accept method.kind" not in said
    assert "to run without it: --accept optim.schedule; the others cannot be accepted" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("submit", "nope.yaml"), "no such file"),
        (("submit", "."), "is a folder"),
        (("submit", QUICKSTART, "--to", "litgtp"), "did you mean litgpt?"),
        (("submit", QUICKSTART, "--on", "locl"), "did you mean local?"),
        (("submit", QUICKSTART, "--accept", "data.pak"), "did you mean data.pack?"),
        (("submit", QUICKSTART, "--id", "../x"), "--id"),
        (("submit", QUICKSTART, "--set", "train.stepz=3"), "did you mean train.steps?"),
        (("submit", QUICKSTART, "--set", "data.train=./nope.jsonl"), "no such file"),
        (("explain", "optim.lrr"), "did you mean optim.lr?"),
        (("status", "nope"), "nothing was submitted yet"),
        (("recipes", "show", "quickstrat"), "did you mean quickstart?"),
        (("submitt",), "submit"),
    ],
)
def test_wrong_words(tune, words, hint):
    """Wrong words end with 2 and say what would be right."""
    assert hint in tune(*words, code=2).stderr


def test_a_gated_model_without_a_token(tune, monkeypatch):
    """A gated model without a token is named before anything starts."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = tune("submit", ROOT / "recipes" / "llama-3.2-1b" / "lora.yaml", code=2).stderr
    assert "HF_TOKEN" in said
    assert "gated" in said


def test_a_token_is_nowhere(tune, home, monkeypatch):
    """A secret's value is in no dry run."""
    monkeypatch.setenv("HF_TOKEN", "hf_canary_5f1c")
    said = tune("submit", ROOT / "recipes" / "llama-3.2-1b" / "lora.yaml", "--dry-run", "--verbose")
    assert "HF_TOKEN" in said.stdout
    assert "canary" not in said.stdout + said.stderr


def test_explain(tune):
    """A leaf is explained with its meaning, unit, default, every trainer's spelling, and what it lacks; a recipe leaf by leaf."""
    said = tune("explain", "method.lora.rank").stdout
    assert "integer > 0, default 16" in said
    assert "lora_r" in said
    assert "model.lora_rank" in said
    said = tune("explain", "optim.schedule").stdout
    assert "never" in said
    assert "https://github.com/" in said
    assert "optim.lr" in tune("explain", QUICKSTART).stdout
    assert set(tune.json("explain", QUICKSTART)) == set(BACKENDS)
    entry = tune.json("explain", "optim.lr")
    assert entry["leaf"] == "optim.lr"
    assert entry["trainers"]["torchtune"]["cases"][0]["native"][0] == "optimizer.lr"


def test_the_matrix(tune):
    """What each trainer has is printed as two tables, and as one document."""
    said = tune("explain", "--matrix").stdout
    assert "METHOD.KIND" in said
    assert "optim.schedule" in said
    assert [each["leaf"] for each in tune.json("explain", "--matrix")["leaves"]] == list(leaves())
    assert "hint: `tune explain optim.lr`" in tune("explain", code=2).stderr
    assert "resources.devices" in tune("explain", "resources", code=2).stderr


def test_the_end_of_a_leaf_is_enough(tune):
    """`lora.rank` is method.lora.rank; an end that several leaves share names them."""
    assert tune("explain", "lora.rank").stdout.startswith("method.lora.rank: ")
    assert "train.steps" not in tune("explain", "every", code=2).stderr
    assert "eval.every or checkpoint.every or log.every?" in tune("explain", "every", code=2).stderr


def test_side_by_side(tune, monkeypatch):
    """All trainers stand in one table: keys and values of each, what is lost where and why, and who can do it."""
    monkeypatch.setenv("COLUMNS", "200")
    said = tune("translate", QUICKSTART, "--set", "eval.every=5", "--set", "data.eval=data/quickstart.jsonl").stdout
    head, *_ = said.splitlines()
    assert head.split() == ["SETTING", *(name.upper() for name in BACKENDS)]
    assert "optimizer.init_args.lr = " in said
    assert "lost: never, torchtune 0.6.1" in said
    assert "torchtune: cannot express this recipe: data.eval, eval.every" in said
    assert "litgpt.yaml" not in said
    assert "===== litgpt =====" in tune("translate", QUICKSTART, "--verbose").stdout


def test_nobody_can(tune):
    """Exit code 3 is for the trainer that is named, or for all of them."""
    lost = ("--set", "eval.every=5", "--set", "data.eval=data/quickstart.jsonl")
    tune("translate", QUICKSTART, *lost, "--to", "torchtune", code=3)
    tune("translate", QUICKSTART, *lost, "--to", "all", code=0)


def test_recipes_are_copied_with_their_data(tune):
    """`tune recipes cp` leaves a recipe that runs where it lies."""
    tune("recipes", "cp", "qwen2.5-0.5b/lora", "here")
    assert tune("submit", "here/lora.yaml", "--dry-run").stdout
    assert (tune.cwd / "here" / "data" / "quickstart.jsonl").exists()
    assert "is there already" in tune("recipes", "cp", "qwen2.5-0.5b/lora", "here", code=2).stderr


def test_translate_writes_files(tune):
    """`--out` writes a folder a trainer."""
    tune("translate", QUICKSTART, "--out", "native")
    assert (tune.cwd / "native" / "litgpt" / "litgpt.yaml").exists()
    assert (tune.cwd / "native" / "torchtune" / "torchtune.yaml").exists()


def test_schema(tune):
    """The JSON Schema describes every section."""
    assert {"model", "data", "train", "optim"} <= set(json.loads(tune("schema").stdout)["properties"])


def test_a_wrong_clusters_file(tune):
    """clusters.yaml is strict, with line numbers."""
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  box:\n    kind: local\n    devics: 2\n")
    assert "clusters.yaml:5: targets.box.devics" in tune("targets", code=2).stderr
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets:\n  box: {kind: local, accelerator: cpu, devices: 2}\n")
    assert [t["name"] for t in tune.json("targets")] == ["local", "box"]


def test_a_store_that_cannot_be_reached(tune, monkeypatch):
    """A store that does not answer ends with 4 and a sentence."""
    monkeypatch.setenv("TUNE_STORE", "postgresql://nobody@127.0.0.1:1/none")
    assert tune("status", code=4).stderr
    monkeypatch.setenv("TUNE_STORE", "mysql://x")
    assert "postgresql://" in tune("status", code=4).stderr


def test_more_devices_than_there_are(tune):
    """A wish for more devices than the target has is one line, whatever the trainers can, and nothing is offered to accept."""
    said = tune("submit", QUICKSTART, "--set", "resources.devices=2", code=3).stderr
    assert said.splitlines()[0] == "resources.devices: target local has 1, the recipe asks for 2"
    assert "--accept" not in said
    assert tune("translate", QUICKSTART, "--on", "local", "--set", "resources.devices=2", code=3).stderr == said


def test_a_recipe_for_many_devices_translates_anywhere(tune):
    """Without --on a recipe is translated for a machine such as it asks for."""
    wish = ("--set", "resources.devices=8", "--set", "resources.hosts=2", "--set", "resources.accelerator=cuda")
    said = tune.json("translate", QUICKSTART, *wish, code=None)
    whys = [line["why"] for each in said["backends"].values() for line in each["report"] if line["status"] == "lost"]
    assert not [why for why in whys if "target" in why]


def test_another_accelerator_is_refused(tune):
    """A recipe that asks for CUDA does not quietly run on a CPU."""
    words = ("submit", QUICKSTART, "--set", "resources.accelerator=cuda")
    assert "target local: has no GPU, and the recipe asks for cuda" in tune(*words, code=3).stderr
