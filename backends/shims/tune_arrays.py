"""Arrays that are too long for memory: written as NumPy's .npy files while they are made, and read back piece by piece.

https://numpy.org/doc/2.2/reference/generated/numpy.lib.format.html
"""

import struct

HEADER = 128  # bytes, as NumPy pads it
PIECE = 1 << 20


class Npy:
    """A .npy file of whole numbers that grows.

    Args:
        path: of the file.
        kind: "<i4" or "<i8".
    """

    def __init__(self, path, kind):
        self.path, self.kind, self.count = path, kind, 0
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._file.write(b"\0" * HEADER)

    def extend(self, values):
        """Add an array.array of the file's kind."""
        self._file.write(values)
        self.count += len(values)

    def close(self):
        """Write the header, now that the count is known."""
        about = f"{{'descr': '{self.kind}', 'fortran_order': False, 'shape': ({self.count},), }}"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER - 10)
        self._file.seek(0)
        self._file.write(start + about.ljust(HEADER - 11).encode() + b"\n")
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def content(path):
    """The values of a .npy file that Npy has written, as bytes, in pieces."""
    with open(path, "rb") as file:
        file.seek(HEADER)
        while piece := file.read(PIECE):
            yield piece
