"""What is taken for a secret, and what is not."""

import pytest

from backends.recipe.secrets import is_secret, places, variable, without

TOKEN = "hf_" + "a1B2" * 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("native.axolotl.wandb_api_key", "abc"),
        ("hub_token", "x"),
        ("a.password", "x"),
        ("note", TOKEN),
        ("note", f"use {TOKEN} here"),
        ("uri", "https://me:word@host/x"),
        ("note", "AKIA" + "B2" * 8),
        ("note", "sk-" + "a1" * 16),
        ("list", ["a", {"token": "x"}]),
    ],
)
def test_secrets(key, value):
    """By the key, by the form of the value, anywhere inside."""
    assert is_secret(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hub_token", "${HF_TOKEN}"),
        ("hub_token", "$HF_TOKEN"),
        ("hf_use_auth_token", True),
        ("api_key", None),
        ("special_tokens.pad_token", "</s>"),
        ("tokenizer.path", "/models/hf_model/tokenizer.model"),
        ("revision", "0123456789abcdef0123456789abcdef01234567"),
        ("folder", "/data/sk-learn-experiments-of-the-whole-team"),
        ("uri", "https://host:5000/path@2"),
        ("secrets", ["HF_TOKEN"]),
    ],
)
def test_no_secrets(key, value):
    """Names of variables, switches, special tokens, folders, commits and plain addresses are none."""
    assert not is_secret(key, value)


def test_where_they_are():
    """Dotted names of nested mappings; a list is named as a whole, and keeps its rest."""
    values = {"a": {"password": "x", "b": 1}, "c": [{"token": "x", "path": "p"}, TOKEN, "rest"]}
    assert list(places(values)) == ["a.password", "c"]
    assert without("c", values["c"]) == [{"path": "p"}, "rest"]


def test_the_variable():
    """Where the secret's own library looks for it."""
    found = [variable(key, value) for key, value in (("x.wandb_api_key", "y"), ("any", TOKEN), ("password", "x"))]
    assert found == ["WANDB_API_KEY", "HF_TOKEN", ""]
