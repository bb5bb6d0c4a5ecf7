"""Texts as tokens: a model's tokenizer, which tokens carry loss, and a row's tokens as a person reads them.

A text is tokenized as a whole, so a token may straddle two parts of it: it belongs to the part in which it ends. Around a chat
template's text nothing is put; around any other the tokenizer's own opening tokens (BOS, unless the text begins with it; no
loss) and, with `add_eos`, EOS (with loss), unless the answer ends with it. The first token of a row never carries loss: nothing predicts it. What is longer
than `max_length` is cut on the right, EOS too.
"""
# ruff: noqa: PLC0415 - what is ready needs no tokenizers

import os
from array import array
from collections import namedtuple
from itertools import groupby

from tune_files import Refused, read_json
from tune_template import Template, loaded, token_text

NO_LOSS = -100
Row = namedtuple("Row", "where text encoding opened ids labels truncated lost_end endless ends")
Row.__doc__ = """One text's tokens.

place, text, the library's encoding, opening tokens before it, ids, labels; whether it was cut, and whether the cut took its last
token with loss; the numbers of its turns that end without a token at which generation stops, and ids at which the others end.
"""


class Tokens:
    """A tokenizer, bare, with what it puts around a text (opening, closing ids), the id of padding and the chat template."""

    def __init__(self, folder, add_eos, chat_template=None):
        tokenizer = load(folder)
        opening = opening_ids(tokenizer)
        tokenizer.post_processor = None  # it would trim white space off the tokens' places in the text
        self.config, model, ids = special_ids(folder, tokenizer)
        if isinstance(self.config.get("add_bos_token"), bool):  # decides over the post-processor, as in transformers 5
            opening = [ids["bos"]] if self.config["add_bos_token"] and ids["bos"] is not None else []
        self.chat = Template(lambda: loaded(folder, self.config, chat_template))
        self.stops = {ids["eos"], *stop_ids(folder)} - {None}
        self.special = {token for token, one in tokenizer.get_added_tokens_decoder().items() if one.special} | self.stops
        self.folder, self.opening, self.add_eos, self.eos = folder, opening, add_eos, ids["eos"]
        self.name = tokenizer.id_to_token
        self.pad = next(one for one in (ids["pad"], ids["eos"], 0) if one is not None)
        self.vocabulary, self.positions = model.get("vocab_size"), model.get("max_position_embeddings")
        self.bare = tokenizer

    def encode(self, texts):
        """Each text's encoding, nothing put around it."""
        return self.bare.encode_batch(texts, add_special_tokens=False)

    def around(self, chat):
        """Ids that open and that close a text; a chat template writes its own."""
        if chat:
            return [], []
        if self.add_eos and self.eos is None:
            raise Refused(
                "bad_model", f"{self.folder}: names no EOS token: set data.add_eos to false, or mend tokenizer_config.json"
            )
        return self.opening, [self.eos] if self.add_eos else []


def load(folder):
    """The tokenizer of a model folder, without the truncation and padding that its file happens to hold."""
    os.environ["TOKENIZERS_PARALLELISM"] = (
        "false"  # rows are shared out to processes (tune_workers.py), which threads do not outlive
    )
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception
        raise Refused("bad_model", f"{folder}/tokenizer.json: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def opening_ids(tokenizer):
    """The special tokens that the tokenizer itself puts before a text."""
    probe = tokenizer.encode("a")
    return probe.ids[: next((at for at, special in enumerate(probe.special_tokens_mask) if not special), 0)]


def special_ids(folder, tokenizer):
    """The tokenizer's and the model's configuration, and the ids of bos, eos and pad by the first file that names them."""

    def read(name):
        path = os.path.join(folder, name)
        return read_json(path, "bad_model") if os.path.exists(path) else {}

    config, model, ids = read("tokenizer_config.json"), read("config.json"), {}
    try:
        generation = read("generation_config.json")
    except Refused:  # Llama 3.2's was published with a comma too many
        generation = {}
    for kind in ("bos", "eos", "pad"):
        text = token_text(config.get(f"{kind}_token"))
        found = [tokenizer.token_to_id(text) if text else None, *(facts.get(f"{kind}_token_id") for facts in (generation, model))]
        found = [one[0] if isinstance(one, list) and one else one for one in found]
        ids[kind] = next((one for one in found if isinstance(one, int)), None)
    return config, model, ids


def stop_ids(folder):
    """Ids at which the model's own settings stop generation."""
    for name in ("generation_config.json", "config.json"):
        path = os.path.join(folder, name)
        try:
            ids = read_json(path, "bad_model").get("eos_token_id") if os.path.exists(path) else None
        except Refused:  # as above
            ids = None
        if ids is not None:
            return [one for one in (ids if isinstance(ids, list) else [ids]) if isinstance(one, int)]
    return []


def labelled(where, made, encoding, tokens, most):
    """The Row of one Text, what its spans hold with loss, with what stands around it, cut at `most` tokens."""
    opening, closing = tokens.around(made.chat)
    spans = [tuple(token_at(encoding, at, made.text) for at in span) for span in made.spans]
    bare = encoding.ids  # made anew each time that it is asked for
    if closing and bare[-1:] == closing and any(start < end == len(bare) for start, end in spans):
        closing = []
    around, opened = surrounded(bare, opening, closing)
    ids = array("i", around)
    labels = array("i", [NO_LOSS]) * len(ids)
    labels[opened + len(bare) :] = ids[opened + len(bare) :]
    for start, end in spans:
        within = slice(opened + start, opened + end)
        labels[within] = ids[within]
    if labels:
        labels[0] = NO_LOSS
    cut = len(ids) > most
    lost_end = cut and any(label != NO_LOSS for label in labels[most:])
    endless, ends = turn_ends(made.text, made.turns, encoding, opened, labels, tokens, most)
    return Row(where, made.text, encoding, opened, ids[:most], labels[:most], cut, lost_end, endless, ends)


def turn_ends(text, turns, encoding, opened, labels, tokens, most):
    """(numbers of the assistant's turns that no token with loss ends, ids at which the others end), those that are cut left out.

    A turn ends at a token at which the model's settings stop, or at a special token behind its content.
    """
    endless, ends = [], set()
    for turn in turns:
        stop = opened + token_at(encoding, turn.end, text)
        if turn.role != "assistant" or stop > most:
            continue
        behind = opened + token_at(encoding, turn.body, text)
        last = next((label for label in labels[behind:stop] if label in tokens.special), None)
        if last is None:
            endless.append(turn.number)
        else:
            ends.add(last)
    return endless, ends


def surrounded(ids, opening, closing):
    """Ids with those that open and close a text, and how many were put before them: none where they are there already."""
    if not opening and not closing:
        return ids, 0
    if ids[: len(opening)] == opening:
        opening = []
    return [*opening, *ids, *closing], len(opening)


def token_at(encoding, position, text):
    """The first token that holds the character at `position`, or one behind it; the count of tokens where there is none."""
    token = encoding.char_to_token(position)
    if token is not None:
        return token
    for at in range(position + 1, len(text)):
        if (token := encoding.char_to_token(at)) is not None:
            return token
    return len(encoding)


# As a person reads them


def pieces(row, tokens):
    """Each token's (text, id, carries loss); a character of several tokens is shown with the first of them."""
    texts, done = [tokens.name(token) for token in row.ids[: row.opened]], 0
    for _, end in row.encoding.offsets:
        texts.append(row.text[done:end])
        done = max(done, end)
    texts += [tokens.name(token) for token in row.ids[len(texts) :]]
    return [(text, token, label != NO_LOSS) for text, token, label in zip(texts, row.ids, row.labels, strict=False)]


def marked(tokens):
    """The text of tokens with those that carry loss between brackets; control characters are shown, not obeyed."""
    runs = ((loss, "".join(text for text, _, _ in run)) for loss, run in groupby(tokens, key=lambda token: token[2]))
    text = "".join(f"⟦{run}⟧" if loss else run for loss, run in runs)
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)
