"""A job as a page of Markdown."""

import re


def test_a_report(lab, tune):
    """It has the outcome, each metric's ends and bounds, and the events; --html is one file with the curves."""
    lab.submit("a", lab.training(3, loss="2.5"), steps=3)
    lab.wait("a")
    text = tune("report", "a").stdout
    assert text.startswith("# `a`\n")
    assert "| `state` | `SUCCEEDED` |" in text
    assert re.search(r"\| `loss` \| `2\.5` \| `2\.5` \| `2\.5` \| `2\.5` \| `1 to 3` \|", text), text
    assert re.search(r"\| `\S+Z` \| `1` \| `RUNNING` \|", text), text
    tune("report", "a", "--out", "r.md")
    assert (tune.cwd / "r.md").read_text() == text
    tune("report", "a", "--html", "r.html")
    assert "<html" in (tune.cwd / "r.html").read_text()
    assert "no such job" in tune("report", "nope", code=2).stderr


def test_no_text_of_a_job_becomes_markup(lab, tune):
    """What a job prints as its reason stays text: no link, no HTML, no other cell, no other line."""
    wicked = "ValueError: x` <script>alert(1)</script> | [a](http://x) \\n# head"
    lab.submit("a", f"printf '%b\\n' '{wicked}'; exit 3", steps=3)
    lab.wait("a")
    text = tune("report", "a").stdout
    lines = [line for line in text.splitlines() if "script" in line]
    assert lines
    for line in lines:
        outside = re.sub(r"`[^`]*`", "", line)
        assert "<" not in outside and "(" not in outside, line
        assert line.count("`") % 2 == 0
    assert "\n# head" not in text
