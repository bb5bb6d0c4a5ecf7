"""A host that others use too: jobs wait for what is busy there, say why, and start by themselves when it is free."""

import time

import pytest

from orchestrator.home import Home
from orchestrator.store import open_store
from tests.hosts.lab import LOGIN

from .test_trouble import LINES, clean, clusters, recipe  # noqa: F401

SEEN = 'echo "$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER"'
NVIDIA_SMI = """#!/bin/sh
case $1 in
*compute*) cat /home/tunelab/bin/apps ;;
*memory.used*) for i in 0 1; do echo "$i, card$i, 9000, Enabled"; done ;;
*) printf '0, NVIDIA H100, 81559\\n1, NVIDIA H100, 81559\\n' ;;
esac
"""
"""Two devices, each with a screen and much of it in use; a file says by which processes."""


@pytest.fixture
def others(hosts, clean):  # noqa: F811
    """What the processes of others do on the first host's two devices: call it with those in use."""
    folder = hosts[0].home / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(NVIDIA_SMI)
    (folder / "nvidia-smi").chmod(0o755)
    hosts[0].configured(f"SetEnv PATH=/home/{LOGIN}/bin:/usr/bin:/bin")

    def use(*devices):
        (folder / "apps").write_text("".join(f"card{device}, 1\n" for device in devices))

    use()
    return use


def test_a_busy_device_is_waited_for(tune, home, clusters, recipe, others):  # noqa: F811
    """A device that a stranger uses is passed over for a free one; with none free the job waits, says for what, and starts when it is."""
    clusters(accelerator="cuda", devices=2)
    others(0)
    words = recipe(f"{SEEN}; {LINES}")
    beside = tune(*words, "--on", "lab").stdout.strip()
    tune("wait", beside)
    assert "1 PCI_BUS_ID" in tune("logs", beside).stdout
    wide = tune(*words, "--on", "lab", "--set", "resources.devices=2").stdout.strip()
    told = "device 0 is busy with a process that is not tune's (pid 1 of root)"
    with open_store(Home(home).store) as store:
        while told not in store.job(wide).detail:
            assert store.job(wide).state in ("QUEUED", "STARTING")
            time.sleep(0.1)
        before = store.events(wide)
        time.sleep(7)
        assert store.events(wide) == before  # whether it is free is asked, and not tried
    assert told in tune("status", wide).stdout
    others()
    tune("wait", wide)
    assert "0,1 PCI_BUS_ID" in tune("logs", wide).stdout


def test_a_busy_device_may_be_used(tune, clusters, recipe, others):  # noqa: F811
    """With `occupied: use` a stranger's process on a device keeps no job from it."""
    clusters(accelerator="cuda", devices=1, occupied="use")
    others(0)
    job = tune(*recipe(f"{SEEN}; {LINES}"), "--on", "lab").stdout.strip()
    tune("wait", job)
    assert "0 PCI_BUS_ID" in tune("logs", job).stdout
