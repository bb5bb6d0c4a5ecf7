"""A chat template as a function of messages, with what transformers gives a template; its clock stands still.

See transformers 5 utils/chat_template_utils.py. The template's author is a stranger, so it runs in a sandbox. `{% generation %}`
... `{% endgeneration %}` is transformers' own tag for what carries loss.
"""
# ruff: noqa: PLC0415 - jinja2 only where a row needs it

import json
import os
import re
from functools import cache, cached_property

from tune_files import BadRow, Refused
from tune_turns import own_text

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # no characters: Unicode keeps them for a program's own use


class Template:
    """The text that a chat template makes of messages.

    Args:
        load: gives what `loaded` does; called when the first chat comes.
        facts: what a row gives the template beside messages: tools, documents and more by name.
    """

    def __init__(self, load, facts=None):
        self._load, self.facts = cache(load), facts or {}
        self.skeletons = None if facts else {}
        """What is known of chats with the same roles; see tune_skeleton.py. None where facts of a row decide too."""

    def with_facts(self, facts):
        """The template for one row."""
        return Template(self._load, facts)

    @property
    def variables(self):
        """Every name that the template asks for."""
        return self._load()[2]

    @property
    def marking(self):
        """Whether the template marks what is generated."""
        return self._load()[0].environment.marking

    @cached_property
    def own_text(self):
        """What the template itself puts before a conversation; see tune_turns.py."""
        return own_text(self)

    def __call__(self, messages, add_generation_prompt=False):
        """The text."""
        text = self._written(messages, add_generation_prompt)
        return text.replace(OPEN, "").replace(CLOSE, "") if self.marking else text

    def marks(self, messages):
        """The ranges of the text that the template marks as generated; none when it marks nothing."""
        if not self.marking:
            return []
        if any(mark in repr(messages) for mark in (repr(OPEN)[1:-1], repr(CLOSE)[1:-1])):
            raise BadRow("holds U+FDD0 or U+FDD1, which are no characters: take them out")
        ranges, start, at = [], None, 0
        for part in re.split(f"([{OPEN}{CLOSE}])", self._written(messages, False)):
            if part == OPEN and start is None:
                start = at
            elif part == CLOSE and start is not None:
                ranges.append((start, at))
                start = None
            elif part in (OPEN, CLOSE):
                raise BadRow("the chat template has a generation mark within another, so where loss lies is open")
            else:
                at += len(part)
        return ranges

    def _written(self, messages, add_generation_prompt):
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        compiled, names, _ = self._load()
        # shared: jinja2 then takes the names as they are, in place of merging its globals into them anew for each row
        context = compiled.new_context({**names, **given, **self.facts}, shared=True)
        try:
            return "".join(compiled.root_render_func(context))
        except Exception as error:  # whatever foreign code raises
            raise BadRow(f"the chat template refuses the row: {error}") from None


def loaded(folder, config, path=None):
    """The template of a tokenizer's folder, or of a file of its own: jinja2's, the texts of special tokens by the names that
    templates know them by, and every name that it asks for. Refused without one.
    """
    from jinja2 import TemplateSyntaxError, meta

    source = template_source(folder, config, path)
    room = environment()
    names = {key: text for key, value in config.items() if key.endswith("_token") and (text := token_text(value))}
    try:
        compiled = room.from_string(source)
        variables = meta.find_undeclared_variables(room.parse(source))
    except TemplateSyntaxError as error:
        raise Refused("no_template", f"{path or folder}: line {error.lineno} of the chat template: {error}") from None
    return compiled, {**compiled.globals, **names}, variables


def environment():
    """Where templates run: transformers' filters, functions and tag."""
    import datetime

    from jinja2.ext import Extension
    from jinja2.nodes import CallBlock
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message):
        raise BadRow(message)

    class Generation(Extension):
        """Puts what stands within the tag between OPEN and CLOSE."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser):
            """The tag as a call."""
            self.environment.marking = True
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

        def marked(self, caller):
            """The text between the marks."""
            return f"{OPEN}{caller()}{CLOSE}"

    extensions = ["jinja2.ext.loopcontrols", Generation]
    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    room.marking = False
    room.filters["tojson"] = lambda value, **options: json.dumps(value, **({"ensure_ascii": False} | options))
    room.globals |= {"raise_exception": refuse, "strftime_now": datetime.date(2024, 7, 26).strftime}
    return room


def template_source(folder, config, path=None):
    """The text of the chat template: `path`, chat_template.jinja, or the configuration's, of several the one named `default`."""
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {one.get("name"): one.get("template") for one in source}.get("default")
    place = path or os.path.join(folder, "chat_template.jinja")
    if path or os.path.exists(place):
        with open(place, encoding="utf-8") as file:
            source = file.read()
    if not isinstance(source, str):
        raise Refused(
            "no_template",
            f"{folder}: the tokenizer has no chat template: choose a model trained for chat, set data.chat_template, or for "
            "instruct rows data.template to alpaca, plain or a text of yours",
        )
    return source


def token_text(value):
    """A special token's text as configurations give it, bare or as an object; None for anything else."""
    return value if isinstance(value, str) else value.get("content") if isinstance(value, dict) else None
