"""What names of hosts and users may be: what reaches ssh as an argument is neither an option nor a command of a shell."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")
"""A host. No sign of a shell, since a ProxyCommand of ssh_config has one; no dash at the beginning, since ssh takes options."""
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*")
HOP = re.compile(
    rf"(?:(?P<user>{USER.pattern})@)?(?:\[(?P<boxed>{NAME.pattern})\]|(?P<plain>[A-Za-z0-9_][A-Za-z0-9_.%-]*))(?::(?P<port>\d+))?"
)
