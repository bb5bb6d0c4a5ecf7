"""Processes of an attempt: how they are started, found and ended. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import errno
import os
from binascii import crc32

from orchestrator.agent.files import ignore_errors, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.agent.files import Json
else:
    import _signal as signal  # all of `signal` imports `enum`

# a starter may ignore some of these (nohup and Python do); a step gets them as from a shell
DEFAULT_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGTERM", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGXFSZ")


def process_stat(pid: int | str) -> tuple[bytes, int, int, str]:
    """State, parent, session and start time (ticks since boot) of a process; OSError when there is none."""
    fields = read_bytes("/proc/%s/stat" % pid).rsplit(b")", 1)[1].split()
    return fields[0], int(fields[1]), int(fields[3]), fields[19].decode()


def attempt_processes(tag: str, run: Json) -> list[int]:
    """Live processes of an attempt, without its supervisor; `run` is what run.json says.

    The mark alone is not enough: a process may overwrite its environment (setproctitle does, so Ray's workers do).
    """
    return marked_processes(b"TUNE_JOB=" + tag.encode(), run)


def folder_processes(folder: str) -> tuple[list[int], list[int]]:
    """Live processes of an attempt whose folder may be gone: its supervisor, and all others."""
    supervisors = name_holders(attempt_name(folder))
    mark = b"TUNE_FOLDER=" + os.fsencode(folder)
    known = [{"supervisor": pid, "supervisor_start": process_stat(pid)[3]} for pid in supervisors]
    return supervisors, sorted({pid for run in known or [{}] for pid in marked_processes(mark, run)})


def attempt_name(folder: str) -> str:
    """What a supervisor calls itself to the kernel (`leases.bind_name`), by which it is known when its folder is gone."""
    return "tune-attempt %d %08x %s" % (os.getuid(), crc32(os.fsencode(folder)), "/".join(folder.rsplit("/", 2)[1:]))


def is_named(name: str) -> bool:
    """Does any process of this machine have a name?"""
    return bool(_inodes(name))


def name_holders(name: str) -> list[int]:
    """The processes of this user that have a name."""
    wanted, found = {"socket:[%s]" % inode for inode in _inodes(name)}, []
    for pid in filter(str.isdigit, os.listdir("/proc") if wanted else ()):
        try:
            if any(os.readlink("/proc/%s/fd/%s" % (pid, fd)) in wanted for fd in os.listdir("/proc/%s/fd" % pid)):
                found.append(int(pid))
        except OSError:  # gone, or another user's
            pass
    return found


def _inodes(name: str) -> list[str]:
    """Of the sockets that have a name which no file stands for."""
    end = " @" + name[:107]  # as many as the kernel takes
    lines = read_bytes("/proc/net/unix").decode("utf-8", "replace").splitlines()
    return [line.split()[6] for line in lines if line.endswith(end)]


def marked_processes(mark: bytes, run: Json) -> list[int]:
    """Live processes with a word in their environment, with the pids of a run.json, of its session, and all that descend from them."""
    table, found = {}, set()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            table[pid] = process_stat(pid)
            if mark in read_bytes("/proc/%d/environ" % pid).split(b"\0"):
                found.add(pid)
        except OSError:  # gone, or another user's
            pass
    known = {run[who]: run[who + "_start"] for who in ("pid", "supervisor") if who in run}
    found |= {pid for pid in known if pid in table and table[pid][3] == known[pid]}
    leader = run.get("pid")
    if leader in found or leader not in table:  # else its number went to a stranger
        found |= {pid for pid in table if table[pid][2] == leader}
    more = found
    while more:
        more = {pid for pid in table if table[pid][1] in more} - found
        found = found | more
    return sorted(pid for pid in found - {run.get("supervisor"), os.getpid()} if table[pid][0] not in b"ZX")


def signal_all(pids: Iterable[int], number: int) -> None:
    """Signal processes; those already gone are fine."""
    for pid in pids:
        ignore_errors(os.kill, pid, number)


def adopt_orphans() -> bool:
    """Become the parent of all descendants whose own parent dies; False where this Python cannot."""
    try:
        from _ctypes import call_function, dlopen, dlsym  # noqa: PLC0415 (`ctypes` itself costs 6 ms)

        prctl = dlsym(dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None is this program, as in ctypes
        return bool(call_function(prctl, (36, 1, 0, 0, 0)) == 0)  # PR_SET_CHILD_SUBREAPER
    except (ImportError, OSError):
        return False


def spawn(argv: Sequence[str], env: Mapping[str, str], folder: str, log: int, ignored: Sequence[str] = ()) -> int:
    """Start a program as leader of a session, its output in the log; OSError when it cannot be started. For processes with one thread.

    Of its signals, those named in `ignored` do nothing, to it and to what it starts, unless it says otherwise.
    """
    try:
        return spawn_light(argv, env, folder, log) if not ignored else spawn_by_fork(argv, env, folder, log, ignored)
    except NotImplementedError:  # Python was built for an old C library
        return spawn_by_fork(argv, env, folder, log)


def spawn_light(argv: Sequence[str], env: Mapping[str, str], folder: str, log: int) -> int:
    """As `spawn`, by os.posix_spawn, which copies nothing of this process: a third of the time. NotImplementedError where it has no
    setsid. It cannot change the folder either, so this process does for that moment.
    """
    back = os.open(".", os.O_PATH)
    try:
        os.chdir(folder)
        return spawn_first(programs(argv[0], env), argv, env, log)
    except ValueError:  # a zero byte in the environment
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), argv[0]) from None
    finally:
        os.fchdir(back)
        os.close(back)


def programs(name: str, env: Mapping[str, str]) -> list[str]:
    """Where a program may lie, in the order of PATH; as os.execvpe."""
    return [name] if "/" in name else [os.path.join(each, name) for each in os.get_exec_path(dict(env))]


def spawn_first(paths: Iterable[str], argv: Sequence[str], env: Mapping[str, str], log: int) -> int:
    """Start the first program that can be, in this folder; OSError with what is wrong with the first that is there."""
    errors = [errno.ENOENT]
    for path in paths:
        try:
            return os.posix_spawn(
                path,
                list(argv),
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, log, fd) for fd in (1, 2)],
                setsid=True,
                setsigmask=[],
                setsigdef=[getattr(signal, name) for name in DEFAULT_SIGNALS],
            )
        except OSError as error:
            errors.append(error.errno or errno.EINVAL)
    number = next((each for each in errors if each not in (errno.ENOENT, errno.ENOTDIR)), errors[-1])
    raise OSError(number, os.strerror(number), argv[0])


def spawn_by_fork(argv: Sequence[str], env: Mapping[str, str], folder: str, log: int, ignored: Sequence[str] = ()) -> int:
    """As `spawn`, with everything that a process can do before it becomes a program."""
    failed, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            exec_program(argv, env, folder, log, ignored)
        except BaseException as error:
            os.write(tell, b"%d" % (getattr(error, "errno", None) or errno.EINVAL))
        finally:
            os._exit(127)
    os.close(tell)
    number = os.read(failed, 16)  # nothing: the program runs, since exec closed the other end
    os.close(failed)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)), argv[0])
    return pid


def exec_program(argv: Sequence[str], env: Mapping[str, str], folder: str, log: int, ignored: Sequence[str]) -> None:
    """Turn this new process into the program."""
    os.setsid()
    os.chdir(folder)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in DEFAULT_SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN if name in ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execvpe(argv[0], list(argv), env)  # noqa: S606 (an argv, never a shell)
