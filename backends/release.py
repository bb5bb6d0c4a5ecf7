"""The release of a trainer that its folder is written for."""

from __future__ import annotations

from typing import NamedTuple


class Release(NamedTuple):
    """One version of one package. Each trainer says its own once, in `release.py`."""

    package: str
    """As the package index calls it."""
    title: str
    """As people write it."""
    version: str
    """Whose keys, defaults, names and log lines were read."""
    before: str
    """The first version that is known to differ, or may: an interpreter of the user's has an older one."""
    tree: str
    """Address of that version's source, with `{}` for the version."""

    @property
    def pinned(self) -> str:
        """`litgpt 1.2.3`."""
        return f"{self.package} {self.version}"

    @property
    def named(self) -> str:
        """`LitGPT 1.2.3`."""
        return f"{self.title} {self.version}"

    @property
    def requires(self) -> str:
        """The supported range: `litgpt>=1.2.3,<1.3`."""
        return f"{self.package}>={self.version},<{self.before}"

    @property
    def short(self) -> str:
        """`1.2` of 1.2.3, as recipes ask for it."""
        return ".".join(self.version.split(".")[:2])

    def source(self, path: str = "") -> str:
        """Address of a file or folder of its source."""
        return self.tree.format(self.version) + path
