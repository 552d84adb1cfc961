"""What made an artifact: the host, the versions, the time and memory it took."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import nblib


def measured(started: float | None) -> dict[str, Any]:
    """Seconds since `started` (a `time.time()`), and peak memory of this process [bytes]."""
    peak_gpu = 0
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak_gpu = torch.cuda.max_memory_allocated()
    # ru_maxrss counts kilobytes on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "wall_s": None if started is None else round(time.time() - started, 3),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_gpu_bytes": peak_gpu,
    }


@cache
def environment() -> dict[str, Any]:
    """Versions, host, job and threads of this process."""
    from importlib.metadata import distributions

    packages = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "host": platform.node(),
        "job_id": os.environ.get("SLURM_JOB_ID"),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


@cache
def code_version() -> str:
    """Version of nblib, with the commit of its checkout and `+edited` when files changed."""

    def git(*words: str) -> subprocess.CompletedProcess:
        command = ["git", "-C", str(Path(nblib.__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10)

    try:
        commit_id = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.TimeoutExpired):
        return nblib.__version__
    if commit_id.returncode:
        return nblib.__version__
    edited = "+edited" if changed.stdout.strip() else ""
    return f"{nblib.__version__}+g{commit_id.stdout.strip()}{edited}"


def version() -> str:
    """`nblib version` as text."""
    return f"nblib {code_version()}"
