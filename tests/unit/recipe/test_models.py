"""The model table: complete, exact, and shown on a page. `python tests/unit/recipe/test_models.py` writes the page anew."""

from pathlib import Path

import pytest

from backends import models
from backends.analysis.model_names import nameless
from backends.models import MODELS, NAMED
from backends.registry import BACKENDS
from backends.trainers.maxtext.method import UNCONVERTED
from tests.families.matrix import TRAINERS, measured, shown
from tests.twins.families import TWINS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "models.md"
PUBLISHED = {
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480_154_875_392,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "mistralai/Mistral-Small-24B-Base-2501": 23_572_403_200,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-3-1b-it": 999_885_952,
    "microsoft/phi-4": 14_659_507_200,
    "allenai/OLMo-1B-hf": 1_176_764_416,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "openai/gpt-oss-20b": 20_914_757_184,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "tiiuae/Falcon3-7B-Base": 7_455_550_464,
}
"""What the publishers' weight files hold."""
WANTED = [
    "Llama-2-",
    "Llama-3-",
    "Llama-3.1-",
    "Llama-3.2-",
    "Llama-3.3-",
    "Qwen2.5-",
    "Qwen2.5-Coder-",
    "Qwen3-",
    "-A3B",
    "Mistral-",
]
WANTED += [
    "Mistral-Small-",
    "Mixtral-",
    "gemma-2-",
    "gemma-3-",
    "Phi-3",
    "phi-4",
    "OLMo-1B",
    "OLMo-2-",
    "Olmo-3-",
    "R1-Distill-",
    "gpt-oss-",
]
WANTED += ["SmolLM-", "SmolLM2-", "SmolLM3-", "TinyLlama-", "pythia-", "Falcon3-"]
HEAD = """\
# Models

What the compiler knows of a model by its Hugging Face id. Written by `tests/unit/recipe/test_models.py` from `backends/models.csv`.

A model that is not listed works wherever the trainer takes any folder in Hugging Face layout: axolotl, TRL, Unsloth always; torchtune and
LitGPT, as MaxText, where its `config.json` is of a family that the matrix below has for them. The table adds the trainer's own name, the token that a gated
model needs, and what can be said before anything is downloaded.

A trainer's name is listed only where the trainer describes the model as the model's own `config.json` does. Several trainers
have an entry under the right name with another norm or another rotary embedding; such an entry is not used, and the note
says what is different.

Every fact is compared with torchtune's builders, LitGPT's list and MaxText's model files where they have the model, and the
count of parameters with what transformers builds. None of them has SmolLM, SmolLM 3, Mistral Small and the smallest Gemma 3 as a base model;
their facts are those of the `config.json` that their publishers ship.
"""


def test_the_families_that_people_fine_tune_are_there():
    """162 ids, from Llama 2 to SmolLM 3."""
    assert len(MODELS) == 162
    assert [part for part in WANTED if not any(part in name for name in MODELS)] == []


def test_every_line_of_the_file_is_another_model():
    """No id is listed twice."""
    lines = Path(models.__file__).with_suffix(".csv").read_text("utf-8").splitlines()
    assert lines[0].split(",") == list(models.ModelFacts._fields[:-2])
    assert len(lines) - 1 == len(MODELS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_counted_exactly(name):
    """The count from a model's sizes is the number of weights that its publisher ships."""
    assert MODELS[name].parameters == PUBLISHED[name]


@pytest.mark.parametrize(("name", "billions"), [("Qwen/Qwen3-30B-A3B", 3.35), ("mistralai/Mixtral-8x7B-v0.1", 12.88)])
def test_a_token_goes_through_some_of_the_experts(name, billions):
    """The count of active parameters leaves out the experts that a token does not meet."""
    assert round(MODELS[name].active_parameters / 1e9, 2) == billions


def test_sizes_fit_together():
    """Queries share keys evenly, no more experts are active than there are, and a scaling names its three parts."""
    for m in MODELS.values():
        assert m.heads % m.kv_heads == 0, m.id
        assert (m.active <= m.experts) and bool(m.active) == bool(m.experts), m.id
        assert m.rope_scaling == "" or m.rope_scaling.count(":") == 2, m.id
        assert (m.active_parameters == m.parameters) == (not m.experts), m.id


def test_a_trainer_has_a_name_or_a_reason():
    """For every model and trainer there is the one or the other, never both."""
    for m in MODELS.values():
        for trainer in NAMED:
            assert bool(getattr(m, trainer)) != bool(nameless(m, trainer)), (m.id, trainer)


@pytest.mark.parametrize(
    ("name", "trainer", "why"),
    [
        ("Qwen/Qwen3-8B", "torchtune", "torchtune 0.6.1 lacks norms of queries and keys before they are rotated"),
        ("Qwen/Qwen3-32B", "maxtext", ""),
        ("microsoft/phi-4", "torchtune", "phi4_14b has rope_theta 10000; it is built from config.json"),
        ("google/gemma-2-2b", "litgpt", "Gemma-2-2b has norm_eps 1e-05; it is built from config.json"),
        ("Qwen/Qwen2.5-72B", "maxtext", "MaxText 0.2.5 does not list this model; it is built from config.json"),
        ("HuggingFaceTB/SmolLM-135M", "litgpt", "LitGPT 0.5.13 does not list this model; it is built from config.json"),
        ("Qwen/Qwen2.5-14B-Instruct", "litgpt", "Qwen2.5-14B-Instruct has norm_eps 1e-05; it is built from config.json"),
    ],
)
def test_the_reason_says_what_is_missing(name, trainer, why):
    """No such family, no such model, or one that is described otherwise."""
    assert nameless(MODELS[name], trainer) == why


def test_what_maxtext_cannot_convert_is_among_its_names():
    """The list of names without a conversion holds names of the table."""
    assert {m.maxtext for m in MODELS.values()} >= UNCONVERTED


def test_a_model_outside_the_table_is_simply_not_there():
    """Looking up an unknown id is no error."""
    assert MODELS.get("somebody/something") is None


def test_the_page_shows_the_table():
    """docs/models.md is what `python tests/unit/recipe/test_models.py` writes."""
    assert PAGE.read_text("utf-8") == page()


def page() -> str:
    """The table for people: names, then facts."""
    notes: dict[str, int] = {}
    names = _table(
        ["model", "parameters", "", "torchtune", "LitGPT", "MaxText"],
        ([_shown(m), _size(m), _kind(m), *(_cell(m, t, notes) for t in NAMED)] for m in MODELS.values()),
    )
    told = "\n".join(f"{number}. {why}" for why, number in notes.items())
    facts = _table(
        [
            "model",
            "family",
            "hidden",
            "feed-forward",
            "layers",
            "heads",
            "head",
            "vocabulary",
            "positions",
            "rotary base",
            "norm eps",
        ],
        (_facts(m) for m in MODELS.values()),
    )
    unconverted = ", ".join(f"`{name}`" for name in sorted(UNCONVERTED))
    return "\n".join(
        [
            HEAD,
            f"## Names\n\n{len(MODELS)} models. axolotl, TRL and Unsloth take the folder of every one.\n\n{names}\n",
            f"## Families\n\n{FAMILIES}\n\n{families()}\n",
            f"MaxText trains these and converts none of them from or to a Hugging Face folder: {unconverted}.\n",
            f"### Why there is no name\n\n{told}\n",
            "## Facts\n\nHeads: of queries / of keys and values. Feed-forward: of one expert, where there are several "
            "(active / all). Positions: as `config.json` allows. Rotary base: with `kind:factor:positions before scaling`. "
            f"`=`: input and output embeddings are one matrix.\n\n{facts}\n",
        ]
    )


FAMILIES = """A small random model of each family, by the keys of its published `config.json`, trained for four steps in every trainer (all weights,
fp32) beside transformers' own model over the same rows. The figure is the largest difference of a loss (relative above 1) or of an
exported weight, when the cell was run last; what a trainer lacks for a family is in the notes, and a plan for it stops with that
reason. `*`: the trainer has no sliding window; rows within it are trained so, longer ones are refused on the host."""


def families():
    """The families' matrix, made from what tests/families measured."""
    known, notes = measured(), {}
    rows = ([f"{name} (`{TWINS[name].like}`)", *(shown(t, name, known, notes) for t in TRAINERS)] for name in TWINS)
    table = _table(["family", *(BACKENDS[t].title.rpartition(" ")[0] for t in TRAINERS)], rows)
    told = "\n".join(f"{number}. {why}" for why, number in notes.items())
    return f"{table}\n\n### What a family needs and a trainer has not\n\n{told}"


def _table(head, rows):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def _shown(m):
    return f"`{m.id}`"


def _size(m):
    return f"{m.parameters:,}" + (f" ({m.active_parameters:,} active)" if m.experts else "")


def _kind(m):
    return ("chat" if m.chat else "base") + (", gated" if m.gated else "")


def _cell(m, trainer, notes):
    why = nameless(m, trainer)
    return f"none ({notes.setdefault(why, len(notes) + 1)})" if why else f"`{getattr(m, trainer)}`"


def _facts(m):
    inner = f"{m.intermediate_size} ({m.active} / {m.experts})" if m.experts else str(m.intermediate_size)
    base = f"{m.rope_theta}" + (f" `{m.rope_scaling}`" if m.rope_scaling else "")
    vocabulary = f"{m.vocab_size}" + (" =" if m.tied else "")
    sizes = [m.layers, f"{m.heads} / {m.kv_heads}", m.head_dim, vocabulary, m.max_position, base, m.norm_eps]
    return [_shown(m), m.family, str(m.hidden_size), inner, *map(str, sizes)]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
