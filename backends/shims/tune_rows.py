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
from contextlib import closing
from functools import partial
from itertools import accumulate, chain, pairwise

from tune_arrays import Npy, content
from tune_chat import SWITCHES, opened, row_facts, structured, switched, turns, written
from tune_columns import HEEDED, HEEDED_IN_CHATS, Cells
from tune_files import BadRow
from tune_reading import MOST_PROBLEMS, batched, check_good, each, raw, tried
from tune_skeleton import placed_turns
from tune_tally import Tally
from tune_tokens import NO_LOSS, labelled, marked, pieces
from tune_turns import find_turns
from tune_workers import in_order

NOUNS = dict.fromkeys(("instruct", "completion", "chat", "text"), "rows")
LACK = "no token with loss within"
FORMATS = tuple(NOUNS)
ALPACA = (
    "Below is an instruction that describes a task{pair}. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n{given}### Response:\n"
)


# A row as text


Text = namedtuple("Text", "text spans turns blank chat unread found added")
Text.__doc__ = """A row as text.

text, ranges that carry loss, the Turns of a chat that do, whether an answer in it is empty, whether the chat template wrote it;
columns and keys that nothing read, the columns that were there, and what the chat template added of its own.
"""


def render(row, spec, chat):
    """The row as a Text."""
    cells = Cells(row, spec.columns, spec.ignore)
    text, spans, turned, blank, unread = WAYS[spec.format](cells, spec, chat)
    text.encode()  # raises for half a surrogate pair
    heeded = HEEDED_IN_CHATS if spec.format == "chat" else HEEDED
    unread = [*cells.unread(heeded), *unread]
    through = spec.format == "chat" or (spec.format == "instruct" and spec.template == "chat")
    spans = [(0, len(text))] if spec.train_on_prompt else spans
    return Text(text, spans, turned, blank, through, unread, row.keys(), added(text, chat) if through else "")


def added(text, chat):
    """What a chat template has put of its own before a conversation; "" where it did not."""
    own = getattr(chat, "own_text", "")
    return own if text.startswith(own) else ""


def text_row(cells, _spec, _chat):
    """A text, all of which is learned."""
    text = cells.text("text")
    return text, [(0, len(text))], [], not text.strip(), []


def completion_row(cells, _spec, _chat):
    """Prompt and completion as they stand."""
    if isinstance(cells.get("completion"), list):
        raise BadRow(f"column {cells.theirs('completion')!r}: is a list, not a text: data.format: chat reads messages there")
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
    turned = placed_turns(text, messages, wanted, chat)
    if turned is None:
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


HALVES = ("prompt", "completion")
"""Columns of a chat in two parts, as TRL's conversational prompt and completion."""
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
    """The row's messages; ShareGPT's column, and TRL's two of which only the second carries loss, are known without being named."""
    name = cells.theirs("messages")
    if name == "messages" and cells.row.get("messages") is None and cells.row.get("conversations") is not None:
        name = "conversations"
    if name == "messages" and name not in cells.row and all(cells.row.get(one) is not None for one in HALVES):
        given = [*map(unlearned, listed(cells, HALVES[0])), *listed(cells, HALVES[1])]
    else:
        given = listed(cells, name)
    messages, own = turns(given, None, None, spec.ignore), cells.text("system", optional=True)
    if messages[0]["role"] != "system":
        return opened(messages, own or spec.system)
    if own and own != messages[0]["content"]:
        raise BadRow("column 'system': says otherwise than the system turn: keep one, or put 'system' into data.ignore")
    return messages


def listed(cells, name):
    """The messages in a column."""
    cells.read.add(name)
    if name not in cells.row:
        cells.cell("messages")  # says which columns there are
    given = structured(name, cells.row[name], "a list of messages")
    if not isinstance(given, list) or not given:
        raise BadRow(f"column {name!r}: should be a list of messages, got {given!r:.60}")
    return given


def unlearned(message):
    """A message of a prompt: without loss, unless it says so itself."""
    return message if not isinstance(message, dict) or message.keys() & set(SWITCHES) else {**message, "train": False}


# Rows as tokens


def encoded(files, spec, tokens, most=None):
    """(Text, Row) of the files' rows, the first `most`."""
    for some in batched(each(files, lambda row: render(row, spec, tokens.chat), most)):
        yield from tokenized(some, spec, tokens)


def tokenized(some, spec, tokens):
    """(Text, Row) of (place, Text)."""
    encodings = tokens.encode([made.text for _, made in some])
    for (where, made), encoding in zip(some, encodings, strict=True):
        yield made, labelled(where, made, encoding, tokens, spec.max_length)


def is_empty(row):
    """Whether nothing can be learned of it."""
    return row.labels.count(NO_LOSS) == len(row.labels)


def previewed(sources, spec, tokens, tally, count, most):
    """The first rows, token by token: {row, tokens: [[text, id, carries loss], ...]}; the first `most` of each source counted."""
    first = []
    for source in sources:
        for made, row in encoded(source.files, spec, tokens, most):
            if tally.took(source, made, row, is_empty(row)) and len(first) < count:
                first.append({"row": tally.rows_in, "tokens": pieces(row, tokens)})
    return first


Made = namedtuple("Made", "ids labels lengths loss tally problems")
Made.__doc__ = (
    "Rows as tokens, end to end, with the tokens and the tokens with loss of each, their Tally, and what is wrong with others."
)


def make(some, source, spec, tokens, name):
    """The Made of some rows of a source, (place, row as its file has it)."""
    import numpy as np

    good, problems = tried(some, lambda row: render(row, spec, tokens.chat))
    done = Made(array("i"), array("i"), array("q"), array("q"), Tally(name, "rows", LACK), problems)
    for made, row in tokenized(good, spec, tokens):
        loss = int(np.count_nonzero(np.asarray(row.labels) != NO_LOSS))
        if done.tally.took(source, made, row, not loss):
            done.tally.sample = done.tally.sample or f"{row.where}\n{marked(pieces(row, tokens))}"
            done.ids.extend(row.ids)
            done.labels.extend(row.labels)
            done.lengths.append(len(row.ids))
            done.loss.append(loss)
    done.tally.largest = int(np.asarray(done.ids).max()) if done.ids else 0
    return done


def collected(name, sources, spec, tokens, folder, wanted=None):
    """Write a set's rows, or of each source the `wanted` ones, end to end: NAME.ids.npy, .labels.npy (int32), .starts.npy (int64);
    their Tally.
    """
    import numpy as np

    tally, starts, loss = Tally(name, "rows", LACK), array("q", [0]), array("q")
    paths = [os.path.join(folder, f"{name}.{kind}.npy") for kind in ("ids", "labels", "starts")]
    with Npy(paths[0], "<i4") as ids, Npy(paths[1], "<i4") as labels:
        for number, source in enumerate(sources):
            first = len(starts) - 1
            for made in made_of(source, spec, tokens, name, wanted and wanted[number]):
                ids.extend(made.ids)
                labels.extend(made.labels)
                starts.extend(accumulate(made.lengths, initial=starts.pop()))
                loss.extend(made.loss)
                tally.add(made.tally)
            if spec.pack:
                starts[first:], loss[first:] = packed(starts[first:], loss[first:], spec.max_length)
            tally.parts.append((source, len(starts) - 1 - first))
    tally.check(sources, spec)
    np.save(paths[2], np.asarray(starts))
    tally.content = chain(content(paths[0]), content(paths[1]))
    tally.lengths, tally.loss = np.diff(starts), np.asarray(loss)
    tally.longest = {"longest": int(tally.lengths.max())}
    return tally


def made_of(source, spec, tokens, name, wanted):
    """The Made of a source's rows, some at a time; refused in the end where some are bad."""
    problems = []
    work = partial(make, source=source, spec=spec, tokens=tokens, name=name)
    with closing(in_order(work, batched(raw(source.files, wanted=wanted)))) as done:
        for made in done:
            problems += made.problems
            if len(problems) >= MOST_PROBLEMS:
                break
            yield made
    check_good(problems)


def packed(starts, loss, most):
    """The starts of joined rows, as many whole rows one after another as fit into `most` tokens, and the tokens with loss of each."""
    kept, sums = array("q", starts[:1]), array("q", [0] if loss else [])
    for (start, end), count in zip(pairwise(starts), loss, strict=True):
        if end - kept[-1] > most:
            kept.append(start)
            sums.append(0)
        sums[-1] += count
    if starts[-1] > kept[-1]:
        kept.append(starts[-1])
    return kept, sums
