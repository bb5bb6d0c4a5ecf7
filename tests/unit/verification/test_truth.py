"""What `tune verify` has plain PyTorch train, by the recipe alone."""

import json
import math

import pytest

from backends.compile import context_of
from backends.recipe.flat import nest
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.verification.mistakes import changes
from orchestrator.verification.truth import wished

LEAST = {
    **{"version": 1, "name": "truth", "model.id": "./base", "data.train": "rows.jsonl", "data.format": "chat"},
    **{"train.steps": 4, "train.batch.global": 2, "optim.lr": 1e-3, "train.seed": 7},
}


def recipe(**more):
    """The least recipe with more leaves."""
    return parse(json.dumps(nest({**LEAST, **more})), base="/x")


def wish(**more):
    """truth.json of it."""
    flat = recipe(**more).flat()
    return wished(BACKENDS["torchtune"], flat, context_of(flat, Target()))


def test_adapters_scaled_by_the_root_of_their_rank():
    """rsLoRA is alpha / sqrt(rank) there too, and the other scale is one of the mistakes that are tried."""
    lora = {"method.adapter": "lora", "method.lora.rank": 16, "method.lora.alpha": 8}
    assert wish(**lora)["adapter"]["alpha"] == 8
    assert wish(**lora, **{"method.lora.rank_stabilized": True})["adapter"]["alpha"] == pytest.approx(8 * math.sqrt(16))
    tried = {each.leaf: each.change for each in changes(recipe(**lora).flat())}
    assert tried["method.lora.rank_stabilized"] == {"adapter": {"alpha": 32.0}}


def test_modules_beside_adapters():
    """Whole modules learn there, too; each left out is one of the mistakes that are tried."""
    whole = {"method.adapter": "lora", "method.lora.train_fully": ["head", "norms"]}
    assert wish(**whole)["adapter"]["whole"] == ["head", "norms"]
    tried = [each.change for each in changes(recipe(**whole).flat()) if each.leaf == "method.lora.train_fully"]
    assert tried == [{"adapter": {"whole": ["norms"]}}, {"adapter": {"whole": ["head"]}}]


def test_noise_on_the_embeddings():
    """NEFTune's alpha and the seed that it is drawn from; twice the alpha and none are mistakes that are tried."""
    assert wish()["neftune"] is None
    noisy = {"train.neftune_alpha": 5.0}
    assert wish(**noisy)["neftune"] == {"alpha": 5.0, "seed": 7}
    tried = [each.change for each in changes(recipe(**noisy).flat()) if each.leaf == "train.neftune_alpha"]
    assert tried == [{"neftune": {"alpha": 10.0}}, {"neftune": None}]
