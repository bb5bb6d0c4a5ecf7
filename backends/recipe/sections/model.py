"""What is trained."""

from typing import Annotated, Literal

from backends.recipe.section import Limits, Section
from backends.recipe.sections.base import Positive, Whole, Word


class Architecture(Whole):
    """Shape of a model with random weights and a byte-level tokenizer: for tests, rehearsals and races."""

    family: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    """`qwen2` has biases on query, key and value; `qwen3` norms on query and key."""
    vocab_size: Annotated[int, Limits(ge=261)] = 320
    """Ids. The tokenizer uses 261: 256 bytes and 5 special tokens."""
    hidden_size: Positive
    intermediate_size: Positive
    """Width of the MLP."""
    layers: Positive
    heads: Positive
    kv_heads: Positive
    """Key and value heads; `heads` must be a multiple."""
    head_dim: Positive | None = None
    """Width of a head; null means hidden_size / heads."""
    max_length: Positive = 2048
    """Longest sequence in tokens."""
    rope_theta: Annotated[float, Limits(gt=0)] = 10000.0
    norm_eps: Annotated[float, Limits(gt=0)] = 1e-5
    tied: bool = False
    """Input and output embeddings are one matrix."""
    seed: Annotated[int, Limits(ge=0)] = 0
    """Of the weights: normal with standard deviation 0.02, norms 1."""


Tokens = Annotated[list[Annotated[str, Limits(min_length=1, max_length=200)]], Limits(max_length=10000)]


class Model(Section):
    """What is trained."""

    id: Word
    """A Hugging Face id (`org/name`), or a folder in Hugging Face layout: then it begins with `/`, `./`, `../` or `~` and is
    relative to the recipe's file. For a random model any name."""
    revision: Word | None = None
    """Branch, tag or commit of a Hugging Face id; null means `main` as it is when first downloaded."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Where the first weights come from."""
    architecture: Architecture | None = None
    """Shape of a random model; not for pretrained ones."""
    tokens: Tokens = []
    """Ordinary tokens that the tokenizer and the model get before training: each text is one token wherever it stands in a row. Their
    ids follow the tokenizer's last, those of `tokens` first, in order; their rows in the input embedding and in the head begin as the mean
    of the rows before them, and the matrices grow where they have no rows left. It is done once, before any trainer: all have the same
    start, and what is exported has the tokens. One that is in the vocabulary already keeps its id and its row."""
    special_tokens: Tokens = []
    """The same for special tokens: those that are left out where text is made of ids (`skip_special_tokens`)."""
