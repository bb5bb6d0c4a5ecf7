"""What the controller learns of attempts, over either transport: all of it in one call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from orchestrator.agent import attempts
from orchestrator.monitoring.poll import FAILED, MANIFEST, TAIL, observe
from orchestrator.transports.base import Watch
from orchestrator.transports.ssh.transport import Ssh

if TYPE_CHECKING:
    from conftest import Host

LEAVES = """
mkdir data; echo '{"steps": 3}' > data/manifest.json
echo '{"reason": "no_loss_tokens", "detail": "row 3"}' > reason.json
echo '[{"step": 2, "folder": "step-2"}]' > checkpoints.json
echo 0,1 > metrics.csv; head -c 20000 /dev/zero | tr '\\0' x; echo; echo the end
"""


def sh(text: str) -> list[str]:
    """A step of a script."""
    return ["sh", "-c", text]


@pytest.mark.parametrize("code", [0, 5])
def test_one_call_says_all(host: Host, code: int) -> None:
    """Metrics, manifest and state come in one message, and of an attempt that failed also its reason, checkpoints and last words."""
    host.run("a", sh(f"{LEAVES} exit {code}"))
    watch = Watch("a", 1, patterns=("metrics.csv",), whole=(MANIFEST, "resolved.json"), failed=FAILED, tail=TAIL)
    before = host.transport.asked if isinstance(host.transport, Ssh) else 0
    [observed] = observe(host.transport, [watch])
    assert isinstance(host.transport, Ssh) is False or host.transport.asked == before + 1
    assert [chunk.data for chunk in observed.chunks] == [b"0,1\n"]
    assert (observed.manifest, observed.resolved) == ({"steps": 3}, "")
    if code:
        assert observed.reason == {"reason": "no_loss_tokens", "detail": "row 3"}
        assert json.loads(observed.index) == [{"step": 2, "folder": "step-2"}]
        assert len(observed.tail) == TAIL
        assert observed.tail.endswith(b"the end\n")
    else:
        assert (observed.reason, observed.index, observed.tail) == (None, "", b"")


def test_what_one_call_cannot_bring_is_brought_by_more(host: Host) -> None:
    """Of an attempt that ended all of the log and of the metrics is there, however much they are."""
    size = 2 * attempts.CHUNK + 5
    host.run("a", sh(f"head -c {size} /dev/zero | tee metrics.csv"))
    [observed] = observe(host.transport, [Watch("a", 1, patterns=("metrics.csv",), log=0)])
    assert b"".join(chunk.data for chunk in observed.chunks) == bytes(size)
    assert observed.log.count(b"\0") == size


@pytest.mark.parametrize("name", ["../log", "/etc/passwd", "a/../../log", ""])
def test_no_other_file_is_sent_whole(host: Host, name: str) -> None:
    """What is sent whole lies in the work folder."""
    host.run("a", ["true"])
    with pytest.raises(ValueError, match="a path is relative"):
        observe(host.transport, [Watch("a", 1, whole=(name,))])
