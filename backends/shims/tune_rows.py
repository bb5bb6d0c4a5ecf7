"""Rows of which the model learns a text, with the parts of it that carry loss; all of them end to end as ids and labels.

Rows, and what of them carries loss:
    instruct    {instruction, input, output}: the output
    completion  {prompt, completion}, one after the other as they are: the completion
    chat        {messages: [{role, content}]}, or ShareGPT's {conversations: [{from, value}]}: each turn of one of the
                `loss_roles`; tune_chat.py says where a turn lies
    text        {text}: all of it
    With `train_on_prompt` all of the text in any case.
Templates of instruct rows:
    alpaca     Stanford's two, with and without an input
    plain      instruction, newline, and if there is an input, that and a newline
    chat       through the chat template; the user turn is the instruction and, if there is an input, newline and that
    a text     with {instruction} and maybe {input}; nothing else in it means anything
    `system` is the system turn of chats that have none; before any other template it stands with a blank line between.
"""
# ruff: noqa: PLC0415 - numpy only where rows are made

import os
from array import array
from itertools import pairwise

from tune_chat import chat_text, turns
from tune_files import BadRow, each, text_cell
from tune_tally import Tally
from tune_tokens import NO_LOSS, batched, labelled, marked, pieces

FORMATS = ("instruct", "completion", "chat", "text")
ALPACA = (
    "Below is an instruction that describes a task{pair}. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n{given}### Response:\n"
)


# A row as text


def render(row, spec, chat):
    """The row's text and the character ranges of it that carry loss."""
    if spec.format == "chat":
        text, spans = chat_text(conversation(row, spec), chat, spec.loss_roles)
    elif spec.format == "text":
        text = text_cell(row, spec.columns, "text")
        spans = [(0, len(text))]
    elif spec.format == "completion":
        prompt = text_cell(row, spec.columns, "prompt")
        text = prompt + text_cell(row, spec.columns, "completion")
        spans = [(len(prompt), len(text))]
    else:
        text, spans = instruct_text(row, spec, chat)
    text.encode()  # raises for half a surrogate pair
    return text, [(0, len(text))] if spec.train_on_prompt else spans


def instruct_text(row, spec, chat):
    """Prompt by the template, then the output."""
    instruction, given = (text_cell(row, spec.columns, name, name == "input") for name in ("instruction", "input"))
    output = text_cell(row, spec.columns, "output")
    plain = f"{instruction}\n{given}" if given else instruction
    if spec.template == "chat":
        pair = {"role": "user", "content": plain}, {"role": "assistant", "content": output}
        return chat_text(turns(pair, spec.system), chat)
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


def conversation(row, spec):
    """The row's messages; ShareGPT's column is known without being named."""
    name = spec.columns.get("messages") or "messages"
    if name == "messages" and name not in row and "conversations" in row:
        name = "conversations"
    if not isinstance(row.get(name), list) or not row[name]:
        raise BadRow(f"column {name!r}: should be a list of messages, got {row.get(name)!r:.60}")
    return turns(row[name], spec.system)


# Rows as tokens


def encoded(paths, spec, tokens, most=None):
    """The Rows of the files, the first `most`."""
    around = tokens.around(spec.format == "chat" or (spec.format == "instruct" and spec.template == "chat"))
    for some in batched(each(paths, lambda row: render(row, spec, tokens.chat), most)):
        encodings = tokens.encode([text for _, (text, _) in some])
        for (where, (text, spans)), encoding in zip(some, encodings, strict=True):
            yield labelled(where, text, spans, encoding, around, spec.max_length)


def previewed(paths, spec, tokens, most):
    """The first rows, token by token: {row, tokens: [[text, id, carries loss], ...]}."""
    rows = encoded(paths, spec, tokens, most)
    return [{"row": number, "tokens": pieces(row, tokens)} for number, row in enumerate(rows, 1)]


def collected(name, sources, spec, tokens, folder):
    """Write a set's rows end to end, NAME.ids.npy, .labels.npy (int32) and .starts.npy (int64); their Tally."""
    import numpy as np

    tally, ids, labels, starts = Tally(name, "rows", "no token with loss within"), array("i"), array("i"), array("q", [0])
    for source in sources:
        first = len(starts) - 1
        for row in encoded(source.paths, spec, tokens):
            tally.rows_in += 1
            if row.labels.count(NO_LOSS) == len(row.labels):
                tally.empty.append(row.where)
                continue
            tally.sample = tally.sample or f"{row.where}\n{marked(pieces(row, tokens))}"
            tally.truncated += row.truncated
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
