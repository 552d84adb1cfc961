"""Arrays and tables that sorters and labs leave as plain files: `.npy`, `.csv`, `.tsv`, Parquet."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.findings import check_array, check_length, check_once, refuse
from nblib.core.params import SECONDS
from nblib.data.files import hdf5, require_file
from nblib.data.trials.columns import numbers

# What numpy's readers raise for damaged bytes.
DAMAGED = (
    OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path) -> np.ndarray:
    """The array of a `.npy` file; MissingInput where there is none, BadInput for one that is damaged or
    holds Python objects."""
    require_file(path)
    with _as_arrays(path), path.open("rb") as file:
        return _read_stream(file, path.stat().st_size)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a `.npz` file by name; BadInput for one that is damaged or holds Python objects."""
    with _as_arrays(path), zipfile.ZipFile(path) as packed:
        arrays = {}
        for member in packed.infolist():
            size = min(member.file_size, hdf5.MOST_PACKED * max(member.compress_size, 1000))
            with packed.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = _read_stream(file, size)
        return arrays


@contextmanager
def _as_arrays(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise BadInput(f"{path}: not readable as an array of numbers ({error}).") from None


def _read_stream(file: IO[bytes], size: int) -> np.ndarray:
    """An array in numpy's own format; ValueError where it says it is larger than `size` [bytes]."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"its format has version {version}")
    shape, _, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects; write numbers, or text as  np.array(values, str)"
        )
    if (claimed := math.prod(shape) * dtype.itemsize) > size - file.tell():
        raise ValueError(f"it says it holds {claimed} bytes, but {size - file.tell()} are there")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """One row of numbers from a `.npy` file, which may have a second axis of length 1.

    Raises BadInput for a file that is damaged, holds Python objects, text or a table.
    """
    values = read_npy(path)
    good = values.dtype.kind in "iuf" and values.size in values.shape
    check_array(str(path), values, good, "a row of numbers")
    return values.ravel()


def read_table(path: Path, columns: tuple[str, ...], *, as_text: bool = False) -> pd.DataFrame:
    """A table (`.csv`, `.tsv`, Parquet as `.pqt`) with at least these columns; empty cells are NaN.

    as_text: every cell of text files stays what is written, "01" and "NA" too. Bytes in Parquet are text.
    Raises MissingInput where no file is; BadInput, with the columns that there are, when one is missing, and for a file that is
    no such table.
    """
    require_file(path)
    options = {"dtype": str, "keep_default_na": False} if as_text else {"low_memory": False}
    options["sep"] = "\t" if path.suffix == ".tsv" else ","
    try:
        parquet = path.suffix == ".pqt"
        table = pd.read_parquet(path) if parquet else pd.read_csv(path, **options)
    except (OSError, ValueError) as error:  # the errors of both readers are ValueErrors
        raise BadInput(f"{path}: not readable as a table ({error}).") from None
    if not parquet and not isinstance(table.index, pd.RangeIndex):  # pandas would shift the columns
        raise BadInput(
            f"{path}: rows hold {table.index.nlevels} more fields than the first line has names. Is there a comma in "
            "numbers, a separator at the end of rows, or a line above the names? Write it anew, with a point in numbers."
        )
    for name in table.select_dtypes("object").columns:
        if table[name].map(type).isin([bytes, np.ndarray]).any():
            table[name] = [_text_or_list(value) for value in table[name]]
    if missing := [c for c in columns if c not in table]:
        raise BadInput(
            f"{path}: no column {missing[0]!r}; its columns are {some(table.columns, 40)}."
        )
    return table


def number_columns(path: Path) -> list[str]:
    """Names of the columns of a table that hold numbers; BadInput for a file that is no such table."""
    if path.suffix != ".pqt":
        return list(read_table(path, ()).select_dtypes("number"))
    from pyarrow import parquet, types

    try:
        columns = list(parquet.read_schema(path))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not readable as a table ({error}).") from None
    numeric = (types.is_integer, types.is_floating)
    return [c.name for c in columns if any(is_number(c.type) for is_number in numeric)]


def _text_or_list(value: Any) -> Any:
    """A cell of Parquet as the other readers have it: bytes as text, an array as a list."""
    if isinstance(value, bytes):
        return hdf5.text(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def read_trials(path: Path, time_unit: str) -> pd.DataFrame:
    """Trials of a CSV with start_time and stop_time in seconds; other columns are as written.

    `time_unit="ms"` converts every column that ends in `_time`. Raises BadInput, naming column or
    for a missing column and a time that is no number.
    """
    table = read_table(path, ("start_time", "stop_time"), as_text=True)
    for column in table.columns[table.columns.str.endswith("_time")]:
        seconds = numbers(table[column], f"{path}: column {column!r}")
        table[column] = seconds * SECONDS[time_unit]
    return table


def by_unit(
    times_s: np.ndarray, owner: np.ndarray, unit_ids: np.ndarray, where: Path | str
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes in order of time -> unit after unit, each as it stands; those of other owners are left out.

    times_s, owner: (n_spikes,) time [s] and unit id of each spike. Returns what a Recording takes:
    spikes and index (n_units + 1,). Raises BadInput, naming `where`, for no units, an id that stands
    twice, and times and owners that differ in number.
    """
    refuse(not len(unit_ids), f"{where}: no units are left to read.")
    check_once(f"{where}: units", unit_ids)
    check_length(str(where), len(times_s), len(owner), "spikes that have a unit")
    unit_ids = np.asarray(unit_ids)
    place = pd.Index(unit_ids).get_indexer(owner)  # -1: not one of these units
    order = np.argsort(place, kind="stable")
    order = order[place[order] >= 0]
    counts = np.bincount(place[order], minlength=len(unit_ids))
    index = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.asarray(times_s, np.float64)[order], index
