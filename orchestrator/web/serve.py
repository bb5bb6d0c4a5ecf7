"""Run the page: tokens from the environment or made now, one process, loopback unless the user says otherwise."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn

from orchestrator.web.access import Access, Role, hosts_of
from orchestrator.web.app import app

TOKEN, READ_TOKEN = "TUNE_WEB_TOKEN", "TUNE_WEB_READ_TOKEN"  # names of variables
"""Where tokens come from: who has the first may act as you on this machine, who has the second may look."""


def serve(
    address: str,
    port: int,
    *,
    say: Callable[[str], None],
    read_only: bool = False,
    allow_hosts: Sequence[str] = (),
    root_path: str = "",
) -> None:
    """Serve until interrupted.

    Args:
        address: to listen at.
        port: 0 takes a free one.
        say: is told the address with its token, once the port is open.
        read_only: nobody may act.
        allow_hosts: Host headers beside our own: those of a reverse proxy.
        root_path: the path under which a reverse proxy has the page.

    Raises:
        OSError: the port cannot be had.
    """
    tokens: dict[Role, str] = {"look": os.environ.get(READ_TOKEN, "")}
    if not read_only:
        tokens["act"] = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
    elif not tokens["look"]:
        tokens["look"] = secrets.token_urlsafe(24)
    with _listening(address, port) as door:
        port = door.getsockname()[1]
        name = f"[{address}]" if ":" in address else address
        access = Access(tokens, hosts_of(name, port, allow_hosts))
        given = not os.environ.get(READ_TOKEN if read_only else TOKEN)
        made = tokens["look" if read_only else "act"]
        root = root_path.rstrip("/")
        say(f"http://{name}:{port}{root}/" + (f"?token={made}" if given else ""))
        config = uvicorn.Config(
            app(access, root_path=root),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run([door])


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((address, port))
        door.listen(128)  # who comes before the server is up waits
    except OSError as error:
        door.close()
        raise OSError(error.errno, f"{error.strerror}; --port names another", f"{address}:{port}") from None
    return door
