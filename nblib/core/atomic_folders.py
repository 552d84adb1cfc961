"""Folders that take their place at once: one replaces another, and none is lost to a kill.

A folder being written has a hidden name that tells whose it is, `.<key>.<host>.<pid>.<hex>.tmp`. One
that makes way for its successor waits as `.<key>.replaced` between two renames.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
REPLACED = ".replaced"


def unfinished(place: Path) -> Path:
    """A folder beside `place` to write in; it is this process's own."""
    name = f".{place.name}.{platform.node()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    return place.with_name(name)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}{REPLACED}")


def swap(made: Path, place: Path) -> None:
    """Rename `made` to `place`; what stood there has the name of `made` afterwards.

    Killed between two renames, the old one is brought back by whoever asks for it next, or the new
    one stands and the old one is a leftover.
    """
    aside = _aside(place)
    while True:
        if place.exists() and aside.exists():  # of one that was killed when it had replaced it
            shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            place.rename(aside)
        try:
            made.rename(place)
            break
        except OSError:
            if not (place / MANIFEST).is_file():
                raise  # otherwise another process brought the old one back, or replaced it too
    with contextlib.suppress(FileNotFoundError):
        aside.rename(made)  # a name that nobody brings back, should deleting be cut short


def bring_back(place: Path) -> bool:
    """Put a folder back that stood aside when its successor's process was killed; True if so."""
    aside = _aside(place)
    if place.exists() or not (aside / MANIFEST).is_file():
        return False
    with contextlib.suppress(OSError):  # may not be written, or another process was quicker
        aside.rename(place)
    return (place / MANIFEST).is_file()


def bring_back_in(parent: Path) -> list[Path]:
    """The same for all that stand aside in a folder; those that have been replaced for good."""
    asides = list(parent.glob(f".*{REPLACED}"))
    places = [path.with_name(path.name[1:].removesuffix(REPLACED)) for path in asides]
    return [path for path, place in zip(asides, places, strict=True) if not bring_back(place)]


def alive(pid: int) -> bool:
    """Whether a process of this host lives, anybody's: /proc may show a person only their own."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def leftovers(parent: Path) -> Iterator[Path]:
    """What killed processes of this host left: folders half-written, and folders replaced already."""
    for path in parent.glob(f".*.{platform.node()}.*.tmp"):
        pid = path.name.split(".")[-3]
        if pid.isdigit() and not alive(int(pid)):
            yield path
    yield from bring_back_in(parent)
