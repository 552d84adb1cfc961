"""The stimulus of a recording without trials: a series whose value holds until the next sample.

A value is known from its timestamp to the next one; not across a gap, nor where it is NaN.
"""

from __future__ import annotations

import numpy as np

from nblib.core.errors import BadInput, BadParameter, some, there_is
from nblib.core.findings import check_rising, refuse
from nblib.data.recording import Recording, Series
from nblib.data.trials.time_intervals import merged

GAP = 5.0  # samples further apart than so many usual steps have a gap between them


def name_of(recording: Recording, name: str) -> str:
    """Name of the series that is the stimulus: `name`, or where it is "" the only one; "" where there are
    none or several. BadParameter for one that is not there, with why it was left out or the nearest names."""
    names = list(recording.series)
    if not name:
        return names[0] if len(names) == 1 else ""
    if name not in names:
        where = recording.where
        raise BadParameter(f"{where}: no series {name!r}; {absent(recording, name)}")
    return name


def absent(recording: Recording, name: str) -> str:
    """Why a series was left out; of one that is not in the file the nearest names, or all."""
    for place, error in recording.meta.get("broken_series", {}).items():
        if f"/{name}/" in f"/{place}/":
            return f"left out: {str(error).removeprefix(f'{recording.path}: ')}"
    near = [place for place in recording.series if place.endswith(f"/{name}")]
    return f"did you mean {' or '.join(near)}?" if near else there_is(recording.series, name, 20)


def of(recording: Recording) -> Series:
    """The stimulus; BadParameter where the recipe has to name it, BadInput where there is none."""
    if recording.stimulus:
        return recording.series[recording.stimulus]
    where = recording.where
    if not recording.series:
        broken = recording.meta.get("broken_series", {}).values()
        why = " ".join(str(error).removeprefix(f"{where}: ") for error in broken)
        raise BadInput(
            f"{where}: no series that can be read, and binning: continuous needs a stimulus, a series with "
            f"timestamps or a rate. {why and f'Left out: {why}'}".rstrip()
        )
    raise BadParameter(
        f"{where}: several series; name the stimulus with `series`: {some(recording.series, 20)}."
    )


def place(recording: Recording) -> str:
    """Where the stimulus stands, for messages."""
    return f"{recording.where}: series {recording.stimulus!r}"


def read(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) [s], to the nanosecond as edges are, and values (n, channel), float32, of the stimulus.

    Raises BadInput, with file, field and rows, for timestamps that are NaN or fall, or most of which are
    those of the sample before, for fewer than two samples, and for samples of nothing; what `of` raises.
    """
    series, where = of(recording), place(recording)
    times = series.times()
    refuse(len(times) < 2, f"{where} has {len(times)} samples; a stimulus needs two at least.")
    check_rising(f"{where}: timestamps", times)
    again = np.flatnonzero(np.diff(times) == 0) + 1
    refuse(
        2 * len(again) >= len(times) - 1,
        f"{where}: timestamps: {len(again):,} of {len(times):,} are that of the sample before (row {some(again)}), so "
        "when most values are shown is not known; write times that are not rounded so far, or the series with a rate.",
    )
    values = np.asarray(series.read(0, series.n_samples), np.float32)
    refuse(not values.size, f"{where}: data of shape {values.shape} holds no channel.")
    return np.rint(times * 1e9) / 1e9, values.reshape(len(times), -1)


def known(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """When the value is known: disjoint rising intervals (k, 2) [s].

    The last sample holds for the usual step, the median; a gap is longer than `GAP` of these.
    """
    usual = float(np.median(np.diff(times)))
    stop = np.append(times[1:], times[-1] + usual)
    good = np.isfinite(values).all(axis=1) & (stop - times <= GAP * usual)
    return merged(np.column_stack([times, stop])[good])


def held(times: np.ndarray, values: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """The value in force at each of some times, the latest of no later timestamp: (at, channel)."""
    return values[np.maximum(np.searchsorted(times, at_s, side="right") - 1, 0)]


def mean_of(times: np.ndarray, values: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """Mean of the held value from each edge to the next: (edges - 1, channel), float32.

    Before the first sample its value is taken.
    """
    inside = times[slice(*np.searchsorted(times, edges_s[[0, -1]], side="right"))]
    cuts = np.union1d(edges_s, inside)
    area = held(times, values, cuts[:-1]) * np.diff(cuts)[:, None]
    total = np.add.reduceat(area, np.searchsorted(cuts, edges_s[:-1]), axis=0)
    return (total / np.diff(edges_s)[:, None]).astype(np.float32)
