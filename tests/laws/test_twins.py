"""Twins: each model of the table has one that is like it in what a trainer may have or lack."""

import json

import pytest

from backends.models import MODELS
from tests.twins.families import TWINS, described, key, twin_of


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.id)
def test_every_model_of_the_table_has_a_twin_like_it(model):
    """Of the same family, with rotary embedding, tied embeddings, experts and groups of heads of the same kind; a chat model's twin
    has a template.
    """
    twin = TWINS[twin_of(model.id)]
    settings = twin.settings()
    rope = settings.get("rope_scaling") or {}
    assert twin.family == model.family.replace("gemma3_text", "gemma3").replace("gemma3", "gemma3_text")
    assert settings.get("tie_word_embeddings", "gemma" in model.family) == model.tied
    assert rope.get("rope_type", rope.get("type", "")) == model.rope_scaling.partition(":")[0] or model.family == "gemma3"
    experts = {"num_local_experts", "num_experts", "n_routed_experts"} & settings.keys()
    assert bool(experts) == bool(model.experts)
    assert twin.template or not model.chat


@pytest.mark.parametrize("name", TWINS)
def test_special_tokens_are_numbered(name):
    """What ends or opens a text is among the special tokens, whose numbers config.json has."""
    twin = TWINS[name]
    assert {twin.eos, *filter(None, (twin.bos, twin.pad)), *twin.stops} <= set(twin.special)
    assert twin.settings()["vocab_size"] >= 256 + len(twin.special)


def test_a_twin_is_named_by_its_content():
    """Another size is another folder; the same is found again."""
    assert len({key(name) for name in TWINS}) == len(TWINS)
    assert json.loads(described("gemma-2"))["config"]["sliding_window"] == TWINS["gemma-2"].config["sliding_window"]
