"""Other files that an HDF5 file leads to: they are part of what it holds."""

from __future__ import annotations

import functools
from pathlib import Path

import h5py

from nblib.core import rawfiles
from nblib.core.errors import BadInput
from nblib.data.files import hdf5


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
        for name, target in _seen(tuple(rawfiles.stamp(file).items())).items():
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
                found = item.file.filename if item is not None else path.parent / link.filename
                files[link.filename] = Path(found)
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
