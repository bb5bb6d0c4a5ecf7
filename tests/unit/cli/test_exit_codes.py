"""Errors of the client become exit codes and messages in one place."""

import pytest

from orchestrator import cli
from orchestrator.client import errors

CODES = {
    "TunesmithError": 1,
    "ActionFailed": 1,
    "JobFailed": 1,
    "InvalidRequest": 2,
    "InvalidRecipe": 2,
    "NotFound": 2,
    "Ambiguous": 2,
    "AlreadyExists": 2,
    "MissingSecret": 2,
    "NotExpressible": 3,
    "Unreachable": 4,
    "TimedOut": 4,
}


def ended(monkeypatch, error):
    """The exit code of a command that ends with an error."""

    def run(_argv):
        raise error

    monkeypatch.setattr(cli, "run", run)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def kinds():
    """All classes of errors."""
    return {name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}


def test_every_error_has_its_code(monkeypatch, capsys):
    """Each kind of error ends with its code, its text on stderr and nothing on stdout."""
    assert kinds().keys() == CODES.keys()
    for name, kind in kinds().items():
        assert ended(monkeypatch, kind("thing", "is wrong", hint="mend it")) == CODES[name], name
        assert capsys.readouterr() == ("", "thing: is wrong\n\nhint: mend it\n")


@pytest.mark.parametrize(
    ("argument", "what", "option", "keyword"),
    [
        ("to", "litgtp", "--to litgtp: no", "to='litgtp': no"),
        ("all_of", "sweep", "--all-of sweep: no", "all_of='sweep': no"),
        ("output", "x.yaml", "-o x.yaml: no", "output='x.yaml': no"),
        ("from", "", "--from: no", "from: no"),
    ],
)
def test_an_argument_is_spelled_as_its_user_does(monkeypatch, capsys, argument, what, option, keyword):
    """The command line names options, Python names keywords, for one and the same error."""
    error = errors.InvalidRequest(what, "no", argument=argument)
    assert str(error) == keyword
    assert ended(monkeypatch, error) == 2
    assert capsys.readouterr().err == f"{option}\n"


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left", "/disk"), 4), (BrokenPipeError(), 0)]
)
def test_what_is_no_error_of_ours(monkeypatch, capfd, error, code):
    """Ctrl-C, a full disk and a reader who has enough end a command without a trace."""
    if isinstance(error, BrokenPipeError):
        monkeypatch.setattr(cli.os, "dup2", lambda *_: None)  # the tests' own standard output is wanted afterwards
    assert ended(monkeypatch, error) == code
    assert "Traceback" not in capfd.readouterr().err


def test_a_mistake_of_ours_keeps_its_trace(monkeypatch):
    """What no user can mend is not dressed up as an error of theirs."""

    def run(_argv):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main()
