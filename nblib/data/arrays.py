"""Arrays of an artifact in one HDF5 file, compressed and checksummed, so that a flipped byte is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nblib.data import hdf5

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


def load_arrays(path: Path, into: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """The arrays that `save_arrays` wrote; those named in `into` are read into the array given there.

    Raises MissingInput when the file is not there, BadInput when it is damaged.
    """
    arrays: dict[str, np.ndarray] = dict(into or {})

    def read(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if name in arrays:
            item.read_direct(arrays[name])
        elif isinstance(item, h5py.Dataset):
            values = item[()]
            if values.dtype.kind in "OS":
                values = np.char.decode(values.astype(bytes), "utf-8")
            arrays[name] = values

    with hdf5.opened(path) as file, hdf5.read_errors(path, "a part of it"):
        file.visititems(read)
    return arrays


def described(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Attributes of a file that `save_arrays` wrote, and the shape of each array; errors as there."""
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            shapes[name] = item.shape

    with hdf5.opened(path) as file, hdf5.read_errors(path, "a part of it"):
        file.visititems(look)
        return dict(file.attrs), shapes
