"""Sampled signals and events in the bins of trials: means, speeds and rates, or nothing where nothing is known."""

from __future__ import annotations

import numpy as np

from nblib.core.errors import BadParameter
from nblib.core.findings import Span, check_rising
from nblib.core.params import SignalSettings
from nblib.data import stimulus
from nblib.data.checks.clock import LEAST_ISI, check_samples
from nblib.data.recording import Recording, Series


def samples(series: Series, where: str) -> np.ndarray:
    """Time of each sample of a series [s], float64 (n,). BadInput where they do not rise."""
    time_s = series.times()
    check_rising(f"{where}: series {series.name!r}: time", time_s, "sample")
    return time_s


def in_bins(
    time_s: np.ndarray, values: np.ndarray, edges_s: np.ndarray, kind: str, max_gap_s: float
) -> np.ndarray:
    """A signal in half-open bins: float64 (trial, bin), NaN where nothing is known.

    Samples that are not finite count as absent.

    Parameters
    ----------
    time_s, values : (n,) samples, rising in time; of events the times alone count.
    edges_s : (trial, bins + 1).
    kind : "mean" of the samples inside; in a bin without any, the line between its neighbours, at its
        centre. "speed": how far the value went to and fro, a second; between two samples it goes
        evenly, so of a bin it depends on samples up to the first one after it. "events" a second.
    max_gap_s : two samples further apart say nothing of the time between them.
    """
    width = np.diff(edges_s, axis=1)
    if kind == "events":
        return np.diff(np.searchsorted(time_s, edges_s), axis=1) / width
    good = np.isfinite(values)
    time_s, values = time_s[good], values[good].astype(np.float64)
    if len(time_s) < 2:
        return np.full(width.shape, np.nan)
    first = np.searchsorted(time_s, edges_s)  # of the samples at or after each edge
    gaps = np.append(0, np.cumsum(np.diff(time_s) > max_gap_s))  # before each sample
    if kind == "speed":
        path = np.append(0, np.cumsum(np.abs(np.diff(values))))
        made = np.diff(np.interp(edges_s, time_s, path), axis=1) / width
        low = (
            np.searchsorted(time_s, edges_s[:, :-1], side="right") - 1
        )  # the sample before the bin
        high = first[:, 1:]  # and the one after it
        known = (low >= 0) & (high < len(time_s))
        low, high = np.clip(low, 0, None), np.clip(high, None, len(time_s) - 1)
        return np.where(known & (gaps[high] == gaps[low]), made, np.nan)
    sums, n = np.append(0, np.cumsum(values)), np.diff(first, axis=1)
    inside = np.diff(sums[first], axis=1) / np.maximum(n, 1)
    centre = (edges_s[:, 1:] + edges_s[:, :-1]) / 2
    after = np.searchsorted(time_s, centre)
    known = (after > 0) & (after < len(time_s))
    after = np.clip(after, 1, len(time_s) - 1)
    near = known & (time_s[after] - time_s[after - 1] <= max_gap_s)
    between = np.where(near, np.interp(centre, time_s, values), np.nan)
    return np.where(n > 0, inside, between)


def bin_signals(
    recording: Recording, signals: dict[str, SignalSettings], edges_ns: np.ndarray
) -> dict[str, np.ndarray]:
    """Signals that a recipe names, in bins with the edges int64 ns (trial, bins + 1): float32 (trial, bin).

    Raises BadParameter for a series or channel that the recording does not have, and one in which no bin
    is known; BadInput for times that fall, and for those on another clock than the spikes.
    """
    where, made = recording.where, {}
    spikes = None
    if signals and recording.n_spikes >= LEAST_ISI:
        spikes = Span("spikes", *recording.spike_span())
    for name, signal in signals.items():
        if signal.series not in recording.series:
            raise BadParameter(
                f"signals: {name}: {where} has no series {signal.series!r}; "
                f"{stimulus.absent(recording, signal.series)}"
            )
        series = recording.series[signal.series]
        values = np.asarray(series.read(0, series.n_samples))
        values = values.reshape(len(values), -1)
        if signal.channel >= values.shape[1]:
            raise BadParameter(
                f"signals: {name}: channel = {signal.channel}, but series {signal.series!r} of {where} has "
                f"{values.shape[1]}, from 0."
            )
        time_s = samples(series, where)
        if spikes and len(time_s):
            check_samples(f"signals: {name}: series {signal.series!r} of {where}", time_s, spikes)
        binned = in_bins(
            time_s, values[:, signal.channel], edges_ns / 1e9, signal.kind, signal.max_gap_s
        )
        if np.isnan(binned).all():
            raise BadParameter(
                f"signals: {name}: series {signal.series!r} of {where} has no sample near any bin; look at its "
                "clock and at max_gap_s."
            )
        made[name] = binned.astype(np.float32)
    return made
