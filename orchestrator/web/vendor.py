"""Fetch the files of others that the page carries, by npm, and check their sums: `python -m orchestrator.web.vendor`."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

STATIC = Path(__file__).parent / "static"


class Vendored(NamedTuple):
    """A file out of an npm package."""

    package: str
    member: str
    sha256: str


FILES = {
    "uplot.js": Vendored(
        "uplot@1.6.32", "dist/uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
    ),
    "uplot.css": Vendored(
        "uplot@1.6.32", "dist/uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"
    ),
    "uplot-LICENSE.txt": Vendored("uplot@1.6.32", "LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
}
"""Name in `static` -> where it comes from. uPlot draws the curves; MIT."""


def main() -> None:
    """Write the files; none that is not what its sum says."""
    with TemporaryDirectory() as folder:
        for name, file in FILES.items():
            packed = subprocess.run(
                ["npm", "pack", "--silent", file.package], cwd=folder, check=True, capture_output=True, text=True
            )
            with tarfile.open(Path(folder, packed.stdout.strip())) as archive:
                member = archive.extractfile(f"package/{file.member}")
                data = member.read() if member else b""
            if sha256(data).hexdigest() != file.sha256:
                sys.exit(f"{file.package} {file.member}: is not the file that was looked at")
            (STATIC / name).write_bytes(data)


if __name__ == "__main__":
    main()
