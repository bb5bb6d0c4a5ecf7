"""model.tokens: one start for every trainer, what cannot have it, and what is wrong with a list."""

import json

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.mapping.rows import Variant
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.registry import BACKENDS
from backends.stages.registry import context_of
from backends.target import Target
from backends.trainers.command.backend import fit
from orchestrator.verification.truth import wished

RECIPE = """
version: 1
name: t
model: {{id: {model}, tokens: {tokens}, special_tokens: {special}}}
method: {method}
data: {{train: rows.jsonl, format: {form}}}
train: {{steps: 9, batch: {{global: 8}}}}
optim: {{lr: 1e-4, warmup_steps: 2}}
{more}
"""


def recipe(model="Qwen/Qwen2.5-0.5B", tokens="[<a>, <b>]", special="[<c>]", method="{}", form="text", more="", **words):
    """A recipe with tokens."""
    text = RECIPE.format(model=model, tokens=tokens, special=special, method=method, form=form, more=more)
    return parse(text, base="/somewhere", **words)


def spec(made, name="model.json"):
    """A file of a plan."""
    return json.loads(next(file.text for file in made.files if file.path == name))


@pytest.mark.parametrize("trainer", sorted(BACKENDS))
@pytest.mark.parametrize("method", ["{}", "{adapter: lora}"])
def test_every_trainer_has_the_same_start(trainer, method):
    """The model step is told base and tokens, in order, and nothing but its link is where the model is looked for. The report says how
    new rows begin, and beside an adapter that they stay so.
    """
    made = plan(BACKENDS[trainer], recipe(method=method), Target())
    base = "cache/models/Qwen--Qwen2.5-0.5B@main"
    wish = {"init": "pretrained", "id": "Qwen/Qwen2.5-0.5B", "revision": "main", "folder": "start", "base": base}
    assert spec(made) == {**wish, "tokens": ["<a>", "<b>"], "special_tokens": ["<c>"]}
    assert spec(made, "data.json")["tokenizer"] == spec(made, "export.json")["model"] == "start"
    assert [file.path for file in made.files if base in file.text] == ["model.json"]
    assert "tune_added.py" in [file.path for file in made.files]
    step = next(each for each in made.steps if each.name == "model")
    assert step.made == "", "the link is made in each job"
    why = next(line.why for line in made.report.lines if line.leaf == "model.tokens")
    assert why.startswith("the model step adds them; the new rows begin as the mean of the old ones")
    assert ("they stay so, unless method.lora.train_fully has embeddings" in why) == (method != "{}")


def test_without_tokens_nothing_is_other():
    """Empty lists are no tokens: the plan is that of a recipe that is silent."""
    made = plan(BACKENDS["trl"], recipe(tokens="[]", special="[]"), Target())
    assert set(spec(made)) == {"init", "id", "revision", "folder"}
    assert spec(made, "data.json")["tokenizer"].startswith("cache/models/")


def test_a_name_is_no_model_with_other_ids():
    """torchtune's builders and LitGPT's names mean a number of ids: both read config.json instead."""
    named, grown = (plan(BACKENDS["torchtune"], recipe(tokens=each, special="[]"), Target()) for each in ("[]", "[<a>]"))
    configs = [next(file.text for file in made.files if file.path == "torchtune.yaml") for made in (named, grown)]
    assert ["torchtune.models." in each for each in configs] == [True, False]
    assert spec(plan(BACKENDS["litgpt"], recipe(), Target()), "convert.json")["name"] is None
    assert spec(plan(BACKENDS["litgpt"], recipe(tokens="[]", special="[]"), Target()), "convert.json")["name"] == "Qwen2.5-0.5B"


def test_the_plain_loop_starts_there_too():
    """tune verify's truth begins at the same folder."""
    wish = wished(BACKENDS["torchtune"], recipe().flat(), _context(recipe()))
    assert wish["model"] == "start"


def _context(made):
    from backends.compile import context_of as rows_know  # noqa: PLC0415 - another function of this name is used above

    return rows_know(made.flat(), Target())


def test_torchtunes_own_tokenizers_know_none_of_them():
    """With data.rendering: native torchtune reads the model's first files."""
    with pytest.raises(Inexpressible) as refused:
        plan(BACKENDS["torchtune"], recipe(form="instruct", sets=["data.rendering=native"]), Target())
    line = next(each for each in refused.value.report.refused if each.leaf == "model.tokens")
    assert "use data.rendering: shared" in line.why
    assert BACKENDS["torchtune"].table(Variant(native=True))


def test_a_command_has_the_folder():
    """`{model}` of a command line is the start with the tokens."""
    more = 'native: {command: {argv: ["{python}", x.py, "{model}"], environment: trl, metrics: {file: out/x.jsonl}}}'
    made = plan(fit(recipe(more=more)), recipe(more=more), Target(), accept=list(ACCEPTED))
    assert next(step.argv[-1] for step in made.steps if step.name == "train") == "start"
    assert spec(made)["tokens"] == ["<a>", "<b>"]


ACCEPTED = ("train.steps", "train.batch.global", "optim.lr", "optim.warmup_steps", "data.train")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokens": "[<a>, <a>]"}, "model.tokens.1: should be there once, in one of model.tokens and model.special_tokens"),
        ({"special": "[<b>]"}, "model.special_tokens.0: should be there once"),
        ({"tokens": '[""]'}, "model.tokens.0"),
        ({"tokens": "[7]"}, "model.tokens.0"),
        ({"tokens": "<a>"}, "model.tokens"),
        ({"tokens": json.dumps([f"<{n}>" for n in range(10001)])}, "model.tokens"),
        ({"method": "{kind: distill, distill: {teacher: a/b}}"}, "the teacher has not these tokens"),
    ],
)
def test_what_is_wrong_with_a_list(changes, says):
    """Twice the same, an empty text, another type, too many, and a teacher that does not know them are refused by name."""
    with pytest.raises(RecipeError) as refused:
        recipe(**changes)
    said = [f"{each.path}: {each.rule}" for each in refused.value.problems]
    assert any(says in each for each in said), said


def test_an_adapter_is_not_pushed_without_its_start():
    """No hub has the model that the adapter belongs to: pushing it is refused with a way out, pushing the merged model is not."""
    more = "after: {{push: {{repo: me/x, what: {what}}}}}"
    made = plan(BACKENDS["trl"], recipe(method="{adapter: lora}", more=more.format(what="model")), Target())
    assert context_of(made).has_tokens
    with pytest.raises(Inexpressible) as refused:
        plan(BACKENDS["trl"], recipe(method="{adapter: lora}", more=more.format(what="adapter")), Target())
    assert "should be model" in refused.value.report.refused[0].why
    assert plan(
        BACKENDS["trl"], recipe(tokens="[]", special="[]", method="{adapter: lora}", more=more.format(what="adapter")), Target()
    )
    forms = "after: {{export: {{formats: {forms}}}, push: {{repo: me/x, what: export}}}}"
    for form in ("adapter", "gguf-adapter"):
        with pytest.raises(Inexpressible) as refused:
            plan(BACKENDS["trl"], recipe(method="{adapter: lora}", more=forms.format(forms=f"[merged, {form}]")), Target())
        assert f"{form} belongs to the start model" in refused.value.report.refused[0].why
    assert plan(BACKENDS["trl"], recipe(method="{adapter: lora}", more=forms.format(forms="[merged]")), Target())
