"""Rows of which the model learns from answers to a prompt: pairs of a better and a worse one, single ones with a verdict, none.

    preference  {prompt, chosen, rejected}    NAME.pairs.jsonl    {prompt, chosen, rejected, *_ids}
    rated       {prompt, completion, label}   NAME.rated.jsonl    {prompt, completion, label, *_ids}; label is true or false
    prompts     {prompt} and any others       NAME.prompts.jsonl  {prompt, prompt_ids} and the row's other columns as they are

A row's texts stand as they are (`system` before them with a blank line between), or go through the chat template: with template
`chat`, and where prompt or answer is given as messages. A prompt in messages is the conversation so far; an answer in messages
is a message, a list of one, or a whole conversation that ends with it. Whole conversations hold their prompt, which is what
chosen and rejected have in common, or all but the answer; a prompt column is not read then.

Ids are those of the text as a whole, so that prompt and answer together are what a model reads. A token that straddles prompt
and answer belongs to the answer; a prompt has the tokens that are the same before both answers. Prompt ids begin with the
tokenizer's opening tokens, answer ids end with EOS, both as for other rows. What is longer than `max_length` is cut at the end
of each answer, text and ids; a prompt must leave room for one token of an answer.
"""

import hashlib
import json
import os
from collections import namedtuple

from tune_chat import MAY_FOLLOW, row_facts, turns, worded, written
from tune_columns import Cells
from tune_files import BadRow
from tune_reading import batched, each
from tune_rows import added, system_of
from tune_tally import Tally
from tune_tokens import NO_LOSS, Row, marked, pieces, surrounded, token_at, turn_ends
from tune_turns import Turn, find_turns, in_common, turn, unsteady

ANSWERS = {"preference": ("chosen", "rejected"), "rated": ("completion",), "prompts": ()}
FILES = {"preference": "pairs", "rated": "rated", "prompts": "prompts"}
NOUNS = {"preference": "pairs", "rated": "rows", "prompts": "prompts"}
FORMATS = tuple(FILES)
LACK = "no prompt, or no room for an answer within"
Asked = namedtuple("Asked", "prompt answers chat more turns blank unread found added")
Asked.__doc__ = """A row as text.

prompt, {name: answer}, whether the chat template wrote them, columns that come along, {name: the answer's Turn} of chats,
whether an answer is empty, columns and keys that nothing read, the columns that were there, and what the chat template added.
"""
Answered = namedtuple("Answered", "where asked rows cut")
Answered.__doc__ = (
    "A row as tokens: {name of the answer: Row of prompt and answer}, and how many tokens of each are the prompt's."
)


# A row as text


def render(row, spec, chat):
    """The row as prompt and answers."""
    cells = Cells(row, spec.columns, spec.ignore)
    prompt, answers = split(cells, spec)
    more = {"preference": lambda _: {}, "rated": verdict, "prompts": others}[spec.format](cells)
    system, turned, unread = system_of(cells, spec), {}, []
    chats = spec.template == "chat" or isinstance(prompt, list) or any(isinstance(one, list) for one in answers.values())
    if chats:
        facts = row_facts(cells)
        prompt, answers, turned, unread = through_template(
            prompt, answers, system, chat.with_facts(facts) if facts else chat, spec
        )
    elif system:
        prompt = f"{system}\n\n{prompt}"
    if not prompt:
        raise BadRow("the prompt is empty")
    "".join([prompt, *answers.values()]).encode()  # raises for half a surrogate pair
    blank = any(not text[: turned[name].body - len(prompt) if chats else None].strip() for name, text in answers.items())
    if spec.format == "prompts":  # they all come along
        cells.read.update(cells.row)
    own = added(prompt, chat) if chats else ""
    return Asked(prompt, answers, chats, more, turned, blank, [*cells.unread(), *unread], row.keys(), own)


def split(cells, spec):
    """The row's prompt, and its answers by name: each a text, or a list of messages."""
    answers = {name: answer(cells, spec, name) for name in ANSWERS[spec.format]}
    whole = [isinstance(one, list) and (len(one) > 1 or one[0]["role"] != "assistant") for one in answers.values()]
    if not any(whole):
        return prompt_of(cells, spec), answers
    if not all(whole):
        raise BadRow(f"{' and '.join(answers)}: should be whole conversations both, or answers both")
    shared = common(list(answers.values()))
    for name, messages in answers.items():
        if len(messages) != shared + 1:
            raise BadRow(f"{name}: only the last message should differ from the other answer, but message {shared + 1} does")
    return messages[:shared], {name: messages[shared:] for name, messages in answers.items()}


def common(conversations):
    """How many messages the conversations begin with in common; their last ones are answers, whatever they say."""
    said = [[(one["role"], one["content"], one.get("tool_calls")) for one in messages[:-1]] for messages in conversations]
    return in_common(*said)


def prompt_of(cells, spec):
    """The prompt: a text, or messages that the assistant may answer."""
    given = cells.cell("prompt")
    if not isinstance(given, list):
        return cells.text("prompt")
    messages = messages_in(given, "prompt", spec)
    if "assistant" not in MAY_FOLLOW[messages[-1]["role"]]:
        raise BadRow(f"prompt: should end with a message to answer, not with one of role {messages[-1]['role']!r}")
    return messages


def answer(cells, spec, name):
    """An answer: a text, or messages of which the last is the assistant's."""
    given = cells.cell(name)
    if isinstance(given, dict):
        given = [given]
    if not isinstance(given, list):
        return cells.text(name)
    messages = messages_in(given, name, spec)
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"{name}: should end with a message of the assistant, not with one of role {messages[-1]['role']!r}")
    return messages


def messages_in(given, name, spec):
    """The messages of a column; those of an answer may begin with the assistant's."""
    if not given:
        raise BadRow(f"{name}: should be text or messages, got an empty list")
    try:
        opens = name != "prompt" and worded(given[0], 1)["role"] == "assistant"
        return turns(given, after="user" if opens else None, ignored=spec.ignore)
    except BadRow as error:
        raise BadRow(f"{name}: {error}") from None


def through_template(prompt, answers, system, chat, spec):
    """(prompt, answers, Turns, unread) as the chat template writes them; an answer ends with its end of turn."""
    given = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    before = [{"role": "system", "content": system}, *given] if system and given[0]["role"] != "system" else given
    if not answers:
        messages, _, unread = written(before, chat)
        return chat(messages, True), {}, {}, unread
    texts, turned, unread = {}, {}, []
    for name, one in answers.items():
        last = one if isinstance(one, list) else [{"role": "assistant", "content": one}]
        messages, text, left = written([*before, *last], chat)
        start, body, end = turn(text, messages, len(before), chat)
        find_turns(text, messages, [False] * len(before) + [True], chat, spec.ignore)
        texts[name], turned[name] = (text[:start], text[start:]), Turn(len(messages), "assistant", [(start, end)], body, end)
        unread += [path for path in left if path not in unread]
    headers = {header for header, _ in texts.values()}
    if len(headers) > 1:
        raise unsteady(len(before))
    return headers.pop(), {name: text for name, (_, text) in texts.items()}, turned, unread


def verdict(cells):
    """The label of a rated row, true or false."""
    label = cells.cell("label")
    if label not in (True, False):  # 1 and 0 are equal to them
        raise BadRow(f"label: should be true or false, got {label!r:.60}")
    return {"label": bool(label)}


def others(cells):
    """The columns beside the prompt, as whoever scores the answers wants them."""
    theirs = cells.theirs("prompt")
    rest = {name: value for name, value in cells.row.items() if name != theirs}
    if taken := rest.keys() & {"prompt", "prompt_ids"}:
        raise BadRow(f"column {min(taken)!r}: has a name that what is made of {theirs!r} gets; call it otherwise")
    try:
        json.dumps(rest)
    except TypeError as error:
        raise BadRow(f"a column beside {theirs!r} holds what JSON cannot: {error}") from None
    return rest


# A row as tokens


def encoded(files, spec, tokens, most=None, wanted=None):
    """The rows of the files, as `raw` takes them, as Answered."""
    for some in batched(each(files, lambda row: render(row, spec, tokens.chat), most, wanted)):
        texts = [texts_of(asked) for _, asked in some]
        encodings = iter(tokens.encode([text for one in texts for text in one.values()]))
        for (where, asked), by_name in zip(some, texts, strict=True):
            yield answered(where, asked, {name: (text, next(encodings)) for name, text in by_name.items()}, spec, tokens)


def texts_of(asked):
    """The texts to tokenize: prompt and answer by the answer's name; the prompt alone where there is none."""
    return {name: asked.prompt + text for name, text in asked.answers.items()} or {"prompt": asked.prompt}


def answered(where, asked, encodings, spec, tokens):
    """One row's tokens; those from the first on that is not the prompt's carry loss."""
    opening, closing = tokens.around(asked.chat)
    cut = prompt_tokens(len(asked.prompt), list(encodings.values()))
    rows = {}
    for name, (text, encoding) in encodings.items():
        ended = closing and encoding.ids[cut:][-1:] == closing
        ids, opened = surrounded(encoding.ids, opening, closing if asked.answers and not ended else [])
        labels = [NO_LOSS] * (opened + cut) + ids[opened + cut :]
        most = spec.max_length
        over = len(ids) > most
        turned = [asked.turns[name]] if name in asked.turns else []
        ends = turn_ends(text, turned, encoding, opened, labels, tokens, most)
        rows[name] = Row(where, text, encoding, opened, ids[:most], labels[:most], over, over and bool(asked.answers), *ends)
    return Answered(where, asked, rows, opened + cut)


def prompt_tokens(length, encodings):
    """How many tokens are the prompt's: all within its `length` characters, and the same before each answer."""
    ids = [encoding.ids[: token_at(encoding, length, text)] for text, encoding in encodings]
    return in_common(*ids)


def answer_text(row, asked):
    """The text of an answer, cut where its tokens were."""
    kept = len(row.ids) - row.opened
    end = row.encoding.offsets[kept - 1][1] if kept < len(row.encoding.ids) else len(row.text)
    return row.text[len(asked.prompt) : end]


def is_empty(row, spec):
    """Whether nothing can be learned: no prompt, no room behind it, or an answer without a token."""
    answers = [row.rows[name] for name in row.asked.answers]
    return not 0 < row.cut < spec.max_length or any(len(one.ids) == row.cut for one in answers)


def line(row):
    """What the trainer reads of one row."""
    texts = {name: answer_text(row.rows[name], row.asked) for name in row.asked.answers}
    prompt_ids = next(iter(row.rows.values())).ids[: row.cut]
    ids = {f"{name}_ids": row.rows[name].ids[row.cut :] for name in texts}
    return {"prompt": row.asked.prompt, **texts, **row.asked.more, "prompt_ids": prompt_ids, **ids}


# As a person reads them


def shown(row, tokens):
    """The tokens, [text, id, carries loss] each, of the prompt and of each answer, by name."""
    every = {name: pieces(one, tokens) for name, one in row.rows.items()}
    prompt = next(iter(every.values()))[: row.cut]
    return {"prompt": prompt, **{name: every[name][row.cut :] for name in row.asked.answers}}


def previewed(sources, spec, tokens, tally, count, most):
    """The first rows: {row, prompt, chosen, rejected}, {row, prompt, completion, label} or {row, prompt}, token by token; the
    first `most` of each source counted.
    """
    about, first = ("label",) if spec.format == "rated" else (), []
    for _, rows in counted(sources, spec, tokens, tally, most):
        for row in rows:
            if len(first) < count:
                first.append({"row": tally.rows_in, **shown(row, tokens), **{name: row.asked.more[name] for name in about}})
    return first


def sampled(row, tokens):
    """One row for the report."""
    return "\n".join([row.where, *(f"{name}: {marked(pieces(one, tokens))}" for name, one in row.rows.items())])


# A set


def counted(sources, spec, tokens, tally, most=None, wanted=None):
    """The rows of the sources that teach something, counted in the tally, source by source: (source, its rows)."""

    def rows(number, source):
        for row in encoded(source.files, spec, tokens, most, wanted and wanted[number]):
            if tally.took(source, row.asked, whole(row), is_empty(row, spec)):
                tally.equal += len(row.asked.answers) > 1 and len(set(row.asked.answers.values())) == 1
                yield row

    return ((source, rows(number, source)) for number, source in enumerate(sources))


def whole(row):
    """What is counted of a row, its answers taken together."""
    rows = list(row.rows.values())
    return Row(
        row.where,
        *(None,) * 5,
        any(one.truncated for one in rows),
        any(one.lost_end for one in rows),
        sorted({number for one in rows for number in one.endless}),
        {end for one in rows for end in one.ends},
    )


def collected(name, sources, spec, tokens, folder, wanted=None):
    """Write a set's rows, or of each source the `wanted` ones, a JSON object a line; their Tally."""
    tally = Tally(name, NOUNS[spec.format], LACK)
    tally.longest = dict.fromkeys(("longest", "longest_prompt", "longest_answer"), 0)
    digest = hashlib.sha256()
    with open(os.path.join(folder, f"{name}.{FILES[spec.format]}.jsonl"), "wb") as file:
        for source, rows in counted(sources, spec, tokens, tally, wanted=wanted):
            before = len(tally.lengths)
            for row in rows:
                tally.sample = tally.sample or sampled(row, tokens)
                add(row, tally)
                text = json.dumps(line(row)).encode() + b"\n"
                digest.update(text)
                file.write(text)
            tally.parts.append((source, len(tally.lengths) - before))
    tally.check(sources, spec)
    tally.content = [digest.digest()]
    return tally


def add(row, tally):
    """Count one row."""
    rows = list(row.rows.values())
    sizes = [len(one.ids) for one in rows]
    longest = {"longest": max(sizes), "longest_prompt": row.cut, "longest_answer": max(sizes) - row.cut}
    tally.longest = {key: max(value, longest[key]) for key, value in tally.longest.items()}
    tally.lengths.append(sum(sizes))
    tally.loss.append(sum(sizes) - row.cut * len(sizes))
    tally.largest = max(tally.largest, *(max(one.ids) for one in rows))
