"""One clock: spikes, presentations, invalid and observed times count seconds from one moment.

Every recording passes here in 01, whatever its source. What cannot be one clock is refused, with
both ranges and the name of the fault; what is only unusual for one is told.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.findings import Span, counted, refuse, seconds, tell, told
from nblib.data.recording import Recording

SHORT_ISI = 0.1  # in seconds common, in milliseconds next to impossible
FEW_SHORT = 0.02  # share of intervals below SHORT_ISI that a train in milliseconds stays under
LEAST_ISI = 100  # fewer intervals between spikes tell nothing
LEAST_RATE = 0.05  # mean spikes a second and unit: below it a session is implausible
MOST_RATE = 200.0
REFRACTORY_RATE = 1000.0  # no neuron fires so often
SLOW_RATE, FAST_RATE = 0.5, 60.0  # mean rates that are unusual, not implausible
SAMPLING_HZ = 30_000.0  # the usual rate of a recording from which spikes are sorted
APART = 300.0  # spikes beyond the tables by so much: not the same unit
OUTLAST = 50.0  # tables beyond the spikes by so much: not the same unit
OUTLAST_NUMBERED = 5.0  # what counts by one needs less to be sample numbers
USUAL_RATE = 5.0
SINCE_1970 = 1e9  # seconds; no session lasts as long
LONGEST_S = 9e9  # as nanoseconds, later times do not fit 64 bits
TRIAL_STEPS = 3.0  # all spikes within so many trials: their clock begins anew at each
LEAST_TRIALS = 10
NO_ORDER = 1 / 3  # a larger share of steps backwards: times in no order at all
AGAIN = 10  # times that rise again over fewer of a unit's earlier spikes are only out of order
LOOKED_AT = 50  # units out of order that are looked at closely
TO_SECONDS = "write the file anew with times in seconds"


@dataclass(frozen=True)
class Clock:
    """What tells seconds from other units: all times as they would be taken for seconds."""

    n_units: int  # units with spikes
    n_spikes: int  # their spikes
    first: float  # first and last spike
    last: float
    n_isi: int  # intervals between a unit's spikes that were looked at
    n_short: int  # those below SHORT_ISI
    interval_last: float  # end of the last presentation, NaN when there is none
    shortest: float  # least median presentation length over the interval tables, NaN likewise
    whole: bool = False  # every spike time is a whole number in the file

    @property
    def spikes(self) -> Span:
        return Span("spikes", self.first, self.last)

    @property
    def span(self) -> float:
        """From the first spike to the last [s]; NaN where that is no time."""
        return self.last - self.first if self.last > self.first else np.nan

    @property
    def rate(self) -> float:
        """Mean spikes per unit and second; NaN without a span of time."""
        return self.n_spikes / (self.n_units * self.span) if self.n_units else np.nan

    @property
    def sparse(self) -> bool:
        """Whether spikes hardly ever follow each other as closely as they do in seconds."""
        return self.n_short < FEW_SHORT * self.n_isi


def interval_clock(tables: Iterable[pd.DataFrame]) -> tuple[float, float]:
    """(end of the last interval, least median length of a table); NaN where there is none."""
    lasts, medians = [], []
    for table in tables:
        stop = table["stop_time"].to_numpy(np.float64)
        length = stop - table["start_time"].to_numpy(np.float64)
        if np.isfinite(length).any():
            lasts.append(np.nanmax(stop))
            medians.append(np.nanmedian(length))
    return (float(max(lasts)), float(min(medians))) if lasts else (np.nan, np.nan)


def perhaps_other_unit(clock: Clock, time_unit: str) -> list[str]:
    """What else times that are let pass may be."""
    if clock.n_isi < LEAST_ISI:
        return []
    far_apart, fast = clock.rate < SLOW_RATE and clock.shortest >= 5, clock.rate > MOST_RATE
    if time_unit == "ms":
        return tell(
            far_apart and clock.whole,
            f"All spike times are whole milliseconds, and units fire {clock.rate:.2g} Hz: if these are sample numbers, "
            f"{TO_SECONDS} (each number divided by the sampling rate).",
        )
    rules = {
        f"Units fire {clock.rate:.3g} times a second in the mean: if these times are minutes or hours, {TO_SECONDS}.": fast,
        "Spikes are far apart and intervals long for seconds: if these times are milliseconds, "
        "set time_unit: ms in the recipe.": far_apart and clock.sparse,
    }
    return told(rules)


def check_time_unit(where: str, clock: Clock, time_unit: str) -> None:
    """Refuse milliseconds or sample numbers taken for seconds, and seconds for milliseconds.

    Whole numbers are no seconds. Else spikes decide: in seconds, a unit's spikes come closer than
    0.1 now and then and some unit fires more than once in 20; in milliseconds and samples neither
    holds. Sparse spikes are let pass when the interval tables share their clock and hold intervals
    shorter than 5, which no table in milliseconds would. Raises BadInput with the reasons and what
    to do.
    """
    if clock.n_isi < LEAST_ISI or not clock.last > clock.first:
        return
    rate, sparse, end = clock.rate, clock.sparse, clock.interval_last
    beyond = clock.last / end if end > 0 else np.nan
    one_clock = 1 / APART < beyond < APART and clock.shortest < 5
    no_seconds = clock.whole or (sparse and rate < LEAST_RATE and not one_clock)
    spikes_alone = sparse and not clock.whole and rate < LEAST_RATE * 4 and beyond > APART
    tables_alone = not sparse and 0 < beyond < 1 / OUTLAST
    spikes = "milliseconds" if 1e3 * rate >= SLOW_RATE else "milliseconds or sample numbers"
    tables = "milliseconds" if beyond > 0.1 / APART else "sample numbers"
    if rate > FAST_RATE:
        tables += " (or spike times count from the start of each presentation)"
    anew, look = "write the file anew", "These times look like"
    verdicts = {
        f"No neuron fires so often. {look} minutes, hours or days: {TO_SECONDS}.": rate
        > REFRACTORY_RATE,
        f"Spike times look like {spikes}, interval tables like seconds; {anew} with spikes in seconds.": spikes_alone,
        f"{look} {_other_units(clock)}": no_seconds,
        f"Interval tables look like {tables}, spike times like seconds; {anew} with one unit.": tables_alone,
    }
    if time_unit == "ms":
        verdicts = {f"{look} seconds already. Set time_unit: s.": rate > MOST_RATE}
    seen = (
        f"{clock.n_units} units fire {rate:.2g} spikes per unit and second, "
        f"{100 * clock.n_short / clock.n_isi:.3g} % of the intervals between a unit's spikes are below {SHORT_ISI} s, "
        f"the last spike lies at {clock.last:.6g} s"
    )
    seen += ", all spike times are whole numbers" if clock.whole else ""
    seen += f". Interval tables end at {end:.6g}" if end > 0 else ""
    for verdict in told(verdicts):
        raise BadInput(f"{where}: read as {time_unit}, {seen}. {verdict}")


def _other_units(clock: Clock) -> str:
    """What times may be that are no seconds, by the rates that would follow, and what to do then."""
    anew, in_ms, in_us = TO_SECONDS.capitalize(), 1e3 * clock.rate, 1e6 * clock.rate
    in_samples, least = SAMPLING_HZ * clock.rate, SLOW_RATE if clock.whole else LEAST_RATE
    kinds = {
        f"milliseconds (units would fire {in_ms:.2g} Hz). Set time_unit: ms in the recipe.": in_ms
        >= least,
        f"sample numbers (at {SAMPLING_HZ:g} Hz units would fire {in_samples:.2g} Hz). {anew}: each number divided by "
        "the sampling rate, in interval tables too if they count samples.": in_samples <= FAST_RATE,
        f"microseconds (units would fire {in_us:.2g} Hz). {anew}.": SLOW_RATE <= in_us <= FAST_RATE,
    }
    unusual = f"sample numbers of an unusual clock. {TO_SECONDS}."
    return " Or like ".join(told(kinds) or [unusual])


def check_clock(
    recording: Recording, clock: Clock, trials: pd.DataFrame | None, unsorted: list[int]
) -> None:
    """Refuse spikes that are not on one clock with the presentations; see the functions below.

    unsorted: positions of the units whose spike times fall. Raises BadInput with the ranges and,
    where they tell it, the name of the fault and what mends it.
    """
    where, first, last = recording.where, clock.first, clock.last
    far, no_times = max(abs(first), abs(last)) > LONGEST_S, clock.n_spikes > 1 and first == last
    rules = {
        f"{where}: {recording.n_units} units and no spike at all.": not clock.n_spikes,
        f"{where}: spikes from {first:.6g} to {last:.6g}; no clock in seconds counts so far. Set time_unit: ms if they "
        f"are milliseconds, else {TO_SECONDS}.": far,
        f"{where}: all {clock.n_spikes:,} spike times are {first:g} s; the file holds no times.": no_times,
    }
    for sentence in told(rules):
        raise BadInput(sentence)
    shown = None
    if trials is not None and len(trials):
        begin, end = float(trials["start_time"].min()), float(trials["stop_time"].max())
        shown = Span(recording.trials, begin, end)
        check_relative(where, clock, shown, trials["start_time"].to_numpy(np.float64))
        if max(first, begin) > SINCE_1970:  # before a ratio of the two is given another name
            check_shared(where, clock.spikes, shown)
    check_order(recording, unsorted)
    check_time_unit(where, clock, recording.meta.get("time_unit", "s"))
    if shown:
        check_shared(where, clock.spikes, shown)
        check_most_inside(where, clock, shown, trials)


def check_relative(where: str, clock: Clock, shown: Span, start: np.ndarray) -> None:
    """Refuse spike times that count from the start of each presentation: all within the time of one.

    Presentations in milliseconds could look so; then units would fire at their usual rate as it
    is, not after dividing by the number of presentations: the reading whose rate is nearer to
    USUAL_RATE is taken.
    """
    n, lasts = len(start), clock.spikes.lasts
    if n < LEAST_TRIALS or clock.n_isi < LEAST_ISI:
        return
    step = float(np.median(np.diff(np.sort(start))))
    within_one = lasts < TRIAL_STEPS * step and lasts < np.ptp(start) / 5
    refuse(
        within_one and clock.rate / np.sqrt(n) > USUAL_RATE,
        f"{where}: {clock.spikes}, {shown}, one every {step:.4g} s: spike times count from the start of each "
        "presentation, not from that of the session. Write the file anew from the session's own spike times, or "
        "with each presentation's start added to its spikes; sorting them would not help.",
    )


def check_shared(where: str, one: Span, other: Span) -> None:
    """Refuse two stretches of time that share none."""
    if one.first <= other.last and other.first <= one.last:
        return
    late = max(one.first, other.first)
    why = (
        "these are two clocks. Find out how much later one began and write the file anew with that added to the "
        "times of the other"
    )
    if late > SINCE_1970 > min(one.last, other.last):
        day = datetime.datetime.fromtimestamp(late, datetime.UTC)
        why = (
            f"the later clock counts from 1970 (it begins on {day:%Y-%m-%d %H:%M} UTC), the other from the "
            "session's start. Write the file anew with the later one counted from there too"
        )
    raise BadInput(f"{where}: {one}, {other}: they share no time; {why}.")


def check_unit(
    where: str, span: Span, session: Span, remedy: str, outlast: float = OUTLAST
) -> None:
    """Refuse a stretch that reaches `outlast` times farther than the session is long: another unit of time."""
    refuse(
        session.lasts > 0 and span.last - session.first > outlast * session.lasts,
        f"{where}: {span}, {session}: they count in two units of time. {remedy}",
    )


def check_samples(place: str, times: np.ndarray, spikes: Span) -> None:
    """Refuse a series whose rising sample times [s] are not on the clock of the spikes."""
    samples, remedy, outlast = (
        Span("samples", times[0], times[-1]),
        f"{TO_SECONDS.capitalize()}.",
        OUTLAST,
    )
    check_shared(place, samples, spikes)
    if numbered(times):
        remedy = (
            f"These are sample numbers: {TO_SECONDS}, each number divided by the sampling rate."
        )
        outlast = OUTLAST_NUMBERED
    check_unit(place, samples, spikes, remedy, outlast)


def numbered(times: np.ndarray) -> bool:
    """Whether times rise by one throughout, as sample numbers do."""
    return bool(np.all(np.diff(times) == 1.0))


def check_most_inside(where: str, clock: Clock, shown: Span, trials: pd.DataFrame) -> None:
    """Refuse presentations most of which lie outside the spikes: they would be decoded from silence."""
    outside = ((trials["stop_time"] < clock.first) | (trials["start_time"] > clock.last)).sum()
    refuse(
        outside > len(trials) / 2 and clock.n_isi >= LEAST_ISI,
        f"{where}: {clock.spikes}, {shown}, and {outside} of {len(trials)} presentations lie where there is no "
        "spike. Either these are two clocks (then write the file anew with one), or the spikes end early: leave "
        "these presentations out by a setting of the recipe, "
        f"where: start_time > {clock.first:.6g} and stop_time < {clock.last:.6g}",
    )


def check_order(recording: Recording, units: list[int]) -> None:
    """Refuse units (positions) whose spike times fall: a clock that began anew, or no order at all.

    Between two falls times rise. Where such runs lie beside each other, sorting mends them; where
    they go over the same stretch, it would mix them. Raises BadInput with unit, spike and times.
    """
    if not units:
        return
    restart, ids = "", some(recording.units.index[units])
    for unit in units[:LOOKED_AT]:
        times = recording.spike_times(unit)
        falls = np.flatnonzero(np.diff(times) < 0)
        ends = np.r_[falls[1:], len(times) - 1]
        place = (
            f"in unit {recording.units.index[unit]} from {seconds(times[falls[0]])} s (spike {falls[0]}) to "
            f"{seconds(times[falls[0] + 1])} s, {counted(len(falls), 'time')} in all"
        )
        passed = max(  # earlier spikes over whose time a run of rising times goes again
            int(((times[: a + 1] > times[a + 1]) & (times[: a + 1] <= times[b])).sum())
            for a, b in zip(falls[:LOOKED_AT], ends, strict=False)
        )
        if len(falls) < NO_ORDER * len(times) and passed >= AGAIN:
            restart = restart or place
    refuse(
        not restart,
        f"{recording.where}: unsorted spike times in unit {ids}; they fall {place}: sort them in the file.",
    )
    alone = (
        " As this unit is alone in it, it may also be two units joined into one: only then sort it."
        if len(units) == 1 < recording.n_units
        else ""
    )
    raise BadInput(
        f"{recording.where}: spike times of unit {ids} fall ({restart}) and rise again over the same stretch: their "
        "clock begins anew. Write the parts as files of their own, or add the end of the earlier part "
        f"to the times after it; do not sort them, which would mix the parts.{alone}"
    )
