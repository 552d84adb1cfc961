"""Writes NWB files of simulated recordings with pynwb: a start, tables from columns, an end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from hdmf.backends.hdf5 import H5DataIO
from hdmf.common import DynamicTable, ElementIdentifiers, VectorData, VectorIndex
from pynwb import NWBHDF5IO, NWBFile
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.misc import Units

from nblib.data.files import hdf5

DATE = dt.datetime(2019, 10, 3, 12, 0, 0, tzinfo=dt.UTC)
Columns = Mapping[str, np.ndarray]


def new_file(
    description: str, session_id: str, subject_id: str, species: str = "Mus musculus"
) -> NWBFile:
    """An NWB file of a subject, a mouse unless said otherwise, with nothing in it yet."""
    nwb = NWBFile(
        session_description=description, identifier=session_id, session_id=session_id,
        session_start_time=DATE, file_create_date=[DATE], institution="simulated by nblib",
    )  # fmt: skip
    nwb.subject = Subject(
        subject_id=subject_id, age="P100D", sex="M", species=species, description="simulated"
    )
    return nwb


def add_electrodes(nwb: NWBFile, device: str, columns: Columns) -> None:
    """Fill the electrodes table. columns: `group` and `location` of each, and any of id, x, y, z."""
    drive = nwb.create_device(device, description=device)
    groups = {
        name: nwb.create_electrode_group(
            name, description=name, location="see its electrodes", device=drive
        )
        for name in dict.fromkeys(columns["group"].tolist())
    }
    plain = {name: values.tolist() for name, values in columns.items()}
    for row in zip(*plain.values(), strict=True):
        cells = dict(zip(plain, row, strict=True))
        nwb.add_electrode(**cells | {"group": groups[cells["group"]]})


def intervals(name: str, columns: Columns) -> TimeIntervals:
    """An interval table. columns: start_time and stop_time [s], and any others."""
    return TimeIntervals.from_dataframe(
        pd.DataFrame(columns), name, table_description=f"{name} (simulated)"
    )


def table(name: str, columns: Mapping[str, np.ndarray | list[np.ndarray]]) -> DynamicTable:
    """A table of any columns; one given as a list of arrays is ragged, an array a row."""
    made: list[VectorData] = []
    for column, values in columns.items():
        if isinstance(values, list):
            (data,) = _vectors({column: np.concatenate(values)})
            stops = np.cumsum([len(row) for row in values])
            made += [data, VectorIndex(name=f"{column}_index", target=data, data=stops)]
        else:
            made += _vectors({column: values})
    ids = ElementIdentifiers(name="id", data=np.arange(len(next(iter(columns.values())))))
    return DynamicTable(name=name, description=name, id=ids, columns=made, colnames=[*columns])


def units(columns: Columns, n_spikes: np.ndarray) -> Units:
    """A units table whose spike times and presence ratios are to be filled once the file is written.

    columns: with `id`; n_spikes (unit,). `units/spike_times` (n_spikes.sum(),) lies in the file as
    one contiguous array, as in the original files, so that it can be mapped.
    """
    empty = H5DataIO(shape=(int(n_spikes.sum()),), dtype=np.dtype("f8"))
    times = VectorData(name="spike_times", description="spike times [s]", data=empty)
    index = VectorIndex(name="spike_times_index", target=times, data=np.cumsum(n_spikes))
    presence = H5DataIO(shape=n_spikes.shape, dtype=np.dtype("f8"))
    columns = {**columns, "presence_ratio": presence}
    ids = columns.pop("id")
    return Units(
        name="units",
        description="units of a simulated session",
        id=ElementIdentifiers(name="id", data=ids),
        columns=[*_vectors(columns), times, index],
        colnames=[*columns, "spike_times"],
    )


def write(
    nwb: NWBFile, path: Path, spikes: Sequence[np.ndarray] = (), **columns: np.ndarray
) -> None:
    """Write the file, with the schemas that it follows; spikes: times of each unit, for a table of units
    with these columns."""
    if len(spikes):
        columns = {"id": np.arange(len(spikes)), **columns}
        nwb.units = units(columns, np.array([len(times) for times in spikes]))
    with (
        h5py.File(path, "w", **hdf5.UNLOCKED) as file,
        NWBHDF5IO(file=file, mode="w") as io,
    ):
        io.write(nwb)
    if len(spikes):
        with h5py.File(path, "r+", **hdf5.UNLOCKED) as file:
            file["units/spike_times"][:] = np.concatenate(spikes)
            file["units/presence_ratio"][:] = 1.0


def _vectors(columns: Columns) -> list[VectorData]:
    """Table columns; text goes in as a list of str, which pynwb writes as NWB text."""
    return [
        VectorData(
            name=name,
            description=name.replace("_", " "),
            data=values.tolist() if values.dtype.kind == "U" else values,
        )
        for name, values in columns.items()
    ]
