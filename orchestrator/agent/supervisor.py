"""The process that runs the steps of one attempt and writes down what happened. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os
import time

from orchestrator.agent.attempts import ALLOCATION_ENDED
from orchestrator.agent.causes import cause_of, memory_kills
from orchestrator.agent.files import DISK_FULL, fill_reserved, ignore_errors, is_locked, read_json, write_json
from orchestrator.agent.processes import adopt_orphans, attempt_processes, process_stat, signal_all, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from orchestrator.agent.files import Json
else:
    import _signal as signal

PACE = 0.2  # seconds between looks at the stop request; the end of a child is noticed at once
STOPPED = "stopped"  # why an attempt ended that was asked to, unless the request says another reason
KILL_PATIENCE = 5.0  # seconds to wait for a process that KILL does not end at once: it may hang in the kernel


def detach(kept: tuple[int, ...]) -> None:
    """Leave the starter's session, streams and files; an SSH session would wait for the last holder of its pipes."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            ignore_errors(os.close, fd)  # the listing's own is closed already


class Supervisor:
    """Runs the steps of one attempt in order, alone in its process, and writes down what happened."""

    def __init__(
        self,
        folder: str,
        spec: Json,
        secrets: Mapping[str, str],
        started: Callable[[], object] = int,
        ignored: Sequence[str] = (),
    ) -> None:
        """`started` is called once, when the first step was started, or could not be. `ignored`: signals that are ours, though an
        engine sends them to all processes of the attempt.
        """
        self.folder, self.spec, self.ignored = folder, spec, ignored
        self.started: Callable[[], object] | None = started
        self.tag = read_json(folder + "/meta.json")["tag"]
        ours = {"TUNE_JOB": self.tag, "TUNE_FOLDER": folder, "TUNE_NOTIFY": spec.get("notify", "")}
        self.env = {**os.environ, **spec.get("env", {}), **secrets, **ours}
        self.log = os.open(folder + "/log", os.O_RDWR | os.O_APPEND)
        self.state: Json = {"supervisor": os.getpid(), "supervisor_start": process_stat("self")[3], "history": []}
        self.ended: int | None = None  # wait status of the step, when it has ended
        self.why = ""
        self.grace: float | None = None  # as the stop request says
        self.kill_at = float("inf")  # by the monotonic clock
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        self.adopts = adopt_orphans()

    def run(self) -> None:
        """Run the steps until one fails or a stop is asked for. `rc` is that of the step named, whatever `why` says."""
        end: Json = {"step": "", "step_started": None, "rc": None, "signal": None, "left_behind": 0}
        for index, step in enumerate(self.spec["steps"], 1):
            self.heed()
            if self.needless(index, step):
                continue
            if not self.why:
                end = self.step(index, step["name"], step["argv"])
            if self.why or end["rc"] != 0:
                break
        self.finish(self.keep(dict(end, why=self.why, ended=time.time(), history=self.state["history"])))

    def keep(self, end: Json) -> Json:
        """After a failure hold the devices for as long as the request says (`keep`, seconds), or until a stop: somebody may look. What
        the attempt's end is stays the failure. Where it could not be written down why this process still lives, there is no holding.
        """
        seconds = self.spec.get("keep") or 0.0
        if not seconds or self.grace is not None or (end["rc"] == 0 and not end["why"]):
            return end
        try:
            write_json(self.folder + "/run.json", dict(self.state, kept=end, kept_until=time.time() + seconds), durable=True)
        except OSError:
            return end
        self.say("failed; the devices are kept for %.0f s" % seconds)
        self.tell()
        until = time.monotonic() + seconds
        while self.grace is None and time.monotonic() < until:  # a stop sets the grace
            self.tick()
        return end

    def needless(self, index: int, step: Mapping[str, Any]) -> bool:
        """Is what the step makes there already? The last step always runs: the attempt ends as it does."""
        made = step.get("made")
        if self.why or not made or index == len(self.spec["steps"]) or not os.path.exists("%s/work/%s" % (self.folder, made)):
            return False
        self.say("step %d/%d %s: not needed, %s is there" % (index, len(self.spec["steps"]), step["name"], made))
        return True

    def step(self, index: int, name: str, argv: Sequence[str]) -> Json:
        """Run one step, to its end and the end of all that it started."""
        self.say("step %d/%d %s: %s" % (index, len(self.spec["steps"]), name, " ".join(argv)))
        end: Json = {"step": name, "step_started": time.time(), "rc": 127, "signal": None, "left_behind": 0}
        kills = memory_kills()
        try:
            self.state["pid"] = spawn(argv, self.env, self.folder + "/work", self.log, self.ignored)
        except OSError as error:
            self.why = "could not start: %s" % error
            return end
        self.state.update(step=name, index=index, step_started=end["step_started"])
        self.state["pid_start"] = process_stat(self.state["pid"])[3]
        ignore_errors(
            write_json, self.folder + "/run.json", self.state
        )  # on a full disk the old one stays: the step's name is late
        self.tell()
        self.ended = None
        while self.ended is None:
            self.tick()
        end["left_behind"] = self.clear()
        killed = os.WIFSIGNALED(self.ended)
        end["rc"], end["signal"] = (None, os.WTERMSIG(self.ended)) if killed else (os.WEXITSTATUS(self.ended), None)
        if not self.why:
            end["cause"], end["evidence"] = cause_of(end, kills, self.folder, self.env)
        self.state["history"].append(dict(end, ended=time.time()))
        return end

    def tick(self) -> None:
        """Sleep until a child ends, PACE at most; see to children, to a stop request, to what outlived its grace."""
        signal.sigtimedwait([signal.SIGCHLD], PACE)
        self.collect()
        self.heed()
        if time.monotonic() >= self.kill_at and self.members():
            self.why = "killed after grace" if self.why == STOPPED else self.why
            signal_all(self.members(), signal.SIGKILL)

    def collect(self) -> bool:
        """Take leave of children that ended, adopted ones too; is any left?"""
        try:
            while True:
                pid, ended = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.state["pid"]:
                    self.ended = ended
        except ChildProcessError:
            return False

    def members(self) -> list[int]:
        """Live processes of the attempt. Where orphans are adopted, no child means no descendant: no need to look."""
        return attempt_processes(self.tag, self.state) if self.collect() or not self.adopts else []

    def heed(self) -> None:
        """Follow a stop request, of which a later one may set another grace; and end when the devices are taken back."""
        asked = os.path.exists(self.folder + "/stop.json")
        if not asked and not self.allocation_ended():
            return
        request = (read_json(self.folder + "/stop.json") if asked else None) or self.spec
        grace = request.get("grace", 10.0)
        if grace != self.grace:
            self.grace, self.kill_at = grace, time.monotonic() + grace
        if not self.why:
            self.why = request.get("why", STOPPED) if asked else ALLOCATION_ENDED
            signal_all(self.members(), signal.SIGTERM)

    def allocation_ended(self) -> bool:
        """Has whoever granted the devices let go of the lock that says so?"""
        path = self.spec.get("allocation")
        return bool(path) and not is_locked("%s/%s" % (self.folder.rsplit("/", 3)[0], path))

    def clear(self) -> int:
        """End what the step left behind, how many it was: TERM, unless a stop sent it, and KILL after the grace."""
        left = self.members()
        if left and not self.why:
            self.kill_at = time.monotonic() + self.spec.get("grace", 10.0)
            signal_all(left, signal.SIGTERM)
        while left and self.members() and time.monotonic() < self.kill_at + KILL_PATIENCE:
            self.tick()
        if not self.why:
            self.kill_at = float("inf")
        return len(left)

    def say(self, text: str) -> None:
        """Put a line of ours into the log; a full disk does without."""
        size = os.fstat(self.log).st_size
        broken = size and os.pread(self.log, 1, size - 1) != b"\n"
        line = "%s=== tune: %s\n" % ("\n" if broken else "", text.replace("\n", " "))
        ignore_errors(os.write, self.log, line.encode("utf-8", "replace"))

    def finish(self, end: Json) -> None:
        """Keep exit.json, in the room of the reserve. Where a file system writes elsewhere, a full disk gets that back first; after
        that it only delays.
        """
        reserve, path = self.folder + "/reserve", self.folder + "/exit.json"
        while True:
            try:
                if os.path.exists(reserve):
                    fill_reserved(reserve, path, end)
                else:
                    write_json(path, end, durable=True)
                break
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
            ignore_errors(os.unlink, reserve)
            time.sleep(PACE)
        self.tell()

    def tell(self) -> None:
        """Let the starter go, and let whoever waits on this machine know of news; both may be gone."""
        started, self.started = self.started, None
        if started:
            ignore_errors(started)
        if self.spec.get("notify"):
            from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, socket  # noqa: PLC0415 (`socket` costs 8 ms)

            ignore_errors(socket(AF_UNIX, SOCK_DGRAM).sendto, self.spec["job"].encode(), MSG_DONTWAIT, self.spec["notify"])
