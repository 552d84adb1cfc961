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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nblib.core import integrity, store
from nblib.core.errors import BadParameter, MissingInput, NblibError, RunFailed
from nblib.core.text_to_values import read_yaml
from nblib.road import stage_registry
from nblib.road.stage_registry import StageInfo
from nblib.run.many import progress_line
from nblib.run.plan import Task

PLAN, FAILED, DRIVER = "plan.json", "failed", "driver.json"
STAGES = StageInfo.kind  # 01-04 of a recording share one job
SEARCH = "search"  # trials of a search, several in a job
TRANSIENT = (4,)  # exit codes worth another try: the kernel died or did not start
POLL_S = 2.0
STALE_S = 60.0  # a driver on another host that has not stirred for so long is gone
PROGRAMS = ("sbatch", "squeue", "scancel")
NO_SLURM = (
    f"no Slurm ({', '.join(PROGRAMS)}) on this machine; call it on a login node of the cluster"
)


def make_jobs(runs: list[Task]) -> list[dict[str, Any]]:
    """Runs as cluster jobs: id, kind, runs, needs (ids). 01-04 of a recording are one job."""
    from nblib.run import plan

    needs = plan.needs(runs)
    members: dict[Any, list[int]] = {}
    for i, run in enumerate(runs):
        job = plan.job_of(*run)
        kind = stage_registry.STAGES[job.name].kind
        members.setdefault((kind, job.recording if kind == STAGES else i), []).append(i)
    names = [f"{kind}-{number}" for number, (kind, _) in enumerate(members)]
    job_of_run = {i: name for name, some in zip(names, members.values(), strict=True) for i in some}
    return [
        {
            "id": name,
            "kind": kind,
            "runs": [list(runs[i]) for i in some],
            "needs": sorted({job_of_run[k] for i in some for k in needs[i]} - {name}),
        }
        for name, ((kind, _), some) in zip(names, members.items(), strict=True)
    ]


def make_workers(calls: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Trials of searches as cluster jobs, dealt out to n of each study."""
    studies: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        studies.setdefault(call["folder"], []).append(call)
    hands = [trials[i::n] for trials in studies.values() for i in range(min(n, len(trials)))]
    return [
        {"id": f"{SEARCH}-{i}", "kind": SEARCH, "runs": [], "needs": [], "calls": hand}
        for i, hand in enumerate(hands)
    ]


def folder_of(path: Path) -> Path:
    """Where the calls of a sweep file leave their plans, marks and logs."""
    return store.home() / "sweeps" / f"{path.stem}-{_tag(path.resolve())}"


def prefix_of(path: Path) -> str:
    """What the Slurm names of a sweep's jobs begin with: user, file and data root tell it apart."""
    return f"nblib-{path.stem}-{_tag(getpass.getuser(), path.resolve(), store.home())}"


def _tag(*words: Any) -> str:
    return f"{zlib.crc32(' '.join(map(str, words)).encode()):08x}"


def submit(
    path: Path, jobs: list[dict[str, Any]], profile: str, resources: dict[str, dict[str, Any]]
) -> list[int]:
    """Submit jobs and stay until they ended: the exit codes of those that failed.

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
        raise MissingInput(
            f"{snakemake}: not installed. The command that mends it:  pip install -e '.[sweep]'"
        )
    folder = folder_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_driver(folder, path):
        cancel(path)
        here = folder / time.strftime("%Y%m%dT%H%M%S")
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
            _note(folder, engine=process.pid)
            code = _watch(process, here, len(jobs), path)
    return _codes(here, jobs, code)


def resource_arguments(profile: Path, resources: dict[str, dict[str, Any]]) -> list[str]:
    """What each kind of job asks for: the profile's own, with `resources` over it.

    All of it, since Snakemake forgets the profile's as soon as one is given on the command line.
    """
    if not resources:
        return []
    config = read_yaml((profile / "config.yaml").read_text(encoding="utf-8"), str(profile))
    wanted = {kind: dict(values) for kind, values in (config.get("set-resources") or {}).items()}
    for kind, values in resources.items():
        wanted.setdefault(kind, {}).update(values)
    pairs = [f"{kind}:{k}={v}" for kind, values in wanted.items() for k, v in values.items()]
    return ["--set-resources", *pairs]


def _watch(process: subprocess.Popen, here: Path, total: int, path: Path) -> int:
    """Say how far it is whenever that changes; a signal ends the jobs, then the driver."""
    began, seen = time.monotonic(), None
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while process.poll() is None:
            os.utime(here.parent / DRIVER)
            ended, bad = (len(list(here.glob(f"{name}/*"))) for name in ("done", FAILED))
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


def _codes(here: Path, jobs: list[dict[str, Any]], code: int) -> list[int]:
    """Say what failed and what was withheld; the exit codes of the failed."""
    ended = {path.name for path in here.glob("done/*")}
    failed = {p.stem: json.loads(p.read_text()) for p in sorted((here / FAILED).glob("*.json"))}
    for failure in failed.values():
        print(failure["message"], file=sys.stderr)
    rest = [j["id"] for j in jobs if j["id"] not in ended and j["id"] not in failed]
    print(
        f"{len(ended)} of {len(jobs)} jobs done, {len(failed)} failed, {len(rest)} not begun or lost."
    )
    if failed:
        return [failure["code"] for failure in failed.values()]
    if code or rest:
        raise RunFailed(f"Snakemake ended with status {code}; its log: {here / 'snakemake.log'}")
    return []


@store.shared()
def job(plan: Path, name: str) -> int:
    """`nblib job`: what a job of the cluster does. 0 when all its runs are committed.

    A notebook's own error is written down, so that a second try ends at once with the same answer.
    """
    from nblib.run import many

    jobs = {job["id"]: job for job in json.loads(plan.read_text(encoding="utf-8"))["jobs"]}
    if name not in jobs:
        raise BadParameter(f"{plan}: holds no job {name!r}.")
    mark = plan.parent / FAILED / f"{name}.json"
    if mark.is_file():
        return int(json.loads(mark.read_text())["code"])
    if jobs[name]["kind"] == SEARCH:
        outcomes = many.run_calls(jobs[name]["calls"], 1)
    else:
        outcomes = many.run_many([tuple(run) for run in jobs[name]["runs"]], 1)
    bad = [outcome for outcome in outcomes if outcome.code]
    if not bad:
        return 0
    if bad[0].code not in TRANSIENT and bad[0].code < 128:
        mark.parent.mkdir(exist_ok=True)
        store.write_text(mark, json.dumps({"code": bad[0].code, "message": bad[0].message}))
    return bad[0].code


# --- the queue -----------------------------------------------------------------------------------


def is_here() -> bool:
    """Whether this machine can submit to a Slurm."""
    return all(shutil.which(program) for program in PROGRAMS)


def queue(path: Path) -> list[tuple[str, str, str]]:
    """(id, state, reason for waiting) of the sweep's jobs that Slurm holds."""
    listing = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%T|%r|%j")
    rows = [line.split("|", 3) for line in listing.splitlines() if line.count("|") >= 3]
    return [tuple(row[:3]) for row in rows if row[3].startswith(prefix_of(path))]


def cancel(path: Path, patience_s: float = 60.0) -> int:
    """Cancel the sweep's jobs and wait until they have left the queue; how many there were."""
    queued = queue(path)
    if queued:
        _slurm("scancel", *(number for number, *_ in queued))
    end = time.monotonic() + patience_s
    while queue(path):
        if time.monotonic() > end:
            raise RunFailed(f"{path}: its jobs are still in the queue after {patience_s:g} s.")
        time.sleep(0.5)
    return len(queued)


def _slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise RunFailed(
            f"Slurm does not do as it is told ({lines[-1]}). Call this where `{command[0]}` works, as on "
            "a login node of the cluster."
        )
    return done.stdout


@contextlib.contextmanager
def _only_driver(folder: Path, path: Path) -> Iterator[None]:
    """One driver of a sweep at a time: a second one is refused while the first is alive."""
    if (other := driver(folder)) is not None:
        raise NblibError(
            f"{path}: a driver is at work already (pid {other['pid']} on {other['host']}); "
            f"`nblib cancel {path}` ends it."
        )
    if (left := _left_driver(folder)).get("host") == socket.gethostname():  # it was killed
        command = Path(f"/proc/{left['engine']}/cmdline")
        if command.is_file() and b"snakemake" in command.read_bytes():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(left["engine"], signal.SIGKILL)
    _note(folder, engine=0)
    try:
        yield
    finally:
        (folder / DRIVER).unlink(missing_ok=True)


def _note(folder: Path, engine: int) -> None:
    note = {"pid": os.getpid(), "host": socket.gethostname(), "engine": engine}
    store.write_text(folder / DRIVER, json.dumps(note))


def _left_driver(folder: Path) -> dict[str, Any]:
    """What a driver of this sweep wrote down of itself, be it alive or not; {} where none did."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads((folder / DRIVER).read_text(encoding="utf-8"))
    return {}


def driver(folder: Path) -> dict[str, Any] | None:
    """pid and host of the driver at work in a sweep's folder; None where there is none."""
    if not (noted := _left_driver(folder)):
        return None
    if noted["host"] == socket.gethostname():
        return noted if integrity.alive(noted["pid"]) else None
    return noted if time.time() - (folder / DRIVER).stat().st_mtime < STALE_S else None


def stop(path: Path) -> str:
    """`nblib cancel`: end the driver, if it runs here, and the jobs; a sentence that says so."""
    if not folder_of(path).is_dir():
        raise BadParameter(
            f"{path}: no sweep of this file was begun on a cluster with {store.home()}."
        )
    if not is_here():
        raise MissingInput(f"{path}: {NO_SLURM}.")
    running = driver(folder_of(path))
    if running is not None and running["host"] == socket.gethostname():
        os.kill(running["pid"], signal.SIGTERM)
        while driver(folder_of(path)) is not None:
            time.sleep(0.2)
    return f"{cancel(path)} jobs cancelled{', driver ended' if running else ''}."
