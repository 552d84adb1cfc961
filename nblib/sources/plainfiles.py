"""Arrays and tables that sorters and labs leave as plain files: `.npy`, `.csv`, `.tsv`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from nblib.errors import BadInput
from nblib.params import SECONDS
from nblib.recording import InMemorySpikes
from nblib.sources.checks import check_presentations, some


def read_array(path: Path) -> np.ndarray:
    """One row of numbers from a `.npy` file, which may have a second axis of length 1.

    Raises BadInput for a file that is damaged, holds Python objects, text or a table.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: not readable as an array of numbers ({error}).") from None
    if values.dtype.kind not in "iuf" or values.size not in values.shape:
        raise BadInput(
            f"{path}: holds {values.dtype} of shape {values.shape}; expected a row of numbers."
        )
    return values.ravel()


def read_table(path: Path, columns: tuple[str, ...], *, separator: str = ",") -> pd.DataFrame:
    """A table with at least these columns; empty cells are NaN.

    Raises BadInput, with the columns that there are, when one is missing, and for a file that is
    no such table.
    """
    try:
        table = pd.read_csv(path, sep=separator, low_memory=False)
    except (OSError, ValueError) as error:  # the parser's errors are ValueErrors
        raise BadInput(f"{path}: not readable as a table ({error}).") from None
    if missing := [c for c in columns if c not in table]:
        raise BadInput(
            f"{path}: no column {missing[0]!r}; its columns are {some(table.columns, 40)}."
        )
    return table


def read_trials(path: Path, label: str, time_unit: str) -> pd.DataFrame:
    """Trials of a CSV with start_time, stop_time and the column to decode; times in seconds.

    `time_unit="ms"` converts every column that ends in `_time`. Raises BadInput, naming column or
    rows, for a missing column, a time that is no number, trials without rows or of negative length.
    """
    table = read_table(path, ("start_time", "stop_time", label))
    if table.empty:
        raise BadInput(f"{path}: no rows; nothing was presented.")
    for column in table.columns[table.columns.str.endswith("_time")]:
        if table[column].dtype.kind not in "iuf":
            raise BadInput(f"{path}: column {column!r} holds text; expected times in {time_unit}.")
        table[column] = table[column] * SECONDS[time_unit]
    check_presentations(str(path), "the table", table)
    return table


def by_unit(
    times_s: np.ndarray, owner: np.ndarray, unit_ids: np.ndarray, where: Path | str
) -> tuple[InMemorySpikes, np.ndarray]:
    """Spikes in order of time -> unit after unit; those of other owners are left out.

    times_s, owner: (n_spikes,) time [s] and unit id of each spike. Returns what a Recording takes:
    spikes and index (n_units + 1,). Raises BadInput, naming `where`, for no units, an id that stands
    twice, and times and owners that differ in number.
    """
    if not len(unit_ids):
        raise BadInput(f"{where}: no units are left to read.")
    if twice := pd.Index(unit_ids)[pd.Index(unit_ids).duplicated()].unique().tolist():
        raise BadInput(f"{where}: one id stands for several units: {some(twice)}.")
    if len(times_s) != len(owner):
        raise BadInput(f"{where}: {len(times_s)} spike times, but units for {len(owner)} spikes.")
    unit_ids = np.asarray(unit_ids)
    place = pd.Index(unit_ids).get_indexer(owner)  # -1: not one of these units
    order = np.lexsort((times_s, place))
    order = order[place[order] >= 0]
    counts = np.bincount(place[order], minlength=len(unit_ids))
    index = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return InMemorySpikes(np.asarray(times_s, np.float64)[order]), index
