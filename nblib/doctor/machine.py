"""Memory, and the data root: its place, space, quota, writing and locking."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import shutil
import uuid
from pathlib import Path

from nblib import store
from nblib.doctor.check import FAIL, OK, WARN, Check, ask

GB = 1e9
ENOUGH_MEMORY, LEAST_MEMORY = 8 * GB, 2 * GB
ENOUGH_DISK, LEAST_DISK = 20 * GB, 1 * GB
ELSEWHERE = "free space there, or: export NBLIB_HOME=/a/larger/disk/nblib"


# --- memory --------------------------------------------------------------------------------------


def memory_limits() -> dict[str, float]:
    """What bounds the memory of a process here, by name [bytes]."""
    import psutil

    limits = {"machine": float(psutil.virtual_memory().total)}
    group = cgroup_limit()
    if group is not None:
        limits["cgroup"] = group
    slurm = slurm_limit(dict(os.environ))
    if slurm is not None:
        limits["Slurm job"] = slurm
    return limits


def cgroup_limit(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float | None:
    """The tightest memory limit of this process's control groups (version 1 or 2) [bytes]."""
    found = []
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if kinds == "":
            base, name = root, "memory.max"
        elif "memory" in kinds.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = base / place.lstrip("/")
        for folder in (inner, *inner.parents):
            file = folder / name
            text = file.read_text().strip() if file.is_file() else "max"
            if text.isdigit() and int(text) < 2**60:  # version 1 writes a huge number for none
                found.append(float(text))
            if folder == base:
                break
    return min(found, default=None)


def slurm_limit(environment: dict[str, str]) -> float | None:
    """Memory that this Slurm job was given on this node [bytes]; None when it has no limit."""
    per_node = environment.get("SLURM_MEM_PER_NODE", "")
    if per_node.isdigit() and int(per_node):
        return int(per_node) * 2.0**20
    per_cpu, cpus = (
        environment.get("SLURM_MEM_PER_CPU", ""),
        environment.get("SLURM_CPUS_ON_NODE", ""),
    )
    if per_cpu.isdigit() and cpus.isdigit() and int(per_cpu):
        return int(per_cpu) * int(cpus) * 2.0**20
    return None


def memory(limits: dict[str, float]) -> Check:
    bound = min(limits, key=limits.get)
    told = ", ".join(f"{name} {value / GB:.1f} GB" for name, value in limits.items())
    found = f"{limits[bound] / GB:.1f} GB may be used ({told})"
    if limits[bound] >= ENOUGH_MEMORY:
        return Check("memory", OK, found)
    status = WARN if limits[bound] >= LEAST_MEMORY else FAIL
    return Check(
        "memory", status, f"{found}; a full session wants {ENOUGH_MEMORY / GB:.0f} GB",
        "on Slurm or Open OnDemand, ask for more: --mem=64G",
    )  # fmt: skip


# --- data root -----------------------------------------------------------------------------------


def root() -> Check:
    """Where artifacts go; raises BadParameter for a place that cannot be."""
    home = store.home()
    why = "NBLIB_HOME" if os.environ.get("NBLIB_HOME") else "the default; NBLIB_HOME is not set"
    return Check("data root", OK, f"{home} ({why})")


def existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    return next(p for p in (path, *path.parents) if p.exists())


def disk_space(home: Path) -> tuple[float, float]:
    """Free and total space of the disk under the data root [bytes]."""
    usage = shutil.disk_usage(existing(home))
    return float(usage.free), float(usage.total)


def disk(home: Path, free: float, total: float) -> Check:
    found = f"{free / GB:.0f} GB free of {total / GB:.0f} GB ({home})"
    if free >= ENOUGH_DISK:
        return Check("disk", OK, found)
    return Check("disk", WARN if free >= LEAST_DISK else FAIL, f"nearly full: {found}", ELSEWHERE)


def quota_lines(home: Path) -> str:
    """What the quota tools of this machine say of the data root; "" where there are none."""
    place = str(existing(home))
    user = getpass.getuser()
    status, out, _ = ask(["lfs", "quota", "-q", "-u", user, place])
    if status == 0:
        return out
    mount = mount_of(place)
    status, out, _ = ask(["quota", "-w", "-p", "-f", mount])
    # `quota` ends with 1 when a quota is exceeded: that is when its table matters most.
    return out if status in (0, 1) else ""


def mount_of(place: str) -> str:
    """The mount point that a path lies on."""
    path = Path(place).resolve()
    return str(next(p for p in (path, *path.parents) if p.is_mount()))


def quota(home: Path, text: str) -> Check:
    """Judge rows of `filesystem used soft hard ...` in kilobytes, as `quota` and `lfs quota` write."""
    worst: tuple[float, float, float] | None = None
    for line in text.splitlines():
        fields = line.split()
        numbers = [f.rstrip("*") for f in fields[1:4]]
        if len(numbers) < 3 or not all(n.isdigit() for n in numbers):
            continue
        used, soft, hard = (int(n) * 1024.0 for n in numbers)
        limit = hard or soft
        if limit and (worst is None or used / limit > worst[0]):
            worst = used / limit, used, limit
    if worst is None:
        return Check("quota", OK, f"none told for {home}")
    share, used, limit = worst
    found = f"{used / GB:.1f} GB of {limit / GB:.1f} GB used ({share:.0%})"
    if share < 0.9:
        return Check("quota", OK, found)
    return Check("quota", FAIL if share >= 1 else WARN, found, ELSEWHERE)


def writing(home: Path) -> Check:
    """Write, flush, rename and delete a small file there: what every commit needs."""
    trial = home / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with trial.open("wb") as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
        trial.rename(trial.with_suffix(".renamed"))
    except OSError as error:
        return Check(
            "writing", FAIL, f"{home}: {error.strerror}", "export NBLIB_HOME=/a/folder/of/your/own"
        )
    finally:
        _remove(trial, trial.with_suffix(".renamed"))
    return Check("writing", OK, "files are written, flushed and renamed")


def locking(home: Path) -> Check:
    """Lock a file there: other programs do whenever they open an HDF5 file; nblib does not."""
    trial = home / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        with trial.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError as error:
        return Check(
            "file locking", WARN, f"{home}: {error.strerror}; nblib does without, others may not open HDF5 files there",
            "export HDF5_USE_FILE_LOCKING=FALSE",
        )  # fmt: skip
    finally:
        _remove(trial)
    return Check("file locking", OK, "files can be locked")


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # the trouble itself was told already
            path.unlink(missing_ok=True)
