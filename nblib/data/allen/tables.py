"""The Allen Institute's own tables beside an NWB file: sessions, probes, channels, units (.csv)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.findings import check_once, tell
from nblib.data.files.plain import read_table
from nblib.data.recording import Recording

# By which column of the units the rows of a table are found, "" their id. Of a table that is found by
# a column, only what is `TAKEN` is taken over.
KEYS = {"units.csv": "", "channels.csv": "channel", "probes.csv": "probe_id"}
SESSIONS = "sessions.csv"
TAKEN = {
    "ecephys_channel_id": "channel", "ecephys_structure_acronym": "area",
    "anterior_posterior_ccf_coordinate": "x", "dorsal_ventral_ccf_coordinate": "y",
    "left_right_ccf_coordinate": "z", "probe_vertical_position": "probe_vertical_position",
    "probe_horizontal_position": "probe_horizontal_position", "ecephys_probe_id": "probe_id",
    "name": "probe",
}  # fmt: skip


def beside(path: Path) -> dict[str, Path]:
    """The tables that lie beside an NWB file or in the folder above, by name; the nearer wins."""
    files = {}
    for folder in (path.parent, path.parent.parent):
        for name in (SESSIONS, *KEYS):
            if name not in files and (folder / name).is_file():
                files[name] = folder / name
    return files


def _read(path: Path) -> pd.DataFrame:
    """One table with its ids as index; BadInput when it is not such a table."""
    table = read_table(path, ("id",))
    check_once(f"{path}: id", table["id"], "rows")
    return table.set_index("id")


def join(recording: Recording) -> Recording:
    """The recording with what the tables beside its file know and the file does not.

    A value in the file is never replaced; where a table disagrees, a note in `meta["notes"]`
    counts the units. Units are matched by unit id, then by peak channel. Raises BadInput for a table
    that cannot be read.
    """
    tables = {name: _read(path) for name, path in beside(recording.path).items()}
    units, notes = recording.units.copy(), list(recording.meta["notes"])
    for name, key in KEYS.items():
        if name not in tables or (key and key not in units):
            continue
        table = tables[name].rename(columns=TAKEN)
        if key:
            table = table[[c for c in TAKEN.values() if c in table]]
        if len(table.columns):
            rows = table.reindex(units[key] if key else units.index)
            _fill(units, rows.set_axis(units.index), name, notes)
    meta = {**recording.meta, "notes": notes}
    if SESSIONS in tables:
        meta["session"] = _session_row(tables[SESSIONS], recording, notes)
    return replace(recording, units=units, meta=meta)


def _session_row(sessions: pd.DataFrame, recording: Recording, notes: list[str]) -> dict[str, str]:
    ids = [recording.meta["session_id"], recording.meta["identifier"], recording.id]
    row = next((int(i) for i in ids if i.isdigit() and int(i) in sessions.index), None)
    if row is None:
        notes.append(
            f"{SESSIONS} holds {len(sessions)} sessions, this recording is not among them."
        )
        return {}
    return {str(k): str(v) for k, v in sessions.loc[row].dropna().items()}


def _missing(values: pd.Series) -> np.ndarray:
    return (values.isna() | (values.astype(str) == "")).to_numpy()


def _fill(units: pd.DataFrame, table: pd.DataFrame, name: str, notes: list[str]) -> None:
    """Fill what `units` lacks from `table` (same rows), in place; note what disagrees."""
    known = table.notna().any(axis=1)
    notes += tell(~known, f"{name} does not know %n of %all units.")
    for column in table:
        new, there = table[column], ~_missing(table[column])
        old = units[column] if column in units else pd.Series(index=units.index, dtype=object)
        lacking = there & _missing(old)
        if lacking.any():
            units[column] = old.where(~lacking, new) if column in units else new
        notes += tell(
            there & ~_missing(old) & ~_same(old, new),
            f"{name} gives another {column} than the NWB file for %n units (unit %rows); the file's values hold.",
            of=units.index,
        )


def _same(a: pd.Series, b: pd.Series) -> np.ndarray:
    """Elementwise equality; numbers to float32 precision, since tables are written rounded."""
    numbers = pd.to_numeric(a, errors="coerce"), pd.to_numeric(b, errors="coerce")
    close = np.isclose(*(n.to_numpy(float) for n in numbers), rtol=1e-5, atol=1e-9)
    return close | (a.astype(str) == b.astype(str)).to_numpy()
