"""What a recording of field potentials holds, and what is odd in it."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from nblib.core.errors import some
from nblib.core.params import SECONDS
from nblib.data.checks.clock import TO_SECONDS, check_shared, check_unit, seconds
from nblib.data.checks.intervals import (
    MEND,
    check_restart,
    perhaps_slower,
    readable,
    trial_oddities,
)
from nblib.data.checks.report import SessionReport
from nblib.data.recording import Recording, Series
from nblib.data.trials import labelling
from nblib.data.trials.time_intervals import merged

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
    n_channels = len(session.meta["channels"])
    total, squares, count = (np.zeros(n_channels) for _ in range(3))
    held, longest = 0, round(HELD_S * series.rate_hz)
    for piece in series.blocks(0, series.n_samples):
        still = np.r_[False, (piece[1:] == piece[:-1]).all(axis=1), False].astype(int)
        runs = np.flatnonzero(np.diff(still) == -1) - np.flatnonzero(np.diff(still) == 1)
        held += runs[runs >= longest].sum()
        good = np.isfinite(piece)
        piece = np.where(good, piece, 0.0)
        total, squares, count = (
            total + piece.sum(0),
            squares + (piece**2).sum(0),
            count + good.sum(0),
        )
    mean = total / np.maximum(count, 1)
    sd = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    channels = pd.DataFrame(
        {"region": session.meta["channels"], "electrodes": list(session.meta["electrodes"].values()),
         "sd": sd, "nan_share": 1 - count / series.n_samples}
    )  # fmt: skip
    empty = pd.DataFrame({"label": [], "start_time": [], "stop_time": []})
    table = session.timed_trials.sort_values("start_time") if session.trials else empty
    intervals = pd.DataFrame(
        {
            "label": labelling.words(table["label"]),
            "start_s": table["start_time"],
            "stop_s": table["stop_time"],
            "length_s": table["stop_time"] - table["start_time"],
        }
    ).reset_index(drop=True)
    end, unit = series.stop_s, session.meta.get("time_unit", "s")
    numbered = bool(np.isclose(series.rate_hz * SECONDS[unit], 1.0))  # timestamps rise by one
    signal = (
        f"{session.path or session.id}: the signal lasts from {seconds(series.start_s)} to "
        f"{seconds(end)} s"
    )
    if len(table):
        begin, last = float(table["start_time"].min()), float(table["stop_time"].max())
        both = f"{signal}, {session.trials} from {seconds(begin)} to {seconds(last)} s"
        check_shared(both, (series.start_s, end), (begin, last))
        remedy = "If its times are milliseconds (a rate is in Hz all the same), set time_unit: ms."
        if unit == "ms":
            remedy = f"{TO_SECONDS.capitalize()}, and set time_unit: s."
        check_unit(both, (series.start_s, end), (begin, last), remedy)
        short = unit == "ms" and intervals["length_s"].median() < SHORT_S
        if short or series.rate_hz < SLOW_HZ:
            kind = "sample numbers" if numbered else "milliseconds"
            remedy = (
                f"The signal's clock, of {series.rate_hz:g} Hz as it is read, looks like {kind}, {session.trials} "
                f"like seconds: {TO_SECONDS}{', each number divided by the sampling rate' if numbered else ''}, "
                "and set time_unit: s."
            )
            check_unit(both, (min(begin, series.start_s), last), (series.start_s, end), remedy)
        check_restart(session, session.timed_trials)
    odd = [*session.meta["notes"], *(trial_oddities(session) if session.trials else [])]
    span = intervals["start_s"].to_numpy(), intervals["stop_s"].to_numpy()
    odd += filter(None, [perhaps_slower(session.trials, *span, series.start_s, end)])
    readable(session, odd)
    odd += [f"channels: {words}" for words in labelling.odd_areas(session.meta["electrodes"])]
    classes = session.labelled.classes if session.trials else []
    if (sd == 0).any():
        odd.append(f"Channels without any signal: {some(channels['region'][sd == 0])}.")
    if held and (sd > 0).any():
        odd.append(
            f"All channels stay at one value for {held / series.rate_hz:.4g} s in all: samples that were lost are often "
            "filled so. Name the table of such times in invalid_times, or write NaN there."
        )
    usual = float(np.median(sd[sd > 0])) if (sd > 0).any() else 0.0
    far = (sd > ODD_SD * usual) | ((sd < usual / ODD_SD) & (sd > 0))
    if far.any():
        odd.append(
            f"Channels much stronger or weaker than the others: {some(channels['region'][far])}."
        )
    if (channels["nan_share"] > 0).any():
        worst = channels.loc[channels["nan_share"].idxmax()]
        odd.append(
            f"NaN in the signal, most in {worst['region']} ({worst['nan_share']:.2%} of its samples)."
        )
    if (intervals["stop_s"] > end + 1e-6).any() or (
        intervals["start_s"] < series.start_s - 1e-6
    ).any():
        odd.append(
            f"Intervals reach outside the signal, which lasts from {series.start_s:g} to {end:g} s."
        )
    if len(invalid := session.invalid_times):
        if len(known := invalid[np.isfinite(invalid)]):
            begin, last = known.min(), known.max()
            both = (
                f"{signal}, {', '.join(session.invalid)} from {seconds(begin)} to {seconds(last)} s"
            )
            check_unit(both, (series.start_s, end), (begin, last), MEND)
        covered = np.diff(merged(np.clip(invalid, series.start_s, end))).sum()
        odd.append(
            f"{len(invalid)} invalid intervals cover {covered:.4g} s of the signal; no window touches them."
        )
    if series.rate_hz < SLOW_HZ:
        odd.append(
            f"{series.rate_hz:g} Hz is slow for a potential: if the file's times are milliseconds, set time_unit: ms"
            + (f"; if they are sample numbers, {TO_SECONDS}." if numbered else ".")
        )
    if len(series.even) > 1:
        odd.append(_gaps(series))
    pairs = itertools.pairwise(intervals[["start_s", "stop_s"]].to_numpy())
    if any(b[0] < a[1] - 1e-9 for a, b in pairs):
        odd.append("Intervals overlap.")
    items = {
        "recording": session.id, "subject": session.subject,
        "file": session.path.name if session.path else "", "channels": n_channels,
        "electrodes": int(channels["electrodes"].sum()), "rate [Hz]": series.rate_hz,
        "signal from [s]": round(series.start_s, 3), "signal to [s]": round(end, 3),
        "interval table": session.trials or "none", "intervals": len(intervals), "labels": len(classes),
        "intervals left out": sum(session.labelled.left_out.values()) if session.trials else 0,
    }  # fmt: skip
    tables = {
        "summary": pd.DataFrame({"item": items.keys(), "value": items.values()}),
        "channels": channels,
        "intervals": intervals,
        "classes": pd.DataFrame({"class": classes}),
    }
    holds = (
        f"{n_channels} channels of field potential ({items['electrodes']} electrodes, "
        f"{items['signal to [s]'] - items['signal from [s]']:,.0f} s at {series.rate_hz:g} Hz) and "
        f"{len(intervals)} intervals of {len(classes)} labels"
    )
    return SessionReport(session.id, tables, odd, holds)


def _gaps(series: Series) -> str:
    """The gaps of a clock in a sentence: places as samples and seconds from the first."""
    before, after = series.even[:-1], series.even[1:]
    length = [
        b[2] - a[2] - (a[1] - a[0]) / series.rate_hz for a, b in zip(before, after, strict=True)
    ]
    lo, _, start = after[int(np.argmax(length))]
    return (
        f"The clock has {len(length)} gaps of {sum(length):.4g} s in all; the longest, of {max(length):.4g} s, ends at "
        f"sample {lo}, {start - series.start_s:.6g} s after the first. 02 goes on with gaps: cut."
    )
