"""What parsing takes: only the command that is asked for gets its options, and the width needs no module that is slow."""

import shutil

import pytest

from orchestrator.cli import parser as parsers
from orchestrator.cli.argument_parser import CommandParser, columns


@pytest.mark.parametrize("told", [None, "", "0", "-3", "wide", "1", "100"])
def test_columns_are_those_of_the_library(told, monkeypatch):
    """`COLUMNS` where it is a number above 0, else the terminal's, else what the caller says."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if told is not None:
        monkeypatch.setenv("COLUMNS", told)
    assert columns(77) == shutil.get_terminal_size((77, 3)).columns


def test_width_without_a_standard_output(monkeypatch):
    """A process without one has the width that the caller says."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)
    assert columns(77) == 77


@pytest.mark.parametrize("name", [*parsers.COMPILING, *parsers.TRACKING, *parsers.FOLLOWING, *parsers.INSPECTING])
def test_one_command_gets_its_options(name):
    """The first argument decides: that command is whole, the others of its group have a name; without one all are whole."""
    every, one = (
        {n for n, made in parsers.parser(first).commands.choices.items() if type(made) is CommandParser} for first in ("", name)
    )
    assert one == {name} < every
    whole, alone = (parsers.parser(first).commands.choices[name].format_help() for first in ("", name))
    assert whole == alone
