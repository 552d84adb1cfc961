"""Field potentials become windows: filtered, resampled, cut, scaled, with the state of each.

Shapes: W windows, T samples, C channels.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, BadParameter
from nblib.data.recording import Recording, Series
from nblib.data.trials import labelling, usable
from nblib.data.trials.time_intervals import merged
from nblib.prepare.potentials.stored_windows import Windows

if TYPE_CHECKING:
    from nblib.core.params import BinSettings

ORDER = 8  # of the Butterworth low-pass
PASS = 0.45  # the low-pass must lie below this share of the new rate
PASS_CAUSAL = 0.3  # filtered once and not resampled by a filter of its own
RATE_SLACK = 1e-4  # a measured clock is not exact
ROUNDED = 1e-3  # of a sample: an interval that ends there ends on it
MOST_NAN = 0.5  # a recording with more of its windows touched by NaN is refused


def cut(session: Recording, settings: BinSettings) -> Windows:
    """Filter, resample and cut a recording into windows.

    Windows lie every `hop_s` seconds from the first sample on; where the clock has gaps and `gaps`
    is "cut", each stretch between them is filtered and cut by itself, from its own first sample;
    so is each between invalid times, which no window touches.
    Stretches of NaN are bridged for the filter, and windows that touch one, or its neighbourhood of
    a filter length, are left out.

    Raises
    ------
    BadParameter : for a low-pass above what the new rate carries, and steps below a sample.
    BadInput : for a clock with gaps, and a recording that is shorter than a window or mostly NaN.
    """
    series = session.lfp
    chosen = usable.to_count(
        session.labelled, session.rules, settings, session.trial_place, usable.SPAN
    )
    rate = float(settings.resample_hz or series.rate_hz)
    filtering = _check_filter(settings, series.rate_hz, rate)
    size = round(settings.window_s * rate)
    invalid = merged(session.invalid_times)
    pieces = outside(series.even, invalid, series.rate_hz)
    stretches = [p for p in pieces if (p[1] - p[0]) * rate / series.rate_hz >= size]
    if len(series.even) > 1:
        first, _, start = series.even[1]
        if settings.gaps == "refuse":
            raise BadInput(
                f"{session.path}: the clock of the signal has {len(series.even) - 1} gaps, the first before "
                f"sample {first}, {start - series.start_s:.6g} s after the first; windows need an even rate. "
                "Set gaps: cut in the recipe to cut there and go on."
            )
        filtering += f", cut at {len(series.even) - 1} gaps"
    if len(invalid):
        filtering += f", cut at {len(invalid)} invalid intervals"
    if len(pieces) > 1:
        filtering += f" ({len(pieces) - len(stretches)} stretches shorter than a window left out)"
    parts = [_piece(series, *stretch, settings, rate) for stretch in stretches]
    n_windows = sum(len(keep) for _, _, keep, _ in parts)
    if n_windows < 1:
        longest = max([0, *(hi - lo for lo, hi, _ in pieces)]) / series.rate_hz
        raise BadInput(
            f"{session.path}: {longest:.3g} s of signal{' without a gap' * (len(pieces) > 1)}, less than one "
            f"window of {settings.window_s:g} s."
        )
    dropped = n_windows - sum(keep.sum() for _, _, keep, _ in parts)
    if dropped > MOST_NAN * n_windows:
        first = min(bad for _, _, _, bad in parts if bad is not None)
        raise BadInput(
            f"{session.path}: {dropped} of {n_windows} windows touch NaN (the first stretch "
            f"begins {first - series.start_s:.3f} s after the first sample); too little is left."
        )
    cuts, start = (
        parts[0][i] if len(parts) == 1 else np.concatenate([p[i] for p in parts]) for i in (0, 1)
    )
    label, purity = label_windows(chosen.table, start, settings.window_s, session.trial_place)
    return Windows(
        cuts, start, label, purity, session.id, session.subject, rate,
        settings.window_s, settings.hop_s, list(session.meta["channels"]), int(dropped), filtering,
        **chosen.attrs(),
    )  # fmt: skip


def outside(
    pieces: tuple[tuple[int, int, float], ...], invalid: np.ndarray, rate_hz: float
) -> list[tuple[int, int, float]]:
    """Stretches of a clock (first sample, one past the last, start [s]) without the samples in invalid
    intervals (n, 2) [s], which are half-open."""
    left = list(pieces)
    for interval in invalid:
        before, left = left, []
        for lo, hi, start_s in before:
            at = lo + np.ceil((interval - start_s) * rate_hz - ROUNDED)
            first, last = (int(x) for x in np.clip(at, lo, hi))
            left += [(lo, first, start_s), (last, hi, start_s + (last - lo) / rate_hz)]
    return [piece for piece in left if piece[1] > piece[0]]


def _piece(
    series: Series, lo: int, hi: int, start_s: float, settings: BinSettings, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float | None]:
    """Windows (W, T, C) of a stretch of even clock, their starts (W,) [s]; of all windows that fit in
    it, which were kept; and where its first NaN lies [s], None without."""
    size, hop = round(settings.window_s * rate), settings.hop_s * rate
    if settings.hop_s >= settings.window_s:
        hop = max(hop, size)  # at an odd rate, rounding would let neighbours share a sample
    raw = np.concatenate(list(series.blocks(lo, hi)))  # (n, C)
    bad = ~np.isfinite(raw).all(axis=1)
    x = np.stack(
        [_prepared(raw[:, c], settings, series.rate_hz, rate) for c in range(raw.shape[1])], axis=1
    )
    del raw
    n_windows = int((len(x) - size) // hop) + 1 if len(x) >= size else 0
    first = np.floor(np.arange(n_windows) * hop + 0.5).astype(np.int64)  # evenly, halves too
    # Samples come at a share of the recording's own rate, which may miss `rate` by a little: over hours, seconds.
    at_s = first / (series.rate_hz * float(_share(settings, series.rate_hz, rate)))
    keep = ~_touched(bad, at_s, settings, series.rate_hz)
    first = first[keep]
    cuts = np.empty((len(first), size, x.shape[1]), np.float32)
    for w, at in enumerate(first):
        part = x[at : at + size] - x[at : at + size].mean(axis=0)  # (T, C)
        sd = part.std(axis=0)
        cuts[w] = np.divide(part, sd, out=np.zeros_like(part), where=sd > 1e-12)
    where = start_s + int(bad.argmax()) / series.rate_hz if bad.any() else None
    return cuts, start_s + at_s[keep], keep, where


def _check_filter(settings: BinSettings, old: float, new: float) -> str:
    if settings.hop_s > settings.window_s:
        raise BadParameter(f"hop_s = {settings.hop_s}: longer than window_s = {settings.window_s}.")
    if new > old:
        raise BadParameter(f"resample_hz = {new:g}: above the recording's own {old:.10g} Hz.")
    cutoff = settings.lowpass_hz
    most = (PASS_CAUSAL if settings.causal else PASS) * new
    if new < old and not 0 < cutoff <= most:
        raise BadParameter(
            f"lowpass_hz = {cutoff:g} with resample_hz = {new:g}: too much would fold back; choose a "
            f"lowpass_hz of at most {most:g}."
        )
    if cutoff >= old / 2:
        raise BadParameter(
            f"lowpass_hz = {cutoff:g}: above half the rate of {old:g} Hz. If the file's times are "
            "milliseconds, set time_unit: ms."
        )
    if settings.causal and abs(old / new - round(old / new)) > RATE_SLACK:
        raise BadParameter(
            f"causal = true needs resample_hz to divide the rate of {old:.10g} Hz; {new:.10g} does not."
        )
    if settings.hop_s * new < 1 - ROUNDED:  # the same window would come many times
        raise BadParameter(
            f"hop_s = {settings.hop_s} is less than a sample, {1 / new:.3g} s; take one sample or more."
        )
    side = "causal" if settings.causal else "zero-phase"
    words = f"{side} Butterworth low-pass {cutoff:g} Hz, order {ORDER}" if cutoff else "no filter"
    return words + (f", {old:g} to {new:g} Hz" if new != old else "")


def _prepared(x: np.ndarray, settings: BinSettings, old: float, new: float) -> np.ndarray:
    """One channel, filtered and resampled; NaN bridged by straight lines."""
    from scipy import signal

    bad = ~np.isfinite(x)
    if bad.all():
        return np.zeros(int(np.ceil(len(x) * new / old)))
    if bad.any():
        at = np.arange(len(x))
        x = np.where(bad, np.interp(at, at[~bad], x[~bad]), x)
    if settings.lowpass_hz:
        sos = signal.butter(ORDER, settings.lowpass_hz, "low", fs=old, output="sos")
        if settings.causal:  # begun as if the first sample had always been there
            x, _ = signal.sosfilt(sos, x, zi=signal.sosfilt_zi(sos) * x[0])
        else:
            x = signal.sosfiltfilt(sos, x)
    if new == old:
        return x
    if settings.causal:  # the low-pass has gone before, so every k-th sample may be taken
        return x[:: round(old / new)]
    ratio = _share(settings, old, new)
    return signal.resample_poly(x, ratio.numerator, ratio.denominator)


def _share(settings: BinSettings, old: float, new: float) -> Fraction:
    """How many samples are made of each."""
    if settings.causal:
        return Fraction(1, round(old / new))
    return Fraction(new / old).limit_denominator(1000)


def _touched(bad: np.ndarray, start: np.ndarray, settings: BinSettings, rate: float) -> np.ndarray:
    """(W,) True for windows within a filter length of a NaN."""
    if not bad.any():
        return np.zeros(len(start), bool)
    margin = 2.0 / settings.lowpass_hz if settings.lowpass_hz else 0.0
    before = np.r_[0, np.cumsum(bad)]
    lo = np.clip(np.round((start - margin) * rate).astype(int), 0, len(bad))
    hi = np.clip(np.round((start + settings.window_s + margin) * rate).astype(int), 0, len(bad))
    return before[hi] > before[lo]


def label_windows(
    table: pd.DataFrame, start_s: np.ndarray, window_s: float, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Label (W,) that fills most of each window, and the share (W,) it fills; "" and 0 outside all intervals.

    table: start_time, stop_time [s], label; half-open. start_s (W,).
    Raises BadInput where intervals of different labels overlap.
    """
    table = table.assign(label=labelling.words(table["label"])).sort_values("start_time")
    for a, b in itertools.pairwise(
        table[["start_time", "stop_time", "label"]].itertuples(index=False)
    ):
        if b.start_time < a.stop_time - 1e-9 and a.label != b.label:
            raise BadInput(
                f"{where}: intervals overlap: {a.label!r} until {a.stop_time:g} s, {b.label!r} from {b.start_time:g} s; "
                "a window in both would have two labels."
            )
    label = np.full(len(start_s), "", dtype=object)
    share: dict[str, np.ndarray] = {}
    for begin, end, name in table[["start_time", "stop_time", "label"]].itertuples(index=False):
        inside = np.minimum(start_s + window_s, end) - np.maximum(start_s, begin)
        share.setdefault(name, np.zeros(len(start_s)))
        share[name] += np.maximum(inside, 0) / window_s
    purity = np.zeros(len(start_s))
    for name in sorted(share):
        more = share[name] > purity + 1e-12
        label[more], purity[more] = name, share[name][more]
    return label.astype(str), np.minimum(np.round(purity, 9), 1.0)
