"""What is done with the model once it is trained: stages, each a job of its own that begins when the one before has succeeded."""

from typing import Annotated, Literal

from backends.recipe.section import Limits, Section
from backends.recipe.sections.base import Positive, Whole, Word

Secret = Annotated[str, Limits(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Count = Annotated[int, Limits(ge=0)]
Form = Literal[
    "merged",
    "adapter",
    "gguf-f32",
    "gguf-f16",
    "gguf-bf16",
    "gguf-q8_0",
    "gguf-q4_0",
    "gguf-adapter",
    "fp8-dynamic",
    "fp8",
    "w8a8",
    "w4a16",
    "w4a16-gptq",
]


class EvalTask(Whole):
    """A task of one's own: rows of a file, or a task of the harness that reads its rows from a file."""

    path: Word
    """A file of JSON lines (.jsonl), relative to the recipe's file."""
    name: Annotated[str, Limits(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")] | None = None
    """What its figures are called; null: the file's name without the ending."""
    kind: Literal["auto", "choice", "exact", "perplexity", "generation"] = "auto"
    """`choice`: question, choices, answer (number or text). `exact`: prompt, answer. `perplexity`: text. `generation`: prompt,
    answer, compared by BLEU and chrF. `auto`: by the keys of the first row; never generation."""
    like: Word | None = None
    """A task of the harness whose prompts and figures to use with these rows: `wmdp_bio`. Null: none."""


class Evaluate(Whole):
    """Figures of the model by lm-evaluation-harness, and what they must be."""

    tasks: Annotated[list[Word | EvalTask], Limits(min_length=1, max_length=100)]
    """Names of the harness (`wmdp_bio`, `mmlu`), files of one's own (`./questions.jsonl`), or `{path, name, kind, like}`."""
    engine: Literal["hf", "vllm"] = "hf"
    """What runs the model: transformers, or vLLM, which has an environment of its own. Both have the same figures where they compute
    the same."""
    shots: Count = 0
    """Worked examples before each question."""
    limit: Positive | None = None
    """Rows of each task; null: all."""
    batch: Positive = 8
    """Rows at once."""
    seed: Count = 1234
    """Of everything that is drawn."""
    chat: bool = False
    """Put each question through the model's chat template."""
    model: Literal["merged", "adapter"] = "merged"
    """`adapter`: the start model with the adapter beside it, instead of merged weights."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights in memory; `auto`: as they are stored."""
    baseline: bool = False
    """Evaluate the start model too, and tell the difference with its standard error."""
    gates: list[Word] = []
    """What figures must be: `wmdp_bio.acc <= 0.30`, `mmlu.acc >= base - 0.01`. One that is not ends the job as FAILED (gate), and
    no stage after it begins."""


class Export(Whole):
    """The model in other forms, each loaded again and compared with the checkpoint."""

    formats: Annotated[
        list[Form],
        Limits(min_length=1, max_length=15),
    ] = ["merged"]
    """`merged`: a Hugging Face folder. `adapter`: PEFT. `gguf-*`: one file for llama.cpp, as it is or quantized;
    `gguf-adapter`: the adapter for llama.cpp, beside its start model. `fp8-dynamic`, `fp8`, `w8a8`, `w4a16`, `w4a16-gptq`: weights
    (and, but for `w4a16`, activations) in fewer bits by llm-compressor, for vLLM; `fp8` and `w4a16-gptq` are calibrated with
    rows of the training."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the merged folder's weights; `auto`: as they were trained."""
    prompts: Positive = 4
    """Prompts of the reply check: each format's greedy tokens and log-probabilities against the checkpoint's."""
    tokens: Positive = 16
    """Tokens of each reply."""


class Push(Whole):
    """The model on a hub, with a model card. What arrived is compared with what was sent."""

    repo: Annotated[str, Limits(pattern=r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")]
    """OWNER/NAME; made if it is not there. The hub is huggingface.co, or that of `HF_ENDPOINT` on the target."""
    what: Literal["model", "adapter", "export"] = "model"
    """The merged model, its adapter, or everything that `after.export` wrote."""
    private: bool = True
    """Nobody else sees it. A repository that is there and public is refused unless this is false."""
    token_name: Secret = "HF_TOKEN"  # noqa: S105  # a name, no value
    """Name of the secret that holds the hub's token, with the right to write."""
    branch: Word | None = None
    """Null: the main one."""


class Serve(Whole):
    """An OpenAI-compatible server of the model, a job like any other: it is READY while it answers."""

    engine: Literal["auto", "transformers", "vllm", "llama.cpp"] = "auto"
    """What runs the model. `auto`: vllm on CUDA, transformers on a CPU. `llama.cpp` serves the merged model alone, on a CPU."""
    port: Annotated[int, Limits(ge=1024, le=65535)] | None = None
    """On the host; null: a free one."""
    expose: bool = False
    """Listen on all interfaces instead of the loopback alone; needs `key_name`."""
    key_name: Secret | None = None
    """Name of the secret that clients must give; null: none is asked for."""
    adapters: bool = True
    """Where an adapter was trained: serve `base` and `adapter` beside the merged model."""
    replicas: Annotated[int, Limits(ge=1, le=64)] = 1
    """Engines behind the one port, each with its share of the requests; on CUDA each has a device of its own."""
    max_length: Positive | None = None
    """Tokens of prompt and reply together; null: what the model can."""
    gguf: Literal["auto", "f32", "f16", "bf16", "q8_0", "q4_0"] = "auto"
    """Kind of the weights for llama.cpp; `auto`: as they are stored."""
    prefix_cache: bool = True
    """vllm and llama.cpp: keep what was computed of a prompt for prompts that begin alike."""
    check: Count = 0
    """Rows (held out ones, where there are any) of which the trainer's own framework, in its own environment and with its own
    checkpoint, gives the log-probabilities first; the server is READY once it gives the same. 0: none."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights in memory; `auto`: as they are stored."""


class After(Section):
    """Stages after training, in this order. Each is a job `JOB.STAGE` that can be retried alone; the first that fails ends the row."""

    evaluate: Evaluate | None = None
    """Figures by lm-evaluation-harness, and gates. Null: it is left out."""
    export: Export | None = None
    """Other forms of the model, each checked. Null: it is left out."""
    push: Push | None = None
    """The model on a hub, private by default. Null: it is left out."""
    serve: Serve | None = None
    """An OpenAI-compatible server. Null: it is left out."""
