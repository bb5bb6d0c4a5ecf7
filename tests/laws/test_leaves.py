"""Every leaf and every section has every fact, and a leaf that has none yet crashes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backends.analysis.capabilities import ADAPTERS, KINDS
from backends.recipe.docs import meanings
from backends.recipe.facts import Also
from backends.recipe.flat import REQUIRED, choices, defaults, field_of, is_nullable, leaves, nest, sections
from backends.recipe.leaves import FORMATS, LEAVES, SECTIONS, decides, facts, rank
from backends.recipe.needs import asks, completed, has_effect, meaning_of, needs_of, requests
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError

ROOT = Path(__file__).parents[2]
BASE = {
    **defaults(),
    **{"version": 1, "name": "law", "model.id": "org/name", "data.train": "rows.jsonl", "data.format": "instruct"},
    **{"train.steps": 12, "train.batch.global": 8, "optim.lr": 1e-4},
}
"""The least recipe, as dotted names."""


def written(change):
    """The text of the least recipe with some leaves changed, and nothing in it that is left at our default."""
    flat = {**BASE, **change}
    return json.dumps(nest({leaf: value for leaf, value in flat.items() if leaf in change or value != defaults()[leaf]}))


def gaps():
    """Every fact that is missing, by section and leaf."""
    out = [f"{section}: its place among the sections (SECTIONS)" for section in sections() if section not in SECTIONS]
    for leaf in leaves():
        owner, field = field_of(leaf)
        fact = LEAVES.get(leaf)
        out += [f"{leaf}: whether it decides the result (effect)"] if fact is None else []
        out += [] if facts(leaf).samples or choices(leaf) else [f"{leaf}: values worth asking for (samples)"]
        out += [f"{leaf}: what null means (null)"] if is_nullable(leaf) and not facts(leaf).null else []
        out += [] if meanings().get((owner.__name__, field.name)) else [f"{leaf}: its meaning (the text below the field)"]
    return out


def test_every_fact_is_there():
    """Each leaf of the schema has its effect, sample values, meaning and what null means; each section its place."""
    assert not gaps(), "\n".join(gaps())


def test_nothing_else_is_there():
    """Facts are given for leaves and sections of the schema only, leaves in its order; null means something where it is allowed."""
    assert list(LEAVES) == [leaf for leaf in leaves() if leaf in LEAVES]
    assert set(SECTIONS) <= set(sections())
    assert [leaf for leaf in LEAVES if LEAVES[leaf].null and not is_nullable(leaf)] == []
    assert set(FORMATS) == set(KINDS)
    assert {form for forms in FORMATS.values() for form in forms} == set(choices("data.format"))


def test_needs_name_leaves():
    """What a leaf needs is said of leaves that there are."""
    assert {each for leaf in leaves() for need in needs_of(leaf) for each in need.leaves} <= set(leaves())


@pytest.mark.parametrize("leaf", [leaf for leaf in leaves() if leaf != "version"])
def test_samples_are_recipes(leaf):
    """Each sample value, with what it needs beside it, is a recipe that the parser takes and in which the leaf has an effect."""
    for kind, adapter in ((k, a) for k in KINDS for a in ADAPTERS):
        shape = {"method.kind": kind, "method.adapter": adapter, "data.format": FORMATS[kind][0]}
        base = {**BASE, **shape}
        base |= (least := completed(shape, base))
        for change in requests(leaf, base):
            if not has_effect(leaf, {**base, **change}):
                continue
            flat = parse(written({**least, **change}), base="/x").flat()
            assert flat[leaf] == change[leaf]
            return
    pytest.fail("no recipe has it")


@pytest.mark.parametrize("leaf", leaves())
def test_some_sample_is_no_default(leaf):
    """Asking for a sample value is not asking for the default again."""
    values = [each.value if isinstance(each, Also) else each for each in facts(leaf).samples or choices(leaf)]
    assert any(value != defaults()[leaf] for value in values) or leaf in ("native", "release", "version")


REFUSED = [leaf for leaf in leaves() if any(need.refused for need in needs_of(leaf))]


@pytest.mark.parametrize("leaf", REFUSED)
def test_what_has_no_effect_is_refused(leaf):
    """A recipe that gives a leaf where it has no effect is refused, by the leaf or its section."""
    value = next(each for each in facts(leaf).samples or choices(leaf) if asks(each))
    breaking = {"data.format": "text", "data.train": [{"path": "a.jsonl"}], "optim.warmup_steps": 2}
    base = {**BASE, **breaking} if leaf in ("data.template", "data.system", "data.train_split", "optim.warmup_share") else BASE
    if leaf == "data.eval_share":
        base = {**BASE, "data.eval": "val.jsonl"}
    if leaf in ("data.pack", "data.train_on_prompt", "train.neftune_alpha"):
        base = {**BASE, "method.kind": "dpo", "data.format": "preference"}
    if leaf in ("model.tokens", "model.special_tokens"):
        base = {**BASE, "method.kind": "distill", "method.distill.teacher": "./teacher"}
    change = {each: base[each] for each in base if base[each] != BASE[each]} | {leaf: value}
    assert not has_effect(leaf, {**base, leaf: value})
    with pytest.raises(RecipeError) as caught:
        parse(written(change))
    found = [problem for problem in caught.value.problems if leaf == problem.path or leaf.startswith(f"{problem.path}.")]
    assert found, caught.value.problems
    assert all("{" not in problem.rule for problem in found)


def test_null_stands_for_a_value():
    """Where null stands for a value that the recipe tells, that value is one."""
    for leaf in leaves():
        if callable(facts(leaf).null):
            assert meaning_of(leaf, BASE) not in (None, REQUIRED), leaf
    assert meaning_of("train.batch.micro", {**BASE, "resources.devices": 4}) == 2
    assert meaning_of("method.preference.beta", {**BASE, "method.kind": "simpo"}) == 2.0
    assert meaning_of("method.lora.targets", {**BASE, "method.lora.targets": ["v", "q"]}) == ["q", "v"]


def test_facts_load_no_schema():
    """Whoever only reads metrics imports the trainers and the facts of leaves without pydantic, which is slow to load."""
    code = "import sys, backends.registry, backends.recipe.leaves, backends.recipe.needs; print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_is_not_known_decides():
    """A leaf without facts is taken for one that decides, and stands last."""
    assert decides("scratch.depth")
    assert rank("scratch.depth") > max(map(rank, leaves()))


SCRATCH = '''class Scratch(Section):
    """A section."""

    depth: int | None = None


class Recipe(Section):'''


@pytest.fixture(scope="module")
def mutant(tmp_path_factory):
    """A copy of the tree with one more section of one leaf, of which nothing is said; runs commands in it."""
    root = tmp_path_factory.mktemp("mutant")
    for name in ("backends", "orchestrator", "recipes", "tests/laws"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    schema = root / "backends" / "recipe" / "schema.py"
    text = schema.read_text()
    assert text.count("class Recipe(Section):") == text.count("    retry: Retry = Retry()\n") == 1
    text = text.replace("class Recipe(Section):", SCRATCH)
    schema.write_text(
        text.replace("    retry: Retry = Retry()\n", "    retry: Retry = Retry()\n    scratch: Scratch = Scratch()\n")
    )

    def run(*argv, code=0):
        env = {**os.environ, "PYTHONPATH": str(root), "TUNE_HOME": str(root / "home")}
        done = subprocess.run(
            [sys.executable, *argv], cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    run.root = root
    return run


def test_a_new_section_is_named_by_the_laws(mutant):
    """With one more section of one leaf, the laws name each fact that it lacks, and each table without a row for it."""
    laws = ("tests/laws/test_leaves.py::test_every_fact_is_there", "tests/laws/test_tables.py::test_every_leaf_is_read_once")
    only = "every_fact or sft-none-shared"
    said = mutant("-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-k", only, *laws, code=1)
    for fact in ("effect", "samples", "null", "the text below the field"):
        assert any(line.startswith("E ") and "scratch.depth: " in line and fact in line for line in said.splitlines()), fact
    assert "scratch: its place among the sections" in said
    for trainer in ("litgpt", "torchtune", "axolotl", "maxtext"):
        assert f"FAILED tests/laws/test_tables.py::test_every_leaf_is_read_once[{trainer}-sft-none-shared]" in said


def test_a_new_section_crashes_nothing(mutant):
    """With it, recipes differ, translate, are explained and imported; whoever asks for it is told that no table has it yet."""
    tune = ("-m", "orchestrator.cli")
    text = (ROOT / "recipes" / "quickstart.yaml").read_text()
    (mutant.root / "a.yaml").write_text(text)
    (mutant.root / "b.yaml").write_text(text + "\nscratch: {depth: 3}\n")
    said = json.loads(mutant(*tune, "diff", "a.yaml", "b.yaml", "--json", code=1))
    assert [(each["leaf"], each["decides"]) for each in said["leaves"]] == [("scratch.depth", True)]
    refused = mutant(*tune, "translate", "b.yaml", "--to", "litgpt", code=3)
    assert "scratch.depth" in refused
    assert "no row of this trainer's table reads it yet" in " ".join(refused.split())
    assert "scratch.depth" in mutant(*tune, "explain", "scratch.depth")
    assert "scratch.depth" in mutant(*tune, "explain", "--matrix")
    (mutant.root / "litgpt.yaml").write_text(
        "checkpoint_dir: checkpoints/org/name\nlora_r: 8\ndata: {class_path: litgpt.data.Alpaca}\n"
    )
    mutant(*tune, "import", "litgpt.yaml")
