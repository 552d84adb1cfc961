"""Other files that an HDF5 file leads to: they are part of what it holds."""

from __future__ import annotations

import functools
from pathlib import Path

import h5py

from nblib import rawfiles
from nblib.errors import BadInput
from nblib.sources import hdf5


def linked_files(path: Path) -> dict[str, Path]:
    """Files behind external links, virtual data sets and external storage of an HDF5 file, and
    those that they lead to themselves: file>name in it -> path, which need not be there.

    None for a file that is no HDF5. BadInput for data in another file whose place depends on the
    folder one works in.
    """
    files: dict[str, Path] = {}
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        for name, target in _one(file).items():
            if target.resolve() not in (path.resolve(), *files.values()):
                files[f"{file.name}>{name}"] = target.resolve()
                waiting.append(target.resolve())
    return files


def _one(path: Path) -> dict[str, Path]:
    return _seen(tuple(rawfiles.stamp(path).items())) if path.is_file() else {}


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
            if isinstance(link, h5py.ExternalLink):
                files[link.filename] = _target(file, name, path.parent / link.filename)
            elif isinstance(link, h5py.HardLink):
                files |= _outside(_item(file, name), path)
    return files


def _outside(item: h5py.HLObject | None, path: Path) -> dict[str, Path]:
    """Files that hold the values of a data set."""
    if not isinstance(item, h5py.Dataset):
        return {}
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


def _item(file: h5py.File, name: str) -> h5py.HLObject | None:
    try:
        return file[name]
    except (KeyError, OSError, RuntimeError):
        return None  # damaged or dead: reading it will say so


def _target(file: h5py.File, name: str, guess: Path) -> Path:
    """The file that HDF5 itself finds behind a link."""
    item = _item(file, name)
    return guess if item is None else Path(item.file.filename)
