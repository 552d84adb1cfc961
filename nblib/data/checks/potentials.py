"""What a recording of field potentials holds, and what is odd in it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.core.findings import Span, counted, tell, told
from nblib.core.params import SECONDS
from nblib.data.checks import intervals
from nblib.data.checks.clock import TO_SECONDS, check_shared, check_unit
from nblib.data.checks.report import SessionReport
from nblib.data.recording import Recording, Series
from nblib.data.trials import labelling

SLOW_HZ = 50.0  # 30 kHz whose times are milliseconds reads as 30 Hz
SHORT_S = 0.1  # intervals in seconds that are read as milliseconds last less
HELD_S = 0.5  # a signal that stays where it is for so long was not recorded
ODD_SD = 5.0  # a channel whose spread differs so many times from the median is odd


def report(session: Recording) -> SessionReport:
    """What a recording of field potentials holds, and what is odd in it.

    tables: `summary`; `channels` (region, electrodes, sd, share of NaN); `intervals` (label,
    start_s, stop_s, length_s). Memory: a minute of signal at a time.
    """
    series = session.lfp
    tables, (channels, held_s) = intervals.read(session), _channels(session)
    empty = pd.DataFrame({"label": [], "start_time": [], "stop_time": []})
    table = session.timed_trials.sort_values("start_time") if session.trials else empty
    shown = pd.DataFrame(
        {
            "label": labelling.words(table["label"]),
            "start_s": table["start_time"],
            "stop_s": table["stop_time"],
            "length_s": table["stop_time"] - table["start_time"],
        }
    ).reset_index(drop=True)
    signal = Span("the signal", series.start_s, series.stop_s)
    _check_clock(session, signal, shown)
    tables.check(signal)
    odd = [words.replace("presentations", "intervals") for words in tables.odd]
    odd += [f"channels: {words}" for words in labelling.odd_areas(session.meta["electrodes"])]
    odd += tell(
        (shown["stop_s"] > signal.last + 1e-6) | (shown["start_s"] < signal.first - 1e-6),
        f"{session.trials}: %n of %all intervals reach outside {signal}.",
    )
    odd += _odd_signal(session, channels, held_s)
    classes = session.labelled.classes if session.trials else []
    items = {
        "recording": session.id, "subject": session.subject,
        "file": session.path.name if session.path else "", "channels": len(channels),
        "electrodes": int(channels["electrodes"].sum()), "rate [Hz]": series.rate_hz,
        "signal from [s]": round(signal.first, 3), "signal to [s]": round(signal.last, 3),
        "interval table": session.trials or "none", "intervals": len(shown), "labels": len(classes),
        "intervals left out": sum(session.labelled.left_out.values()) if session.trials else 0,
    }  # fmt: skip
    made = {
        "summary": pd.DataFrame({"item": items.keys(), "value": items.values()}),
        "channels": channels,
        "intervals": shown,
        "classes": pd.DataFrame({"class": classes}),
    }
    holds = (
        f"{len(channels)} channels of field potential ({items['electrodes']} electrodes, "
        f"{items['signal to [s]'] - items['signal from [s]']:,.0f} s at {series.rate_hz:g} Hz) and "
        f"{len(shown)} intervals of {len(classes)} labels"
    )
    return SessionReport(session.id, made, odd, holds)


def _channels(session: Recording) -> tuple[pd.DataFrame, float]:
    """One pass over the signal: the table `channels`, and how long all channels stay at one value [s]."""
    series, n_channels = session.lfp, len(session.meta["channels"])
    total, squares, count = (np.zeros(n_channels) for _ in range(3))
    low, high = np.full((2, n_channels), np.nan)
    held, longest = 0, round(HELD_S * series.rate_hz)
    for piece in series.blocks(0, series.n_samples):
        still = np.r_[False, (piece[1:] == piece[:-1]).all(axis=1), False].astype(int)
        runs = np.flatnonzero(np.diff(still) == -1) - np.flatnonzero(np.diff(still) == 1)
        held += runs[runs >= longest].sum()
        low, high = np.fmin(low, np.fmin.reduce(piece)), np.fmax(high, np.fmax.reduce(piece))
        good = np.isfinite(piece)
        piece = np.where(good, piece, 0.0)
        total += piece.sum(0)
        squares += (piece**2).sum(0)
        count += good.sum(0)
    mean = total / np.maximum(count, 1)
    sd = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    sd[low == high] = 0.0  # rounding leaves more
    channels = pd.DataFrame(
        {"region": session.meta["channels"], "electrodes": list(session.meta["electrodes"].values()),
         "sd": sd, "nan_share": 1 - count / series.n_samples}
    )  # fmt: skip
    return channels, held / series.rate_hz


def _numbered(session: Recording) -> bool:
    """Whether timestamps rise by one, as sample numbers do."""
    unit = session.meta.get("time_unit", "s")
    return bool(np.isclose(session.lfp.rate_hz * SECONDS[unit], 1.0))


def _check_clock(session: Recording, signal: Span, shown: pd.DataFrame) -> None:
    """Refuse a signal, its intervals and invalid times that are not on one clock in seconds."""
    rate_hz, in_ms = session.lfp.rate_hz, session.meta.get("time_unit", "s") == "ms"
    if len(shown):
        trials = Span(session.trials, shown["start_s"].min(), shown["stop_s"].max())
        check_shared(session.where, signal, trials)
        remedy = "If its times are milliseconds (a rate is in Hz all the same), set time_unit: ms."
        if in_ms:
            remedy = f"{TO_SECONDS.capitalize()}, and set time_unit: s."
        check_unit(session.where, trials, signal, remedy)
        if rate_hz < SLOW_HZ or (in_ms and shown["length_s"].median() < SHORT_S):
            numbered = _numbered(session)
            remedy = (
                f"The signal's clock, of {rate_hz:g} Hz as it is read, looks like "
                f"{'sample numbers' if numbered else 'milliseconds'}, {session.trials} like seconds: {TO_SECONDS}"
                f"{', each number divided by the sampling rate' if numbered else ''}, and set time_unit: s."
            )
            whole = trials._replace(first=min(trials.first, signal.first))
            check_unit(session.where, signal, whole, remedy)


def _odd_signal(session: Recording, channels: pd.DataFrame, held_s: float) -> list[str]:
    """What is odd in the signal of single channels, of all, and in its clock."""
    by_region, rate_hz = channels.set_index("region"), session.lfp.rate_hz
    sd, lost = by_region["sd"], by_region["nan_share"]
    usual = sd[sd > 0].median()
    still = session.meta.get("still", list)()
    samples = f"; if they are sample numbers, {TO_SECONDS}" if _numbered(session) else ""
    far = (sd > ODD_SD * usual) | ((sd < usual / ODD_SD) & (sd > 0))
    rules = {
        "Channels without any signal: %rows.": sd == 0,
        "%n electrodes stay at one value throughout (electrode %rows), and count in the mean of their region; write the "
        "file anew without them.": still,
        f"All channels stay at one value for {held_s:.4g} s in all: samples that were lost are often filled so. Name the "
        "table of such times in invalid_times, or write NaN there.": held_s > 0 and (sd > 0).any(),
        "Channels much stronger or weaker than the others: %rows.": far,
        f"NaN in the signal, most in {lost.idxmax()} ({lost.max():.2%} of its samples).": lost.max()
        > 0,
        f"{rate_hz:g} Hz is slow for a potential: if the file's times are milliseconds, set time_unit: ms"
        f"{samples}.": rate_hz < SLOW_HZ,
    }
    return told(rules) + _gaps(session.lfp)


def _gaps(series: Series) -> list[str]:
    """The gaps of a clock: places as samples and seconds from the first."""
    before, after = series.even[:-1], series.even[1:]
    length = [
        b[2] - a[2] - (a[1] - a[0]) / series.rate_hz for a, b in zip(before, after, strict=True)
    ]
    if not length:
        return []
    lo, _, start = after[int(np.argmax(length))]
    return [
        f"The clock has {counted(len(length), 'gap')} of {sum(length):.4g} s in all; the longest, of {max(length):.4g} s, "
        f"ends at sample {lo}, {start - series.start_s:.6g} s after the first. 02 goes on with gaps: cut."
    ]
