"""What raw files hold, by their sha256: hashed once, and again as soon as anything touched them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nblib.core import store
from nblib.core.errors import BadInput, MissingInput
from nblib.core.integrity import sha256


def stamp(path: Path) -> dict[str, Any]:
    """What changes when a file does. Anybody can set size and modification time back; the inode and
    the time of its last change are the system's. BadInput for a file that cannot be looked at."""
    try:
        stat = path.stat()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from None
    return {
        "path": str(path),
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "inode": stat.st_ino,
        "ctime_ns": stat.st_ctime_ns,
    }


def file_hash(path: Path, *, afresh: bool = False) -> str:
    """sha256 of a raw file, remembered by its `stamp`; `afresh` reads it again whatever it says."""
    path = path.resolve()
    now = stamp(path)
    name = f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.json"
    card = store.home() / "cache" / "sha256" / name
    try:
        known = {} if afresh else json.loads(card.read_text())
        if {k: known.get(k) for k in now} == now:
            return known["sha256"]
    except (FileNotFoundError, ValueError):
        pass  # not hashed before, or the note was cut short or damaged: hash again
    digest = sha256(path)
    if stamp(path) != now:
        raise BadInput(
            f"{path}: it changed while it was read; wait until it is written, run again."
        )
    if not afresh:
        store.write_text(card, json.dumps({**now, "sha256": digest}))
    return digest


def content_hash(path: Path | str, *, afresh: bool = False) -> str:
    """What a file, or a folder of files, holds: changes when any of them does, not with its place.

    Raises MissingInput when there is nothing at `path`.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return file_hash(path, afresh=afresh)
    if not path.is_dir():
        raise MissingInput(f"{path}: no such file or folder.")
    inside = sorted(p for p in path.iterdir() if p.is_file())
    hashes = {p.name: file_hash(p, afresh=afresh) for p in inside}
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
