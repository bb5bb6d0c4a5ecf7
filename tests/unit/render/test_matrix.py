"""Several trainers side by side: whole texts."""

from backends.report import Line, Report
from orchestrator.render.matrix import beside_text, leaf_text, matrix_text

REPORTS = {
    "one": Report(
        (
            Line("name", "same"),
            Line("train.batch.global", "converted", {"size": 8, "data.json:batch": 8}),
            Line("train.batch.micro", "converted", {"size": 8, "data.json:batch": 8}),
            Line("train.seed", "defaulted", {"seed": 42}),
            Line("data.pack", "lost", {}, "one pads every sample; it has no packing", "never"),
            Line("optim.lr", "same", {"optimizer.init_args.lr": 3e-4}),
            Line("native.one.key", "native", {"key": "a\x1b[2J"}),
        )
    ),
    "two": Report(
        (
            Line("name", "same"),
            Line("train.batch.global", "converted", {"a_rather_long_name_of_a_key": 4, "times": 2}),
            Line("train.batch.micro", "converted", {"a_rather_long_name_of_a_key": 4, "times": 2}),
            Line("train.seed", "defaulted", {"seed": 42}),
            Line("data.pack", "approximated", {"packed": True}, "rows see each other"),
            Line("optim.lr", "same", {"launch:lr": 3e-4}),
        )
    ),
}

BESIDE = r"""
SETTING             ONE                      TWO
train.batch.global  size = 8                 a_rather_long_name_of_
train.batch.micro                            a_key = 4
                                             times = 2
data.pack           lost: never, one pads    packed = true
                    every sample; it has no  approximated: rows see
                    packing                  each other
optim.lr            optimizer.init_args.lr   needs no key
                    = 0.0003
native.one.key      key = "a\u001b[2J"       -
"""

ENTRY = {
    "leaf": "optim.schedule",
    "meaning": "How the rate goes.",
    "type": "constant|linear|cosine",
    "default": "cosine",
    "trainers": {
        "one": {
            "support": "partly",
            "cases": [
                {
                    "when": "adapter lora",
                    "native": ["schedule"],
                    "status": "same",
                    "why": "counted in micro steps",
                    "see": "https://example.org/1",
                    "losses": [
                        {"value": "constant", "kind": "never", "why": "cosine only", "see": "https://example.org/1"},
                        {"value": "linear", "kind": "never", "why": "cosine only", "see": "https://example.org/1"},
                    ],
                },
                {"when": "adapter none", "native": [], "status": "same", "why": "", "see": "", "losses": []},
            ],
        },
        "another": {"support": "", "cases": []},
    },
}

LEAF = """\
optim.schedule: constant|linear|cosine, default "cosine"
How the rate goes.

one      schedule  (adapter lora)
           counted in micro steps
           https://example.org/1
           "constant", "linear": never, cosine only
         no key  (adapter none)
another  no recipe for it may hold this setting"""


def test_beside():
    """What crosses as one stands as one, what is lost or changed says why, our defaults and our own files are left out."""
    assert beside_text(REPORTS, width=68) == BESIDE.strip("\n")


def test_beside_verbose():
    """Asked for everything, the table has defaults, leaves without a key, and the files of our steps."""
    lines = beside_text(REPORTS, width=100, verbose=True).splitlines()
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")][:2] == ["name", "train.batch.global"]
    assert any("data.json:batch = 8" in line for line in lines)
    assert any(line.startswith("train.seed") for line in lines)


def test_beside_fits():
    """No line is wider than the terminal as long as every trainer has its least room, however long names and values are."""
    report = Report((Line("optim.lr", "same", {"k" * 200: "v" * 200}), Line("a." * 40, "lost", {}, "w" * 300, "todo")))
    for width in (80, 120, 200):
        assert max(map(len, beside_text({str(n): report for n in range(2)}, width=width).splitlines())) <= width


def test_leaf():
    """A leaf's meaning, then each trainer's key, where it is that, what to look out for, and what is lost."""
    assert leaf_text(ENTRY, width=80) == LEAF


def test_matrix():
    """Adapters by kind, grades by leaf, a column a trainer."""
    document = {
        "methods": [
            {"kind": "sft", "adapter": "none", "trainers": {"one": {"support": "yes"}, "two": {"support": "todo"}}},
            {"kind": "sft", "adapter": "lora", "trainers": {"one": {"support": "yes"}, "two": {"support": "never"}}},
        ],
        "leaves": [{"leaf": "optim.lr", "trainers": {"one": {"support": "same"}, "two": {"support": ""}}}],
    }
    said = matrix_text(document, width=80).splitlines()
    assert "sft          none lora  -" in said
    assert "optim.lr  same  -" in said
