"""Arrays of an artifact in one HDF5 file, compressed and checksummed, so that a flipped byte is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nblib.core.errors import BadInput
from nblib.data.files import hdf5

PIECE_BYTES = 2**20  # compressed and checksummed together
FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], **attributes: Any) -> None:
    """Write arrays by name ("group/name" for one in a group) and attributes of the whole.

    Text is stored as UTF-8.
    """
    with h5py.File(path, "w", **hdf5.UNLOCKED) as file:
        file.attrs.update(attributes)
        for name, values in arrays.items():
            values = np.asarray(values)
            if values.dtype.kind in "OU":
                values = np.char.encode(values.astype(str), "utf-8")
            if values.size == 0:
                file.create_dataset(name, data=values)
                continue
            rows = PIECE_BYTES * len(values) // max(values.nbytes, 1)
            chunks = (min(max(rows, 1), len(values)), *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, **FILTERS)


class Stored(dict):
    """What is in a file by name, and the `attributes` of the whole; BadInput for a name that is not there."""

    def __init__(self, path: Path, values: Any = ()):
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise BadInput(
            f"{self.path}: there is no {name!r} in it, so it is not whole or of another version; make it again "
            "with --force."
        )


def load_arrays(path: Path, into: Mapping[str, np.ndarray] | None = None) -> Stored:
    """The arrays that `save_arrays` wrote; those named in `into` are read into the array given there.

    Raises MissingInput when the file is not there, BadInput when it is damaged.
    """

    def read(name: str, item: h5py.Dataset) -> np.ndarray:
        if into and name in into:
            item.read_direct(into[name])
            return into[name]
        values = item[()]
        if values.dtype.kind in "OS":
            values = np.char.decode(values.astype(bytes), "utf-8")
        return values

    return _each(path, read)


def described(path: Path) -> Stored:
    """The shape of each array in a file that `save_arrays` wrote; errors as there."""
    return _each(path, lambda _, item: item.shape)


def _each(path: Path, look: Callable[[str, h5py.Dataset], Any]) -> Stored:
    """What `look` makes of each array."""
    stored = Stored(path)

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            stored[name] = look(name, item)

    with hdf5.opened(path) as file, hdf5.read_errors(path, "a part of it"):
        file.visititems(visit)
        stored.attributes = Stored(path, file.attrs)
    return stored
