"""Runs one attempt inside an allocation of Slurm: the script, or `srun` where there are several nodes, starts this once on each, in
the folder of the script.

Only here is known which node this is, where the first one is, and which devices were granted. What is started is in document.json
(`agent.slurm_submit`): `ranks`, what the runner of the first node and of the others is told; `tokens`, what stands in their
arguments and variables for the number of the node, the address of the first and the port where they meet; `hosts`, how many
there are; `interface`, by which they meet, empty for the one that leads to the first.

The attempt is started once, however often Slurm runs the script: its folder is renamed into place, and of two the second ends at
once (`agent.runner.place`). So a job that Slurm has put back into its queue never writes beside a process that a dead node left,
and neither does the next attempt, whose folder is another. Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
import sys
import time

from orchestrator.agent.attempts import reap
from orchestrator.agent.files import ignore_errors, make_folder, read_json, write_json
from orchestrator.agent.network import free_port, interface
from orchestrator.agent.processes import adopt_orphans
from orchestrator.agent.runner import check, place
from orchestrator.agent.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

    from orchestrator.agent.files import Json
else:
    import _signal as signal

MEETING = 600.0  # seconds for all nodes of a job to begin
GRACE = 4.0  # seconds between TERM and KILL when Slurm itself ends the job: it waits KillWait, 30 s where nobody changed it
TIME_LIMIT, INTERRUPTED = "time limit", "interrupted"  # why an attempt ended that Slurm asked to
NOTICE = (
    "SIGUSR1"  # comes before the time limit, to all processes of a step: a trainer would die of it instead of ending in order
)
SUCCEEDED, FAILED, REPEATED = 0, 1, 75


def rank_job(job: str, rank: int) -> str:
    """The name under which a node's part of a job lies in the state folder that all of its nodes share; no job's id begins so."""
    return job if rank == 0 else "_%d_%s" % (rank, job)


def meet(folder: str, rank: int, first: str) -> tuple[str, int]:
    """Address of the first node and the port where all meet: the first tells it by a file in the folder that all share.

    Raises:
        TimeoutError: it did not.
    """
    path = "%s/meeting-%s.json" % (folder, os.environ.get("SLURM_JOB_ID", "0"))
    if rank == 0:
        write_json(path, {"address": first, "port": free_port()})
    end = time.monotonic() + MEETING
    while time.monotonic() < end:
        os.listdir(folder)  # so that a network file system looks again
        told = read_json(path)
        if told:
            return told["address"], told["port"]
        time.sleep(0.1)
    raise TimeoutError("the first node of the job did not begin within %d s" % MEETING)


def own_address(name: str) -> str:
    """An address of this node by which the others reach it: of an interface by its name, else of the node's own name."""
    import socket  # noqa: PLC0415 (slow, and one node does without)

    if name:
        import fcntl  # noqa: PLC0415

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            said = fcntl.ioctl(asking, 0x8915, name.encode().ljust(256, b"\0"))  # SIOCGIFADDR
        return socket.inet_ntoa(said[20:24])
    for known in (os.environ.get("SLURMD_NODENAME", ""), socket.gethostname()):
        try:
            address = socket.gethostbyname(known)
        except OSError:
            continue
        if not address.startswith("127."):
            return address
    return os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or "127.0.0.1"


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with what is known now in place of its tokens."""
    for token, value in values.items():
        text = text.replace(token, value)
    return text


def own_part(folder: str, document: Json, rank: int) -> Json:
    """What the runner of this node is told, complete.

    Raises:
        OSError: no address, no port, or another node did not begin.
        ValueError: devices were asked for, and Slurm gave none.
    """
    part = document["ranks"][min(rank, len(document["ranks"]) - 1)]
    spec = dict(part["spec"], job=rank_job(part["spec"]["job"], rank), queue="slurm")
    meeting = {}
    if document["hosts"] > 1:
        # a name may take seconds to be found, so one node alone does without
        head, port = meet(folder, rank, own_address(document["interface"]) if rank == 0 else "")
        way = document["interface"] or interface(head)
        meeting = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), way) if way else {}
    else:
        head, port = "127.0.0.1", free_port()
    said = {"rank": str(rank), "head": head, "port": str(port)}
    values = {document["tokens"][name]: value for name, value in said.items()}
    if spec["accelerator"] == "cuda" and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        raise ValueError("Slurm gave this node no GPU (CUDA_VISIBLE_DEVICES is empty): does `gres:` of the target fit the site?")
    spec["env"] = {**meeting, **{name: filled(text, values) for name, text in spec["env"].items()}}
    spec["steps"] = [dict(step, argv=[filled(word, values) for word in step["argv"]]) for step in spec["steps"]]
    return dict(part, spec=spec)


def leave_launcher() -> None:
    """Forget what srun says to the processes that it starts: ours start the trainers' own launchers, and some of these would take
    the allocation's shape for their own (Lightning, JAX and MPI read it).
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    number = "%s_%s" % (array, task) if array else os.environ.get("SLURM_JOB_ID", "")
    for name in list(os.environ):
        if name.startswith(("SLURM", "SRUN_", "SBATCH_", "PMI_", "PMIX_", "PMI2_")) and name != "SLURM_CONF":
            del os.environ[name]
    os.environ["TUNE_SLURM_JOB"] = number


def heed_slurm(folder: str) -> None:
    """Have the signals of Slurm end the attempt in order: USR1 comes some time before the time limit, TERM at any end."""

    def end(why: str) -> None:
        if not os.path.exists(folder + "/stop.json"):
            ignore_errors(write_json, folder + "/stop.json", {"grace": GRACE, "why": why})

    signal.signal(getattr(signal, NOTICE), lambda *_: end(TIME_LIMIT))
    signal.signal(signal.SIGTERM, lambda *_: end(INTERRUPTED))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def end_others(home: str, job: str, attempt: int, rank: int, hosts: int) -> None:
    """This node's part went wrong: the others, who would wait for it, are asked to end."""
    for other in range(hosts):
        folder = "%s/jobs/%s/%d" % (home, rank_job(job, other), attempt)
        if other != rank and os.path.exists(folder + "/log") and not os.path.exists(folder + "/exit.json"):
            ignore_errors(write_json, folder + "/stop.json", {"grace": GRACE})


def run(folder: str) -> int:
    """Run this node's part of an attempt to its end; the exit code."""
    home = folder.rsplit("/", 4)[0]
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    document = read_json(folder + "/document.json")
    # of several nodes some may have begun the first time, and others would not know of it
    restarted = document["hosts"] > 1 and os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    job, attempt = document["ranks"][0]["spec"]["job"], document["ranks"][0]["spec"]["attempt"]
    there = "%s/jobs/%s/%d" % (home, rank_job(job, rank), attempt)
    if restarted or os.path.exists(there):
        return repeated(folder, job, attempt)
    part = own_part(folder, document, rank)
    check(there, part)
    make_folder(os.path.dirname(there))
    lock = place(there, part)
    if lock is None:
        return repeated(folder, job, attempt)
    heed_slurm(there)
    leave_launcher()
    Supervisor(there, part["spec"], {}, ignored=(NOTICE,)).run()
    end = read_json(there + "/exit.json")
    if end["rc"] == 0 and not end["why"]:
        return SUCCEEDED
    end_others(home, job, attempt, rank, document["hosts"])
    return FAILED


def guarded(folder: str) -> int:
    """Run this node's part in a process of its own, and end what it leaves behind when it dies without a word: not every site has
    its processes in cgroups, by which Slurm would find them.
    """
    adopt_orphans()
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            code = run(folder)
        except (OSError, ValueError, LookupError, TypeError) as error:
            sys.stderr.write("tune: %s\n" % error)
        finally:
            os._exit(code)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # a script's own process alone may be told; twice does no harm
        signal.signal(number, lambda said, _: ignore_errors(os.kill, child, said))
    while True:
        pid, ended = os.wait()
        if pid == child:
            break
    if os.WIFEXITED(ended):
        return os.WEXITSTATUS(ended)
    first = read_json(folder + "/document.json")["ranks"][0]["spec"]
    job = rank_job(first["job"], int(os.environ.get("SLURM_PROCID", "0")))
    reap("%s/jobs/%s/%d" % (folder.rsplit("/", 4)[0], job, first["attempt"]))
    return FAILED


def repeated(folder: str, job: str, attempt: int) -> int:
    """Nothing is started a second time; whoever looks is told."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        write_json(folder + "/requeued", {"job": os.environ.get("SLURM_JOB_ID", "")})
    sys.stderr.write("attempt %d of %s was started before, nothing is started again: tune retry %s\n" % (attempt, job, job))
    return REPEATED


def probe(path: str, index: str) -> int:
    """Say from a compute node what a job would find there: `tune targets check` reads it from the login node."""
    import socket  # noqa: PLC0415

    host, _, port = index.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5.0).close()
        reached = True
    except OSError:
        reached = False
    found = {"node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(), "index": reached}
    write_json(path, dict(found, python="%d.%d.%d" % sys.version_info[:3], gpus=os.environ.get("CUDA_VISIBLE_DEVICES", "")))
    return SUCCEEDED


def main(argv: Sequence[str]) -> int:
    """Run a command line; the exit code."""
    try:
        if argv[0] == "--probe":
            return probe(argv[1], argv[2])
        return guarded(os.path.abspath(argv[0]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.stderr.write("tune: %s\n" % error)
        return FAILED
