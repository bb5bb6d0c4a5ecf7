"""What a host says of its network. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # all of `socket` costs each start 8 ms


def interface(to: str) -> str:
    """The network interface by which this host reaches another, or itself, under an address; empty where it cannot be told."""
    import fcntl  # noqa: PLC0415 (seldom needed)

    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        asking.connect((to, 9))  # nothing is sent: the kernel only chooses a way
        mine = socket.inet_aton(asking.getsockname()[0])
        for _, name in socket.if_nameindex():
            try:
                said = fcntl.ioctl(asking, 0x8915, name.encode().ljust(256, b"\0"))  # SIOCGIFADDR
            except OSError:  # it has no such address
                continue
            if said[20:24] == mine:
                return name
    except OSError:
        pass
    finally:
        asking.close()
    return ""


def free_port() -> int:
    """A TCP port of this host that nobody uses now. Somebody may before whoever asked does."""
    asking = socket.socket()
    try:
        asking.bind(("", 0))
        return int(asking.getsockname()[1])
    finally:
        asking.close()
