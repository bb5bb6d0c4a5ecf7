"""What is told of a step that failed, by the end of its log."""

import pytest

from orchestrator.monitoring.poll import last_words

LAUNCHER = """
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:{blank}
============================================================
tune_trl.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-30_13:57:39
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 7100) (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 7100
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-30_13:57:38
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : {code}
  error_file: <N/A>
  traceback : {trace}
============================================================
"""
PEER = "[rank0]: RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer\n"
OWN = """[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 127, in <module>
[rank1]:     raise Odd(":")
[rank1]: package.Odd: the words: of this rank
[rank1]:[W1130 ProcessGroupNCCL.cpp:1553] Warning: destroy_process_group() was not called
"""


def launched(code: str, *before: str) -> bytes:
    """The end of a log under torchrun, of which rank 1 was the first to fail."""
    return ("".join(before) + LAUNCHER.format(code=code, trace="<N/A>", blank=" ")).encode()


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (launched("-9 (pid: 28375)  (SIGKILL)", PEER), "rank 1 was ended by signal 9 (SIGKILL)"),
        (launched("-9 (pid: 28375)", PEER), "rank 1 was ended by signal 9"),
        (launched("1 (pid: 28375)", OWN, PEER), "rank 1: package.Odd: the words: of this rank"),
        (
            launched("1 (pid: 28375)", "ModuleNotFoundError: No module named 'x'\n"),
            "rank 1: ModuleNotFoundError: No module named 'x'",
        ),
        (launched("3 (pid: 28375)", PEER), "rank 1: exit code 3"),
        (b"ValueError: bad\nlast line\n=== tune: step 2/3\n", "ValueError: bad"),
        (b"one\nlast line\n", "last line"),
        (b"", ""),
    ],
    ids=[
        "killed",
        "killed, older torch",
        "its exception",
        "before the ranks met",
        "silent",
        "one process",
        "no error",
        "nothing",
    ],
)
def test_the_rank_that_failed_first_has_the_word(tail, words):
    """Of several processes it is told which failed first and how, in its own words, not in those of its peers or of the launcher."""
    assert last_words(tail) == words
