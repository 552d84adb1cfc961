"""What the data root holds and what can be freed (`nblib du`, `nblib gc`).

Freed is only what no result rests on: artifacts of 00-04 that no run names among its inputs,
directly or through others, the leavings of killed writers, and notebooks kept because they failed.
Results themselves, and files fetched from elsewhere, are never touched.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nblib.core import integrity, store
from nblib.core.errors import NblibError, OutdatedArtifact
from nblib.data.files import hashes
from nblib.road import stages
from nblib.run import cluster, plan
from nblib.run.execute import at_work, size
from nblib.run.search import tables

A_DAY_S = 86_400.0


@dataclass(frozen=True)
class Waste:
    """Something that can be deleted, why, and what that frees [bytes]."""

    path: Path
    why: str
    n_bytes: int


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    files = [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())
    return sum(p.stat().st_size for p in files)


def is_result(artifact: Path) -> bool:
    """Whether an artifact is a run: what people keep a data root for."""
    info = stages.STAGES.get(artifact.parts[-3])
    return info is not None and info.is_run


def needed() -> set[str]:
    """Keys that results rest on, directly or through others. NblibError when a manifest cannot be
    read: then nobody knows what rests on what."""
    upstream = {}
    for artifact in store.places():
        with contextlib.suppress(OutdatedArtifact):  # nothing of this version can rest on it
            upstream[artifact.name] = store.read_manifest(artifact)["upstream"]
    keys: set[str] = set()
    waiting = [a.name for a in store.artifacts() if is_result(a)]
    waiting += [key for name in tables.names() for key in _inputs_of_search(name)]
    while waiting:
        key = waiting.pop()
        if key not in keys:
            keys.add(key)
            waiting += upstream.get(key, [])
    return keys


def _inputs_of_search(name: str) -> list[str]:
    """Keys that the trials of a search rest on: calling it again must not make them again."""
    runs = [run for study in tables.current(name) for run in study.inputs()]
    roads = [plan.road(plan.job_of(*run)) for run in runs]
    return [key for road in roads for step in road if (key := plan.job_of(*step).key)]


def at_work_now() -> list[Path]:
    """What is at work on this data root: notebooks, and drivers of sweeps.

    Of a notebook on another host nobody here can tell; one that did not stir for a day is gone.
    """
    busy = []
    for path in store.failed_dir().glob("*/*.ipynb"):
        who = at_work(path)
        fresh = time.time() - path.stat().st_mtime < A_DAY_S
        if who is not None and (who.alive or (who.alive is None and fresh)):
            busy.append(path)
    drivers = [path.parent for path in store.home().glob(f"sweeps/*/{cluster.DRIVER}")]
    return busy + [folder for folder in drivers if cluster.driver(folder) is not None]


def waste() -> list[Waste]:
    """All that can be freed, the largest first."""
    kept = needed()
    reasons = {
        a: "no result rests on it"
        for a in store.artifacts()
        if not is_result(a) and a.name not in kept
    }
    reasons |= dict.fromkeys(_leavings(), "a writer was killed")
    for path in store.failed_dir().glob("*/*.ipynb"):
        if (who := at_work(path)) is None or who.alive is False:
            reasons[path] = "a notebook that failed"
    items = [Waste(path, reason, size_of(path)) for path, reason in reasons.items()]
    return sorted(items, key=lambda one: (-one.n_bytes, one.path))


def _leavings() -> Iterator[Path]:
    """Half-written artifacts of processes of this host that are gone."""
    for parent in store.home().glob("[0-9][0-9]_*/*"):
        yield from integrity.leftovers(parent)


def verify() -> int:
    """`nblib verify`: hash all that is stored again, and the raw files it came from; say what is wrong
    or gone, a line each. 1 where something is wrong; a raw file that is gone, or that changed and was read
    again, is no fault."""
    lines, sound, faults = [], 0, 0
    known: dict[str, dict[str, Path]] = {}  # raw file -> content -> an artifact that rests on it
    for folder in store.places():
        try:
            store.open_artifact(folder)
            if (folder / store.EXECUTED).is_file():
                store.read_attached(folder)
            strange = store.strangers(folder)
            faults += len(strange)
            lines += [
                f"FOREIGN {path}: not of what was written here; move it away." for path in strange
            ]
            for path, content in store.read_manifest(folder).get("raw", {}).items():
                known.setdefault(path, {})[content] = folder
            sound += 1
        except (NblibError, OSError) as error:
            faults += 1
            lines.append(f"BROKEN  {error}")
    for path, contents in sorted(known.items()):
        now = hashes.content_hash(path, afresh=True) if Path(path).exists() else None
        example = next(iter(contents.values()))
        if now is None:
            lines.append(f"GONE    {path}: what {example} was read from is not there any more.")
        elif now in contents:
            lines += [
                f"OLD     {folder}: read from what {path} held before it changed; what it holds now has "
                "results of its own."
                for content, folder in contents.items()
                if content != now
            ]
        else:
            faults += 1
            lines.append(
                f"BROKEN  {path}: it no longer holds what {example} was read from. Put the old file back, or "
                "run the notebooks again: what it holds now has keys of its own."
            )
    lines += [
        f"LEFT    {path}: of a killed process; nblib gc --delete frees it." for path in _leavings()
    ]
    lines.append(f"{sound} artifacts hold the bytes they were written with; {faults} faults.")
    print("\n".join(lines))
    return int(bool(faults))


def du() -> str:
    """`nblib du` as text: each part of the data root, the number of things in it and its size."""
    rows = []
    for part in sorted(p for p in store.home().iterdir() if p.is_dir()):
        n = sum(a.parts[-3] == part.name for a in store.artifacts()) or len(list(part.iterdir()))
        rows.append((part.name, n, size_of(part)))
    rows.sort(key=lambda row: -row[2])
    total = sum(row[2] for row in rows)
    lines = [f"data root: {store.home()}", ""]
    lines += [f"{name:28}{n:7}{size(n_bytes):>12}" for name, n, n_bytes in rows]
    lines.append(f"{'all':28}{'':7}{size(total):>12}")
    try:
        freed = sum(one.n_bytes for one in waste())
        lines.append(f"nblib gc would free {size(freed)}.")
    except NblibError as error:
        lines.append(f"What could be freed is not known: {error}")
    return "\n".join(lines)


def gc(delete: bool) -> str:
    """`nblib gc` as text; deletes only when told to."""
    items = waste()
    if not items:
        return "Nothing to free: results rest on all that is there."
    lines = [f"{size(one.n_bytes):>9}  {one.path}  ({one.why})" for one in items]
    total = size(sum(one.n_bytes for one in items))
    if not delete:
        return "\n".join([*lines, f"{total} could be freed; nblib gc --delete does so."])
    if busy := at_work_now():
        raise NblibError(
            f"{len(busy)} notebooks or sweeps are at work, and what they will need looks like waste: "
            f"{busy[0]}. Nothing was freed; try again when they have ended."
        )
    for one in items:
        if one.path.is_dir():
            shutil.rmtree(one.path)
        else:
            one.path.unlink(missing_ok=True)
    return "\n".join([*lines, f"Freed {total}."])
