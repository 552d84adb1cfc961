"""Any NWB file with a units table and interval tables, read with h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nblib.errors import BadInput
from nblib.recording import Recording
from nblib.sources import hdf5, nwb_tables
from nblib.sources.checks import Clock, check_presentations, check_time_unit, interval_clock, some

ELECTRODES = "general/extracellular_ephys/electrodes"
# Columns of a units table that other tools use for the brain area, in the order they are tried.
AREA_COLUMNS = ("area", "location", "brain_area", "brain_region")
SAMPLE_UNITS, SAMPLE_SPIKES = 32, 500  # what is read to tell seconds from milliseconds


def open_nwb(
    path: Path | str,
    *,
    intervals: str,
    label: str,
    time_unit: str = "s",
    recording_id: str | None = None,
) -> Recording:
    """Open an NWB file as a Recording; spikes, series and the other tables are read when needed.

    `intervals` names the table that holds the trials and `label` its column to decode; with
    `intervals=""` the recording has no trials. `time_unit="ms"` converts spike times, timestamps
    and every interval column ending in `_time` to seconds. Units gain area, probe, channel and
    x, y, z [um] from the electrodes table, by `peak_channel_id` or by the units' `electrodes`.

    Raises MissingInput for no such file; BadInput for a truncated file, one without units, spike
    times, that table or that column, NaN or negative-length trials, or times in the other unit.
    """
    path = Path(path)
    seconds = {"s": 1.0, "ms": 1e-3}[time_unit]
    with hdf5.opened(path) as file:
        units, spike_index, spikes, left_out = _read_units(file, path, seconds)
        places = nwb_tables.interval_tables(file)
        series = hdf5.find_series(file, path, seconds)
        meta = _read_meta(file)
    tables = nwb_tables.LazyTables(path, places, seconds)
    if intervals:
        _check_trials(path, tables, intervals, label)
    recording = Recording(
        id=recording_id or meta["session_id"] or meta["identifier"] or path.stem,
        subject=meta["subject"].get("subject_id") or meta["subject"].get("specimen_name", ""),
        path=path,
        units=units,
        spike_index=spike_index,
        spikes=spikes,
        intervals=tables,
        trials=intervals,
        label=label,
        series=series,
        meta={"source": "nwb", "time_unit": time_unit, "left_out": left_out, "notes": [], **meta},
    )
    clock = _sampled_clock(recording, [tables[intervals]] if intervals else [])
    check_time_unit(str(path), clock, time_unit)
    return recording


def _read_units(
    file: h5py.File, path: Path, seconds: float
) -> tuple[pd.DataFrame, np.ndarray, hdf5.FileSpikes, list[str]]:
    group = file.get("units")
    if not isinstance(group, h5py.Group):
        raise BadInput(
            f"{path}: no units table; the file holds {some(file)}. Spike-sorted data are needed."
        )
    if "spike_times" not in group or "spike_times_index" not in group:
        missing = "spike_times" if "spike_times" not in group else "spike_times_index"
        raise BadInput(f"{path}: the units table has no {missing}; it holds {some(group, 40)}.")
    data = group["spike_times"]
    if data.ndim != 1 or data.dtype.kind not in "iuf":
        raise BadInput(
            f"{path}: units/spike_times is {data.dtype} of shape {data.shape}; expected a row of numbers."
        )
    if (
        hdf5.text(data.attrs.get("unit", "")).lower() in ("ms", "millisecond", "milliseconds")
        and seconds == 1.0
    ):
        raise BadInput(
            f"{path}: units/spike_times says it is in milliseconds. Set time_unit: ms in the recipe."
        )
    spike_index = _spike_index(group, nwb_tables.n_rows(group, path), data.shape[0], path)
    units, left_out = nwb_tables.read_table(group, path, skip=("spike_times", "electrodes"))
    if units.index.has_duplicates:
        twice = units.index[units.index.duplicated()].unique()
        raise BadInput(f"{path}: the units table uses one id for several units: {some(twice)}.")
    units = _with_electrodes(file, path, units)
    for name in AREA_COLUMNS[1:]:
        if "area" not in units and name in units:
            units["area"] = units[name]
    units.index.name = "unit_id"
    return units, spike_index, hdf5.FileSpikes(path, data, seconds), left_out


def _spike_index(group: h5py.Group, n_units: int, n_spikes: int, path: Path) -> np.ndarray:
    stops = group["spike_times_index"][()].astype(np.int64)
    index = np.concatenate([[0], stops])
    falls = np.flatnonzero(np.diff(index) < 0)
    if n_units == 0:
        raise BadInput(f"{path}: the units table is empty.")
    if len(stops) != n_units or len(falls) or stops[-1] != n_spikes:
        fault = (
            f"has {len(stops)} entries for {n_units} units" if len(stops) != n_units
            else f"falls at row {some(falls)}" if len(falls)
            else f"ends at {stops[-1]}, but there are {n_spikes} spike times"
        )  # fmt: skip
        raise BadInput(
            f"{path}: units/spike_times_index {fault}; the file is damaged or was written wrongly."
        )
    return index


def _with_electrodes(file: h5py.File, path: Path, units: pd.DataFrame) -> pd.DataFrame:
    """Join the electrodes table; a column that the units table has itself is left as it is."""
    if ELECTRODES not in file:
        return units
    table, _ = nwb_tables.read_table(file[ELECTRODES], path)
    known = {
        "location": "area",
        "x": "x",
        "y": "y",
        "z": "z",
        "group_name": "probe",
        "probe_id": "probe_id",
    }
    known |= {c: c for c in ("probe_vertical_position", "probe_horizontal_position")}
    found = table[[c for c in known if c in table]].rename(columns=known)
    if "area" in found:
        # Electrodes outside every area are written "", "None" or "nan".
        found["area"] = found["area"].astype(str).replace({"None": "", "nan": ""})
    found.insert(0, "channel", table.index)
    if "probe" not in found and "probe_id" in found:
        found["probe"] = found["probe_id"].astype(str)
    if "peak_channel_id" in units:
        channels = units["peak_channel_id"].to_numpy()
        lost = units.index[~np.isin(channels, table.index)]
        if len(lost):
            raise BadInput(
                f"{path}: peak_channel_id of unit {some(lost)} is not in the electrodes table "
                f"({len(table)} channels)."
            )
        joined = found.loc[channels]
    elif isinstance(file["units"].get("electrodes"), h5py.Dataset):
        joined = _electrodes_of_units(file["units"], path, found, len(units))
    else:
        return units
    joined = joined.set_axis(units.index)
    return units.join(joined[[c for c in joined if c not in units]])


def _electrodes_of_units(
    group: h5py.Group, path: Path, table: pd.DataFrame, n_units: int
) -> pd.DataFrame:
    """Electrode columns by the units' region of rows: the first electrode's channel and probe,
    the mean position, and every area the electrodes lie in, joined by "/"."""
    rows = group["electrodes"][()].astype(np.int64)
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(table)):
        raise BadInput(
            f"{path}: units/electrodes points at row {rows.max()} of an electrodes table of {len(table)} rows."
        )
    if "electrodes_index" not in group:
        return table.iloc[rows]
    parts = np.split(rows, group["electrodes_index"][()].astype(np.int64)[:-1])
    if len(parts) != n_units:
        raise BadInput(
            f"{path}: units/electrodes_index has {len(parts)} entries for {n_units} units."
        )
    out = {}
    for column in table:
        values = table[column].to_numpy()
        if column == "area":
            out[column] = ["/".join(sorted({a for a in values[p] if a})) for p in parts]
        elif column in ("x", "y", "z"):
            out[column] = [values[p].mean() if len(p) else np.nan for p in parts]
        else:
            out[column] = [values[p[0]] if len(p) else None for p in parts]
    return pd.DataFrame(out)


def _read_meta(file: h5py.File) -> dict[str, Any]:
    subject = {
        name: hdf5.text(item[()])
        for name, item in file.get("general/subject", {}).items()
        if isinstance(item, h5py.Dataset) and item.shape == ()
    }
    names = ("identifier", "session_description", "session_start_time")
    return {
        **{name: hdf5.scalar_text(file, name) for name in names},
        "session_id": hdf5.scalar_text(file, "general/session_id"),
        "nwb_version": hdf5.text(file.attrs.get("nwb_version", "")),
        "subject": subject,
    }


def _check_trials(path: Path, tables: nwb_tables.LazyTables, intervals: str, label: str) -> None:
    if intervals not in tables:
        there = some(sorted(tables), 40) if len(tables) else "no interval table at all"
        raise BadInput(
            f"{path}: no interval table {intervals!r}; there is {there}. Set `intervals` in the recipe."
        )
    table = tables[intervals]
    if label not in table:
        raise BadInput(
            f"{path}: {intervals} has no column {label!r}; its columns are {some(table.columns, 40)}. "
            "Set `label` in the recipe."
        )
    if not len(table):
        raise BadInput(f"{path}: {intervals} has no rows; nothing was presented.")
    check_presentations(str(path), intervals, table)


def _sampled_clock(recording: Recording, tables: list[pd.DataFrame]) -> Clock:
    """A Clock from a few spikes of a few units; the session report looks at all of them."""
    index = recording.spike_index
    firing = np.flatnonzero(np.diff(index) > 1)
    looked = firing[np.linspace(0, len(firing) - 1, min(SAMPLE_UNITS, len(firing))).astype(int)]
    n_isi = n_short = n_spikes = 0
    ends: list[float] = []
    for i in looked:
        lo, hi = int(index[i]), int(index[i + 1])
        times = recording.spikes.read(lo, min(hi, lo + SAMPLE_SPIKES))
        between = np.diff(times)
        n_isi += len(between)
        n_short += int((np.abs(between) < 0.1).sum())
        n_spikes += hi - lo
        ends += [times[0], *recording.spikes.read(hi - 1, hi)]
    first, last = (np.nanmin(ends), np.nanmax(ends)) if np.isfinite(ends).any() else (0.0, 0.0)
    return Clock(
        len(looked), n_spikes, float(first), float(last), n_isi, n_short, *interval_clock(tables)
    )
