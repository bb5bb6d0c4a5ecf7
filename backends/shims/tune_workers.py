"""Work on one item after the other in several processes, its results in order; as many items at once as there are processes, twice.

The processes are forks, so they have at hand what the work needs, and end with the process that made them. Standard library only.
"""

# ruff: noqa: PLC0415 - a small set of rows needs no processes

import os
from itertools import chain, islice

ALONE = 4  # items that are not worth a process
MOST = 8  # processes: each takes memory


def in_order(work, items):
    """work(item) of each item, in order. An error of the work or of the items is raised where its result would be."""
    items = iter(items)
    yield from map(work, islice(items, ALONE))
    first = list(islice(items, 1))
    if not first:
        return
    items, count = chain(first, items), processes()
    yield from map(work, items) if count == 1 else shared(work, items, count)


def processes():
    """As many as this job has cores, or as OMP_NUM_THREADS says."""
    if not hasattr(os, "sched_getaffinity"):
        return 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(len(os.sched_getaffinity(0)), MOST, int(given) if given.isdecimal() else MOST))


def shared(work, items, count):
    """The same by `count` processes: item number N is done by process N modulo `count`."""
    import multiprocessing
    import queue
    import threading

    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(count)]
    ours = [one for one, _ in pipes]
    crew = [fork.Process(target=serve, args=(work, theirs, pipes), daemon=True) for _, theirs in pipes]
    for process in crew:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    room, sent, over = threading.Semaphore(2 * count), queue.SimpleQueue(), threading.Event()

    def feed():
        error = None
        try:
            for number, item in enumerate(items):
                room.acquire()
                if over.is_set():
                    return
                ours[number % count].send(item)
                sent.put((number, None))
        except Exception as caught:  # raised where its result would be
            error = caught
        sent.put((None, error))

    threading.Thread(target=feed, daemon=True).start()
    try:
        for number, error in iter(sent.get, (None, None)):
            if error:
                raise error
            yield received(ours[number % count], crew[number % count])
            room.release()
    finally:
        over.set()
        room.release()
        for process, pipe in zip(crew, ours, strict=True):
            process.terminate()
            pipe.close()


def serve(work, mine, pipes):
    """Do the work for as long as there is some. Every other end of a pipe is closed here, so that the death of whoever has it is told."""
    for one in chain.from_iterable(pipes):
        if one is not mine:
            one.close()
    while True:
        try:
            item = mine.recv()
        except (EOFError, OSError):
            return
        try:
            done = True, work(item)
        except Exception as error:
            done = False, error
        try:
            mine.send(done)
        except OSError:
            return


def received(pipe, process):
    """A result; the error, where there was one."""
    try:
        well, result = pipe.recv()
    except (EOFError, OSError):
        process.join(5)
        raise OSError(
            f"a process that renders rows ended by itself (exit code {process.exitcode}; -9 is mostly want of memory)"
        ) from None
    if not well:
        raise result
    return result
