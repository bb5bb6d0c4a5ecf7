"""Rows of which the model learns a text, with the parts of it that carry loss; all of them end to end as ids and labels.

Rows, and what of them carries loss:
    instruct    {instruction, input, output}: the output
    completion  {prompt, completion}, one after the other as they are: the completion
    chat        {messages: [{role, content}]}, or ShareGPT's {conversations: [{from, value}]}: each turn of one of the
                `loss_roles`, unless its own `weight` or `train` says otherwise; tune_turns.py says where a turn lies
    text        {text}: all of it
    With `train_on_prompt` all of the text in any case.
Templates of instruct rows:
    alpaca     Stanford's two, with and without an input
    plain      instruction, newline, and if there is an input, that and a newline
    chat       through the chat template; the user turn is the instruction and, if there is an input, newline and that
    a text     with {instruction} and maybe {input}; nothing else in it means anything
    `system` is the system turn of chats that have none; before any other template it stands with a blank line between. A
    column `system` in a row goes before it. Columns `tools`, `documents` and `chat_template_kwargs` are the chat template's.
"""
# ruff: noqa: PLC0415 - numpy only where rows are made

import os
from array import array
from collections import namedtuple
from itertools import pairwise

from tune_chat import row_facts, structured, switched, turns, written
from tune_columns import HEEDED, HEEDED_IN_CHATS, Cells
from tune_files import BadRow, each
from tune_tally import Tally
from tune_tokens import NO_LOSS, batched, labelled, marked, pieces
from tune_turns import find_turns

NOUNS = dict.fromkeys(("instruct", "completion", "chat", "text"), "rows")
LACK = "no token with loss within"
FORMATS = tuple(NOUNS)
ALPACA = (
    "Below is an instruction that describes a task{pair}. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n{given}### Response:\n"
)


# A row as text


Text = namedtuple("Text", "text spans turns blank chat unread found")
Text.__doc__ = """A row as text.

text, ranges that carry loss, the Turns of a chat that do, whether an answer in it is empty, whether the chat template wrote it;
columns and keys that nothing read, and the columns that were there.
"""


def render(row, spec, chat):
    """The row as a Text."""
    cells = Cells(row, spec.columns, spec.ignore)
    text, spans, turned, blank, unread = WAYS[spec.format](cells, spec, chat)
    text.encode()  # raises for half a surrogate pair
    heeded = HEEDED_IN_CHATS if spec.format == "chat" else HEEDED
    unread = [*cells.unread(heeded), *unread]
    through = spec.format == "chat" or (spec.format == "instruct" and spec.template == "chat")
    return Text(text, [(0, len(text))] if spec.train_on_prompt else spans, turned, blank, through, unread, row.keys())


def text_row(cells, _spec, _chat):
    """A text, all of which is learned."""
    text = cells.text("text")
    return text, [(0, len(text))], [], not text.strip(), []


def completion_row(cells, _spec, _chat):
    """Prompt and completion as they stand."""
    prompt, completion = cells.text("prompt"), cells.text("completion")
    text = prompt + completion
    return text, [(len(prompt), len(text))], [], not completion.strip(), []


def chat_row(cells, spec, chat):
    """A conversation through the chat template."""
    return through_template(conversation(cells, spec), spec, chat, row_facts(cells))


def through_template(messages, spec, chat, facts):
    """Messages as the chat template writes them, with the turns that carry loss."""
    messages, wanted = switched(messages, spec.loss_roles)
    chat = chat.with_facts(facts) if facts else chat
    messages, text, unread = written(messages, chat)
    turned = find_turns(text, messages, wanted, chat, spec.ignore)
    unread += [FORGOTTEN] * any(one.forgets for one in turned)
    empty = any(not (messages[one.number - 1]["content"] or "").strip() and len(messages[one.number - 1]) == 2 for one in turned)
    return text, [span for one in turned for span in one.spans], turned, empty, unread


def instruct_row(cells, spec, chat):
    """Prompt by the template, then the output."""
    instruction, given, output = cells.text("instruction"), cells.text("input", optional=True), cells.text("output")
    system = system_of(cells, spec)
    plain = f"{instruction}\n{given}" if given else instruction
    if spec.template == "chat":
        pair = {"role": "user", "content": plain}, {"role": "assistant", "content": output}
        return through_template(turns(pair, system), spec, chat, row_facts(cells))
    if spec.template == "alpaca":
        pair = ", paired with an input that provides further context" if given else ""
        given = f"### Input:\n{given}\n\n" if given else ""
        prompt = ALPACA.format(pair=pair, given=given, instruction=instruction)
    elif spec.template == "plain":
        prompt = plain + "\n"
    else:
        check_words(cells, spec.template, given)
        # cut by our two words before anything is put in: the row's own text is never searched for them
        parts = [part.split("{input}") for part in spec.template.split("{instruction}")]
        prompt = instruction.join(given.join(part) for part in parts)
    prompt = f"{system}\n\n{prompt}" if system else prompt
    return prompt + output, [(len(prompt), len(prompt) + len(output))], [], not output.strip(), []


FORGOTTEN = "messages[].content: thoughts of earlier turns"
WAYS = {"instruct": instruct_row, "completion": completion_row, "chat": chat_row, "text": text_row}


def check_words(cells, template, given):
    """Refuse a row of which a template of the user's leaves something out, or whose column it names in vain."""
    if given and "{input}" not in template:
        raise BadRow(
            f"column {cells.theirs('input')!r}: data.template has no {{input}}, so what it says would be lost: put {{input}} into "
            f"the template, or {cells.theirs('input')!r} into data.ignore"
        )
    for name in cells.row:
        if name not in ("instruction", "input") and f"{{{name}}}" in template:
            raise BadRow(
                f"column {name!r}: data.template holds {{{name}}}, which would be left as it stands: only {{instruction}} and "
                "{input} are replaced, and data.columns says which columns they are"
            )


def system_of(cells, spec):
    """The system text of a row: its own column's, else the recipe's."""
    return cells.text("system", optional=True) or spec.system


def conversation(cells, spec):
    """The row's messages; ShareGPT's column is known without being named."""
    name = cells.theirs("messages")
    if name == "messages" and cells.row.get("messages") is None and cells.row.get("conversations") is not None:
        name = "conversations"
    cells.read.add(name)
    if name not in cells.row:
        cells.cell("messages")  # says which columns there are
    given = structured(name, cells.row[name], "a list of messages")
    if not isinstance(given, list) or not given:
        raise BadRow(f"column {name!r}: should be a list of messages, got {given!r:.60}")
    messages, own = turns(given, None, None, spec.ignore), cells.text("system", optional=True)
    if messages[0]["role"] != "system":
        return turns(given, own or spec.system, None, spec.ignore)
    if own and own != messages[0]["content"]:
        raise BadRow("column 'system': says otherwise than the system turn: keep one, or put 'system' into data.ignore")
    return messages


# Rows as tokens


def encoded(files, spec, tokens, most=None):
    """(Text, Row) of the files' rows, the first `most`."""
    for some in batched(each(files, lambda row: render(row, spec, tokens.chat), most)):
        encodings = tokens.encode([made.text for _, made in some])
        for (where, made), encoding in zip(some, encodings, strict=True):
            yield made, labelled(where, made, encoding, tokens, spec.max_length)


def counted(sources, spec, tokens, tally, most=None):
    """The Rows of the sources that teach something, counted in the tally, source by source: (source, its rows)."""

    def rows(source):
        for made, row in encoded(source.files, spec, tokens, most):
            if tally.took(source, made, row, row.labels.count(NO_LOSS) == len(row.labels)):
                yield row

    return ((source, rows(source)) for source in sources)


def previewed(sources, spec, tokens, tally, count, most):
    """The first rows, token by token: {row, tokens: [[text, id, carries loss], ...]}; the first `most` of each source counted."""
    first = []
    for _, rows in counted(sources, spec, tokens, tally, most):
        for row in rows:
            if len(first) < count:
                first.append({"row": tally.rows_in, "tokens": pieces(row, tokens)})
    return first


def collected(name, sources, spec, tokens, folder):
    """Write a set's rows end to end, NAME.ids.npy, .labels.npy (int32) and .starts.npy (int64); their Tally."""
    import numpy as np

    tally, ids, labels, starts = Tally(name, "rows", LACK), array("i"), array("i"), array("q", [0])
    for source, rows in counted(sources, spec, tokens, tally):
        first = len(starts) - 1
        for row in rows:
            tally.sample = tally.sample or f"{row.where}\n{marked(pieces(row, tokens))}"
            ids.extend(row.ids)
            labels.extend(row.labels)
            starts.append(len(ids))
        if spec.pack:
            starts[first:] = packed(starts[first:], spec.max_length)
        tally.parts.append((source, len(starts) - 1 - first))
    tally.check(sources, spec)
    for kind, values in (("ids", ids), ("labels", labels), ("starts", starts)):
        np.save(os.path.join(folder, f"{name}.{kind}.npy"), np.asarray(values))
    tally.content, tally.largest = [ids, labels], int(np.asarray(ids).max())
    tally.lengths = np.diff(starts)
    tally.longest = {"longest": int(tally.lengths.max())}
    tally.loss = np.add.reduceat(np.asarray(labels) != NO_LOSS, starts[:-1], dtype=np.int64)
    return tally


def packed(starts, most):
    """The starts of joined rows: as many whole rows one after another as fit into `most` tokens."""
    kept = array("q", starts[:1])
    for start, end in pairwise(starts):
        if end - kept[-1] > most:
            kept.append(start)
    if starts[-1] > kept[-1]:
        kept.append(starts[-1])
    return kept
