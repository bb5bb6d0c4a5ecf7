"""Broken configs: a recipe or a clear error, never anything else, in 500 MB. Seconds are printed: a machine may be busy."""

import os
import random
import resource
import time
from multiprocessing import get_context

import pytest

from backends.dialects.base import Refused
from backends.dialects.wild import Unreadable
from backends.importing import Imported, convert

COUNT = int(os.environ.get("TUNE_MUTATIONS", "600"))
"""How many; 20000 takes some minutes."""
MEMORY = 500
"""MB that a process may ever have while it imports, the interpreter and what it inherits from the tests' process included."""

VALUES = ["", "null", "-1", "0", "1e400", "yes", "3e-4", ".nan", "[]", "{}", "[1, {a: 2}]", "'text'", "!!python/name:os.system", "*a", "2024-01-01",
          "0x" + "f" * 40, "&a [1]", "|", "\t", "${a}", "${output_dir}", "A" * 5000, "\u0000", "caf\u00e9", "{<<: *a}", "true", "[[[[1]]]]"]  # fmt: skip


def bomb():
    """Nine levels of nine aliases each."""
    return "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


def edited(line, draw, lines):
    """A line after one edit, which may make several of it."""
    key, colon, value = line.partition(":")
    edits = [
        f"{key}{colon} {draw.choice(VALUES)}",
        f"{draw.choice(['', '  ', chr(9), 'x', '- ', '? '])}{line}",
        draw.choice(["", key, line[::-1], f"{key}.{key}: 1", f"{key}: {key}:{value}"]),
        f"{line}\n{line}",
        draw.choice(lines),
        line.replace(draw.choice("aeiou_:"), draw.choice(["", "Z", "\u2028", ":", "["]), 1),
    ]
    return draw.choice(edits)


def mutate(text, draw):
    """A few edits of keys, values, indents, characters."""
    lines = text.splitlines() or [""]
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(lines))
        lines[at] = edited(lines[at], draw, lines)
    return "\n".join(lines)


EXTREMES = {
    "bomb": bomb(),
    "deep": "[" * 100_000,
    "dashes": "- " * 50_000,
    "deep-keys": "".join(f"{' ' * n}k:\n" for n in range(500)),
    "huge": "k: " + "x" * 5_000_000,
    "many": "".join(f"k{n}: {n}\n" for n in range(12_000)),
    "merge": "a: &a {x: 1}\nb: {<<: *a}\n" + "c: {<<: [*a, *a]}\n",
    "loop": "a: &a\n  b: *a\n",
    "itself": "model: {_component_: torchtune.x}\na: ${b}\nb: ${a}\n",
    "no-text": "\x00\x01\x02",
    "list": "- 1\n- 2\n",
    "empty": "",
}


def outcome(text):
    """What becomes of a text, and the seconds it takes."""
    start = time.perf_counter()
    try:
        found = convert(text, name="x.yaml")
    except (Refused, Unreadable) as error:
        found = str(error)
        assert found
    return found, time.perf_counter() - start


def apart(work, *given):
    """What `work` returns in a process of its own, and the most memory that this had, in MB."""
    ours, theirs = get_context("fork").Pipe(duplex=False)

    def run():
        found = work(*given)
        theirs.send((found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))

    process = get_context("fork").Process(target=run)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        pytest.fail("the process ended without an outcome; its traceback is in the output")
    finally:
        process.join()


def one(text):
    """The text of an outcome, and its seconds."""
    found, seconds = outcome(text)
    return found if isinstance(found, str) else f"recipe of {found.backend}", seconds


@pytest.mark.parametrize("name", list(EXTREMES))
def test_extremes(name):
    """Bombs, depth, size and loops are refused in words."""
    (found, seconds), peak = apart(one, EXTREMES[name])
    print(f"\n{name}: {seconds:.2f} s, {peak} MB, {found[:100]}")
    assert not found.startswith("recipe of")
    assert peak < MEMORY


def many(texts, count):
    """How many of so many mutated files are recipes, and the slowest one's seconds."""
    draw, recipes, slowest = random.Random(7), 0, 0.0
    for _ in range(count):
        found, seconds = outcome(mutate(draw.choice(texts), draw))
        recipes += isinstance(found, Imported)
        slowest = max(slowest, seconds)
    return recipes, slowest


def test_mutated_files(corpus):
    """Edits of keys, types, nesting and characters give a recipe or a clear error."""
    texts = [text for trainer in ("torchtune", "axolotl", "maxtext", "litgpt") for text in corpus(trainer).files.values()]
    (recipes, slowest), peak = apart(many, texts, COUNT)
    print(f"\n{COUNT} mutated files: {recipes} recipes, {COUNT - recipes} errors, slowest {slowest:.2f} s, peak {peak} MB")
    assert 0 < recipes < COUNT
    assert peak < MEMORY
