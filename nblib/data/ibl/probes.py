"""Probes of a session: which folders hold sorted spikes, and what is known of their units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, MissingInput
from nblib.core.findings import check_array, check_finite, check_once, refuse
from nblib.data.files.plain import read_npy, read_table
from nblib.data.ibl import alf
from nblib.data.trials.columns import numbers

SORTER = "pykilosort"
UNITS = ("spikes.times", "spikes.clusters", "clusters.channels")
ABOUT_UNITS = ("clusters.metrics", "channels.brainLocationIds_ccf_2017", "channels.mlapdv")
# Areas by id of the Allen CCF of 2017 that such sessions name most; any other stays a number.
AREAS = {
    0: "void", 997: "root", 385: "VISp", 312782546: "VISa", 382: "CA1", 463: "CA3", 726: "DG", 10703: "DG-mo",
    10704: "DG-po", 632: "DG-sg", 218: "LP", 1020: "PO", 733: "VPM", 718: "VPL", 672: "CP", 993: "MOs",
}  # fmt: skip


def find_probes(place: Path, sorter: str = "") -> dict[str, Path]:
    """Folder of the sorted spikes of each probe, by its name.

    Raises MissingInput for no probe or no such sorter, BadInput for several sorters and none named.
    """
    chosen = {}
    for probe in sorted(p for p in place.glob("[!#.]*") if p.is_dir()):
        folders = {p.name: p for p in sorted(probe.iterdir()) if p.is_dir() and p.name[0] != "#"}
        there = {name: p for name, p in {"": probe, **folders}.items() if alf.find(p, UNITS[0])}
        if not there and not probe.name.startswith("probe"):
            continue  # of other things than a probe
        name = sorter or (SORTER if SORTER in there else next(iter(there), ""))
        if name not in there:
            raise MissingInput(
                f"{probe}: no spikes sorted by {name or 'anything'}; there is {', '.join(there) or 'none'}. To go on "
                "without this probe, take its folder away."
            )
        if len(there) > 1 and name not in (sorter, SORTER):
            raise BadInput(
                f"{probe}: spikes of several sorters ({', '.join(there)}); name one with source_params: "
                "{sorter: NAME}."
            )
        chosen[probe.name] = there[name]
    if not chosen:
        raise MissingInput(f"{place}: no folder of a probe (probe00, …) in it.")
    return chosen


def check_spikes(folder: Path, times: np.ndarray, owner: np.ndarray, n: int) -> None:
    """BadInput for a spike without a time, or of none of the n clusters."""
    file = str(alf.require(folder, UNITS[0]))
    fine = times.dtype.kind == "f" and times.dtype.itemsize > 2
    check_array(file, times, fine or not len(times), "seconds, as float64 or float32")
    check_finite(file, times, "spike")
    refuse(
        np.setdiff1d(owner, np.arange(n)),
        f"{alf.require(folder, UNITS[1])}: cluster %rows, but {UNITS[2]} has {n} clusters, from 0.",
    )


def good_units(folder: Path, table: pd.DataFrame, least: float) -> np.ndarray:
    """Positions of the units (see `about_units`) that passed such a share of quality checks; of all for 0.

    BadInput where nothing is said of quality, and for what is no share.
    """
    if not least:
        return np.arange(len(table))
    if "label" not in table:
        raise BadInput(f"{folder}: no clusters.metrics with a label; leave quality_min out.")
    refuse(
        (table["label"] < 0) | (table["label"] > 1),
        f"{folder}: clusters.metrics: label = %value of unit %rows; expected a share of checks, 0 to 1.",
        value=table["label"],
    )
    return np.flatnonzero(table["label"] >= least)


def about_units(folder: Path, probe: str, channel: np.ndarray) -> pd.DataFrame:
    """What is known of the units of a probe, whose channels these are (N,), with their id as index."""
    n = len(channel)
    ids = pd.Index([f"{probe}/{i}" for i in range(n)], name="unit_id")
    table = pd.DataFrame({"probe": probe, "channel": channel}, index=ids)
    metrics, area, position = (alf.find(folder, name) for name in ABOUT_UNITS)
    if metrics is not None:
        known = read_table(metrics, ("cluster_id",))
        for name in known.columns.intersection(["cluster_id", "label", "firing_rate"]):
            known[name] = numbers(known[name], f"{metrics}: column {name!r}")
        known = known.set_index("cluster_id")
        check_once(f"{metrics}: cluster_id", known.index, "clusters")
        refuse(
            [f"{i:g}" for i in np.setdiff1d(known.index, np.arange(n))],
            f"{metrics}: names cluster %rows, but {UNITS[2]} has {n} clusters, from 0; it is of another sorting.",
        )
        known = known.reindex(range(n))
        for name in known.columns.intersection(["label", "firing_rate"]):
            table[name] = known[name].to_numpy()
    if area is not None:
        ids_of_areas = np.nan_to_num(_of_channels(area, channel, 1)[:, 0]).astype(int)  # 0: void
        table["area"] = [AREAS.get(abs(i), str(abs(i))) for i in ids_of_areas.tolist()]
    if position is not None:
        table[["x", "y", "z"]] = _of_channels(position, channel, 3)
    return table


def _of_channels(file: Path, channel: np.ndarray, n_columns: int) -> np.ndarray:
    """What a file with a row of so many numbers a channel says of the channels of units, (unit, column).

    BadInput for another shape and for a channel without a row.
    """
    values = read_npy(file)
    values = values[:, None] if values.ndim == 1 else values
    good = values.dtype.kind in "iuf" and values.shape == (*values.shape[:1], n_columns)
    expected = (
        f"a row of {n_columns} numbers for each channel; mend it, or take it away, it is not needed"
    )
    check_array(str(file), values, good, expected)
    stray = np.setdiff1d(channel, np.arange(len(values)))
    refuse(stray, f"{file}: of {len(values)} channels, but a unit is on %rows.")
    return values[channel.astype(int)]
