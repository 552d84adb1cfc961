"""Files and folders that are whole or not there, and that no byte of which changes unseen.

A folder being written has a hidden name that tells whose it is, `.<key>.<host>.<pid>.<hex>.tmp`. One
that makes way for its successor waits as `.<key>.replaced` between two renames. A sealed JSON text ends
with the entry `"sha256": "..."`, the sha256 of all its other bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
REPLACED = ".replaced"
SEAL = re.compile(rb'"sha256": "([0-9a-f]{64}|)"(?=[\s}]*\Z)')


# --- checksums -----------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dump_sealed(document: dict[str, Any]) -> str:
    """`document` as JSON; its very last entry, `sha256`, becomes the seal."""
    text = json.dumps(document, indent=1) + "\n"
    empty = SEAL.search(text.encode())
    if empty is None or empty[1]:
        raise ValueError('a document to seal must end with the entry "sha256": "".')
    digest = hashlib.sha256(text.encode()).hexdigest()
    head, _, tail = text.rpartition('"sha256": ""')
    return f'{head}"sha256": "{digest}"{tail}'


def load_sealed(content: bytes) -> dict[str, Any] | None:
    """The document of a sealed text; None for one without a seal. ValueError where bytes changed."""
    seal = SEAL.search(content)
    try:
        document = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if seal is None:
        return None
    empty = content[: seal.start(1)] + content[seal.end(1) :]
    if hashlib.sha256(empty).hexdigest().encode() != seal[1]:
        raise ValueError("its bytes changed since it was written")
    return document


# --- folders that take their place at once -------------------------------------------------------


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
