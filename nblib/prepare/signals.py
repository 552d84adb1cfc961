"""Signals that a recipe names (pupil, wheel, a band's power) in the bins of trials; a further one needs no code."""

from __future__ import annotations

import numpy as np
from scipy import signal as filters

from nblib.core.errors import BadInput, BadParameter
from nblib.core.findings import Span, check_rising
from nblib.core.params import SignalSettings
from nblib.data import stimulus
from nblib.data.checks.clock import LEAST_ISI, check_samples
from nblib.data.recording import Recording, Series

ORDER = 3  # of the Butterworth filter of a band
SETTLED = 2.0  # times the inverse of its width, after which a band's filter follows
UNEVEN = 0.01  # share of samples that may lie between those of an even clock; of a step, how far off all may be
AT_ONCE = 1 << 17  # samples that are read of all channels


def samples(series: Series, where: str) -> np.ndarray:
    """Time of each sample of a series [s], float64 (n,). BadInput where they do not rise."""
    time_s = series.times()
    check_rising(f"{where}: series {series.name!r}: time", time_s, "sample")
    return time_s


def power(
    time_s: np.ndarray, values: np.ndarray, band_hz: list[float], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Times of the samples that are finite, and their squares once they are filtered to a band, forwards: no
    later sample matters. NaN until the filter has settled, at the first sample and after a gap in the clock; of
    a gap shorter than a quarter of the band's shortest period the line over it is filtered.

    Raises BadInput for a clock that is not even, BadParameter for a band that it is too slow or too short for.
    """
    good = np.isfinite(values)
    time_s, values = time_s[good], values[good].astype(np.float64)
    if len(values) < 2:
        raise BadInput(
            f"{where} has {len(values)} samples that are numbers, so no power in a band."
        )
    steps = np.diff(time_s)
    rate = 1 / np.median(steps) if np.median(steps) > 0 else 0.0
    ahead = np.maximum(np.rint(steps * rate), 1).astype(int)  # places from a sample to the next
    off = steps * rate - ahead
    if not rate or max((np.abs(off) > 0.25).mean(), abs(off.mean())) > UNEVEN:
        raise BadInput(f"{where} is not sampled evenly, so there is no power in a band of it.")
    low_hz, high_hz = band_hz
    if high_hz >= rate / 2:
        raise BadParameter(
            f"{where} has {rate:g} samples a second: band_hz must end below {rate / 2:g}, not at {high_hz:g}."
        )
    sos, made = filters.butter(ORDER, band_hz, "band", fs=rate, output="sos"), []
    anew = np.flatnonzero(ahead - 1 > rate / high_hz / 4) + 1
    for part in np.split(np.arange(len(values)), anew):
        place = np.append(0, np.cumsum(ahead[part[:-1]]))
        even = np.interp(np.arange(place[-1] + 1), place, values[part])
        begun = filters.sosfilt_zi(sos) * even[0]  # as if the first sample had always been there
        squares = filters.sosfilt(sos, even, zi=begun)[0][place] ** 2
        made.append(np.where(place < SETTLED * rate / (high_hz - low_hz), np.nan, squares))
    if np.isnan(whole := np.concatenate(made)).all():
        raise BadParameter(
            f"{where} is recorded for {SETTLED / (high_hz - low_hz):g} s nowhere without a gap, and so long a "
            "filter of band_hz takes to settle; take a wider band."
        )
    return time_s, whole


def in_bins(
    time_s: np.ndarray,
    values: np.ndarray,
    edges_s: np.ndarray,
    kind: str,
    max_gap_s: float,
    causal: bool = False,
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
    causal : between two samples the first one stays, so that no bin depends on a sample behind it.
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
        if causal:
            last = first - 1
            at = np.clip(last, 0, None)
            known = (last[:, :-1] >= 0) & (edges_s[:, 1:] - time_s[at[:, 1:]] <= max_gap_s)
            known &= gaps[at[:, 1:]] == gaps[at[:, :-1]]
            return np.where(known, np.diff(path[at], axis=1) / width, np.nan)
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
    before = np.clip(after - 1, 0, None)
    if causal:
        near = (after > 0) & (centre - time_s[before] <= max_gap_s)
        line = values[before]
    else:
        behind = np.minimum(after, len(time_s) - 1)
        near = (after > 0) & (after < len(time_s))
        near &= time_s[behind] - time_s[before] <= max_gap_s
        line = np.interp(centre, time_s, values)
    between = np.where(near, line, np.nan)
    return np.where(n > 0, inside, between)


def bin_signals(
    recording: Recording,
    signals: dict[str, SignalSettings],
    edges_ns: np.ndarray,
    causal: bool = False,
) -> dict[str, np.ndarray]:
    """Signals that a recipe names, in bins with the edges int64 ns (trial, bins + 1): float32 (trial, bin);
    causal: none depends on what comes behind its bin (see `in_bins`).

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
                f"{stimulus.absent(recording, signal.series)} Else leave {name} out of `signals`, or "
                f"{recording.id} out of `recordings`."
            )
        series = recording.series[signal.series]
        n_channels = np.asarray(series.read(0, 1)).size
        if signal.channel >= n_channels > 0:
            raise BadParameter(
                f"signals: {name}: channel = {signal.channel}, but series {signal.series!r} of {where} has "
                f"{n_channels}, from 0."
            )
        values = [np.zeros(0)]
        for lo in range(0, series.n_samples, AT_ONCE):  # the whole of many channels is too large
            part = np.asarray(series.read(lo, min(lo + AT_ONCE, series.n_samples)))
            values.append(part.reshape(len(part), -1)[:, signal.channel])
        values = np.concatenate(values)
        time_s = samples(series, where)
        what = f"signals: {name}: series {signal.series!r} of {where}"
        if spikes and len(time_s):
            check_samples(what, time_s, spikes)
        kind = signal.kind
        if kind != "events" and len(values) > 1 and np.array_equal(values, time_s):
            raise BadParameter(
                f"{what} holds times of events and no values: kind must be 'events', not {kind!r}."
            )
        if kind == "power":
            time_s, values = power(time_s, values, signal.band_hz, what)
            kind = "mean"
        binned = in_bins(time_s, values, edges_ns / 1e9, kind, signal.max_gap_s, causal)
        if np.isnan(binned).all():
            raise BadParameter(
                f"{what} has no sample near any bin; look at its clock and at max_gap_s."
            )
        made[name] = binned.astype(np.float32)
    return made
