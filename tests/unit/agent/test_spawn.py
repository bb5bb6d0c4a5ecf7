"""How a step's process begins: the same by either way, of which one copies nothing of the supervisor."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.agent import processes
from orchestrator.agent.processes import DEFAULT_SIGNALS, spawn, spawn_by_fork, spawn_light

WAYS = [spawn_light, spawn_by_fork]
PATH = {"PATH": os.environ["PATH"]}


def ended(way, argv: list[str], folder: Path, env: dict[str, str] = PATH) -> tuple[int, str]:
    """Exit code of a program, and what it has written."""
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(way(argv, env, str(folder), log), 0)[1]), (folder / "log").read_text()
    finally:
        os.close(log)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_begins_in_its_folder_with_its_environment(way, tmp_path: Path) -> None:
    """Folder, variables and both streams are the step's; the process that starts it stays where it is."""
    before = Path.cwd()
    code, said = ended(way, ["sh", "-c", "pwd; echo $WORD >&2; exit 3"], tmp_path, {**PATH, "WORD": "hello"})
    assert (code, said) == (3, f"{tmp_path}\nhello\n")
    assert Path.cwd() == before


@pytest.mark.parametrize("way", WAYS)
def test_a_step_leads_a_session_and_ignores_no_signal(way, tmp_path: Path) -> None:
    """It can be told from all others, and ended, whatever its supervisor ignores or holds back."""
    kept = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGHUP, signal.SIGUSR1)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        # by the shell alone: while it starts a program, it holds all signals back
        status = 'while read -r line; do case $line in SigBlk*|SigIgn*) echo "$line";; esac; done < /proc/$$/status'
        _, said = ended(way, ["sh", "-c", f"cut -d' ' -f1,6 /proc/$$/stat; {status}"], tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in kept:
            signal.signal(number, handler)
    (pid, session), (_, held), (_, ignored) = (line.split() for line in said.splitlines())
    ours = sum(1 << (getattr(signal, name) - 1) for name in DEFAULT_SIGNALS)
    assert (session, int(held, 16), int(ignored, 16) & ours) == (pid, 0, 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("program", "number"), [("no-such-program", 2), ("/no/such/program", 2), ("./text", 13), ("text", 13), ("./folder", 13)]
)
def test_what_cannot_be_started_says_why(way, program: str, number: int, tmp_path: Path) -> None:
    """An error with the program's name, as the shell's PATH rules find it: one that may not be run says more than one that is missing."""
    (tmp_path / "text").write_text("no program")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=f"'{program}'") as error:
        ended(way, [program], tmp_path, {"PATH": f"/proc/version:{tmp_path}:/no/such/folder"})
    assert error.value.errno == number


@pytest.mark.parametrize("way", WAYS)
def test_an_environment_that_no_process_can_have_is_an_error(way, tmp_path: Path) -> None:
    """A zero byte in a variable's value: the supervisor writes that down, and does not die of it."""
    with pytest.raises(OSError, match="Invalid argument: 'sh'"):
        ended(way, ["sh", "-c", "true"], tmp_path, {**PATH, "WORD": "a\0b"})


def test_python_without_sessions_for_posix_spawn_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python was built for an old C library a step begins all the same."""

    def lacking(*_: object, **__: object) -> int:
        raise NotImplementedError

    monkeypatch.setattr(processes.os, "posix_spawn", lacking)
    assert ended(spawn, ["sh", "-c", "echo $0"], tmp_path) == (0, "sh\n")
