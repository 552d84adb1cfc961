"""The electrodes table of an NWB file: where each unit, or each channel of a potential, lies."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from nblib.core.errors import BadInput
from nblib.core.findings import check_length, refuse
from nblib.data.files import hdf5
from nblib.data.nwb import tables
from nblib.data.trials import columns

GROUPS = "general/extracellular_ephys"
PLACE = f"{GROUPS}/electrodes"
# Columns of the electrodes table that are taken over, and their names in a Recording.
KNOWN = {
    "location": "area", "x": "x", "y": "y", "z": "z", "group_name": "probe", "probe_id": "probe_id",
    "probe_vertical_position": "probe_vertical_position",
    "probe_horizontal_position": "probe_horizontal_position",
}  # fmt: skip
# Columns of a units table that name one electrode a unit, in the order they are tried.
ONE_A_UNIT = (
    "peak_channel_id", "max_electrode", "peak_electrode", "main_electrode", "electrode_id",
    "electrode", "max_channel", "peak_channel", "main_channel", "channel_id",
)  # fmt: skip


def read(file: h5py.File, path: Path, notes: list[str]) -> pd.DataFrame | None:
    """What is known of each electrode, by id; None where the file has no such table.

    Areas are text, "" outside every area; positions are numbers where they hold nothing else. Adds
    to `notes` what cannot be used. Raises BadInput for a table that cannot be read.
    """
    group = hdf5.child(file, PLACE, path)
    if not isinstance(group, h5py.Group):
        return None
    table = tables.read_table(group, path, PLACE, skip=("group",))
    notes += columns.broken(table, PLACE)
    tables.as_numbers(table, ("x", "y", "z"), f"{path}: {PLACE}", notes)
    known = table[[c for c in KNOWN if c in table]].rename(columns=KNOWN)
    if "area" in known:
        known["area"] = known_areas(known["area"])
    known.insert(0, "channel", table.index)
    if "probe" not in known and "probe_id" in known:
        known["probe"] = known["probe_id"].astype(str)
    return known


def known_areas(values: pd.Series) -> pd.Series:
    """Areas as text, "" where what stands there is only the word for none."""
    return values.astype(str).replace({"None": "", "nan": "", "NaN": ""})


def join(file: h5py.File, path: Path, units: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Join the electrodes to the units; a column that the units table has is left as it is.

    Adds to `notes` what was taken for a unit's electrode where that is no habit of NWB's own, and
    that areas are unknown where nothing could be.
    """
    table = read(file, path, notes)
    if table is None:
        return _by_group(file, units, notes, None)
    name, rows = _one_a_unit(file, path, units, table)
    if rows is not None:
        joined = table.iloc[rows]
    elif isinstance(hdf5.child(file, "units/electrodes", path), h5py.Dataset):
        joined = _several_a_unit(file["units"], path, table, len(units))
    else:
        return _by_group(file, units, notes, table)
    if name not in ("", "peak_channel_id"):
        notes.append(f"Areas and positions of units are those of their electrode in {name!r}.")
    joined = joined.set_axis(units.index)
    return units.join(joined[[c for c in joined if c not in units]])


def _one_a_unit(
    file: h5py.File, path: Path, units: pd.DataFrame, table: pd.DataFrame
) -> tuple[str, np.ndarray | None]:
    """The column that names each unit's electrode, and the electrodes' rows; "", None without."""
    one_probe = "probe" not in table or table["probe"].nunique() < 2
    ids_are_rows = np.array_equal(table.index, np.arange(len(table)))
    for name in (c for c in ONE_A_UNIT if c in units):
        values, where = units[name].to_numpy(), f"{path}: units/{name}"
        if _is_region(file, name):
            return name, checked_rows(values, table, where)
        if not table.index.is_unique:
            raise BadInput(f"{path}: {PLACE} uses one id twice, so {name} names no electrode.")
        rows = table.index.get_indexer(values)
        refuse(
            (rows < 0) & (name == "peak_channel_id"),
            f"{path}: {name} of unit %rows is not in the electrodes table ({len(table)} channels).",
            of=units.index,
        )
        # Small numbers may be ids, but as well rows, or channels counted anew on each probe.
        small = np.isin(values, np.arange(len(table))).all()
        named = (name.endswith("_id") or ids_are_rows) and (one_probe or "electrode" in name)
        if name == "peak_channel_id" or ((rows >= 0).all() and (named or not small)):
            return name, rows
    return "", None


def _is_region(file: h5py.File, name: str) -> bool:
    """Whether a column of the units table holds row numbers of the electrodes table."""
    data = file["units"][name]
    if hdf5.type_name(data) != "DynamicTableRegion":
        return False
    try:
        return file[data.attrs["table"]] == file[PLACE]
    except (KeyError, ValueError):  # not said, or said of what is gone
        return "table" not in data.attrs


def checked_rows(rows: np.ndarray, table: pd.DataFrame, where: str) -> np.ndarray:
    """Row numbers of the electrodes table as int64; BadInput for one that is not in it."""
    refuse(
        (rows < 0) | (rows >= len(table)),
        f"{where} points at row %value of an electrodes table of {len(table)} rows (they count from 0).",
        value=rows,
    )
    return rows.astype(np.int64)


def _several_a_unit(
    group: h5py.Group, path: Path, table: pd.DataFrame, n_units: int
) -> pd.DataFrame:
    """Electrode columns by the units' region of rows: the first electrode's channel and probe,
    the mean position, and every area the electrodes lie in, joined by "/"."""
    where = "units/electrodes"
    data = group["electrodes"]
    rows = checked_rows(tables.whole_numbers(data, path, where), table, f"{path}: {where}")
    index = hdf5.child(group, "electrodes_index", path, "units")
    stops = np.arange(1, len(rows) + 1)
    if index is not None:
        stops = tables.read_stops(index, data, path, f"{where}_index")
    check_length(f"{path}: {where}", len(stops), n_units, "units")
    if index is None:
        return table.iloc[rows]
    parts = np.split(rows, stops[:-1])
    out = {}
    for column in table:
        values = table[column].to_numpy()
        if column == "area":
            out[column] = ["/".join(sorted({a for a in values[p] if a})) for p in parts]
        elif column in ("x", "y", "z") and values.dtype != object:
            out[column] = [values[p].mean() if len(p) else np.nan for p in parts]
        else:
            out[column] = [values[p[0]] if len(p) else None for p in parts]
    return pd.DataFrame(out)


def _by_group(
    file: h5py.File, units: pd.DataFrame, notes: list[str], table: pd.DataFrame | None
) -> pd.DataFrame:
    """Area by the units' electrode group, where no electrode of theirs is known."""
    if "area" in units:
        return units
    groups = units["electrode_group"] if "electrode_group" in units else pd.Series(dtype=object)
    areas = {g: hdf5.scalar_text(file, f"{GROUPS}/{g}/location") for g in set(groups) if g}
    if any(areas.values()):
        notes.append("Areas of units are those of their electrode group.")
        return units.assign(area=groups.map(areas).fillna(""))
    if table is not None and "area" in table and (table["area"] != "").any():
        notes.append(
            "The electrodes table names areas, but no column of the units table says for certain "
            "which electrode is a unit's, so areas are unknown. A DynamicTableRegion would."
        )
    return units


def locations(file: h5py.File, path: Path, series: str, n_channels: int) -> list[str]:
    """Region of each channel of a series; a channel without one keeps a name of its own."""
    names = [f"channel_{i}" for i in range(n_channels)]
    where = f"{series}/electrodes"
    data, table = hdf5.child(file, where, path), read(file, path, [])
    if data is None or table is None:
        return names
    if "area" not in table:
        if "location" in table.attrs[tables.LEFT_OUT]:
            tables.require(table, "location", f"{path}: {PLACE}")
        return names
    rows = checked_rows(tables.whole_numbers(data, path, where), table, f"{path}: {where}")
    check_length(f"{path}: {where}", len(rows), n_channels, "channels")
    areas = table["area"].iloc[rows]
    return [n if a in ("", "unknown") else a for n, a in zip(names, areas, strict=True)]
