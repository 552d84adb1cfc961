"""Field potentials in NWB files; intervals with labels may lie in another file."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nblib.core.errors import BadInput, some
from nblib.core.findings import check_finite, refuse
from nblib.core.params import SECONDS, Recipe
from nblib.data.files import hdf5
from nblib.data.lfp import SERIES, in_order, times_file
from nblib.data.nwb import electrodes as nwb_electrodes
from nblib.data.nwb import series as nwb_series
from nblib.data.nwb import tables as nwb_tables
from nblib.data.recording import Recording, Series
from nblib.data.trials.time_intervals import says_of_validity, tables_name

USES = ("path", "series", "times", "time_unit")
UNEVEN = 0.5  # steps of the clock may differ so much from the usual one, as a share of it


def beside(path: Path, recipe: Recipe, recording_id: str) -> dict[str, Path]:
    """The file of the intervals, where the recipe names another one."""
    return times_file(recipe, recording_id)


def open_recording(
    path: Path, recipe: Recipe, recording_id: str, settings: Any = None
) -> Recording:
    """Open a recording of field potentials; its signal is `series["lfp"]`, (time, region) [V].

    Raises MissingInput for a file that is not there, BadInput for one that is broken.
    """
    times = beside(path, recipe, recording_id).get("times", path)
    seconds = SECONDS[recipe.time_unit]
    with hdf5.opened(path) as file:
        nwb_tables.check_version(file, path)
        signals, broken = nwb_series.find_series(file, path, seconds)
        place = _electrical(file, broken, recipe, path)
        raw = signals.get(place) or signals.get(place.rsplit("/", 1)[1])
        data = hdf5.child(file, f"{place}/data", path)
        if raw is None:
            held = f"{data.dtype} of shape {data.shape}" if data is not None else "nothing"
            raise BadInput(f"{path}: {place}/data is {held}; expected numbers (time, channel).")
        where = nwb_electrodes.locations(file, path, place, data.shape[1] if data.ndim > 1 else 1)
        subject = hdf5.scalar_text(file, "general/subject/subject_id")
        invalid = nwb_tables.interval_tables(file, path).items()
        named = [tables_name(name) for name in recipe.invalid_times]
        invalid = {n: p for n, p in invalid if n in named or says_of_validity(n)}
        invalid.pop(recipe.intervals, None)
    notes = nwb_series.complaints(broken, path)
    with hdf5.opened(times) as file:
        tables = nwb_tables.LazyTables(times, nwb_tables.interval_tables(file, times), seconds)
    if recipe.intervals:
        tables.require(recipe.intervals)
    if times != path and (both := sorted(set(invalid) & set(tables))):
        notes.append(
            f"{times}: {some(both)} is not used, as {path.name} has a table of that name too."
        )
    tables = ChainMap(nwb_tables.LazyTables(path, invalid, seconds), tables)  # of the signal first
    regions = in_order(where)
    columns = [np.flatnonzero(np.array(where) == region) for region in regions]

    def read(lo: int, hi: int) -> np.ndarray:
        values = np.asarray(raw.read(lo, hi), np.float64).reshape(hi - lo, -1)
        return np.stack([values[:, c].mean(axis=1) for c in columns], axis=1)

    if not subject:
        notes.append("The file names no subject; the recording stands for one of its own.")
    rate, pieces = even_pieces(raw, path)
    series = Series(SERIES, raw.unit, read, raw.n_samples, rate, pieces[0][2], pieces=pieces)
    counts = {region: len(c) for region, c in zip(regions, columns, strict=True)}
    return Recording(
        recording_id, subject or recording_id, path, intervals=tables, trials=recipe.intervals, label=recipe.label,
        series={SERIES: series},
        meta={"time_unit": recipe.time_unit, "channels": list(counts), "electrodes": counts,
              "notes": notes, "trials_file": times, "still": partial(still_channels, replace(raw, rate_hz=rate))},
    )  # fmt: skip


def still_channels(raw: Series) -> list[int]:
    """Channels of a series, counted from 0, that have one value throughout."""
    first, still = None, np.empty(0, bool)
    for piece in raw.blocks(0, raw.n_samples):
        piece = piece.reshape(len(piece), -1)
        first = piece[0] if first is None else first
        still = (piece == first).all(axis=0) & (still if len(still) else True)
        if not still.any():  # mostly after the first piece
            break
    return np.flatnonzero(still).tolist()


def _electrical(file: h5py.File, broken: dict[str, BadInput], recipe: Recipe, path: Path) -> str:
    """Place in the file of the ElectricalSeries to read; BadInput when there is not one, or when
    it is among the `broken`."""
    places = [
        place
        for place, item in hdf5.walk(file, ("acquisition", "processing"), path)
        if isinstance(item, h5py.Group) and hdf5.type_name(item) == "ElectricalSeries"
    ]
    fits = [p for p in [*places, *broken] if recipe.series in (p, p.rsplit("/", 1)[1])]
    wanted = list(dict.fromkeys(fits)) if recipe.series else places
    if len(wanted) == 1 and wanted[0] in broken:
        raise broken[wanted[0]]
    if len(wanted) != 1:
        raise BadInput(
            f"{path}: {len(wanted)} electrical series fit series = {recipe.series!r}; there is "
            f"{some(places, 20) or 'none'}. Set `series` in the recipe."
        )
    return wanted[0]


def even_pieces(raw: Series, path: Path) -> tuple[float, tuple[tuple[int, int, float], ...]]:
    """Rate [Hz], and the stretches without a gap: first sample, one past the last, start [s].

    Raises BadInput, naming the sample, for a start or timestamps that are no times, fall, stand twice
    or crowd: a step that is too long is a gap, one that is too short is no clock.
    """
    where = f"{path}: the clock of {raw.name}"
    if raw.rate_hz is not None:
        if not np.isfinite(raw.start_s):
            raise BadInput(f"{where} starts at {raw.start_s}, which is no time.")
        return raw.rate_hz, ((0, raw.n_samples, raw.start_s),)
    times = raw.timestamps()
    refuse(len(times) < 2, f"{where} has {len(times)} timestamps; at least two tell a rate.")
    check_finite(where, times, "sample")
    step = np.diff(times)
    usual = float(np.median(step))
    for samples, fault, remedy in (
        (step < 0, "falls", "It begins anew there: write the parts as files of their own."),
        (
            step == 0,
            "stands still",
            "Write a rate in place of the timestamps if the sampling was even.",
        ),
        (step < UNEVEN * usual, "is not even: a step is too short", "Windows need an even rate."),
    ):
        refuse(
            samples,
            f"{where} {fault} at sample %row, %value s after the first (%n times in all; the usual step is "
            f"{usual:.6g} s). {remedy}",
            of=np.arange(1, len(times)),
            value=times[:-1] - times[0],
        )
    gaps = np.flatnonzero(step > (1 + UNEVEN) * usual)
    first, stop = np.r_[0, gaps + 1], np.r_[gaps + 1, len(times)]
    lasted = (times[stop - 1] - times[first]).sum()
    if not lasted > 0:
        raise BadInput(f"{where} is not even: no two of its steps are alike.")
    rate = float((stop - first - 1).sum() / lasted)
    return rate, tuple(zip(first.tolist(), stop.tolist(), times[first].tolist(), strict=True))
