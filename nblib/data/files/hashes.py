"""The sha256 of raw files, and the files they lead to: taken once, and again when anything touched them."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import h5py

from nblib.core import store
from nblib.core.errors import BadInput, MissingInput
from nblib.core.integrity import sha256
from nblib.data.files import hdf5


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


# --- files behind HDF5 files ---------------------------------------------------------------------


def linked_files(path: Path) -> dict[str, Path]:
    """Files behind external links, virtual data sets and external storage of a file, and those that
    they lead to themselves: file>name in it -> path, which need not be there; none without HDF5.

    Raises BadInput for data whose place depends on the folder one works in.
    """
    files: dict[str, Path] = {}
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if not file.is_file():
            continue
        for name, target in _seen(tuple(stamp(file).items())).items():
            if target.resolve() not in (path.resolve(), *files.values()):
                files[f"{file.name}>{name}"] = target.resolve()
                waiting.append(target.resolve())
    return files


@functools.lru_cache(maxsize=4096)
def _seen(stamp: tuple) -> dict[str, Path]:
    """What one file leads to; looked at again when anything touched it."""
    path = Path(dict(stamp)["path"])
    try:
        file = hdf5.reading(path)
    except OSError:
        return {}  # reading it will say what is wrong
    links: list[tuple[str, object]] = []
    files: dict[str, Path] = {}
    with file:
        file.visititems_links(lambda name, link: links.append((name, link)))
        for name, link in links:
            try:
                item = file[name]
            except (KeyError, OSError, RuntimeError):
                item = None  # damaged or dead: reading it will say so
            if isinstance(link, h5py.ExternalLink):
                target = item.file.filename if item is not None else path.parent / link.filename
                files[link.filename] = Path(target)
            elif isinstance(link, h5py.HardLink) and isinstance(item, h5py.Dataset):
                files |= _outside(item, path)
    return files


def _outside(item: h5py.Dataset, path: Path) -> dict[str, Path]:
    """Files that hold the values of a data set."""
    if item.is_virtual:
        names = {source.file_name for source in item.virtual_sources()} - {"."}
        return {name: path.parent / name for name in names}
    names = {row[0] for row in item.external or []}
    if elsewhere := [name for name in names if not Path(name).is_absolute()]:
        raise BadInput(
            f"{path}: {item.name} keeps its data in another file, {elsewhere[0]!r}, which HDF5 looks for in "
            "the folder one works in. Write it again with its data inside; with h5py, in that folder: "
            "data = f[name][()]; del f[name]; f[name] = data."
        )
    return {name: Path(name) for name in names}
