"""NWB's tables straight from HDF5: one reader for the columns of all of them.

pynwb builds an object for every piece of a file; here one column is one read, and a 67 MB session
opens in some hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some, there_is
from nblib.core.findings import check_array, refuse
from nblib.data.files import hdf5
from nblib.data.trials.columns import BROKEN, LEFT_OUT, TIME_SUFFIX, numbers, require

LISTS, ARRAYS = "lists", "arrays"  # what rows of ragged columns are read as
ELSEWHERE = ("processing", "acquisition", "analysis", "scratch", "stimulus")  # and tables of times


class _NotFlat(Exception):
    """What a column is that has not one value a row."""


def check_version(file: h5py.File, path: Path) -> None:
    """BadInput for a file of a version before NWB 2."""
    version = hdf5.text(file.attrs.get("nwb_version", ""))
    old = hdf5.scalar_text(file, "nwb_version")  # since NWB 2 it is an attribute
    if old or version.startswith(("0.", "1.", "NWB-")):
        raise BadInput(
            f"{path}: the file is of version {old or version}, written before NWB 2 (NWB 1.x); nblib "
            "reads NWB 2. Look for a newer version of the data set, or write what you need of it "
            "into a new file with pynwb."
        )


def n_rows(group: h5py.Group, path: Path, place: str) -> int:
    """Rows of a DynamicTable, from its id column."""
    for name in ("id", "start_time"):
        data = hdf5.child(group, name, path, place)
        if isinstance(data, h5py.Dataset) and (data.shape is None or hdf5.is_flat(data)):
            return data.size or 0  # an empty table may hold nothing, not even a shape
    raise BadInput(f"{path}: {place} has no id with one value a row; it is not an NWB table.")


def _values(data: h5py.Dataset, path: Path, place: str) -> np.ndarray:
    """A flat data set as numbers, bools or str, of whatever kind it is stored.

    Raises BadInput for what is broken, _NotFlat for what is no value.
    """
    with hdf5.read_errors(path, place, data):
        kind = data.dtype
        reference = h5py.check_ref_dtype(kind)
        if reference is h5py.Reference:
            return _names_of_objects(data, path, place)
        values = data[()].ravel() if kind.kind in "biufSO" and not reference else None
    if hdf5.type_name(data) == "EnumData" and kind.kind in "iu":
        return _looked_up(values, _elements(data, path, place), path, place)
    if names := h5py.check_enum_dtype(kind):
        codes = {code: i for i, code in enumerate(names.values())}
        positions = np.array([codes.get(code, -1) for code in values.tolist()], int)
        return _looked_up(positions, np.array(list(names), object), path, place, values)
    if h5py.check_string_dtype(kind) is not None:
        return hdf5.decoded(values)
    if kind.kind in "biuf":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if kind.names:
        raise _NotFlat(f"each value is made of {', '.join(kind.names)}")
    if reference:
        raise _NotFlat("each value is a region of other data")
    raise _NotFlat("each value is a list" if h5py.check_vlen_dtype(kind) else f"its type is {kind}")


def _elements(data: h5py.Dataset, path: Path, place: str) -> np.ndarray:
    """The words that the codes of an EnumData column stand for."""
    with hdf5.read_errors(path, f"{place}: the elements it refers to"):
        elements = data.file[data.attrs["elements"]]
    return _values(elements, path, f"{place}_elements")


def _looked_up(
    codes: np.ndarray, words: np.ndarray, path: Path, place: str, shown: np.ndarray | None = None
) -> np.ndarray:
    refuse(
        (codes < 0) | (codes >= len(words)),
        f"{path}: {place} holds %value in row %rows, which is none of its {len(words)} elements ({some(words)}).",
        value=codes if shown is None else shown,
    )
    return words[codes]


def _names_of_objects(data: h5py.Dataset, path: Path, place: str) -> np.ndarray:
    """References as the names of what they refer to; whole places where two names are the same."""
    tokens = np.empty(data.size, np.uint64)
    data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, tokens, h5py.h5t.STD_REF_OBJ)
    _, first, which = np.unique(tokens, return_index=True, return_inverse=True)
    places = []
    for row in first:  # a table refers to few objects, but often: each is looked up once
        target = hdf5.piece(data, row, row + 1)[0]
        name = h5py.h5r.get_name(target, data.file.id) if target else b""
        if name is None:
            raise BadInput(f"{path}: {place} refers to what is not in the file, in row {row}.")
        places.append(hdf5.text(name))
    short = [p.rpartition("/")[2] for p in places]
    return np.array(short if len(set(short)) == len(short) else places, object)[which]


def _index_of(
    group: h5py.Group, name: str, listed: list[str], path: Path, place: str
) -> h5py.Dataset | None:
    """The index of a ragged column; a column of its own may be called `..._index` just as well."""
    index = hdf5.child(group, f"{name}_index", path, place)
    if not isinstance(index, h5py.Dataset):
        return None
    kind = hdf5.type_name(index)
    return index if kind == "VectorIndex" or (not kind and f"{name}_index" not in listed) else None


def read_stops(index: h5py.Dataset, data: h5py.Dataset, path: Path, place: str) -> np.ndarray:
    """Where each row of a ragged column ends, int64 (rows,), from its index at `place`.

    Numbers, or the region references of NWB 2.0b. Raises BadInput when they do not rise to the end.
    """
    with hdf5.read_errors(path, place, index):
        values = index[()].ravel()
    if h5py.check_ref_dtype(index.dtype) is h5py.RegionReference:
        stops, end = [], 0
        for row, region in enumerate(values):
            if region:
                with hdf5.read_errors(path, f"{place}, row {row},"):
                    space = h5py.h5r.get_region(region, index.file.id)
                    (first, *_), (last, *_) = space.get_select_bounds()
                if first != end or space.get_select_npoints() != last + 1 - first:
                    raise hdf5.BrokenFile(
                        f"{path}: {place} leaves gaps: row {row} begins at {first}."
                    )
                end = last + 1
            stops.append(end)
        values = np.array(stops)
    check_array(f"{path}: {place}", values, values.dtype.kind in "iu", "whole numbers")
    stops = values.astype(np.int64)
    falls = np.flatnonzero(np.diff(stops, prepend=0) < 0)
    n = data.shape[0]
    if hdf5.is_flat(data) and len(stops) and stops[-1] != n:  # (1, n): a row as MATLAB writes it
        n = data.size
    if len(falls) or (len(stops) and stops[-1] != n):
        fault = f"falls at row {some(falls)}" if len(falls) else f"ends at {stops[-1]}"
        raise hdf5.BrokenFile(f"{path}: {place} {fault}, but there are {n} values.")
    return stops


def _column(
    group: h5py.Group, name: str, rows: int, path: Path, place: str, listed: list[str], ragged: str
) -> Any:
    """One column of a table, one value or list a row; _NotFlat for anything else that lies there."""
    data = hdf5.child(group, name, path, place)
    if data is None and name in listed:
        raise BadInput(f"{path}: {place}/{name} is not there, though the table lists it.")
    if not isinstance(data, h5py.Dataset):
        raise _NotFlat("it is a group")
    if data.shape is None and rows == 0:
        return np.empty(0)
    flat, field = hdf5.is_flat(data), f"{place}/{name}"
    index = _index_of(group, name, listed, path, place)
    if index is None:
        # What is not listed may help another column, as the elements of an enumeration do.
        if not flat or (data.size != rows and (data.ndim > 1 or name not in listed)):
            raise _NotFlat(f"its shape is {data.shape}, and the table has {rows} rows")
        if data.size != rows:
            raise hdf5.BrokenFile(
                f"{path}: column {name!r} of {place} has {data.size} entries, but the table has "
                f"{rows} rows."
            )
        return _values(data, path, field)
    if f"{name}_index_index" in group:
        raise _NotFlat("each row is a list of lists")
    stops = read_stops(index, data, path, f"{field}_index")
    if len(stops) != rows:
        raise hdf5.BrokenFile(f"{path}: {field}_index has {len(stops)} entries for {rows} rows.")
    if not flat:
        raise _NotFlat(f"each row is a list, of values of shape {data.shape[1:]}")
    if data.size == rows and (stops == np.arange(1, rows + 1)).all():  # ragged in name only
        return _values(data, path, field)
    if not ragged:  # one value a spike can be a gigabyte: nothing is read to be left out
        raise _NotFlat("each row is a list")
    parts = np.split(_values(data, path, field), stops[:-1]) if rows else []
    return parts if ragged == ARRAYS else [part.tolist() for part in parts]


def read_table(
    group: h5py.Group, path: Path, place: str, *, skip: tuple[str, ...] = (), ragged: str = ""
) -> pd.DataFrame:
    """Read the DynamicTable at `place` into a DataFrame with its ids as index.

    Text is str, whatever its encoding; enumerations and references are words; columns of shape
    (n, 1) and ragged ones with one value a row are plain, other ragged ones hold lists or arrays
    (`ragged`) or are left out, as is what has more dimensions or cannot be read: `attrs` say why. Raises
    BrokenFile when a column has another length than the table, and for damaged bytes.
    """
    rows = n_rows(group, path, place)
    listed = [hdf5.text(c) for c in np.ravel(group.attrs.get("colnames", []))]
    there = [k for k in group if isinstance(k, str)]
    others = sorted(k for k in there if k not in listed and not k.endswith("_index"))
    columns: dict[str, Any] = {}
    broken = [hdf5.text(k) for k in group if isinstance(k, bytes)]
    left_out = dict.fromkeys(broken, "is there, but its name is not UTF-8")
    listed = [k for k in listed if k not in broken]
    for name in [*listed, *others]:
        if name in skip or name == "id":
            continue
        try:
            columns[name] = _column(group, name, rows, path, place, listed, ragged)
        except _NotFlat as reason:
            left_out[name] = f"is there, but {reason}"
        except hdf5.BrokenFile:
            raise
        except BadInput as error:
            left_out[name] = str(error).removeprefix(f"{path}: ").rstrip(".")
            broken.append(name)
    ids = _values(group["id"], path, f"{place}/id") if rows and "id" in group else np.arange(rows)
    table = pd.DataFrame(columns, index=pd.Index(ids, name="id"))
    table.attrs = {LEFT_OUT: left_out, BROKEN: broken}
    return table


def as_numbers(table: pd.DataFrame, names: Iterable[str], where: str, notes: list[str]) -> None:
    """Make columns of text numbers, in place; those that hold other text stay, with a note."""
    for name in names:
        if name in table and table[name].dtype == object:
            try:
                table[name] = numbers(table[name], f"{where}: column {name!r}")
            except BadInput as error:
                notes.append(f"{error} It is kept as text.")


def whole_numbers(data: h5py.Dataset, path: Path, place: str) -> np.ndarray:
    """A flat data set of whole numbers, such as rows of another table."""
    with hdf5.read_errors(path, place, data):
        values = data[()]
    good = hdf5.is_flat(data) and values.dtype.kind in "iu"
    check_array(f"{path}: {place}", values, good, "row numbers")
    return values.ravel()


def interval_tables(file: h5py.File, path: Path) -> dict[str, str]:
    """Every interval table of the file: its name here -> its place in the file.

    Tables of /intervals go by their own name, others by their path. One without stop_time is named, and
    one whose link leads nowhere, and invalid times that lack a column: reading it says so.
    """
    hdf5.child(file, "intervals", path)  # where it is a dead link, nothing can be said of tables
    places = {}
    for place, item in hdf5.walk(file, ("intervals", *ELSEWHERE), path):
        if isinstance(item, BadInput):
            is_table = place.startswith("intervals/") and place.count("/") == 1
        else:
            is_table = "start_time" in item or (
                place == "intervals/invalid_times"
                and any(getattr(column, "size", 0) for column in item.values())
            )
        if is_table:
            places[place.removeprefix("intervals/")] = place
    return places


class LazyTables(Mapping):
    """Interval tables by name, each read when it is first asked for, times in seconds; where the file
    has no stop_time, it is NaN: what is cut around an event needs none."""

    def __init__(self, path: Path, places: dict[str, str], seconds: float):
        self._path, self._places, self._seconds = path, places, seconds
        self._tables: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._tables:
            place, where = self._places[name], f"{self._path}: {name}"
            with hdf5.opened(self._path) as file:
                table = read_table(
                    hdf5.child(file, place, self._path), self._path, place, ragged=LISTS
                )
            if "stop_time" not in table and "stop_time" not in table.attrs[LEFT_OUT]:
                table.insert(1, "stop_time", np.nan)
                table.attrs[LEFT_OUT]["stop_time"] = "is not there"
            for column in ("start_time", "stop_time"):
                table[column] = numbers(
                    require(table, column, where), f"{where}: column {column!r}"
                )
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

    def require(self, name: str) -> None:
        """Raise BadInput, with the tables that there are, where this one is not there."""
        if name not in self:
            with hdf5.opened(self._path) as file:
                for place in (f"intervals/{name}", name):
                    if hdf5.child(file, place, self._path) is not None:
                        raise BadInput(
                            f"{self._path}: {place} is there, but is no interval table: it has no "
                            f"start_time. Set `intervals` in the recipe."
                        )
            known = there_is(sorted(self), name)
            raise BadInput(
                f"{self._path}: no interval table {name!r}; {known} Set `intervals` in the recipe."
            )
