"""Rows of a data file as text, with the parts of it that carry loss; what tune_data.py turns into tokens.

Rows, and what of them carries loss:
    instruct   {instruction, input, output}: the output
    chat       {messages: [{role, content}]} or ShareGPT's {from, value}: each assistant turn, from behind the header to the
               end of what the tokenizer's chat template writes for it: its end of turn too, its header not
    text       {text}: all of it
    With `train_on_prompt` all of the text in any case.
Templates of instruct rows:
    alpaca     Stanford's two, with and without an input
    plain      instruction, newline, and if there is an input, that and a newline
    chat       through the chat template; the user turn is the instruction and, if there is an input, newline and that
    a text     with {instruction} and maybe {input}; nothing else in it means anything
    `system` is the system turn of chats that have none; before any other template it stands with a blank line between.
Files: .jsonl (an object a line), .json (one list), .parquet (where pyarrow is installed), .txt (format text: a line a row);
    blank lines are skipped.
"""
# ruff: noqa: PLC0415 - jinja2 and pyarrow only where a row needs them

import json
import os
from itertools import chain, islice

ALPACA = (
    "Below is an instruction that describes a task{pair}. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n{given}### Response:\n"
)
SHAREGPT = {"human": "user", "gpt": "assistant"}
MAY_FOLLOW = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
MOST_PROBLEMS = 20


class Refused(Exception):
    """What the user can mend: one word for programs, one text for people."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason


class BadRow(ValueError):
    """What is wrong with one row; reported with its place, many at once."""


# Files


def download(name, revision, split, folder):
    """Fetch one split of a data set of the hub: its files' paths inside the folder, and the commit."""
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        info = HfApi().dataset_info(name, revision=revision)
        files = split_files([file.rfilename for file in info.siblings], split)
        patterns = [file.replace("[", "[[]") for file in files]
        snapshot_download(name, repo_type="dataset", revision=info.sha, local_dir=folder, allow_patterns=patterns)
        if lost := [file for file in files if not os.path.exists(os.path.join(folder, file))]:
            raise ConnectionError(f"the download broke off before {lost[0]}")
    except errors.GatedRepoError:
        raise Refused(
            "gated_data",
            f"{name}: is gated: accept its terms at https://huggingface.co/datasets/{name}, then set "
            "HF_TOKEN to a token of that account and name it under `secrets`",
        ) from None
    except Exception as error:  # unknown, private, out of reach: the client's errors differ by version
        if getattr(error, "errno", None):  # the disk's, not the hub's
            raise
        line = str(error).strip().partition("\n")[0]
        raise Refused(
            "no_data",
            f"{name}: not on the hub, or private, or the hub is out of reach: mind the spelling, name "
            f"HF_TOKEN under `secrets`, or give a path ({line})",
        ) from None
    if len({os.path.dirname(file) for file in files}) != 1:
        where = f"lies in several folders: {', '.join(files[:9])}" if files else "is in no .jsonl, .json or .parquet file"
        raise Refused("no_data", f"{name}: split {split!r} {where}; download the files wanted and give a path")
    return files, info.sha


def split_files(files, split):
    """A split's files, in one format: those which it names, or whose folder it names; a lone file is `train`."""

    def belongs(file):
        return any(part.partition(mark)[0] == split for part in file.split("/") for mark in ".-_")

    by_format = [sorted(file for file in files if file.endswith(suffix)) for suffix in (".jsonl", ".json", ".parquet")]
    named = ([file for file in some if belongs(file)] for some in by_format)
    lone = list(chain(*by_format))
    return next(filter(None, named), lone if len(lone) == 1 and split == "train" else [])


def json_lines(path):
    """Rows of a file with a JSON object a line, still as text."""
    with open(path, "rb") as file:
        yield from ((f"{path}:{number}", line) for number, line in enumerate(file, 1) if line.strip())


def json_list(path):
    """Rows of a file that holds one JSON list."""
    try:
        with open(path, "rb") as file:
            rows = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise Refused("bad_data", f"{path}: not JSON: {error}") from None
    if not isinstance(rows, list):
        raise Refused("bad_data", f"{path}: should hold one list of rows; a file with a row a line is called .jsonl")
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def parquet(path):
    """Rows of a parquet file."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Refused("bad_data", f"{path}: needs pyarrow, which this trainer's environment lacks; give .jsonl") from None
    try:
        rows = chain.from_iterable(batch.to_pylist() for batch in ParquetFile(path).iter_batches())
        yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))
    except ValueError as error:  # pyarrow.ArrowInvalid is one
        raise Refused("bad_data", f"{path}: not parquet: {error}") from None


def text_lines(path):
    """Rows of a plain text, a line each."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        yield from ((f"{path}:{number}", {"text": line.rstrip("\n")}) for number, line in enumerate(file, 1) if line.strip())


READERS = {".jsonl": json_lines, ".json": json_list, ".parquet": parquet, ".txt": text_lines}


# A row as text


def rendered(paths, spec, chat, most=None):
    """The rows (the first `most`) as (place, text, spans); in the end the first bad ones, if there are any, all at once."""
    problems = []
    rows = chain.from_iterable(READERS[os.path.splitext(path)[1]](path) for path in paths)
    for where, row in islice(rows, most):
        try:
            text, spans = render(json.loads(row) if isinstance(row, bytes) else row, spec, chat)
            text.encode()
        except UnicodeError:
            problems.append(f"{where}: holds what is no UTF-8 text, or half a surrogate pair")
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: {error}")
        else:
            yield where, text, spans
        if len(problems) == MOST_PROBLEMS:
            problems.append("(there may be more)")
            break
    if problems:
        raise Refused("bad_data", "\n".join(problems))


def render(row, spec, chat):
    """The row's text and the character ranges of it that carry loss."""
    if not isinstance(row, dict):
        raise BadRow(f"should be an object with columns, got {type(row).__name__}")
    if spec.format == "chat":
        text, spans = chat_text(turns(row, spec), chat)
    elif spec.format == "text":
        text = column(row, spec, "text")
        spans = [(0, len(text))]
    else:
        text, spans = instruct_text(row, spec, chat)
    return text, [(0, len(text))] if spec.train_on_prompt else spans


def column(row, spec, name, optional=False):
    """The text in our column `name`, by the file's name for it; "" when an optional one is absent or null."""
    theirs = spec.columns.get(name) or name
    if row.get(theirs) is None and optional:
        return ""
    if theirs not in row:
        raise BadRow(f"has no column {theirs!r}, only {', '.join(map(repr, row))} (data.columns names them)")
    if not isinstance(row[theirs], str):
        raise BadRow(f"column {theirs!r}: should be text, got {type(row[theirs]).__name__}")
    return row[theirs]


def instruct_text(row, spec, chat):
    """Prompt by the template, then the output."""
    instruction, given = column(row, spec, "instruction"), column(row, spec, "input", optional=True)
    output = column(row, spec, "output")
    plain = f"{instruction}\n{given}" if given else instruction
    if spec.template == "chat":
        opening = [{"role": "system", "content": spec.system}] if spec.system else []
        pair = {"role": "user", "content": plain}, {"role": "assistant", "content": output}
        return chat_text([*opening, *pair], chat)
    if spec.template == "alpaca":
        pair = ", paired with an input that provides further context" if given else ""
        given = f"### Input:\n{given}\n\n" if given else ""
        prompt = ALPACA.format(pair=pair, given=given, instruction=instruction)
    elif spec.template == "plain":
        prompt = plain + "\n"
    else:  # cut by our two words before anything is put in: the row's own text is never searched for them
        parts = [part.split("{input}") for part in spec.template.split("{instruction}")]
        prompt = instruction.join(given.join(part) for part in parts)
    prompt = f"{spec.system}\n\n{prompt}" if spec.system else prompt
    return prompt + output, [(len(prompt), len(prompt) + len(output))]


def turns(row, spec):
    """The row's messages in the words of chat templates, in an order that they accept."""
    name = spec.columns.get("messages") or "messages"
    if not isinstance(row.get(name), list) or not row[name]:
        raise BadRow(f"column {name!r}: should be a list of messages, got {row.get(name)!r:.60}")
    messages = []
    for number, given in enumerate(row[name], 1):
        if not isinstance(given, dict):
            raise BadRow(f"message {number}: should be an object, got {given!r:.60}")
        role = given.get("role") or given.get("from")
        role = SHAREGPT.get(role, role) if isinstance(role, str) else role
        content = given.get("value") if given.get("content") is None else given["content"]
        due = MAY_FOLLOW[messages[-1]["role"] if messages else None]
        if role not in due:
            raise BadRow(f"message {number}: role should be {' or '.join(due)} here, got {role!r}")
        if not isinstance(content, str) and not given.get("tool_calls"):
            raise BadRow(f"message {number}: content should be text, got {type(content).__name__}")
        messages.append({**given, "role": role, "content": content})
    if spec.system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": spec.system})
    return messages


def chat_text(messages, chat):
    """The whole chat, and for each assistant turn the range from behind its header to its end."""
    text, spans = chat(messages), []
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            header, end = chat(messages[:at], True), chat(messages[: at + 1])
            if not (text.startswith(end) and end.startswith(header)):
                raise BadRow(
                    f"message {at + 1}: the chat template writes this turn otherwise when more follows or when it is "
                    "to be generated, so where its loss lies is open: one turn a row, or another template"
                )
            spans.append((len(header), len(end)))
    return text, spans


def chat_renderer(folder, config):
    """The tokenizer's chat template as a function, with what transformers gives a template; its clock stands still.

    See transformers 5 utils/chat_template_utils.py. The model's author wrote it, so it runs in a sandbox. Refused without.
    """
    import datetime

    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message):
        raise BadRow(message)

    def chat(messages, add_generation_prompt=False):
        facts = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        try:
            return template.render(**names, **facts)
        except Exception as error:  # whatever foreign code raises
            raise BadRow(f"the chat template refuses the row: {error}") from None

    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    room.filters["tojson"] = lambda value, **options: json.dumps(value, **({"ensure_ascii": False} | options))
    room.globals |= {"raise_exception": refuse, "strftime_now": datetime.date(2024, 7, 26).strftime}
    names = {key: text for key, value in config.items() if key.endswith("_token") and (text := token_text(value))}
    try:
        template = room.from_string(template_source(folder, config))
    except TemplateSyntaxError as error:
        raise Refused("no_template", f"{folder}: line {error.lineno} of the chat template: {error}") from None
    return chat


def template_source(folder, config):
    """The text of the chat template: chat_template.jinja, else the configuration's, of several the one named `default`."""
    import re

    source = config.get("chat_template")
    if isinstance(source, list):
        source = {one.get("name"): one.get("template") for one in source}.get("default")
    path = os.path.join(folder, "chat_template.jinja")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            source = file.read()
    if not isinstance(source, str):
        raise Refused(
            "no_template",
            f"{folder}: the tokenizer has no chat template: choose a model trained for chat, or for "
            "instruct rows data.template alpaca, plain or a text of yours",
        )
    # {% generation %} is transformers' own tag for what we find by the turns; the text is the same without it
    source = re.sub(r"(\{%-?\s*)generation(\s*-?%\})", r"\1if true\2", source)
    return re.sub(r"(\{%-?\s*)endgeneration(\s*-?%\})", r"\1endif\2", source)


def token_text(value):
    """A special token's text as configurations give it, bare or as an object; None for anything else."""
    return value if isinstance(value, str) else value.get("content") if isinstance(value, dict) else None
