"""What it is trained on."""

from typing import Annotated, Literal

from backends.recipe.section import Limits, Section
from backends.recipe.sections.base import Positive, Whole, Word


class Columns(Section):
    """Names of the columns in the data files."""

    instruction: Word = "instruction"
    """Format instruct: what is asked."""
    input: Word = "input"
    """May be missing in a row."""
    output: Word = "output"
    """Format instruct: the answer."""
    messages: Word = "messages"
    """Format chat: a list of `{role, content}`; ShareGPT's `{from, value}` is understood."""
    text: Word = "text"
    """Format text."""
    prompt: Word = "prompt"
    """Formats completion, preference, rated, prompts: a text or a list of messages."""
    completion: Word = "completion"
    """Formats completion, rated: what follows the prompt."""
    chosen: Word = "chosen"
    """Format preference: the better answer, or the whole conversation with it."""
    rejected: Word = "rejected"
    """Format preference: the worse one."""
    label: Word = "label"
    """The verdict: true or false, or 1 or 0."""


class Part(Whole):
    """One of several data sets."""

    path: Word
    """As `data.train`."""
    split: Word = "train"
    weight: Annotated[float, Limits(gt=0, le=1000)] = 1.0
    """How often each of its rows comes in an epoch: 2.0 is twice; 0.5 is half of the rows, drawn anew each epoch."""


class Data(Section):
    """What it is trained on."""

    train: Word | Annotated[list[Part], Limits(min_length=1, max_length=100)]
    """A file (.jsonl, .json, .parquet, .txt; relative to the recipe's file), a Hugging Face data set id (`org/name`), or a list
    of them: `[{path, split, weight}]`."""
    train_split: Word = "train"
    """Split of a Hugging Face data set; in a list each has its own."""
    eval: Word | None = None
    """Rows for evaluation, named like `train`; null: no evaluation."""
    eval_split: Word = "validation"
    """Split of a Hugging Face data set named in `eval`."""
    eval_share: Annotated[float, Limits(gt=0, lt=1)] | None = None
    """Share of the training rows that is held out for evaluation in place of `eval`: drawn from each source by train.seed, and trained
    by no step. Null: none."""
    format: Literal["instruct", "chat", "text", "completion", "preference", "rated", "prompts"]
    """`instruct`: instruction, input, output. `chat`: a list of messages. `text`: plain text. `completion`: prompt, completion.
    `preference`: prompt, chosen, rejected, each a text or messages. `rated`: prompt, completion, label. `prompts`: prompt."""
    columns: Columns = Columns()
    template: Annotated[str, Limits(min_length=1, max_length=20_000)] | None = None
    """How a row becomes text. For instruct: `alpaca` (the default), `plain`, `chat` (the model's own chat template), or a
    text with {instruction} and maybe {input}, after which the output follows. Chat always uses the chat template."""
    loss_roles: Annotated[list[Literal["system", "user", "assistant", "tool"]], Limits(min_length=1)] = ["assistant"]
    """Whose messages carry loss, with format chat."""
    system: str | None = None
    """System text put before each row that has none of its own."""
    rendering: Literal["shared", "native"] = "shared"
    """`shared`: rows become token ids once, on the host, and every trainer gets exactly those. `native`: each trainer reads
    the file in its own way; what then differs is in the report."""
    max_length: Positive = 2048
    """Tokens of a row; longer rows are cut at the end."""
    pack: bool = False
    """Join rows up to max_length, never splitting one. Rows in one sequence see each other."""
    train_on_prompt: bool = False
    """Prompt tokens carry loss too."""
    add_eos: bool = True
    """End each instruct or text row with the end-of-sequence token, which carries loss."""
    drop_empty: bool = False
    """Leave out rows in which no token carries loss (for example: the prompt alone fills max_length), however many. Otherwise up to 1 %
    of a set's rows are left out and told, and more of them stop the job."""
    chat_template: Word | None = None
    """Chat template that goes before the tokenizer's own: a file (`./mine.jinja`, Jinja as transformers reads it), or one of
    `chatml`, `gemma`, `llama-3`, `mistral`, `plain`, `zephyr`. It goes into what is trained, so that whoever loads the model asks
    it in the same way. Null: the tokenizer's own."""
    ignore: list[Word] = []
    """Columns, and keys of messages, that are taken away before a row is read. Rows that say something that nothing uses are
    refused (`tools` without a chat template, a `weight` that is neither 0 nor 1, thoughts that the template does not write):
    with the name here that loss is accepted. `content` accepts a chat template that leaves out part of a message's content."""
    require_stop: bool = True
    """Refuse chats in which a turn of the assistant ends without a token that stops generation: a model that learns from them
    never ends a reply. Counted are tokens with loss at which the model's own settings stop, and special tokens behind the
    content. With false such turns are told, not refused."""
    shuffle: bool = True
    """A new order each epoch, from train.seed; otherwise the file's order."""
