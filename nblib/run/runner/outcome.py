"""How a run ended, and what tells that one is at work."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from nblib.core import swap

OK, BAD_PARAMETERS, NOTEBOOK_ERROR, KERNEL_DIED = 0, 2, 3, 4
RUNNING = ".running.ipynb"  # <stage>-<key>.<pid>@<host>.running.ipynb: a notebook at work


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code, one message, the artifact, the executed or failed notebook."""

    code: int
    message: str
    folder: Path | None = None
    notebook: Path | None = None
    seconds: float = 0.0
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class AtWork:
    """Whose a notebook at work is. alive: None where only its own host could tell."""

    name: str  # <stage>-<key>
    pid: int
    host: str
    alive: bool | None


def at_work(path: Path) -> AtWork | None:
    """What the name of a notebook at work says; None for any other file."""
    if not path.name.endswith(RUNNING):
        return None
    name, _, who = path.name.removesuffix(RUNNING).partition(".")
    pid, _, host = who.partition("@")
    return AtWork(name, int(pid), host, swap.alive(int(pid)) if host == platform.node() else None)


def size(n_bytes: float) -> str:
    """Bytes for people: '3.2 GB', '12 MB', '7 kB'."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"
