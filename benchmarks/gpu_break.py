"""A rank that fails by itself, for several_gpus.py: put it into an interpreter's site-packages beside a file gpu_break.pth with the line
`import gpu_break`.

Where a file `break.now` appears in the working folder, the main thread of the last rank raises `BrokenRank` at its next instruction.
"""

import ctypes
import os
import threading
import time
from pathlib import Path


class BrokenRank(RuntimeError):
    """What a rank says of itself."""

    def __str__(self) -> str:
        return f"rank {os.environ['RANK']} was told to fail"


def watch(main: int) -> None:
    """Until the file is there."""
    while not Path("break.now").exists():
        time.sleep(0.1)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(BrokenRank))


if "LOCAL_RANK" in os.environ and os.environ.get("RANK") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1):
    threading.Thread(target=watch, args=(threading.get_ident(),), daemon=True).start()
