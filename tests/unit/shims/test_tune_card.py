"""tune_card.py: what others need beside weights."""

import json

import tune_card
import tune_layout


def job(place, monkeypatch, **model):
    """A job's folder after its training."""
    monkeypatch.chdir(place)
    (place / "data").mkdir()
    files = {
        "model.json": {"init": "pretrained", "folder": "cache/m", "id": "org/base", "revision": "main"} | model,
        "recipe.json": {"name": "mine", "optim.lr": 0.001},
        "data.json": {"chat_template": {"path": "chat_template.jinja", "name": "chatml"}},
        "data/manifest.json": {"rows": 7, "sha256": "abc", "sources": [{"name": "my/rows.jsonl", "rows": 7}]},
    }
    for path, value in files.items():
        (place / path).write_text(json.dumps(value))
    (place / "cache/m").mkdir(parents=True)
    (place / "cache/m/.revision").write_text("c0ffee")
    (place / "chat_template.jinja").write_text("{{ messages }}")
    (place / "out").mkdir()
    (place / "out/metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "loss": 0.5}\n')


def test_an_adapter_names_its_base(tmp_path, monkeypatch):
    """adapter_config.json carries the base's name and commit, whoever wrote it, and the trainer's own file stays as it was."""
    job(tmp_path, monkeypatch)
    trained = tmp_path / "out/adapter_config.json"
    trained.write_text(json.dumps({"r": 8, "base_model_name_or_path": "cache/m"}))
    tune_layout.whole("adapter", lambda place: (place / "adapter_config.json").hardlink_to(trained))
    facts = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert facts == {"r": 8, "base_model_name_or_path": "org/base", "revision": "c0ffee"}
    assert json.loads(trained.read_text())["base_model_name_or_path"] == "cache/m"


def test_a_folder_of_the_users_is_the_base(tmp_path, monkeypatch):
    """Where the base is no model of the hub, its folder is named."""
    job(tmp_path, monkeypatch, init="folder", folder="cache/m")
    assert tune_card.base_model() == (str(tmp_path / "cache/m"), None)


def test_the_card_and_the_template(tmp_path, monkeypatch):
    """What is trained carries the chat template that was learned, and a card with recipe, rows, figures and versions."""
    job(tmp_path, monkeypatch)
    tune_layout.whole("checkpoint", lambda _: None)
    assert (tmp_path / "checkpoint/chat_template.jinja").read_text() == "{{ messages }}"
    card = (tmp_path / "checkpoint/README.md").read_text()
    assert card.startswith('---\nbase_model: "org/base"\nlibrary_name: "transformers"\ntags: [tunesmith]\n---\n\n# mine\n')
    for line in ("revision: c0ffee", "optim.lr: 0.001", "rows: 7", "sha256: abc", "source 1: my/rows.jsonl", '"loss": 0.5'):
        assert line in card


def test_a_folder_without_facts_has_a_card_all_the_same(tmp_path, monkeypatch):
    """Nothing of it is required."""
    monkeypatch.chdir(tmp_path)
    tune_layout.whole("checkpoint", lambda _: None)
    assert "# A fine-tuned model" in (tmp_path / "checkpoint/README.md").read_text()
