"""Read NWB's tables, spike trains and series straight from HDF5, lazily.

pynwb builds an object for every piece of a file; here one column is one read. A 67 MB session
opens in some hundredths of a second. Every HDF5 file of the package is opened by `reading`, or
written as `UNLOCKED`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nblib.errors import BadInput, MissingInput
from nblib.recording import Series

# Many file systems of clusters have no locks, and HDF5 makes no file there unless told to do
# without. What the package writes needs none: it has a name of its own until it is complete.
UNLOCKED = {"locking": False}
# Names of time columns besides start_time and stop_time: NWB's own habit.
TIME_SUFFIX = "_time"


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
def _reading(path: Path, name: str) -> Iterator[None]:
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


def n_rows(group: h5py.Group, path: Path) -> int:
    """Rows of a DynamicTable, from its id column."""
    for name in ("id", "start_time"):
        if isinstance(group.get(name), h5py.Dataset):
            return group[name].shape[0]
    raise BadInput(f"{path}: {group.name} has no id column; it is not an NWB table.")


def _values(data: h5py.Dataset) -> np.ndarray | None:
    """A one-dimensional column as numbers, bools or str; None for references and the like."""
    if data.ndim != 1:
        return None
    if h5py.check_string_dtype(data.dtype) is not None:
        return data.asstr("utf-8", "replace")[()]
    if "elements" in data.attrs and type_name(data) == "EnumData":
        elements = data.file[data.attrs["elements"]]
        return elements.asstr("utf-8", "replace")[()][data[()]]
    if data.dtype.kind in "biuf":
        values = data[()]
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return None


def _index_of(group: h5py.Group, name: str, listed: list[str]) -> h5py.Dataset | None:
    """The index of a ragged column; a column of its own may be called `..._index` just as well."""
    index = group.get(f"{name}_index")
    if not isinstance(index, h5py.Dataset):
        return None
    kind = type_name(index)
    return index if kind == "VectorIndex" or (not kind and f"{name}_index" not in listed) else None


def _column(
    group: h5py.Group, name: str, rows: int, path: Path, listed: list[str], keep_lists: bool
) -> Any:
    """One column of a table, or None when it cannot be a column of a flat table."""
    data, index = group[name], _index_of(group, name, listed)
    if data.ndim != 1 or f"{name}_index_index" in group:
        return None
    if index is None:
        if name not in listed and data.shape[0] != rows:
            return None  # helpers of other columns lie in the same group
        values = _values(data)
        if values is not None and len(values) != rows:
            raise BadInput(
                f"{path}: column {name!r} of {group.name} has {len(values)} entries, but the "
                f"table has {rows} rows."
            )
        return values
    stops = index[()].astype(np.int64)
    n = data.shape[0]
    if len(stops) != rows or (rows and (stops[-1] != n or (np.diff(stops) < 0).any())):
        raise BadInput(f"{path}: {name}_index of {group.name} does not fit its {n} values.")
    plain = n == rows and (stops == np.arange(1, rows + 1)).all()  # ragged in name only
    # One value per spike can be a gigabyte: nothing is read that is then left out.
    values = _values(data) if plain or keep_lists else None
    if plain or values is None:
        return values
    return [part.tolist() for part in np.split(values, stops[:-1])] if rows else []


def read_table(
    group: h5py.Group, path: Path, *, skip: tuple[str, ...] = (), keep_lists: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Read a DynamicTable into a DataFrame with its ids as index.

    Ragged columns with one value a row become plain; others become lists (`keep_lists`) or are
    left out, as are references and columns of more than one dimension.
    Returns (table, names left out). Raises BadInput when a column's length does not fit.
    """
    rows = n_rows(group, path)
    listed = [text(c) for c in np.atleast_1d(group.attrs.get("colnames", []))]
    others = sorted(k for k in group if k not in listed and k != "id" and not k.endswith("_index"))
    columns, left_out = {}, []
    for name in [*listed, *others]:
        if name in skip or not isinstance(group.get(name), h5py.Dataset):
            continue
        with _reading(path, f"{group.name}/{name}"):
            values = _column(group, name, rows, path, listed, keep_lists)
        if values is None:
            left_out.append(name)
        else:
            columns[name] = values
    ids = group["id"][()] if "id" in group else np.arange(rows)
    return pd.DataFrame(columns, index=pd.Index(ids, name="id")), left_out


def is_interval_table(item: h5py.HLObject) -> bool:
    return isinstance(item, h5py.Group) and "start_time" in item and "stop_time" in item


def interval_tables(file: h5py.File) -> dict[str, str]:
    """Every interval table of the file: its name here -> its place in the file.

    Tables of /intervals go by their own name, those of /processing by their path.
    """
    found = {
        k: f"/intervals/{k}" for k, v in file.get("intervals", {}).items() if is_interval_table(v)
    }
    if "processing" in file:
        names: list[str] = []
        file["processing"].visititems(
            lambda n, o: names.append(n) if is_interval_table(o) else None
        )
        found |= {f"processing/{n}": f"/processing/{n}" for n in names}
    return found


class LazyTables(Mapping):
    """Interval tables by name, each read when it is first asked for, times in seconds."""

    def __init__(self, path: Path, places: dict[str, str], seconds: float):
        self._path, self._places, self._seconds = path, places, seconds
        self._tables: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._tables:
            place = self._places[name]
            with opened(self._path) as file:
                table, _ = read_table(file[place], self._path, keep_lists=True)
            for column in table.columns:
                if column.endswith(TIME_SUFFIX) and table[column].dtype.kind in "iuf":
                    table[column] = table[column].to_numpy(np.float64) * self._seconds
            self._tables[name] = table
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places  # without reading the table

    def __repr__(self) -> str:
        return f"interval tables of {self._path.name}: {', '.join(self._places)}"


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
        with _reading(self.path, f"{self._name}[{lo}:{hi}]"):
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
        with opened(path) as file, _reading(path, f"{place}/data[{lo}:{hi}]"):
            values = file[place]["data"][lo:hi]
        return values if (scale, shift) == (1.0, 0.0) else values * scale + shift

    def timestamps() -> np.ndarray:
        with opened(path) as file, _reading(path, f"{place}/timestamps"):
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
