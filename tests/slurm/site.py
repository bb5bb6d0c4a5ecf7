"""A real Slurm of a test's own: slurmctld, a slurmd for each of some nodes, and munged, on free ports, in a folder of its own.

All nodes are this machine, each with CPUs, memory and GPUs as slurm.conf says (the GPUs are device nodes that do nothing), and share
its file system. Everything that was started is ended by its process id.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
LIMIT = 60.0
"""Seconds for what hangs."""
CONFIG = """\
ClusterName=site
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
{history}
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
MinJobAge={age}
KillWait=5
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
MessageTimeout=10
GresTypes=gpu
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 State=UP OverSubscribe=NO
PartitionName=long Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO
{more}
"""


COMPLETIONS = """\
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt"""
ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge/sock
JobCompType=jobcomp/none"""
DBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=root
StorageLoc=slurm
"""


def sbin(name):
    """Path of a program, in the folders of administrators too."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def required(*more):
    """Skip where there is no Slurm to start, with `more` programs beside it, or fail where it should be."""
    missing = [name for name in (*PROGRAMS, *more) if not sbin(name)]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        if "slurm" in os.environ.get("TUNE_REQUIRE", "").split(","):
            pytest.fail(f"TUNE_REQUIRE asks for slurm, there is no {', '.join(missing)}")
        pytest.skip(f"a Slurm of our own needs {', '.join(missing)}")


def free_ports(count):
    """So many ports that nobody uses, nor the kernel for a connection while a daemon is away that comes back to its port."""
    found = set()
    while len(found) < count:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)


def living(pid):
    """Does a process run? A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Site:
    """The cluster. `conf` is what SLURM_CONF names."""

    def __init__(self, folder, nodes=1, cpus=2, gpus=0, more="", age=3600, accounts=False):
        self.folder, self.nodes, self.cpus, self.gpus, self.more, self.age = Path(folder), nodes, cpus, gpus, more, age
        self.conf = self.folder / "slurm.conf"
        self.env = {**os.environ, "SLURM_CONF": str(self.conf)}
        self.ports = {}
        self.accounts, self.daemons = accounts, []

    def up(self):
        for name in ("state", "spool", "munge", *(f"spool/n{i}" for i in range(self.nodes))):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for above in (self.folder, *self.folder.parents):  # munged and jobs look at all of them
            if str(above).startswith("/tmp/"):
                above.chmod(above.stat().st_mode | 0o055)
        self._munged()
        port, *rest = free_ports(1 + self.nodes)
        self.ports = dict(enumerate(rest))
        host = os.uname().nodename.split(".")[0]
        gres = f"Gres=gpu:fake:{self.gpus}" if self.gpus else ""
        lines = [
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={at} CPUs={self.cpus} RealMemory=4000 {gres} State=UNKNOWN"
            for i, at in self.ports.items()
        ]
        if self.gpus:
            for number in range(self.gpus):  # only device nodes are believed; these are /dev/null
                subprocess.run(["mknod", "-m", "666", self.folder / f"gpu{number}", "c", "1", "3"], check=True)
            files = f"{self.folder}/gpu[0-{self.gpus - 1}]"
            names = [f"NodeName=n{i} Name=gpu Type=fake File={files}" for i in range(self.nodes)]
            (self.folder / "gres.conf").write_text("\n".join(names) + "\n")
        history = self._accounts(host) if self.accounts else COMPLETIONS.format(folder=self.folder)
        facts = {"nodes": "\n".join(lines), "more": self.more, "age": self.age, "history": history}
        self.conf.write_text(CONFIG.format(host=host, port=port, folder=self.folder, **facts))
        if self.accounts:
            self._daemon("slurmdbd", "-D")
            until(
                lambda: (
                    "site"
                    in self.run("sacctmgr", "--immediate", "add", "cluster", "site")
                    + self.run("sacctmgr", "-n", "show", "cluster")
                )
            )
        self.start_controller("-c")
        for number in range(self.nodes):
            self.start_node(number)
        until(self.idle)
        return self

    def idle(self):
        """Does every node wait for work?"""
        return len(self.run("sinfo", "-h", "-N", "-p", "debug", "-t", "idle", "-o", "%N").split()) == self.nodes

    def clear(self):
        """End all jobs, and have every node wait for work, whatever a test did to it."""
        until(self._clear, 4 * LIMIT)  # a node tells again after a minute or more what a slurmctld that was away has not heard

    def _clear(self):
        if self.idle() and {"RUNNING", "PENDING", "COMPLETING", "SUSPENDED"}.isdisjoint(self.jobs().values()):
            return True
        if not self._pid("slurmctld.pid"):
            self.start_controller()
        for number in range(self.nodes):
            if not self._pid(f"slurmd-n{number}.pid"):
                self.start_node(number)
        self.run("scancel", f"--user={os.getuid()}")
        self.run("scontrol", "update", f"nodename=n[0-{self.nodes - 1}]", "state=resume")
        return False

    def _pid(self, name):
        """The process of a daemon that wrote it down; 0 where it is gone, and another may have its number."""
        try:
            pid = int((self.folder / name).read_text())
            return pid if os.fsencode(self.folder) in Path(f"/proc/{pid}/cmdline").read_bytes() else 0
        except (OSError, ValueError):
            return 0

    def log(self, offset=0):
        """What slurmctld wrote, from a byte on."""
        return (self.folder / "slurmctld.log").read_text(errors="replace")[offset:]

    def _accounts(self, host):
        """A database for Slurm's accounts, and what slurm.conf says of it."""
        port, storage = free_ports(2)
        data = self.folder / "database"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root"], check=True, stdout=subprocess.DEVNULL
        )
        words = ["--no-defaults", "--user=root", f"--datadir={data}"]
        words += [f"--socket={self.folder}/database.sock", f"--port={storage}"]
        words += ["--bind-address=127.0.0.1", "--skip-grant-tables", f"--log-error={self.folder}/database.log"]
        self._daemon("mariadbd", *words)
        until((self.folder / "database.sock").exists)
        (self.folder / "slurmdbd.conf").write_text(DBD.format(folder=self.folder, host=host, port=port, storage=storage))
        (self.folder / "slurmdbd.conf").chmod(0o600)
        return ACCOUNTS.format(folder=self.folder, port=port)

    def _daemon(self, name, *words):
        """Start one that stays a child of ours."""
        quiet = subprocess.DEVNULL
        self.daemons.append(subprocess.Popen([sbin(name), *words], env=self.env, stdout=quiet, stderr=quiet))

    def _munged(self):
        place = self.folder / "munge"
        (place / "key").write_bytes(os.urandom(128))
        for path in (place, place / "key"):
            shutil.chown(path, "munge", "munge")
        place.chmod(0o755)
        (place / "key").chmod(0o400)
        words = [f"--socket={place}/sock", f"--key-file={place}/key", f"--pid-file={place}/pid", f"--log-file={place}/log"]
        drop = ["setpriv", "--reuid=munge", "--regid=munge", "--init-groups"]
        subprocess.run(
            [*drop, sbin("munged"), "--force", *words, f"--seed-file={place}/seed"], check=True, stderr=subprocess.DEVNULL
        )

    def run(self, *argv, check=False):
        """What one of Slurm's commands prints."""
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=LIMIT, check=check)
        return done.stdout

    def start_controller(self, *words):
        subprocess.run([sbin("slurmctld"), "-f", self.conf, *words], env=self.env, check=True, capture_output=True)

    def start_node(self, number, hidden=None):
        """Start a slurmd; its node has an empty folder of its own in place of a hidden one."""
        words = [sbin("slurmd"), "-N", f"n{number}", "-f", self.conf]
        if hidden:
            words = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', hidden, *words]
        subprocess.run(words, env=self.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop_controller(self):
        """Slurm answers no more, and has written down what it knows."""
        self._end("slurmctld.pid", signal.SIGTERM)

    def crash_controller(self):
        """Slurm answers no more, and forgets what it has not written down: it waits up to 5 s before it writes."""
        self._end("slurmctld.pid", signal.SIGKILL)

    def kill_node(self, number):
        """End its slurmd and the processes with which it watches over jobs; what these started lives on."""
        self._end(f"slurmd-n{number}.pid", signal.SIGKILL)
        for pid, words in self._processes(environ=False):
            if words[:1] == ["slurmstepd:"] and str(self.folder / f"spool/n{number}") in self._open(pid):
                os.kill(pid, signal.SIGKILL)

    def jobs(self):
        """Number -> state, of all jobs that Slurm knows."""
        lines = self.run("squeue", "-h", "-t", "all", "-o", "%A %T").splitlines()
        return dict(line.split() for line in lines)

    def down(self):
        for name in ("slurmctld.pid", *(f"slurmd-n{number}.pid" for number in range(self.nodes))):
            self._end(name, signal.SIGKILL)
        for pid, _ in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in reversed(self.daemons):
            daemon.kill()
            daemon.wait()
        self._end("munge/pid", signal.SIGTERM)

    def _open(self, pid):
        try:
            return " ".join(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()) + str(
                Path(f"/proc/{pid}/cwd").readlink()
            )
        except OSError:
            return ""

    def _processes(self, *, environ=True):
        """What runs of ours beside the daemons: steps and what jobs started."""
        mark = f"SLURM_CONF={self.conf}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split()
                ours = words[:1] == ["slurmstepd:"] and str(self.folder) in self._open(int(entry.name))
                variables = (entry / "environ").read_bytes().split(b"\0") if environ else []
                job = mark in variables and any(each.startswith((b"SLURM_JOB_ID=", b"TUNE_SLURM_JOB=")) for each in variables)
            except OSError:
                continue
            if ours or job or not environ:
                yield int(entry.name), words

    def _end(self, name, number):
        """End a daemon by the id that it wrote down."""
        if pid := self._pid(name):
            end(pid, number)


def end(pid, number):
    """End a process, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    until(lambda: not living(pid))


@contextlib.contextmanager
def running(folder, **shape):
    """A site for as long as it is needed; SLURM_CONF names it."""
    required(*(("slurmdbd", "mariadbd", "mariadb-install-db") if shape.get("accounts") else ()))
    made = Site(folder, **shape)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(made.conf)
    try:
        yield made.up()
    finally:
        made.down()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


@contextlib.contextmanager
def login(folder):
    """An sshd on this machine, so that it is a login node that is reached over SSH; what a target says of it."""
    if not sbin("sshd"):
        refuse = pytest.fail if "ssh" in os.environ.get("TUNE_REQUIRE", "").split(",") else pytest.skip
        refuse("there is no sshd")
    folder.mkdir()
    [port] = free_ports(1)
    for name in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    lines = [
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", f"PidFile {folder}/pid", "UsePAM no"),
        *(f"AuthorizedKeysFile {folder}/authorized_keys", "StrictModes no", "PermitRootLogin yes", "MaxStartups 200:30:400"),
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run([sbin("sshd"), "-f", folder / "sshd_config"], check=True)
    try:
        until((folder / "pid").exists)
        yield {
            "login": "127.0.0.1",
            "port": port,
            "user": "root",
            "identity": str(folder / "id"),
            "known_hosts": str(folder / "known_hosts"),
            "interpreter": sys.executable,
        }
    finally:
        end(int((folder / "pid").read_text()), signal.SIGTERM)
