"""How the bench measures: best of several, turn by turn, so that a busy moment hits all alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # measure this checkout, whatever else is installed


@dataclass(frozen=True)
class Row:
    """One line of the table; `ratio` is `seconds` over those of the row named `against`."""

    group: str
    what: str
    value: float
    unit: str = "s"
    ratio: float | None = None
    against: str = ""
    limit: str = ""  # what was promised, in words
    holds: bool | None = None  # None: nothing was promised of this row
    note: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def best(repeats: int, **work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of each piece of work: the best of `repeats` rounds, taken turn by turn."""
    seconds = {name: float("inf") for name in work}
    for _ in range(repeats):
        for name, do in work.items():
            began = time.perf_counter()
            do()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def process(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a command of this environment to its end; its output, or an error that shows it."""
    out = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True
    )
    if out.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{out.stdout[-2000:]}\n{out.stderr[-2000:]}")
    return out.stdout


def memory(field: str) -> int:
    """A field of this process's memory in bytes: VmRSS now, VmHWM at its highest. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
