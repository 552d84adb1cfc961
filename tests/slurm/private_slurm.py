"""A real Slurm of two small nodes on this machine, on loopback, for the length of a test session.

No system service, no database, no cgroups: a controller, two node daemons and munge, each with its
own files in a temporary folder. Where Slurm is not installed, or the machine has a Slurm of its
own, there is none, and `why_not` says so. A record beside the configuration names the processes, so
that `clear` can end what a killed run of tests left, and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import tiny_project

from nblib.run import cluster

ETC = Path("/etc/slurm")  # the one place that all of Slurm's programs look at by themselves
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
RECORD = ETC / "nblib-tests.json"  # [pid, when it began] of the tests and of each daemon
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
NODES, CPUS, MEMORY_MB = 2, 2, 16_000
PATIENCE_S = 1200.0  # a machine that does much else is slow, and no fault
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
wait_until = partial(tiny_project.wait_until, seconds=PATIENCE_S)


def why_not() -> str:
    """Why there can be no private Slurm here; "" when there can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"Slurm is not installed here (no {', '.join(missing)})"
    if not os.access(ETC, os.W_OK):
        return f"{ETC} cannot be written"
    if RECORD.exists():
        return (
            f"tests in process {_recorded()[0][0]} have a private Slurm up, and there is one {ETC}"
        )
    if any((ETC / name).exists() for name in FILES):
        return f"{ETC} holds the configuration of a cluster, which is left alone"
    return ""


def clear() -> None:
    """End the private Slurm of tests that were killed: their daemons, their links."""
    for name in FILES:  # of a folder that was removed since
        if (ETC / name).is_symlink() and not (ETC / name).exists():
            (ETC / name).unlink()
    if RECORD.exists():
        tests, *daemons = _recorded()
        if _alive(*tests) is None:
            _end(daemons)


def _recorded() -> list[list[float]]:
    return json.loads(RECORD.read_text())


def _began(pid: int) -> tuple[int, float]:
    return pid, psutil.Process(pid).create_time()


def _alive(pid: int, began: float) -> psutil.Process | None:
    """The process, unless it ended; another one may have its number now."""
    try:
        process = psutil.Process(int(pid))
        same = process.create_time() == began and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def configuration(folder: Path, ports: list[int]) -> str:
    user, host = getpass.getuser(), socket.gethostname().split(".")[0]
    nodes = f"node[0-{NODES - 1}]"
    return "\n".join([
        "ClusterName=private", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={ports[0]}",
        "AuthType=auth/munge", f"AuthInfo=socket={folder / 'munge.socket'}",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny", f"SlurmUser={user}", f"SlurmdUser={user}",
        f"StateSaveLocation={folder / 'state'}", f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid", f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log", f"SlurmdLogFile={folder}/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "MpiDefault=none", "SwitchType=switch/none",
        "JobAcctGatherType=jobacct_gather/none", "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres", "SelectTypeParameters=CR_CPU_Memory", "GresTypes=gpu", "DefMemPerCPU=500",
        "KillWait=3", "JobRequeue=1", "ReturnToService=2", "OverTimeLimit=0", "MinJobAge=60",
        "SchedulerType=sched/backfill", "SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0",
        "PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE",
        *(
            f"NodeName=node{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB} Gres=gpu:1 State=UNKNOWN"
            for i, port in enumerate(ports[1:])
        ),
        f"PartitionName=general Nodes={nodes} Default=YES MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP",
        f"PartitionName=a100-gpu Nodes={nodes} MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP",
        f"PartitionName=scavenge Nodes={nodes} MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0 State=UP",
        "",
    ])  # fmt: skip


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Slurm up while the block lasts; everything that was started is ended by its own pid."""
    folder.mkdir(mode=0o755)
    for name in ("state", *(f"spool-node{i}" for i in range(NODES))):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(configuration(folder, _free_ports(NODES + 1)))
    # A stand-in for a GPU: Slurm looks only whether the file is there.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
    (folder / "cgroup.conf").write_text("# none\n")
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    RECORD.write_text(json.dumps([_began(os.getpid())]))
    for name in FILES:
        (ETC / name).symlink_to(folder / name)
    try:
        start = {
            "munged.pid": [
                "munged", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
                f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
            ],
            "slurmctld.pid": ["slurmctld", "-c"],
            **{f"slurmd-node{i}.pid": ["slurmd", "-N", f"node{i}"] for i in range(NODES)},
        }  # fmt: skip
        for file, command in start.items():
            subprocess.run(command, check=True, env=env, capture_output=True)
            pid = _written(folder / file)
            RECORD.write_text(json.dumps([*_recorded(), _began(pid)]))
        _wait_until_idle(folder)
        yield
    finally:
        _end(_recorded()[1:])


def _written(file: Path) -> int:
    """The process id that a daemon writes down once it is in the background."""
    end = time.monotonic() + 30
    while not (file.is_file() and file.read_text().strip()):
        if time.monotonic() > end:
            raise RuntimeError(f"{file} was not written")
        time.sleep(0.05)
    return int(file.read_text())


def _wait_until_idle(folder: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        told = subprocess.run(["sinfo", "-h", "-p", "general", "-t", "idle", "-o", "%D"], capture_output=True, text=True)  # fmt: skip
        if told.stdout.strip() == str(NODES):
            return
        time.sleep(0.2)
    logs = "\n".join(p.read_text(errors="replace")[-500:] for p in folder.glob("*.log"))
    raise RuntimeError(f"the private Slurm did not come up:\n{told.stderr}\n{logs}")


def _end(daemons: list[list[float]]) -> None:
    """Cancel all jobs, end the daemons, the last begun first, and take the links away."""
    subprocess.run(["scancel", "--user", getpass.getuser()], capture_output=True)
    for _ in range(50):
        if not subprocess.run(["squeue", "--noheader"], capture_output=True).stdout.strip():
            break
        time.sleep(0.2)
    for daemon in reversed(daemons):
        for number in (signal.SIGTERM, signal.SIGKILL):
            if (process := _alive(*daemon)) is not None:
                process.send_signal(number)
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(5)
    for name in FILES:
        (ETC / name).unlink(missing_ok=True)
    RECORD.unlink(missing_ok=True)


def number_of(sweep: Path, name: str, value: str) -> str:
    """Slurm's number of the job whose last run has this value of this parameter."""
    (plan,) = cluster.folder_of(sweep).glob("*/plan.json")
    jobs = json.loads(plan.read_text())["jobs"]
    (job,) = [j["id"] for j in jobs if j["runs"][-1][1].get(name) == value]
    for number, *_ in cluster.queue(sweep):
        shown = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=True)  # fmt: skip
        if f"/rule_{job.replace('-', '/')}/" in shown.stdout:  # the folder of its log
            return number
    raise AssertionError(f"no job of {job} in the queue")


def preempt(sweep: Path, name: str, value: str) -> None:
    """Take a job off its node, as a partition of higher priority would, and let it come back.

    Slurm lets a job that comes back wait for two minutes; not here.
    """
    number = number_of(sweep, name, value)
    subprocess.run(["scontrol", "requeue", number], check=True)
    wait_until(lambda: (number, "PENDING") in [q[:2] for q in cluster.queue(sweep)])
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)


def end_its_time(sweep: Path, name: str, value: str) -> None:
    """Give a job that runs a limit of one minute: not its next try, which may be slow to begin."""
    update = ["scontrol", "update", f"JobId={number_of(sweep, name, value)}", "TimeLimit=1"]
    subprocess.run(update, check=True)


def end_with_the_tests() -> None:
    """For a sweep about to begin: when its tests are killed, it is told to end, and ends its jobs."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
