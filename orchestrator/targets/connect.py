"""From a node to the transport that reaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.home import Home
from orchestrator.targets.inventory import owner
from orchestrator.targets.node import Node
from orchestrator.transports.base import SshAddress, Transport
from orchestrator.transports.local import Local


def connect(home: Home, node: Node, news: Callable[[], None] | None = None) -> Transport:
    """The transport to a machine; it connects when it is asked something.

    Args:
        home: our state folder.
        node: the machine.
        news: called, in another thread, when something has changed there. None does not listen: who listens is the last who asked.
    """
    if node.ray:
        from orchestrator.transports.ray.node import RayNode  # noqa: PLC0415  # few have a cluster

        return RayNode(node.ray, owner(home), news)
    if node.ssh is None:
        return Local(home.path)
    from orchestrator.transports.ssh.transport import Ssh  # noqa: PLC0415  # fabric is heavy, and many have no other host

    return Ssh(ssh_address(home, node.ssh), owner(home), news, node.name)


def ssh_address(home: Home, ssh: SshAddress) -> SshAddress:
    """How a machine is reached from this one: the file of its own keys is in our state folder."""
    return replace(ssh, pinned=str(home.path / ssh.pinned)) if ssh.pinned else ssh
