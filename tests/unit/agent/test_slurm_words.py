"""What a node of Slurm writes into a script's output as it ends it."""

import pytest

from orchestrator.agent.slurm import by_its_node

LINE = "slurmstepd-n0: error: *** JOB 7 ON n0 CANCELLED AT 2026-11-30T19:17:55{} ***"


@pytest.mark.parametrize(
    ("why", "state"),
    [
        ("", "CANCELLED"),
        (" DUE TO TIME LIMIT", "TIMEOUT"),
        (" DUE TO PREEMPTION", "PREEMPTED"),
        (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", "NODE_FAIL"),
        (" DUE TO JOB REQUEUE", ""),
    ],
)
def test_a_nodes_last_words_are_a_state(why, state):
    """Each reason that slurmstepd knows is the state that accounts would have; of another one nothing is said."""
    assert by_its_node(f"tune: begun\n{LINE.format(why)}\n") == state


def test_words_of_others_are_none():
    """A line that only quotes one, or none at all, says nothing."""
    assert by_its_node(f"echo {LINE.format('')}\n") == by_its_node("") == ""
