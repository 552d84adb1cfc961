"""Any NWB file with a units table and interval tables, read with h5py."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.findings import check_array, check_length, check_once, refuse
from nblib.core.params import SECONDS, Recipe
from nblib.data.files import hdf5
from nblib.data.nwb import electrodes
from nblib.data.nwb import series as nwb_series
from nblib.data.nwb import tables as nwb_tables
from nblib.data.recording import Recording
from nblib.data.trials import columns
from nblib.data.trials.time_intervals import open_ended

# Columns of a units table that other tools use for the brain area, in the order they are tried.
AREA_COLUMNS = ("area", "location", "brain_area", "brain_region")
# Columns that are numbers where their text allows it.
NUMBERS = ("x", "y", "z", "isi_violations", "amplitude_cutoff", "presence_ratio", "firing_rate")
UNITS = "units"
# What names a recording and its subject, the subject in two habits.
NAMED = (
    "identifier",
    "general/session_id",
    "general/subject/subject_id",
    "general/subject/specimen_name",
)
USES = ("path", "time_unit")


def open_recording(
    path: Path, recipe: Recipe, recording_id: str, settings: Any = None
) -> Recording:
    """Open the file as the recipe says (see `open_nwb`)."""
    return open_nwb(
        path,
        intervals=recipe.intervals,
        label=recipe.label,
        time_unit=recipe.time_unit,
        recording_id=recording_id,
    )


def open_nwb(
    path: Path | str,
    *,
    intervals: str,
    label: str,
    time_unit: str = "s",
    recording_id: str | None = None,
) -> Recording:
    """Open an NWB file as a Recording; spikes, series and the other tables are read when needed.

    Units gain area, probe, channel and x, y, z [um] from the electrodes table, by `peak_channel_id` or
    by the units' `electrodes`. The trials themselves are looked at when they are asked for (see
    `labelling.select`).

    Parameters
    ----------
    intervals : the table that holds the trials; "" for a recording without.
    label : its column to decode, or an expression of columns.
    time_unit : "ms" converts spike times, timestamps and every interval column ending in `_time` to
        seconds.
    recording_id : the recording's name; that of the file where there is none.

    Raises
    ------
    MissingInput : no such file.
    BadInput : a truncated file, one without units, spike times or that table, times in the other unit.
    """
    path = Path(path)
    seconds = SECONDS[time_unit]
    notes: list[str] = []
    with hdf5.opened(path) as file:
        nwb_tables.check_version(file, path)
        units, spike_index, spikes = _read_units(file, path, seconds, notes)
        places = nwb_tables.interval_tables(file, path)
        series, broken = nwb_series.find_series(file, path, seconds)
        observed = _read_observed(file[UNITS], path, units.index, seconds)
        identifier, session_id, subject, specimen = (hdf5.scalar_text(file, name) for name in NAMED)
    notes += nwb_series.complaints(broken, path)
    tables = nwb_tables.LazyTables(path, places, seconds)
    if intervals:
        tables.require(intervals)
    meta = {
        "time_unit": time_unit,
        "notes": notes,
        "broken_series": broken,
        "left_out": units.attrs.pop(nwb_tables.LEFT_OUT),
    }
    return Recording(
        id=recording_id or session_id or identifier or path.stem, subject=subject or specimen, path=path,
        units=units, spike_index=spike_index, spikes=spikes, intervals=tables, trials=intervals,
        label=label, series=series, observed=observed,
        meta=meta | {"session_id": session_id, "identifier": identifier},
    )  # fmt: skip


def _read_units(
    file: h5py.File, path: Path, seconds: float, notes: list[str]
) -> tuple[pd.DataFrame, np.ndarray, hdf5.FileSpikes]:
    group = hdf5.child(file, UNITS, path)
    if not isinstance(group, h5py.Group):
        raise BadInput(f"{path}: {_no_units(file, path)}")
    data, index = (hdf5.child(group, n, path, UNITS) for n in ("spike_times", "spike_times_index"))
    if data is None or index is None:
        missing = "spike_times" if data is None else "spike_times_index"
        raise BadInput(f"{path}: the units table has no {missing}; it holds {some(group, 40)}.")
    with hdf5.read_errors(path, "units/spike_times", data):
        kind = data.dtype.kind
    field = f"{path}: units/spike_times"
    check_array(field, data, hdf5.is_flat(data) and kind in "iuf", "a row of numbers")
    in_ms = hdf5.text(data.attrs.get("unit", "")).lower() in ("ms", "millisecond", "milliseconds")
    refuse(
        in_ms and seconds == 1.0,
        f"{field} says it is in milliseconds. Set time_unit: ms in the recipe.",
    )
    n_units = nwb_tables.n_rows(group, path, UNITS)
    spike_index = _starts(index, n_units, data, path, "units/spike_times_index")
    units = nwb_tables.read_table(
        group, path, UNITS, skip=("spike_times", "electrodes", "obs_intervals")
    )
    left_out = units.attrs[nwb_tables.LEFT_OUT]
    notes += columns.broken(units, UNITS)
    check_once(f"{path}: the units table", units.index)
    for name in AREA_COLUMNS[1:]:
        if "area" not in units and name in units:
            units["area"] = units[name]
    if "area" in units:
        units["area"] = electrodes.known_areas(units["area"])
    nwb_tables.as_numbers(units, NUMBERS, f"{path}: {UNITS}", notes)
    units = electrodes.join(file, path, units, notes)
    unread = [name for name in AREA_COLUMNS if name in left_out]
    if unread and "area" not in units:
        left_out["area"] = f"column {unread[0]!r} {left_out[unread[0]]}"
        notes.append(f"Areas of units are unknown: {left_out['area']}.")
    units.index.name = "unit_id"
    units.attrs = {nwb_tables.LEFT_OUT: left_out}
    return units, spike_index, hdf5.FileSpikes(path, "units/spike_times", data, seconds)


def _no_units(file: h5py.File, path: Path) -> str:
    """What an NWB file has instead of the units table, and what to do."""
    elsewhere = [
        place
        for place, item in hdf5.walk(file, sorted(file), path)
        if isinstance(item, h5py.Group)
        and (hdf5.type_name(item) == "Units" or {"spike_times", "spike_times_index"} <= set(item))
    ]
    if elsewhere:
        return (
            f"no units table at /units, but one at {some(elsewhere)}. Link it there with "
            f"h5py, the file being open in mode 'r+':  file['units'] = file[{elsewhere[0]!r}]"
        )
    return f"no units table; the file holds {some(file)}. Spike-sorted data are needed."


def _starts(
    index: h5py.Dataset, n_units: int, data: h5py.Dataset, path: Path, where: str
) -> np.ndarray:
    """Where each unit's values begin in a ragged column, and their end: int64 (n_units + 1,)."""
    refuse(n_units == 0, f"{path}: the units table is empty.")
    stops = nwb_tables.read_stops(index, data, path, where)
    check_length(f"{path}: {where}", len(stops), n_units, "units")
    return np.concatenate([[0], stops])


def _read_observed(
    group: h5py.Group, path: Path, unit_ids: pd.Index, seconds: float
) -> list[np.ndarray | None] | None:
    """When each unit was observed, (k, 2) [s]; None where obs_intervals says nothing of it or of any."""
    where = "units/obs_intervals"
    data, index = (
        hdf5.child(group, n, path, UNITS) for n in ("obs_intervals", "obs_intervals_index")
    )
    if data is None:
        return None
    with hdf5.read_errors(path, where, data):
        values = data[()]
    if values.size == 0:
        return None
    good = values.ndim == 2 and values.shape[1] == 2 and values.dtype.kind in "iuf"
    check_array(f"{path}: {where}", values, good, "a start and a stop a row")
    times = open_ended(values.astype(np.float64) * seconds)
    no_index = f"{path}: {where} has no index, so whose each row is, is not known."
    refuse(index is None, no_index)
    starts = _starts(index, len(unit_ids), data, path, f"{where}_index")
    parts = [times[a:b] for a, b in itertools.pairwise(starts)]
    return [part if len(part) else None for part in parts]
