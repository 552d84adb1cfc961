"""A sweep on a Slurm cluster: Snakemake submits, the store decides what is done.

Each call begins with a folder of its own under `NBLIB_HOME/sweeps`: the plan of what is still to
do, marks of what ended, logs. So there is no lock to clear and no state to mend after a kill; what
an earlier call left in the queue is cancelled first. Engine: Snakemake 9 and its Slurm executor.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from nblib.core import atomic_folders, store
from nblib.core.errors import BadParameter, MissingInput, NblibError, RunFailed
from nblib.core.values import read_yaml
from nblib.road import stage_registry
from nblib.road.stage_registry import StageInfo
from nblib.run.many import progress_line
from nblib.run.plan import Task

PLAN, FAILED, DRIVER = "plan.json", "failed", "driver.json"
STAGES = StageInfo.kind  # 01-04 of a recording share one job
SEARCH = "search"  # trials of a search, several in a job
TRANSIENT = (4,)  # exit codes worth another try: the kernel died or did not start
POLL_S = 2.0
PROGRAMS = ("sbatch", "squeue", "scancel")
NO_SLURM = (
    f"no Slurm ({', '.join(PROGRAMS)}) on this machine; call it on a login node of the cluster"
)


def make_jobs(runs: list[Task]) -> list[dict[str, Any]]:
    """Runs as cluster jobs: id, kind, runs, needs (ids). 01-04 of a recording are one job."""
    from nblib.run import plan

    needs = plan.needs(runs)
    group: dict[Any, list[int]] = {}
    for i, run in enumerate(runs):
        job = plan.job_of(*run)
        kind = stage_registry.STAGES[job.stage].kind
        group.setdefault((kind, job.recording if kind == STAGES else i), []).append(i)
    name = {}
    jobs = []
    for number, ((kind, _), members) in enumerate(group.items()):
        for i in members:
            name[i] = f"{kind}-{number}"
        jobs.append({"id": f"{kind}-{number}", "kind": kind, "runs": members})
    for job in jobs:
        wanted = {name[k] for i in job["runs"] for k in needs[i]}
        job["needs"] = sorted(wanted - {job["id"]})
        job["runs"] = [list(runs[i]) for i in job["runs"]]
    return jobs


def make_workers(calls: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Trials of searches as cluster jobs, dealt out to n of each study."""
    studies: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        studies.setdefault(call["folder"], []).append(call)
    hands = [own[i::n] for own in studies.values() for i in range(min(n, len(own)))]
    return [
        {"id": f"{SEARCH}-{i}", "kind": SEARCH, "runs": [], "needs": [], "calls": hand}
        for i, hand in enumerate(hands)
    ]


def folder_of(path: Path) -> Path:
    """Where the calls of a sweep file leave their plans, marks and logs."""
    tag = zlib.crc32(str(path.resolve()).encode())
    return store.home() / "sweeps" / f"{path.stem}-{tag:08x}"


def prefix_of(path: Path) -> str:
    """What the Slurm names of a sweep's jobs begin with: user, file and data root tell it apart."""
    tag = zlib.crc32(f"{getpass.getuser()} {path.resolve()} {store.home()}".encode())
    return f"nblib-{path.stem}-{tag:08x}"


def run(
    path: Path, jobs: list[dict[str, Any]], profile: str, resources: dict[str, dict[str, Any]]
) -> tuple[int, list[int]]:
    """Submit jobs and stay until they ended: how many there were, and the codes of those that failed.

    resources: kind of job -> what it asks of the cluster, over the profile's.
    """
    if not is_here():
        raise MissingInput(f"--profile {profile}: {NO_SLURM}, or leave --profile out to run here.")
    snakemake = Path(sys.executable).with_name("snakemake")
    settings = store.project_root() / "workflow" / "profiles" / profile
    if not (settings / "config.yaml").is_file():
        known = sorted(p.name for p in settings.parent.iterdir())
        raise BadParameter(f"--profile {profile}: there are {', '.join(known)}.")
    if not snakemake.is_file():
        raise MissingInput(f"{snakemake}: not installed. The command that mends it:  pip install -e '.[sweep]'")  # fmt: skip
    own = folder_of(path)
    own.mkdir(parents=True, exist_ok=True)
    with _only_driver(own, path):
        cancel(path)
        here = own / time.strftime("%Y%m%dT%H%M%S")
        while here.exists():  # the last call ended within this second
            here = here.with_name(f"{here.name}b")
        here.mkdir()
        store.write_text(here / PLAN, json.dumps({"jobs": jobs}, indent=1))
        command = [
            str(snakemake), "--snakefile", str(store.project_root() / "workflow" / "Snakefile"),
            "--workflow-profile", str(settings), "--directory", str(here), "--slurm-jobname-prefix", prefix_of(path),
            "--config", f"plan={here / PLAN}", f"python={sys.executable}", "--nocolor",
        ]  # fmt: skip
        command += resource_arguments(settings, resources)
        print(f"{len(jobs)} jobs; logs in {here}", flush=True)
        with (here / "snakemake.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)
            _note(own, engine=process.pid)
            code = _watch(process, here, len(jobs), path)
    return _told(here, jobs, code)


def resource_arguments(profile: Path, resources: dict[str, dict[str, Any]]) -> list[str]:
    """What each kind of job asks for: the profile's own, with `resources` over it.

    All of it, since Snakemake forgets the profile's as soon as one is given on the command line.
    """
    if not resources:
        return []
    config = read_yaml((profile / "config.yaml").read_text(encoding="utf-8"), str(profile))
    own = config.get("set-resources") or {}
    both = {kind: {**own.get(kind, {}), **resources.get(kind, {})} for kind in {**own, **resources}}
    asked = [f"{kind}:{name}={value}" for kind, its in both.items() for name, value in its.items()]
    return ["--set-resources", *asked]


def _watch(process: subprocess.Popen, here: Path, total: int, path: Path) -> int:
    """Say how far it is whenever that changes; a signal ends the jobs, then the driver."""
    began, seen = time.monotonic(), None
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while process.poll() is None:
            os.utime(here.parent / DRIVER)
            ended, bad = _count(here / "done"), _count(here / FAILED)
            if (ended, bad) != seen:
                seen = (ended, bad)
                print(progress_line(ended, total, time.monotonic() - began, failed=bad), flush=True)
            time.sleep(POLL_S)
    except (KeyboardInterrupt, SystemExit):
        process.send_signal(signal.SIGTERM)
        cancel(path)
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.returncode


def _count(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _told(here: Path, jobs: list[dict[str, Any]], code: int) -> tuple[int, list[int]]:
    """Say what failed and what was withheld; how many jobs there were, and the codes of the failed."""
    ended = {p.name for p in (here / "done").iterdir()} if (here / "done").is_dir() else set()
    failed = {p.stem: json.loads(p.read_text()) for p in sorted((here / FAILED).glob("*.json"))}
    for told in failed.values():
        print(told["message"], file=sys.stderr)
    rest = [j["id"] for j in jobs if j["id"] not in ended and j["id"] not in failed]
    print(f"{len(ended)} of {len(jobs)} jobs done, {len(failed)} failed, {len(rest)} not begun or lost.")  # fmt: skip
    if failed:
        return len(jobs), [told["code"] for told in failed.values()]
    if code or rest:
        raise RunFailed(f"Snakemake ended with status {code}; its log: {here / 'snakemake.log'}")
    return len(jobs), []


def job(plan: Path, name: str) -> int:
    """`nblib job`: what a job of the cluster does. 0 when all its runs are committed.

    A notebook's own error is written down, so that a second try ends at once with the same answer.
    """
    from nblib.run import many

    jobs = {job["id"]: job for job in json.loads(plan.read_text(encoding="utf-8"))["jobs"]}
    if name not in jobs:
        raise BadParameter(f"{plan}: holds no job {name!r}.")
    told = plan.parent / FAILED / f"{name}.json"
    if told.is_file():
        return int(json.loads(told.read_text())["code"])
    if jobs[name]["kind"] == SEARCH:
        outcomes = many.run_calls(jobs[name]["calls"], 1)
    else:
        outcomes = many.run_many([tuple(run) for run in jobs[name]["runs"]], 1)
    bad = [outcome for outcome in outcomes if outcome.code]
    if not bad:
        return 0
    if bad[0].code not in TRANSIENT and bad[0].code < 128:
        told.parent.mkdir(exist_ok=True)
        store.write_text(told, json.dumps({"code": bad[0].code, "message": bad[0].message}))
    return bad[0].code


# --- the queue -----------------------------------------------------------------------------------


def is_here() -> bool:
    """Whether this machine can submit to a Slurm."""
    return all(shutil.which(program) for program in PROGRAMS)


def queue(path: Path) -> list[tuple[str, str, str]]:
    """(id, state, reason for waiting) of the sweep's jobs that Slurm holds."""
    told = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%T|%r|%j")
    rows = [line.split("|", 3) for line in told.splitlines() if line.count("|") >= 3]
    return [tuple(row[:3]) for row in rows if row[3].startswith(prefix_of(path))]


def cancel(path: Path, patience_s: float = 60.0) -> int:
    """Cancel the sweep's jobs and wait until they have left the queue; how many there were."""
    found = queue(path)
    if found:
        _slurm("scancel", *(number for number, *_ in found))
    end = time.monotonic() + patience_s
    while queue(path):
        if time.monotonic() > end:
            raise RunFailed(f"{path}: its jobs are still in the queue after {patience_s:g} s.")
        time.sleep(0.5)
    return len(found)


def _slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise RunFailed(
            f"Slurm does not do as it is told ({said[-1]}). Call this where `{command[0]}` works, as on "
            "a login node of the cluster."
        )
    return done.stdout


class _only_driver:
    """One driver of a sweep at a time: a second one is refused while the first is alive."""

    STALE_S = 60.0  # a driver on another host that has not stirred for so long is gone

    def __init__(self, folder: Path, path: Path):
        self.file, self.path = folder / DRIVER, path

    def __enter__(self) -> None:
        if (alive := driver(self.file.parent)) is not None:
            raise NblibError(
                f"{self.path}: a driver is at work already (pid {alive['pid']} on {alive['host']}); "
                f"`nblib cancel {self.path}` ends it."
            )
        _end_orphan(self.file)
        _note(self.file.parent, engine=0)

    def __exit__(self, *_: Any) -> None:
        self.file.unlink(missing_ok=True)


def _note(folder: Path, engine: int) -> None:
    told = {"pid": os.getpid(), "host": socket.gethostname(), "engine": engine}
    store.write_text(folder / DRIVER, json.dumps(told))


def _end_orphan(file: Path) -> None:
    """Kill the Snakemake of a driver that was itself killed on this host."""
    if not file.is_file():
        return
    told = json.loads(file.read_text(encoding="utf-8"))
    command = Path(f"/proc/{told['engine']}/cmdline")
    here = told["host"] == socket.gethostname() and command.is_file()
    if here and b"snakemake" in command.read_bytes():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(told["engine"], signal.SIGKILL)


def driver(folder: Path) -> dict[str, Any] | None:
    """pid and host of the driver at work in a sweep's folder; None where there is none."""
    file = folder / DRIVER
    if not file.is_file():
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    if told["host"] == socket.gethostname():
        return told if atomic_folders.alive(told["pid"]) else None
    return told if time.time() - file.stat().st_mtime < _only_driver.STALE_S else None


def stop(path: Path) -> str:
    """`nblib cancel`: end the driver, if it runs here, and the jobs; a sentence that says so."""
    if not folder_of(path).is_dir():
        raise BadParameter(
            f"{path}: no sweep of this file was begun on a cluster with {store.home()}."
        )
    if not is_here():
        raise MissingInput(f"{path}: {NO_SLURM}.")
    found = driver(folder_of(path))
    if found is not None and found["host"] == socket.gethostname():
        os.kill(found["pid"], signal.SIGTERM)
        while driver(folder_of(path)) is not None:
            time.sleep(0.2)
    return f"{cancel(path)} jobs cancelled{', driver ended' if found else ''}."
