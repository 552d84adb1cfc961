"""Open HDF5 files, and read spike trains and series from them, lazily.

Every HDF5 file of the package is opened by `reading`, or written as `UNLOCKED`. Tables are read
by `nwb_tables`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nblib.errors import BadInput, MissingInput
from nblib.recording import Series

# Many file systems of clusters have no locks, and HDF5 makes no file there unless told to do
# without. What the package writes needs none: it has a name of its own until it is complete.
UNLOCKED = {"locking": False}


def reading(path: Path) -> h5py.File:
    """The HDF5 file for reading; OSError as HDF5 says it.

    Where it cannot be locked, it is read without: somebody else holds it, or the file system has
    no locks. A lock is still asked for first, because within a process HDF5 refuses to open a file
    with and without; so a person may have it open in the same notebook, by other means.
    """
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if not re.search(r"\block file|file locking", str(error)):
            raise
    return h5py.File(path, "r", **UNLOCKED)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file for reading; MissingInput when absent, BadInput when truncated or not HDF5."""
    if not path.is_file():
        raise MissingInput(f"{path}: no such file; check `path` in the recipe.")
    try:
        file = reading(path)
    except OSError as error:
        text = str(error)
        if "truncated" in text:
            what = (
                f"the file is truncated ({path.stat().st_size} bytes are there, more were written)"
            )
        elif "signature" in text:
            what = "this is not an HDF5 file, so not an NWB file"
        else:
            what = f"HDF5 cannot open the file ({text})"
        raise BadInput(f"{path}: {what}; copy or download it again.") from None
    with file:
        yield file


@contextmanager
def read_errors(path: Path, name: str) -> Iterator[None]:
    """Turn HDF5's errors while reading `name` into one that names file and field."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # the last two: dead references
        raise BadInput(f"{path}: {name} cannot be read, its bytes are damaged ({error}).") from None


def text(value: Any) -> str:
    """An HDF5 string, bytes or scalar as str."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def scalar_text(file: h5py.File, name: str) -> str:
    """A string data set of the file, "" when it is not there."""
    item = file.get(name)
    return text(item[()]) if isinstance(item, h5py.Dataset) else ""


def type_name(item: h5py.HLObject) -> str:
    return text(item.attrs.get("neurodata_type", ""))


class FileSpikes:
    """Spike times of an NWB file in seconds, read slice by slice.

    A contiguous, uncompressed data set is read past HDF5 straight from its bytes.
    """

    def __init__(self, path: Path, data: h5py.Dataset, seconds: float):
        self.path, self._name, self._seconds = path, data.name, seconds
        self._n, self._dtype = data.shape[0], data.dtype
        plain = data.id.get_create_plist()
        at_once = plain.get_layout() == h5py.h5d.CONTIGUOUS and plain.get_external_count() == 0
        # The group may be a link into another file: then the offset is one of that file.
        same_file = Path(data.file.filename).resolve() == path.resolve()
        self._offset = data.id.get_offset() if at_once and same_file else None
        self._handle: Any = None

    def read(self, lo: int, hi: int) -> np.ndarray:
        """Spike times `lo` to `hi`, float64 seconds; BadInput when the bytes cannot be read."""
        if not 0 <= lo <= hi <= self._n:
            raise IndexError(f"spikes {lo}:{hi} of {self._n}")
        with read_errors(self.path, f"{self._name}[{lo}:{hi}]"):
            values = self._bytes(lo, hi) if self._offset is not None else self._hdf5(lo, hi)
        values = values.astype(np.float64, copy=False)
        return values if self._seconds == 1.0 else values * self._seconds

    def _bytes(self, lo: int, hi: int) -> np.ndarray:
        if self._handle is None:
            self._handle = self.path.open("rb", buffering=0)
        values = np.empty(hi - lo, self._dtype)
        view, at = memoryview(values.view(np.uint8)), self._offset + lo * self._dtype.itemsize
        while len(view):  # a read may return less than was asked for
            got = os.preadv(self._handle.fileno(), [view], at)
            if got == 0:
                raise OSError("the file ends before the data do")
            view, at = view[got:], at + got
        return values

    def _hdf5(self, lo: int, hi: int) -> np.ndarray:
        if self._handle is None:
            self._handle = reading(self.path)
        return self._handle[self._name][lo:hi]

    def contiguous(self) -> np.ndarray | None:
        """All spike times as a memory map, or None when bytes in the file are not float64 seconds."""
        ready = self._dtype == np.dtype("<f8") and self._seconds == 1.0 and self._n > 0
        if self._offset is None or not ready:
            return None
        return np.memmap(self.path, np.float64, "r", self._offset, (self._n,))


def find_series(file: h5py.File, path: Path, seconds: float) -> dict[str, Series]:
    """Every numeric TimeSeries of the file by name (by path where two share a name), unread."""
    places: list[str] = []

    def note(name: str, item: h5py.HLObject) -> None:
        timed = isinstance(item, h5py.Group) and ("timestamps" in item or "starting_time" in item)
        data = item.get("data") if timed else None
        if isinstance(data, h5py.Dataset) and data.ndim in (1, 2) and data.dtype.kind in "biuf":
            places.append(item.name)

    for root in ("acquisition", "processing", "stimulus/presentation"):
        if root in file:
            file[root].visititems(note)
    short = [p.rsplit("/", 1)[1] for p in places]
    return {
        (p.strip("/") if short.count(s) > 1 else s): _series(file[p], path, seconds)
        for p, s in zip(places, short, strict=True)
    }


def _series(group: h5py.Group, path: Path, seconds: float) -> Series:
    data, place = group["data"], group.name
    scale = float(data.attrs.get("conversion", 1.0))
    shift = float(data.attrs.get("offset", 0.0))

    def read(lo: int, hi: int) -> np.ndarray:
        with opened(path) as file, read_errors(path, f"{place}/data[{lo}:{hi}]"):
            values = file[place]["data"][lo:hi]
        return values if (scale, shift) == (1.0, 0.0) else values * scale + shift

    def timestamps() -> np.ndarray:
        with opened(path) as file, read_errors(path, f"{place}/timestamps"):
            return file[place]["timestamps"][()].astype(np.float64) * seconds

    regular = "timestamps" not in group
    start = group["starting_time"] if regular else None
    return Series(
        name=place.rsplit("/", 1)[1],
        unit=text(data.attrs.get("unit", "")),
        read=read,
        n_samples=data.shape[0],
        rate_hz=float(start.attrs["rate"]) if regular else None,
        start_s=float(start[()]) * seconds if regular else 0.0,
        timestamps=None if regular else timestamps,
    )
