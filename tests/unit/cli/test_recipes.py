"""The recipes that come along: each runs as it is copied, says the truth about itself, and nothing outside its folder is reached."""

import re
from pathlib import Path

import pytest

from backends.compile import _inputs
from backends.models import MODELS
from backends.recipe.parse import parse
from orchestrator.cli import run
from orchestrator.client.library import taken

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "recipes"
LIBRARY = {str(path.relative_to(RECIPES).with_suffix("")): path for path in sorted(RECIPES.rglob("*.yaml"))}
BYTES = {
    "weights, gradients and optimizer state": 8,
    "weights, gradients and optimizer state in 8 bits": 6,
    "weights, gradients and optimizer state and the frozen start model": 10,
    "the frozen weights": 2,
    "the teacher's frozen weights": 2,
}
"""What a parameter takes in bfloat16, in bytes; with mixed precision all of it is float32."""


def read(path):
    """A recipe file as the product reads it."""
    return parse(path.read_text(), name=str(path), base=str(path.parent.absolute()))


def test_all_are_listed(tune):
    """`tune recipes` has a line for each, with its model, method, adapter and devices."""
    lines = tune("recipes").stdout.splitlines()
    listed = {line.split()[0]: line.split() for line in lines[1:] if line}
    assert set(listed) == set(LIBRARY)
    assert listed["llama-3.1-8b/hosts"][1:5] == ["meta-llama/Llama-3.1-8B", "sft", "none", "16"]
    assert listed["rehearsal/dpo"][1:5] == ["random", "dpo", "lora", "1"]


def test_the_list_is_a_document(tune):
    """`tune recipes ls --json` says the same as one document."""
    said = {each["name"]: each for each in tune.json("recipes", "ls")}
    assert set(said) == set(LIBRARY)
    assert said["llama-3.3-70b/lora"] == {
        "name": "llama-3.3-70b/lora",
        "family": "llama-3.3-70b",
        "model": "meta-llama/Llama-3.3-70B-Instruct",
        "method": "sft",
        "adapter": "lora",
        "devices": 8,
        "accelerator": "cuda",
        "about": read(LIBRARY["llama-3.3-70b/lora"]).description,
        "memory_gib": None,
    }


def test_those_that_fit_and_are_about_it(tune):
    """`--for` leaves those that a device of that size holds, with what they take; `--task` those about all of its words."""
    small = {each["name"]: each["memory_gib"] for each in tune.json("recipes", "--for", "24GB")}
    large = {each["name"] for each in tune.json("recipes", "--for", "80 GiB")}
    assert "llama-3.1-8b/qlora" in small
    assert "llama-3.1-8b/full-one-device" not in small
    assert set(small) < large < set(LIBRARY)
    assert all(0 < each <= 24 for each in small.values())
    tools = [each["name"] for each in tune.json("recipes", "--for", "24GB", "--task", "tools")]
    assert tools == ["qwen3-8b/tools"]
    said = tune("recipes", "--task", "DPO", "--task", "smollm2").stdout.splitlines()
    assert [line.split()[0] for line in said] == ["NAME", "smollm2-135m/dpo"]
    assert "no recipe is about that" in tune("recipes", "--task", "basketweaving").stderr
    assert "compares the vectors of whole texts" in tune("recipes", "--task", "embeddings").stderr
    assert "--for much: should be the memory of one device: 24GB" in tune("recipes", "--for", "much", code=2).stderr


def test_one_is_shown_as_it_is(tune):
    """`tune recipes show` prints the file, comments and all; its name may be written as a path."""
    text = LIBRARY["llama-3.2-1b/lora"].read_text()
    assert tune("recipes", "show", "llama-3.2-1b/lora").stdout == text
    assert tune("recipes", "show", "recipes/llama-3.2-1b/lora.yaml").stdout == text


@pytest.mark.parametrize("name", ["../pyproject", "/etc/passwd", "data/../../README", "..", "", "llama-3.2-1b"])
@pytest.mark.parametrize("action", ["show", "cp"])
def test_only_recipes_are_reached(tune, action, name):
    """A name that is not one of the recipes is refused, whatever it points to."""
    assert "is not one of the recipes" in tune("recipes", action, name, code=2).stderr
    assert list(tune.cwd.iterdir()) == []


def test_a_near_name_is_offered(tune):
    """A mistyped name gets the nearest one."""
    assert "did you mean llama-3.2-1b/lora?" in tune("recipes", "cp", "llama3.2-1b/lora", code=2).stderr


@pytest.mark.parametrize("name", LIBRARY)
def test_a_copy_is_the_recipe(name, tmp_path, capsys):
    """A copy means the same, keeps its comments, and all files that it names lie where it says."""
    assert run(["recipes", "cp", name, str(tmp_path)]) == 0
    copy = tmp_path / LIBRARY[name].name
    assert capsys.readouterr().out.splitlines()[-1] == str(copy)
    there, here = read(LIBRARY[name]), read(copy)
    for before, after in zip(_inputs(there.flat(), there.base), _inputs(here.flat(), here.base), strict=True):
        assert Path(after.source).is_relative_to(tmp_path)
        assert Path(after.source).read_bytes() == Path(before.source).resolve().read_bytes()
    named = {"data.train", "data.eval", "method.grpo.rewards"}
    assert {k: v for k, v in here.flat().items() if k not in named} == {k: v for k, v in there.flat().items() if k not in named}
    lines, originals = copy.read_text().splitlines(), LIBRARY[name].read_text().splitlines()
    assert lines[0] == originals[0].replace(f"recipes/{name}.yaml", str(copy))
    assert [line.partition("#")[2] for line in lines[1:]] == [line.partition("#")[2] for line in originals[1:]]


def test_copies_share_data_and_never_overwrite(tune):
    """Recipes copied into one folder share a file of data; what is there already stays as it is, and then nothing is copied."""
    tune("recipes", "cp", "llama-3.2-1b/lora", "here")
    tune("recipes", "cp", "llama-3.2-1b/full", "here")
    assert "lora.yaml: is there already" in tune("recipes", "cp", "qwen2.5-0.5b/lora", "here", code=2).stderr
    (tune.cwd / "here" / "data" / "quickstart.jsonl").write_text("mine\n")
    assert "quickstart.jsonl: is there already" in tune("recipes", "cp", "llama-3.1-8b/tpu", "here", code=2).stderr
    assert sorted(p.name for p in (tune.cwd / "here").iterdir()) == ["data", "full.yaml", "lora.yaml"]
    assert (tune.cwd / "here" / "data" / "quickstart.jsonl").read_text() == "mine\n"


def test_a_copy_is_ready_to_run(tune):
    """The copy's own first line is the command that runs it."""
    tune("recipes", "cp", "rehearsal/lora", "sub/folder")
    command = (tune.cwd / "sub/folder/lora.yaml").read_text().splitlines()[0]
    words = command.removeprefix("# tune ").removesuffix(" --follow").split()
    assert words == ["submit", "sub/folder/lora.yaml"]
    assert "20 optimizer steps" in tune(*words, "--dry-run").stdout


@pytest.mark.parametrize("name", LIBRARY)
def test_a_recipe_says_what_it_is(name):
    """It opens with the command that runs it, is named after its file, and describes itself."""
    recipe = read(LIBRARY[name])
    assert LIBRARY[name].read_text().splitlines()[0].endswith(f"tune submit recipes/{name}.yaml --follow")
    assert recipe.name == name.replace("/", "-")
    assert recipe.description
    assert recipe.model.init == "random" or recipe.model.id in MODELS


DEVICE = re.compile(r"one device of (\d+) GB")
"""Of a recipe's description: what it needs."""


def test_the_list_is_short():
    """What people look for is found by reading: at most 45."""
    assert len(LIBRARY) <= 45


@pytest.mark.parametrize("name", [name for name, path in LIBRARY.items() if DEVICE.search(path.read_text())])
def test_one_device_of_that_size_holds_it(name):
    """The size of the device that a recipe names is not less than what its training takes, where that can be computed."""
    assert (taken(name) or 0) <= int(DEVICE.search(read(LIBRARY[name]).description)[1])


def test_each_says_what_it_runs_on():
    """The description names the device by its size or the devices by their number; a random model runs on a CPU."""
    number = re.compile(r"one device|two devices|(two hosts of )?eight (TPU chips|devices)|CPU")
    silent = {name for name, path in LIBRARY.items() if not number.search(read(path).description)}
    assert silent == {name for name in LIBRARY if name.startswith("rehearsal/")}


COMPUTED = re.compile(r"# Memory, computed: ([\d.]+) GiB( on each device)? for (.+?)(?:;|$)", re.MULTILINE)


@pytest.mark.parametrize("name", [name for name, path in LIBRARY.items() if "computed" in path.read_text()])
def test_computed_memory_is_right(name):
    """A figure of memory in a recipe is what the model's parameters take, over the devices that share them."""
    recipe = read(LIBRARY[name])
    shares = recipe.resources.devices * recipe.resources.hosts
    for said, each, what in COMPUTED.findall(LIBRARY[name].read_text()):
        model = MODELS[recipe.method.distill.teacher if "teacher" in what else recipe.model.id]
        assert (shares > 1) == bool(each)
        wide = {"bf16": 1, "bf16-mixed": 2, "fp32": 2}[recipe.train.precision]
        assert float(said) == pytest.approx(wide * model.parameters * BYTES[what] / shares / 2**30, abs=0.05)
