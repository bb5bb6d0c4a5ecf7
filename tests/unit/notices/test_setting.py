"""notify.yaml: what it may say, and that a URL written into it is refused without being shown."""

import pytest

from backends.recipe.problems import RecipeError
from orchestrator.home import Home
from orchestrator.notices.happenings import DEFAULT
from orchestrator.notices.setting import DESKTOP, load_notify

SECRET = "slack://TokenA/TokenB/TokenC"


@pytest.fixture
def load(tmp_path):
    """What a text means as notify.yaml."""

    def from_text(text):
        (tmp_path / "notify.yaml").write_text(text)
        return load_notify(Home(tmp_path))

    return from_text


def test_without_a_file_the_desktop_is_told(tmp_path):
    """There is one service then, which has no URL."""
    wanted = load_notify(Home(tmp_path))
    assert wanted.urls == {}
    assert wanted.kinds == {DESKTOP: frozenset(DEFAULT)}
    assert wanted.without_desktop().kinds == {}


def test_services_and_their_events(load):
    """A service is told of what it names, or of all but starts; the desktop can be left out."""
    wanted = load("version: 1\ndesktop: false\nservices:\n  a: {url: A_URL}\n  b: {url: B_URL, events: [start, gate]}\n")
    assert wanted.urls == {"a": "A_URL", "b": "B_URL"}
    assert wanted.kinds == {"a": frozenset(DEFAULT), "b": {"start", "gate"}}


@pytest.mark.parametrize(
    ("text", "path", "line", "says"),
    [
        (f"version: 1\nservices:\n  a: {{url: '{SECRET}'}}\n", "services.a.url", 3, "name of a variable"),
        (f"version: 1\nservices:\n  a:\n    ulr: {SECRET}\n    url: A\n", "services.a.ulr", 4, "did you mean url?"),
        ("version: 1\nservices:\n  a: {url: A, events: [finish]}\n", "services.a.events.0", 3, "'start', 'end'"),
        ("version: 1\nservices:\n  a: {url: A, events: []}\n", "services.a.events", 3, "at least 1 item"),
        ("version: 1\nservices:\n  desktop: {url: A}\n", "services.desktop", 3, "desktop is taken"),
        ("version: 2\n", "version", 1, "should be 1"),
        ("services: {}\n", "version", 1, "is required"),
        (f"version: 1\nurl: {SECRET}\n", "url", 2, "is not a key here"),
    ],
)
def test_what_is_wrong_is_named(load, text, path, line, says):
    """File, line, path and rule of each problem; what may be a URL is not shown."""
    with pytest.raises(RecipeError) as caught:
        load(text)
    problems = caught.value.problems
    assert [(each.path, each.line) for each in problems] == [(path, line)]
    assert says in f"{problems[0].rule} {problems[0].hint}"
    assert problems[0].file.endswith("notify.yaml")
    assert "Token" not in repr(problems)
