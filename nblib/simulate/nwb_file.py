"""Writes the AllenSDK ecephys NWB layout with pynwb.

Spike times are one contiguous, uncompressed array, as in the original files, laid out here and
filled afterwards, unit by unit.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import BuildManager
from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
from pynwb import NWBHDF5IO, NWBFile, TimeSeries, get_type_map
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.misc import Units
from pynwb.spec import NWBAttributeSpec, NWBGroupSpec, NWBNamespaceBuilder

from nblib.data.nwb import hdf5

EXTENSION = "ndx-aibs-ecephys"
EXTENSION_VERSION = "0.2.0"
DATE = dt.datetime(2019, 10, 3, 12, 0, 0, tzinfo=dt.UTC)
Columns = Mapping[str, np.ndarray]


def write_layout(
    path: Path,
    *,
    session_id: int,
    subject_id: str,
    n_spikes: np.ndarray,
    units: Columns,
    electrodes: Columns,
    presentations: Mapping[str, Columns],
    invalid: np.ndarray,
    running: tuple[np.ndarray, np.ndarray],
) -> None:
    """Write everything but the spike times and the presence ratios; those are left to be filled.

    n_spikes: (unit,) spikes of each unit. units, electrodes: columns, with `id`. presentations:
    one table per name, columns with `start_time` and `stop_time` [s]. invalid: (n, 2) [s].
    running: timestamps [s] and speed [cm/s]. Afterwards `units/spike_times` (n_spikes.sum(),) and
    `units/presence_ratio` (unit,) are empty data sets, `units/spike_amplitudes` reads NaN.
    """
    type_map = _type_map()
    probe_type = type_map.get_dt_container_cls("EcephysProbe", EXTENSION)
    group_type = type_map.get_dt_container_cls("EcephysElectrodeGroup", EXTENSION)
    nwb = NWBFile(
        session_description="Simulated visual coding session in the Allen ecephys layout",
        identifier=str(session_id),
        session_id=str(session_id),
        session_start_time=DATE,
        file_create_date=[DATE],
        institution="simulated by nblib",
        stimulus_notes="brain_observatory_1.1",
    )
    nwb.subject = Subject(
        subject_id=subject_id, age="P100D", sex="M", species="Mus musculus", genotype="wt/wt",
        description="simulated",
    )  # fmt: skip
    groups = {}
    probes = dict(zip(electrodes["probe"].tolist(), electrodes["probe_id"].tolist(), strict=True))
    for name, probe_id in probes.items():
        device = probe_type(
            name=name,
            description="Neuropixels 1.0 Probe",
            sampling_rate=30000.0,
            probe_id=probe_id,
        )
        nwb.add_device(device)
        groups[name] = group_type(
            name=name,
            description="Ecephys Electrode Group",
            location="See electrode locations",
            device=device,
            has_lfp_data=False,
            probe_id=probe_id,
            lfp_sampling_rate=1250.0,
        )
        nwb.add_electrode_group(groups[name])
    _add_electrodes(nwb, electrodes, groups)
    for name, columns in presentations.items():
        nwb.add_time_intervals(_intervals(name, columns, ["stimulus_time_interval"]))
    nwb.invalid_times = _intervals(
        "invalid_times",
        {"start_time": invalid[:, 0], "stop_time": invalid[:, 1]},
        ["EcephysSession", str(session_id), "stimulus"],
    )
    timestamps, speed = running
    module = nwb.create_processing_module("running", "running speed data")
    module.add(TimeSeries(name="running_speed", timestamps=timestamps, data=speed, unit="cm/s"))
    module.add(TimeSeries(name="running_speed_end_times", timestamps=timestamps + 1 / 60,
                          data=np.full(len(speed), np.nan), unit="cm/s"))  # fmt: skip
    nwb.units = _units_table(units, n_spikes)
    write_nwb(nwb, path, type_map)


def write_nwb(nwb: NWBFile, path: Path, type_map: Any) -> None:
    """Write the file, with the schemas that it follows."""
    with (
        h5py.File(path, "w", **hdf5.UNLOCKED) as file,
        NWBHDF5IO(file=file, mode="w", manager=BuildManager(type_map)) as io,
    ):
        io.write(nwb)


def _intervals(name: str, columns: Columns, tags: list[str]) -> TimeIntervals:
    """A TimeIntervals table, column by column; each row carries the same tags."""
    n = len(columns["start_time"])
    tag_data = VectorData(name="tags", description="user-defined tags", data=tags * n)
    tag_ends = len(tags) * np.arange(1, n + 1)
    tag_index = VectorIndex(name="tags_index", target=tag_data, data=tag_ends)
    return TimeIntervals(
        name=name,
        description=f"{name} (simulated)",
        id=ElementIdentifiers(name="id", data=np.arange(n)),
        columns=[*_vectors(columns), tag_data, tag_index],
        colnames=[*columns, "tags"],
    )


def _units_table(columns: Columns, n_spikes: np.ndarray) -> Units:
    n, total = len(n_spikes), int(n_spikes.sum())
    last = np.cumsum(n_spikes)
    columns = dict(columns)
    ids = columns.pop("id")
    vectors = _vectors(columns)
    empty = {
        "presence_ratio": H5DataIO(shape=(n,), dtype=np.dtype("f8")),
        "spike_times": H5DataIO(shape=(total,), dtype=np.dtype("f8")),
        # Never written: takes no room, and every amplitude reads as "not simulated".
        "spike_amplitudes": H5DataIO(shape=(total,), dtype=np.dtype("f8"), fillvalue=np.nan),
    }
    for name, data in empty.items():
        vectors.append(VectorData(name=name, description=name, data=data))
        if name != "presence_ratio":
            vectors.append(VectorIndex(name=f"{name}_index", target=vectors[-1], data=last))
    return Units(
        name="units",
        description="units of a simulated session",
        id=ElementIdentifiers(name="id", data=ids),
        columns=vectors,
        colnames=[*columns, *empty],
    )


def _add_electrodes(nwb: NWBFile, columns: Columns, groups: Mapping[str, Any]) -> None:
    for name in columns:
        if name not in ("id", "probe", "x", "y", "z", "location"):  # those are NWB's own
            nwb.add_electrode_column(name=name, description=name.replace("_", " "))
    plain = {k: v.tolist() for k, v in columns.items() if k != "probe"}
    for i, probe in enumerate(columns["probe"].tolist()):
        nwb.add_electrode(
            **{k: v[i] for k, v in plain.items()},
            group=groups[probe],
            imp=np.nan,
            filtering="AP band: 500 Hz high-pass; LFP band: 1000 Hz low-pass",
        )


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


@cache
def _type_map() -> Any:
    """pynwb's types and the Allen extension, private to this module: pynwb's own stay untouched."""
    type_map = get_type_map()
    if EXTENSION not in type_map.namespace_catalog.namespaces:
        with tempfile.TemporaryDirectory() as folder:
            _extension().export("namespace.yaml", outdir=folder)
            type_map.load_namespaces(str(Path(folder) / "namespace.yaml"))
    return type_map


def _extension() -> NWBNamespaceBuilder:
    """The part of the Allen extension that this layout uses."""
    types = {
        ("EcephysProbe", "Device"): {"sampling_rate": "float64", "probe_id": "int"},
        ("EcephysElectrodeGroup", "ElectrodeGroup"): {
            "has_lfp_data": "bool", "probe_id": "int", "lfp_sampling_rate": "float64",
        },
    }  # fmt: skip
    builder = NWBNamespaceBuilder(
        name=EXTENSION, version=EXTENSION_VERSION, doc="Allen Institute ecephys types",
        author="Allen Institute for Brain Science", contact="see the AllenSDK",
    )  # fmt: skip
    builder.include_namespace("core")
    for (name, base), attributes in types.items():
        spec = NWBGroupSpec(
            doc=name, neurodata_type_def=name, neurodata_type_inc=base,
            attributes=[NWBAttributeSpec(k, k.replace("_", " "), t) for k, t in attributes.items()],
        )  # fmt: skip
        builder.add_spec("extension.yaml", spec)
    return builder
