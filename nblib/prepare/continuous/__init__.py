"""Recordings without trials: all of their time in bins, the stimulus beside, roles by blocks of time.

Time is laid in rows of about a second, `ROW_S`, from zero of the clock: row r holds the n bins from
r * n on, and bin i begins at i * bin_s, to the nearest nanosecond. A row is the trial of the other
stages: it is kept or left out as a whole, and has one role in a fold. `nblib.prepare.continuous.stream` joins them
again.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import xarray as xr

from nblib.core.errors import BadInput, BadParameter, some
from nblib.core.params import BinSettings, SplitSettings
from nblib.data import stimulus
from nblib.data.counts_dataset import edges_of
from nblib.data.recording import Recording
from nblib.data.trials.time_intervals import covers
from nblib.prepare.continuous import film

ROW_S = 1.0
STA_S, STA_STEP_S = 0.5, 0.008  # how far back a spike-triggered average looks, in which steps
MOST_BINS = 100_000  # of a row; spikes are sampled less often, and more would fill the memory
STEP = 8  # bins of a row are a multiple of this where it has as many


def row_bins(bin_s: float) -> int:
    """Bins of a row, as near to a second as a multiple of 8 allows; one at least."""
    n = max(1, round(ROW_S / bin_s))
    return n if n < STEP else STEP * round(n / STEP)


def rows_of_time(
    recording: Recording, settings: BinSettings
) -> tuple[pd.DataFrame, np.ndarray, dict[str, str]]:
    """Rows in which the stimulus is known throughout, from the first spike to the last.

    Returns a table with a label "" for each row, its number the index, edges int64 ns (row, bins + 1),
    and what counts keep of rows left out between the first and the last. Raises BadInput for a recording
    without spikes, for a stimulus that is shorter than the spikes by more than a row, has a gap or is
    NaN, unless `gaps` is cut; BadParameter for bins that are too narrow; what `stimulus.read` raises.
    """
    times, values = stimulus.read(recording)
    known = stimulus.known(times, values)
    first, last = recording.spike_span()
    n = row_bins(settings.bin_s)
    if n > MOST_BINS:
        raise BadParameter(
            f"bin_s = {settings.bin_s:g}: that makes {n:,} bins a second, more than {MOST_BINS:,}; take wider bins."
        )
    length = n * settings.bin_s
    if settings.gaps == "refuse":
        _refuse_unknown(recording, values, known, (first, last), length)
    wanted = np.arange(math.floor(first / length), math.floor(last / length) + 1)
    ends = np.rint(np.stack([wanted, wanted + 1], axis=1) * length * 1e9) / 1e9
    rows = wanted[covers(ends[:, 0], ends[:, 1], known, 0.0)]
    if not len(rows):
        raise BadInput(
            f"{stimulus.place(recording)} is known for no whole row of {length:.4g} s while there are spikes "
            f"({first:.6g} to {last:.6g} s)."
        )
    bins = rows[:, None] * n + np.arange(n + 1)
    edges = np.rint(bins * settings.bin_s * 1e9).astype(np.int64)
    missing = int(rows[-1] - rows[0] + 1 - len(rows))
    left_out = {"stimulus not known": missing} if missing else {}
    attrs = {"classes": json.dumps([""]), "left_out": json.dumps(left_out)}
    return pd.DataFrame({"label": ""}, index=rows), edges, attrs


def _refuse_unknown(
    recording: Recording, values: np.ndarray, known: np.ndarray, spikes: tuple, slack_s: float
) -> None:
    """BadInput for a stimulus that is NaN, has gaps, or begins after the first of the `spikes` (first and
    last [s]) or ends before the last by more than `slack_s`."""
    where, advice = stimulus.place(recording), "gaps: cut leaves such time out."
    if len(rows := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        raise BadInput(f"{where}: data is NaN or infinite in row {some(rows)}. {advice}")
    start, stop = known[0, 0], known[-1, 1]
    if start - spikes[0] > slack_s or spikes[1] - stop > slack_s:
        raise BadInput(
            f"{where} is shorter than the spikes: timestamps go from {start:.6g} to {stop:.6g} s, "
            f"units/spike_times from {spikes[0]:.6g} to {spikes[1]:.6g} s. {advice}"
        )
    if len(known) > 1:
        raise BadInput(
            f"{where}: timestamps has {len(known) - 1} gap(s), the first from {known[0, 1]:.6g} to "
            f"{known[1, 0]:.6g} s. {advice}"
        )


def with_stimulus(binned: xr.Dataset, recording: Recording, settings: BinSettings) -> xr.Dataset:
    """Counts of rows with the stimulus of each bin: `stimulus (trial, time, channel)`, float32.

    Held: the value in force at the bin's start. Mean: over the bin before, the one that ends there; of
    the first bin after a seam it is the value in force. Neither knows anything later than the start.
    """
    times, values = stimulus.read(recording)
    edges = edges_of(binned) / 1e9
    shown = stimulus.held(times, values, edges[:, :-1])  # (trial, time, channel)
    if settings.stimulus_value == "mean":
        before = np.column_stack([2 * edges[:, 0] - edges[:, 1], edges[:, :-1]])
        after_seam = np.diff(binned.trial.values, prepend=-2) > 1
        first = shown[after_seam, 0]
        shown = np.stack([stimulus.mean_of(times, values, row) for row in before])
        shown[after_seam, 0] = first
    return binned.assign(stimulus=(("trial", "time", "channel"), shown))


def row_word(binned: xr.Dataset) -> str:
    """What a trial of these counts is called."""
    if film.is_film(binned):
        return "bins of film"
    return "rows of time" if is_continuous(binned) else "presentations"


def is_continuous(binned: xr.Dataset) -> bool:
    """Whether these counts are of a recording without trials."""
    return "stimulus" in binned


def spike_triggered(binned: xr.Dataset) -> xr.DataArray:
    """Mean stimulus before a spike (unit, channel, lag_s), in standard errors from the mean stimulus.

    In steps of about 8 ms, where a row is a whole number of them; the first is the step before the spike's.
    Only spikes of rows that follow another count. What is 0 throughout was answered by nothing.
    """
    trial, n = binned.trial.values, binned.sizes["time"]
    width_s = float(binned.stop_s[0] - binned.start_s[0]) / n
    step = next(k for k in range(max(1, round(STA_STEP_S / width_s)), 0, -1) if n % k == 0)
    counts = binned.counts.values.reshape(len(trial), n // step, step, -1).sum(2, dtype=np.float32)
    counts[np.diff(trial, prepend=trial[0]) != 1] = 0
    shown = binned.stimulus.values.reshape(len(trial), n // step, step, -1).mean(2)
    counts, shown = (x.reshape(-1, x.shape[2]) for x in (counts, shown))
    spread = shown.std(axis=0)
    shown = (shown - shown.mean(axis=0)) / np.where(spread > 0, spread, 1)
    lags = np.arange(1, max(1, min(round(STA_S / (step * width_s)), n // step)) + 1)
    sums = np.stack([counts[lag:].T @ shown[:-lag] for lag in lags], axis=-1)
    total = counts.sum(axis=0)[:, None, None]
    return xr.DataArray(
        sums / np.sqrt(np.maximum(total, 1)),
        dims=("unit", "channel", "lag_s"),
        coords={"unit": binned.unit.values, "lag_s": lags * step * width_s},
    )


def gap_s(settings: SplitSettings) -> float:
    """Time between two roles: the gap and what a model may see, context and horizon."""
    return settings.gap_s + sum(settings.context_s)


def cycle(length_s: float, settings: SplitSettings) -> np.ndarray:
    """Roles of the rows of one cycle: train, gap, validation, gap, test, gap.

    Every part is a whole number of rows of `length_s`, a gap no shorter than `gap_s`.
    """
    gap = math.ceil(gap_s(settings) / length_s - 1e-9)
    train, val, test = (max(1, round(s / length_s)) for s in settings.cycle_s)
    names = ["train", "gap", "val", "gap", "test", "gap"]
    return np.repeat(names, [train, gap, val, gap, test, gap])


def cycle_roles(row: np.ndarray, length_s: float, settings: SplitSettings) -> np.ndarray:
    """Role of each row (n,), by its number: that in the cycle, again and again."""
    roles = cycle(length_s, settings)
    return roles[(row - row[0]) % len(roles)]


def check_split(binned: xr.Dataset, settings: SplitSettings, who: str) -> None:
    """BadParameter for a split that time without trials, or a recording with trials, cannot have."""
    if not is_continuous(binned):
        if settings.split == "cycles":
            raise BadParameter(
                f"{who}: split = 'cycles' deals time itself; its binning is not 'continuous'."
            )
        return
    if settings.split not in ("cycles", "blocked"):
        raise BadParameter(
            f"{who}: split = {settings.split!r} on a recording without trials: neighbouring bins share their "
            "stimulus and history. Take split: cycles, or blocked."
        )
    if settings.split == "cycles" and settings.n_folds > 1:
        raise BadParameter(
            f"{who}: n_folds = {settings.n_folds}: split: cycles has one; blocked has several."
        )
