"""A slow, lossy wire for one namespace host, where the kernel has no netem. Needs root and /dev/net/tun.

    slow_wire.py NETNS BRIDGE ADDRESS/BITS [--delay MS] [--loss PERCENT] [--rate MBIT]

Two TAP devices, one in the bridge, one as the host's eth0: frames are carried between them, `delay` one way. Ends on SIGTERM.
"""

import argparse
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import time
from contextlib import suppress

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
QUEUE = 0.5  # seconds of waiting frames; what comes then is dropped


def tap(name):
    """A TAP device of that name, in the present network."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def ip(*words, check=True):
    """Run ip."""
    subprocess.run(["ip", *words], check=check, stderr=None if check else subprocess.DEVNULL)


def enter(namespace):
    """Go into another network."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def ends(words):
    """Both ends of the wire, in place of the host's own."""
    name = f"{words.netns}w"[-15:]
    outer = tap(name)
    ip("link", "set", name, "master", words.bridge, "up")
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(os.open(f"/run/netns/{words.netns}", os.O_RDONLY))
    ip("link", "set", "eth0", "down", check=False)
    ip("link", "set", "eth0", "name", "veth0", check=False)
    ip("addr", "flush", "dev", "veth0", check=False)
    inner = tap("eth0")
    ip("addr", "add", words.address, "dev", "eth0")
    ip("link", "set", "eth0", "up")
    enter(home)
    return outer, inner


def frames(source):
    """What waits to be carried."""
    for _ in range(64):
        try:
            yield os.read(source, 65600)
        except BlockingIOError:
            return


def carry(words, outer, inner):
    """Frames from each end to the other, late."""
    queue, number, free = [], 0, {outer: 0.0, inner: 0.0}
    while True:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, target, frame = heapq.heappop(queue)
            with suppress(OSError):
                os.write(target, frame)
        ready, _, _ = select.select([outer, inner], [], [], max(0.0, queue[0][0] - now) if queue else None)
        now = time.monotonic()
        for source in ready:
            target = inner if source == outer else outer
            for frame in frames(source):
                wait = 0.0
                if words.rate:
                    free[target] = max(free[target], now) + len(frame) * 8 / words.rate / 1e6
                    wait = free[target] - now
                if wait <= QUEUE and random.uniform(0, 100) >= words.loss:
                    number += 1
                    heapq.heappush(queue, (now + wait + words.delay / 1e3, number, target, frame))


parser = argparse.ArgumentParser()
for place in ("netns", "bridge", "address"):
    parser.add_argument(place)
for option in ("--delay", "--loss", "--rate"):
    parser.add_argument(option, type=float, default=0.0)
words = parser.parse_args()
both = ends(words)
print("ready", flush=True)
carry(words, *both)
