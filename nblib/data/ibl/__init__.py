"""Sessions of the International Brain Laboratory, from their ALF files; numpy and pandas read them.

A recipe's `path` is the folder of a session, or its `alf` folder. Probes are laid together; the unit id
is `probe/cluster`. Everything is on one clock, in seconds, as these files are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core.errors import BadInput, MissingInput, NblibError, some
from nblib.core.findings import Span, check_array, check_finite, check_once, check_rising, refuse
from nblib.core.params import Params, Recipe
from nblib.data.checks.clock import LEAST_ISI, TO_SECONDS, check_unit
from nblib.data.files.hashes import file_hash
from nblib.data.files.plain import by_unit, number_columns, read_array, read_npy, read_table
from nblib.data.ibl import alf
from nblib.data.nwb import series as nwb_series
from nblib.data.recording import Recording, Series
from nblib.data.trials.columns import numbers, require

USES = ("path",)
TRIALS = "trials"  # the interval table that is made here
SORTER = "pykilosort"
LATE = 10  # frames that a camera may lack at its start, or have more of than of their times
JITTER_S = 0.1  # spikes that are out of order by less are put in order
UNITS = ("spikes.times", "spikes.clusters", "clusters.channels")
ABOUT_UNITS = ("clusters.metrics", "channels.brainLocationIds_ccf_2017", "channels.mlapdv")
CAMERAS = ("left", "right", "body")
PUPIL = "pupilDiameter_smooth"
# Areas by id of the Allen CCF of 2017 that such sessions name most; any other stays a number.
AREAS = {
    0: "void", 997: "root", 385: "VISp", 312782546: "VISa", 382: "CA1", 463: "CA3", 726: "DG", 10703: "DG-mo",
    10704: "DG-po", 632: "DG-sg", 218: "LP", 1020: "PO", 733: "VPM", 718: "VPL", 672: "CP", 993: "MOs",
}  # fmt: skip
# Columns of trials that may hold certain values alone; NaN where a trial has none.
POSSIBLE = {
    "choice": (lambda values: values.isin([-1, 0, 1]), "one of -1, 0, 1"),
    "probabilityLeft": (lambda values: values.between(0, 1), "0 to 1"),
}


class Settings(Params):
    """What only these sessions have."""

    sorter: str = Field(
        "", description=f"folder of the spike sorter; empty = {SORTER}, or the only one"
    )
    quality_min: float = Field(
        0.0, ge=0, le=1, description="least share of quality checks that a unit passed (label)"
    )


def _alf(path: Path) -> Path:
    return path if path.name == "alf" else path / "alf"


def probes(path: Path, sorter: str = "") -> dict[str, Path]:
    """Folder of the sorted spikes of each probe, by its name.

    Raises MissingInput for no probe or no such sorter, BadInput for several sorters and none named.
    """
    chosen = {}
    for probe in sorted(p for p in _alf(path).glob("[!#.]*") if p.is_dir()):
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
        raise MissingInput(f"{_alf(path)}: no folder of a probe (probe00, …) in it.")
    return chosen


def files(folder: Path) -> list[Path]:
    """Every file of a session that may be read: ALF files of its folder, its probes and their revisions."""
    place = _alf(folder)
    # A probe's folder may be a link; `**` would not go there, and its spikes could change unseen.
    every = (p for depth in range(1, 5) for p in place.glob("/".join(depth * "*")))
    there = sorted(p for p in every if p.is_file() and alf.NAME.fullmatch(p.name))
    if not there:
        raise MissingInput(f"{place}: no ALF file in it; `path` must be the folder of a session.")
    return there


def open_recording(path: Path, recipe: Recipe, recording_id: str, settings: Settings) -> Recording:
    """Open a session: units of all probes, its trials, wheel, cameras, pupil and licks where there are any.

    Raises MissingInput, BadInput with the file, for what is not there or does not fit together.
    """
    place, units, spikes, notes, used = _alf(path), [], [], [], []
    copies: dict[str, Path] = {}  # files of spike times by what they hold
    spans: list[Span] = []  # of each probe's spikes
    for probe, folder in probes(path, settings.sorter).items():
        times, owner, channel = (read_array(alf.require(folder, name)) for name in UNITS)
        _check_spikes(folder, times, owner, len(channel))
        table = _units(folder, probe, len(channel), channel)
        if settings.quality_min and "label" not in table:
            raise BadInput(f"{folder}: no clusters.metrics with a label; leave quality_min out.")
        quality = table["label"] if settings.quality_min else pd.Series(0.0, table.index)
        refuse(
            (quality < 0) | (quality > 1),
            f"{folder}: clusters.metrics: label = %value of unit %rows; expected a share of checks, 0 to 1.",
            value=quality,
        )
        ids = np.flatnonzero(quality >= settings.quality_min)
        by = "" if folder.name in (SORTER, probe) else f", sorted by {folder.name}"
        notes.append(
            f"{probe}: {len(ids)} of {len(table)} units (quality_min = {settings.quality_min:g}){by}."
        )
        if not len(ids):
            continue
        file = alf.require(folder, UNITS[0])
        if len(times):
            other = copies.setdefault(file_hash(file), file)
            twice = f"{file}: the same spikes as {other}; take one of the two folders away."
            refuse(other != file, twice)
        if len(times) > LEAST_ISI:
            spans.append(Span(f"spikes of {probe}", times.min(), times.max()))
            for pair in itertools.permutations((spans[0], spans[-1])):
                check_unit(str(file), *pair, f"{TO_SECONDS.capitalize()}, or take a folder away.")
        # Where times fall by more, 01 says what that is.
        if len(times) == len(owner) and 0 < _falls_s(times) < JITTER_S:
            order = np.argsort(times, kind="stable")
            times, owner = times[order], owner[order]
        times, index = by_unit(times, owner, ids, file)
        units.append(table.iloc[ids])
        spikes += [times[lo:hi] for lo, hi in itertools.pairwise(index)]
        used += [p for name in (*UNITS, *ABOUT_UNITS) if (p := alf.find(folder, name))]
    if not units:
        raise BadInput(f"{place}: no unit is left; {' '.join(notes)}")
    trials = _trials(place, used)
    series, broken = _series(place, used)
    notes += nwb_series.complaints(broken, path)
    revisions = [f"{p.name} of revision {alf.revision(p)}" for p in used if alf.revision(p)]
    notes += [f"Read {some(revisions, 20)}."] if revisions else []
    index = np.concatenate([[0], np.cumsum([len(s) for s in spikes])]).astype(np.int64)
    return Recording(
        id=recording_id,
        subject=_subject(path) or recording_id,
        path=path,
        units=pd.concat(units),
        spikes=np.concatenate(spikes),
        spike_index=index,
        intervals={TRIALS: trials},
        series=series,
        trials=recipe.intervals,
        label=recipe.label,
        meta={"notes": notes, "broken_series": broken},
    )


def _check_spikes(folder: Path, times: np.ndarray, owner: np.ndarray, n: int) -> None:
    """BadInput for a spike without a time, or of none of the n clusters."""
    file = str(alf.require(folder, UNITS[0]))
    fine = times.dtype.kind == "f" and times.dtype.itemsize > 2
    check_array(file, times, fine or not len(times), "seconds, as float64 or float32")
    check_finite(file, times, "spike")
    refuse(
        np.setdiff1d(owner, np.arange(n)),
        f"{alf.require(folder, UNITS[1])}: cluster %rows, but {UNITS[2]} has {n} clusters, from 0.",
    )


def _falls_s(times: np.ndarray) -> float:
    """How far times lie behind an earlier one at most [s]."""
    return float((np.maximum.accumulate(times) - times).max(initial=0.0))


def _subject(path: Path) -> str:
    """The folder after `Subjects`; "" where there is none."""
    parts = path.resolve().parts
    return parts[parts.index("Subjects") + 1] if "Subjects" in parts[:-1] else ""


def _units(folder: Path, probe: str, n: int, channel: np.ndarray) -> pd.DataFrame:
    """What is known of the units of a probe, with their id as index."""
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


def _trials(place: Path, used: list[Path]) -> pd.DataFrame:
    """The table of trials, with start_time and stop_time; its file is added to `used`."""
    file = alf.find(place, "trials.table")
    if file is None:
        why = ""
        if alf.find(place, "trials.intervals"):
            why = "; its trials are one file a column, as before 2022: load them once with ONE, which writes the table"
        elif elsewhere := sorted(place.glob("*/*trials.table.*")):  # of one task of several
            why = f"; {elsewhere[0]} is one: link what lies there into {place}"
        raise MissingInput(f"{place}: no trials.table{why}.")
    used.append(file)
    spans = ("intervals_0", "intervals_1")
    table = read_table(file, spans, as_text=True)
    if table.empty:
        raise BadInput(f"{file}: no row in it, so there is no trial.")
    for column in {*spans, *POSSIBLE} & set(table):
        written = require(table, column, str(file)).astype(str)  # 0.2 stays 0.2 in 32 bits
        table[column] = numbers(written, f"{file}: column {column!r}")
    for column in POSSIBLE.keys() & set(table):
        possible, words = POSSIBLE[column]
        values = table[column]
        refuse(
            values.notna() & ~possible(values),
            f"{file}: {column} = %value in row %rows; expected {words}.",
            value=values,
        )
    return table.rename(columns={"intervals_0": "start_time", "intervals_1": "stop_time"})


def _series(place: Path, used: list[Path]) -> tuple[dict[str, Series], dict[str, NblibError]]:
    """wheel [rad], NAME_motion_energy and NAME_pupil of each camera, licks; files read are added to `used`.
    Beside them whatever else has times, read once it is asked for, by the name of its file:
    `object.attribute`, of a table `object.attribute.column`.

    Also, by name, why one cannot be read, should it be needed.
    """
    signals = [("wheel", "rad", "wheel.timestamps", "wheel.position", "")]
    for camera in CAMERAS:
        times, energy = f"{camera}Camera.times", f"{camera}Camera.ROIMotionEnergy"
        signals.append((f"{camera}_motion_energy", "", times, energy, ""))
        signals.append((f"{camera}_pupil", "px", times, f"{camera}Camera.features", PUPIL))
    signals.append(("licks", "", "licks.times", "licks.times", ""))
    series, broken = {}, {}
    for name, unit, *parts in signals:
        try:
            files, clock, values = _samples(place, *parts)
        except NblibError as error:
            broken[name] = error
            continue
        if files:
            used += dict.fromkeys(files)
            times = partial(_times, files[0], clock)
            series[name] = Series(name, unit, partial(_part, values), len(values), timestamps=times)
    known = {of_values for *_, of_values, column in signals if not column}
    for name in alf.names(place):
        clocks = [f"{name.split('.')[0]}.{attribute}" for attribute in ("times", "timestamps")]
        if name in known.union(clocks):
            continue
        try:
            at = alf.find(place, clocks[0]) or alf.find(place, clocks[1])
            if at is None:
                continue
            file, clock = alf.require(place, name), read_array(at)
            columns = [""] if file.suffix == ".npy" else number_columns(file)
        except NblibError as error:
            broken[name] = error
            continue
        for column in columns:
            values = cache(partial(_values, file, column, at, len(clock)))
            full = f"{name}.{column}" if column else name
            when = partial(_times, at, clock)
            series[full] = Series(full, "", partial(_later, values), len(clock), timestamps=when)
    return series, broken


def _values(file: Path, column: str, at: Path, n: int) -> np.ndarray:
    """Samples (n, channel) of a file whose n times are in the file `at` (see `_beside`); BadInput for what are no
    numbers."""
    data = np.asarray(read_table(file, (column,))[column] if column else read_npy(file))
    good = data.dtype.kind in "iuf" and data.ndim > 0 and data.size > 0
    check_array(str(file), data, good, "a row of numbers for each sample")
    return _beside(file, data.reshape(len(data), -1).astype(float), at, n)


def _beside(file: Path, values: np.ndarray, at: Path, n: int) -> np.ndarray:
    """Samples (n, channel) of a file that belong to the n times of the file `at`; BadInput where they do not.

    A camera may have a few frames less than times: the first were taken and not kept, so they are NaN; or a few
    more, which have no time. Source: `SessionLoader` of https://github.com/int-brain-lab/ibllib.
    """
    more = n - len(values)
    most = LATE if at.name.partition(".")[0].endswith("Camera") else 0
    refuse(abs(more) > most, f"{file}: {len(values)} samples, but {at.name} has {n} times.")
    return np.pad(values[:n], ((max(more, 0), 0), (0, 0)), constant_values=np.nan)


def _samples(
    place: Path, of_times: str, of_values: str, column: str
) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Files of times and of values, both (n,) and (n, 1); no file where one is not there."""
    at, file = alf.find(place, of_times), alf.find(place, of_values)
    refuse(
        at is None and file is not None,
        f"{file}: no file {of_times} beside it, so when its samples were taken is not known.",
    )
    if file is None:
        return [], np.empty(0), np.empty((0, 1))
    clock = read_array(at)
    if column:
        data = numbers(read_table(file, (column,))[column], f"{file}: column {column!r}")
    else:
        data = read_array(file)
    values = _beside(file, np.asarray(data, float)[:, None], at, len(clock))
    return [at, file], clock, values


def _times(file: Path, clock: np.ndarray) -> np.ndarray:
    """Times of samples [s], once they are asked for; BadInput where they do not increase."""
    check_rising(str(file), clock, "sample")
    return clock


def _part(values: np.ndarray, lo: int, hi: int) -> np.ndarray:
    return values[lo:hi]


def _later(values: Callable[[], np.ndarray], lo: int, hi: int) -> np.ndarray:
    return values()[lo:hi]
