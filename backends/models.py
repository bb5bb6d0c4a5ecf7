"""The model table: Hugging Face id -> what the model is made of, and each trainer's own name for it.

The rows are in models.csv beside this file. A trainer's name is there only where the trainer's description of the model
says what the model's config.json says; a cell that begins with `!` tells what is different, and is no name. A model outside
the table works wherever a trainer takes any Hugging Face folder.

Names of torchtune: `torchtune.models`. Of LitGPT: `litgpt.config.configs`. Of MaxText: `model_name`.
axolotl has no names of its own: it takes the folder.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from backends.recipe.flat import Flat


class ModelFacts(NamedTuple):
    """One model of the table. Sizes are those of the language model; the vision tower of Gemma 3 is not counted."""

    id: str
    family: str
    """Architecture as transformers calls it (`model_type`): `llama`, `qwen3_moe`."""
    hidden_size: int
    intermediate_size: int
    """Inside the feed-forward block; of one expert, where there are several."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    """Rows of the embedding, which may be more than the tokenizer has tokens."""
    max_position: int
    """Longest row in tokens that config.json allows."""
    rope_theta: int
    rope_scaling: str
    """`kind:factor:positions before scaling`, `""` for none. longrope has a factor for each dimension instead of one."""
    norm_eps: float
    tied: bool
    """Input and output embeddings are one matrix."""
    experts: int
    """0: no mixture of experts."""
    active: int
    """Experts that a token goes through."""
    gated: bool
    """The hub asks for an accepted licence and a token."""
    chat: bool
    """Tuned for conversations and brings a chat template; else a base model."""
    torchtune: str
    """Builder below `torchtune.models`; `lora_` goes before its last part."""
    litgpt: str
    """LitGPT's name."""
    maxtext: str
    """MaxText's name. It names a shape: base model and chat model share one."""
    parameters: int
    """Counted from the sizes above; a matrix that is input and output embedding counts once."""
    active_parameters: int
    """Those that one token goes through: all of them, without experts."""


NAMED = ("torchtune", "litgpt", "maxtext")
"""Trainers with names of their own for models: columns of the table."""


class _Build(NamedTuple):
    """How a family differs from Llama in what it has weights for."""

    biases: str = "none"
    """none, `qkv`, or `all` linear layers but the head."""
    norms: int = 2
    """In a layer, those of queries and keys not counted."""
    norm_vectors: int = 1
    """In one norm: 0 without weights, 2 with a bias."""
    qk_norm: str = "none"
    """none, over one `head`, or over `all` heads together."""
    matrices: int = 3
    """In a feed-forward block: 3 with a gate, 2 without."""
    sinks: bool = False
    """One learned attention sink a head."""


_FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3", "smollm3"), _Build()),
    "qwen2": _Build(biases="qkv"),
    **dict.fromkeys(("qwen3", "qwen3_moe"), _Build(qk_norm="head")),
    "gemma2": _Build(norms=4),
    **dict.fromkeys(("gemma3", "gemma3_text"), _Build(norms=4, qk_norm="head")),
    "olmo": _Build(norm_vectors=0),
    **dict.fromkeys(("olmo2", "olmo3"), _Build(qk_norm="all")),
    "gpt_neox": _Build(biases="all", norm_vectors=2, matrices=2),
    "gpt_oss": _Build(biases="all", sinks=True),
}


def _count(model: ModelFacts, experts: int) -> int:
    """Parameters, when `experts` of each layer's are counted."""
    build = _FAMILIES[model.family]
    layer = _attention(model, build) + build.norms * build.norm_vectors * model.hidden_size
    layer += max(1, experts) * _feed_forward(model, build)
    if model.experts:
        layer += model.experts * (model.hidden_size + (build.biases == "all"))  # the router
    embeddings = model.vocab_size * model.hidden_size * (1 if model.tied else 2)
    return embeddings + model.layers * layer + build.norm_vectors * model.hidden_size


def _attention(model: ModelFacts, build: _Build) -> int:
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    weights = 2 * model.hidden_size * (query + key)
    biases = {"none": 0, "qkv": query + 2 * key, "all": query + 2 * key + model.hidden_size}[build.biases]
    norms = {"none": 0, "head": 2 * model.head_dim, "all": query + key}[build.qk_norm]
    return weights + biases + norms + model.heads * build.sinks


def _feed_forward(model: ModelFacts, build: _Build) -> int:
    weights = build.matrices * model.hidden_size * model.intermediate_size
    biases = (build.matrices - 1) * model.intermediate_size + model.hidden_size
    return weights + biases * (build.biases == "all")


def _number(cell: str) -> int:
    return int(cell or 0)


def _yes(cell: str) -> bool:
    return cell == "yes"


def _name(cell: str) -> str:
    return "" if cell.startswith("!") else cell


_READ: tuple[Callable[[str], object], ...] = (
    str,
    str,
    *[_number] * 9,
    str,
    float,
    _yes,
    _number,
    _number,
    _yes,
    _yes,
    *[_name] * 3,
)
"""How the cell of each column is read."""


@cache
def _model(line: str) -> ModelFacts:
    model = ModelFacts._make([*(read(cell) for read, cell in zip(_READ, line.split(","), strict=True)), 0, 0])
    return model._replace(parameters=_count(model, model.experts), active_parameters=_count(model, model.active))


class _Table(Mapping[str, ModelFacts]):
    """Id -> model. A line is read when it is asked for: a plan wants one of them, `tune status` none."""

    def __init__(self, text: str) -> None:
        _, *lines = text.splitlines()
        self.lines = {line[: line.index(",")]: line for line in lines}

    def __getitem__(self, key: str) -> ModelFacts:
        return _model(self.lines[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)


_TABLE = _Table(Path(__file__).with_suffix(".csv").read_text("utf-8"))

MODELS: Mapping[str, ModelFacts] = _TABLE
"""Id -> model, in the order of the file."""


def cell(name: str, trainer: str) -> str:
    """What the table says of a model in the column of a trainer: a name, or `!` and why there is none."""
    return _TABLE.lines[name].split(",")[ModelFacts._fields.index(trainer)]


def of_architecture(shape: Flat) -> ModelFacts:
    """Sizes of a model with random weights: a line of the table without an id, and without any trainer's name.

    Args:
        shape: the recipe's `model.architecture`.
    """
    hidden, heads = shape["hidden_size"], shape["heads"]
    known = {
        name: shape[name] for name in ("family", "intermediate_size", "layers", "kv_heads", "vocab_size", "norm_eps", "tied")
    }
    derived = {"head_dim": shape["head_dim"] or hidden // heads, "max_position": shape["max_length"]}
    blank = dict.fromkeys(ModelFacts._fields, 0) | dict.fromkeys(("id", "rope_scaling", *NAMED), "")
    values = {**blank, "hidden_size": hidden, "heads": heads, "rope_theta": int(shape["rope_theta"]), **known, **derived}
    model = ModelFacts._make(values.values())
    count = _count(model, 0)
    return model._replace(parameters=count, active_parameters=count)


def sizes_of(recipe: Flat) -> ModelFacts | None:
    """Sizes of the model that a recipe trains; None where only the host can tell.

    Args:
        recipe: its leaves.
    """
    if recipe["model.init"] == "pretrained":
        return MODELS.get(recipe["model.id"])
    return of_architecture(recipe["model.architecture"]) if recipe["model.architecture"] else None


def linear(model: ModelFacts) -> dict[str, tuple[int, int]]:
    """Target of LoRA -> inputs and outputs of its layer, the same in every decoder layer.

    Args:
        model: of the table, or `of_architecture`.
    """
    wide, query, key = model.hidden_size, model.heads * model.head_dim, model.kv_heads * model.head_dim
    inner = model.intermediate_size
    return {
        **{"q": (wide, query), "k": (wide, key), "v": (wide, key), "o": (query, wide)},
        **{"gate": (wide, inner), "up": (wide, inner), "down": (inner, wide)},
    }
