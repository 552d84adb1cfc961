"""NWB's tables straight from HDF5: one column is one read.

pynwb builds an object for every piece of a file; here a 67 MB session opens in some hundredths of
a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nblib.errors import BadInput
from nblib.sources import hdf5

# Names of time columns besides start_time and stop_time: NWB's own habit.
TIME_SUFFIX = "_time"


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
    if "elements" in data.attrs and hdf5.type_name(data) == "EnumData":
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
    kind = hdf5.type_name(index)
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
    listed = [hdf5.text(c) for c in np.atleast_1d(group.attrs.get("colnames", []))]
    others = sorted(k for k in group if k not in listed and k != "id" and not k.endswith("_index"))
    columns, left_out = {}, []
    for name in [*listed, *others]:
        if name in skip or not isinstance(group.get(name), h5py.Dataset):
            continue
        with hdf5.read_errors(path, f"{group.name}/{name}"):
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
            with hdf5.opened(self._path) as file:
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
