"""What units do around a presentation: aligned spikes, tuning, the clearest example.

These are for looking, not for decoding: nothing here feeds a later stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.errors import BadParameter
from nblib.data.recording import Recording
from nblib.data.trials import labelling

if TYPE_CHECKING:
    import xarray as xr

SHOWN_S = 8.0  # what is shown of a recording without trials


def labels_of(recording: Recording) -> np.ndarray:
    """Label of every presentation (trial,), as decoders see it."""
    return labelling.as_array(recording.trial_table["label"])


def shown_s(trials: pd.DataFrame) -> float:
    """How long a presentation lasts: the median of stop_time - start_time, seconds."""
    return float((trials["stop_time"] - trials["start_time"]).median())


def drawn_trials(recording: Recording) -> pd.DataFrame:
    """Presentations in time order, to look at: those with a start, which is all that an event needs.

    One without a proper stop is drawn as long as the others, or, where none has one, to the next start.
    Of a film, frames in a row that have the same label are one, so that it begins where the label does.
    """
    trials = recording.trial_table
    trials = trials[np.isfinite(trials["start_time"])].sort_values("start_time")
    start, timed = trials["start_time"], recording.timed_trials
    usual = shown_s(timed) if len(timed) else float(start.diff().median())
    stop = trials["stop_time"].where(trials.index.isin(timed.index), start + usual)
    if recording.is_film:
        begins = (trials["label"] != trials["label"].shift()) | (trials["frame"].diff() != 1)
        ends = begins.shift(-1, fill_value=True)
        return trials[begins].assign(stop_time=stop[ends].to_numpy())
    return trials.assign(stop_time=stop)


def spikes_between(
    recording: Recording, start_s: float, stop_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """All spikes in [start_s, stop_s): times in seconds and positions of their units."""
    inside = []
    for times in recording.trains():
        first, stop = np.searchsorted(times, (start_s, stop_s))
        inside.append(np.array(times[first:stop]))
    units = np.repeat(np.arange(len(inside)), [len(times) for times in inside])
    return np.concatenate(inside), units


def example_window(recording: Recording, n_trials: int = 16) -> tuple[float, float]:
    """A stretch of time worth looking at: `n_trials` presentations in mid-session, seconds.

    It begins one presentation before them and ends one after. Without trials: SHOWN_S seconds
    around the middle spike of the busiest unit.
    """
    if not recording.trials:
        times = recording.spike_times(int(np.diff(recording.spike_index).argmax()))
        middle = float(times[len(times) // 2])
        return middle - SHOWN_S / 2, middle + SHOWN_S / 2
    trials = drawn_trials(recording)
    first = max(0, (len(trials) - n_trials) // 2)
    part = trials.iloc[first : first + n_trials]
    length = shown_s(trials)
    start, stop = float(part["start_time"].iloc[0]), float(part["stop_time"].iloc[-1])
    stop = min(
        stop, start + 2 * n_trials * length
    )  # a pause between blocks is not worth looking at
    return start - length, stop + length


def align(
    spike_s: np.ndarray, onset_s: np.ndarray, window: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of one unit around each onset.

    spike_s: rising seconds; onset_s (trial,): seconds; window: start and stop from the onset.
    Returns, one entry per spike, the position of the trial and the time from its onset.
    """
    onset_s = np.asarray(onset_s, float)
    lo = np.searchsorted(spike_s, onset_s + window[0])
    hi = np.searchsorted(spike_s, onset_s + window[1])
    trial = np.repeat(np.arange(len(onset_s)), hi - lo)
    place = np.arange(len(trial)) - np.repeat(np.cumsum(hi - lo) - (hi - lo), hi - lo) + lo[trial]
    return trial, np.asarray(spike_s)[place] - onset_s[trial]


def tuning_curves(binned: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean rate of every unit for every label: (unit, label) in Hz, and the labels (label,).

    Rates are spikes over exposure, so presentations of unequal length count for what they are.
    """
    labels, code = np.unique(binned["label"].to_numpy(), return_inverse=True)
    spikes = binned["counts"].to_numpy().sum(axis=1, dtype=np.float64)  # (trial, unit)
    exposure = binned["exposure_s"].to_numpy().sum(axis=1)  # (trial,)
    shown = (code[:, None] == np.arange(len(labels))).astype(float)  # (trial, label)
    return (spikes.T @ shown) / (exposure @ shown), labels


def clearest_example(recording: Recording, most: int = 200) -> tuple[int, object]:
    """The unit and label with the clearest response: position of the unit, and the label.

    Clear: the mean count for the label, over the overall mean, in standard errors of a Poisson
    count. Only `most` units, the most active ones, are looked at.
    """
    trials = drawn_trials(recording)
    active = np.argsort(-np.diff(recording.spike_index), kind="stable")[:most]
    labels, code = np.unique(labelling.as_array(trials["label"]), return_inverse=True)
    n = np.bincount(code)
    best = (-np.inf, 0, labels[0])
    for unit in active:
        times = recording.spike_times(int(unit))
        before = [np.searchsorted(times, trials[edge]) for edge in ("start_time", "stop_time")]
        counts = before[1] - before[0]
        mean = counts.mean()
        if mean == 0:
            continue
        z = (np.bincount(code, counts) / n - mean) / np.sqrt(mean / n)
        if z.max() > best[0]:
            best = (float(z.max()), int(unit), labels[z.argmax()])
    return best[1], best[2]


def onsets(recording: Recording, label) -> np.ndarray:
    """Onsets of the presentations of one label, seconds, rising; BadParameter when there is none."""
    trials = drawn_trials(recording)
    chosen = trials.loc[labelling.as_array(trials["label"]) == label, "start_time"]
    if chosen.empty:
        raise BadParameter(f"label {label!r} was never shown in recording {recording.id!r}.")
    return np.sort(chosen.to_numpy(float))
