"""Broken configs: a recipe or a clear error, never anything else, in 500 MB. Seconds are printed: a machine may be busy."""

import os
import random
import resource
import time
from multiprocessing import get_context

import pytest

from orchestrator.client.errors import InvalidRequest
from orchestrator.client.importing import read
from tests.unit.importing import test_llamafactory, test_trl, test_unsloth
from tests.unit.importing.conftest import COUNTS

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


def encoded(text, draw):
    """Mostly as a trainer wants it; else in another encoding, cut off, with bytes that are no text, or up to 5 MB large."""
    plain = text.encode("utf-8", "replace")
    odd = [
        lambda: text.encode(draw.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1"]), "replace"),
        lambda: plain[: draw.randrange(len(plain) + 1)],
        lambda: plain.replace(b"e", bytes([draw.randrange(256)]), 1),
        lambda: plain * draw.randint(1, 5_000_000 // (len(plain) + 1)),
    ]
    return plain if draw.random() < 0.9 else draw.choice(odd)()


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
    "program": "import unsloth\nx = " + "(" * 50_000,
    "sums": "import unsloth\nx = " + "1+" * 90_000 + "1",
    "names": "import unsloth\na = b\nb = a\nFastLanguageModel.from_pretrained(a)\n",
    "nots": f"import unsloth\nSFTConfig(a={'not ' * 900}b)\nFastLanguageModel.from_pretrained(x{'.a' * 900})\n",
    "notebook": '{"cells": [{"cell_type": "code", "source": ["import unsloth\\n", "x = ["]}, 3, null]}',
    "no-text": "\x00\x01\x02",
    "list": "- 1\n- 2\n",
    "empty": "",
}


def outcome(path):
    """What becomes of a file, as `tune import` reads it: whose recipe, or the error; and the seconds it takes."""
    start = time.perf_counter()
    try:
        found = f"recipe of {read(path).backend}"
    except InvalidRequest as error:
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


@pytest.mark.parametrize("name", list(EXTREMES))
def test_extremes(name, tmp_path):
    """Bombs, depth, size and loops are refused in words."""
    path = tmp_path / "x.yaml"
    path.write_text(EXTREMES[name], "utf-8")
    (found, seconds), peak = apart(outcome, path)
    print(f"\n{name}: {seconds:.2f} s, {peak} MB, {found[:100]}")
    assert not found.startswith("recipe of")
    assert peak < MEMORY


def many(texts, count, path):
    """How many of so many mutated files are recipes, and each one's seconds."""
    draw, recipes, seconds = random.Random(7), 0, []
    for _ in range(count):
        path.write_bytes(encoded(mutate(draw.choice(texts), draw), draw))
        found, taken = outcome(path)
        recipes += found.startswith("recipe of")
        seconds.append(taken)
    return recipes, sorted(seconds)


def test_mutated_files(corpus, tmp_path):
    """Edits of keys, types, nesting, characters, encoding and size give a recipe or a clear error, in every dialect."""
    texts = [text for trainer in COUNTS for text in corpus(trainer).files.values()]
    texts += [each for each in (test_trl.SFT, test_unsloth.YAML, test_unsloth.SCRIPT, test_llamafactory.SFT) for _ in range(40)]
    (recipes, seconds), peak = apart(many, texts, COUNT, tmp_path / "x.yaml")
    slow = sum(each > 2 for each in seconds)
    print(f"\n{COUNT} mutated files: {recipes} recipes, {COUNT - recipes} errors; {peak} MB is the most that the process had")
    print(f"  a file: median {seconds[COUNT // 2] * 1e3:.1f} ms, slowest {seconds[-1]:.2f} s, {slow} over 2 s")
    assert 0 < recipes < COUNT
    assert peak < MEMORY
