"""One pass over all spikes: what each unit holds, and what is broken or odd in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nblib.core.findings import Span, refuse, tell, told
from nblib.core.markup import in_markdown
from nblib.data import counts_dataset, stimulus
from nblib.data.checks import intervals
from nblib.data.checks.clock import (
    APART,
    LEAST_ISI,
    SHORT_ISI,
    Clock,
    check_clock,
    check_samples,
    interval_clock,
    perhaps_other_unit,
)
from nblib.data.checks.report import SessionReport
from nblib.data.recording import Recording, good_units
from nblib.data.trials import labelling

PIECE = 500_000  # spikes at a time: small enough to stay in the processor's cache
RATE_POINTS = 300  # at most so many points in the rate over time
REFRACTORY_S = 0.0015
COARSE_MS = 2  # times are often rounded to milliseconds, seldom to more
# A unit that has, and by its rate had due, so many spikes is silent where that is so much of the trials.
SILENT, DUE = 0.2, 50


@dataclass
class Spikes:
    """What one pass over all spikes found.

    units : one row a unit: spikes, first_s, last_s, duplicates, closer_than_1.5_ms.
    """

    units: pd.DataFrame
    short: int  # intervals within a unit below SHORT_ISI
    unsorted: list[int]  # positions of units whose times fall
    step_ms: int  # every time is so many whole milliseconds, or a multiple; 0: of no such step


def pass_over(recording: Recording) -> Spikes:
    """One pass over all spikes; refuses NaN with the unit ids, notes which units are not sorted.

    Raises BadInput, too, when the positions of the units' spikes do not rise from 0.
    """
    positions, ids = np.asarray(recording.spike_index, np.int64), recording.units.index
    expected = "expected rising positions from 0."
    refuse(
        np.diff(positions) < 0,
        f"{recording.where}: the spike index falls at unit %rows; {expected}",
        of=ids,
    )
    refuse(
        positions[0] != 0,
        f"{recording.where}: the spike index begins at {positions[0]}; {expected}",
    )
    first, last = np.full((2, len(ids)), np.nan)
    duplicates, refractory = np.zeros((2, len(ids)), int)
    bad, unsorted, short, step_ms = [], [], 0, None
    for lo, hi, times, index in recording.chunks(PIECE):
        firing = np.flatnonzero(np.diff(index))
        if not len(times):
            continue
        with np.errstate(invalid="ignore"):  # infinite times are told below
            total, step = times.sum(), np.diff(times)
        first[lo + firing] = times[index[firing]]
        last[lo + firing] = times[index[firing + 1] - 1]
        if not np.isfinite(total):
            # A piece is summed first: looking at each value is needed only when the sum is off.
            broken = _per_unit(~np.isfinite(times), index)
            bad += (lo + np.flatnonzero(broken)).tolist()
            continue
        step[index[firing[1:]] - 1] = np.inf  # from unit to unit
        if not (step >= 0).all():
            falls = np.flatnonzero(_per_unit(np.r_[False, step < 0], index))
            unsorted += (lo + falls).tolist()
            first[lo + falls] = [times[index[i] : index[i + 1]].min() for i in falls]
            last[lo + falls] = [times[index[i] : index[i + 1]].max() for i in falls]
        close = np.flatnonzero(step < REFRACTORY_S)
        unit = np.searchsorted(index, close, side="right") - 1
        refractory[lo:hi] = np.bincount(unit, minlength=hi - lo)
        duplicates[lo:hi] = np.bincount(unit[step[close] == 0], minlength=hi - lo)
        short += int(np.count_nonzero(step < SHORT_ISI))
        if step_ms != 0:
            step_ms = _common_step_ms(times, step_ms or 0)
    refuse(
        ids[bad],
        f"{recording.where}: NaN or infinite spike times in unit %rows; mend or remove these units in the file.",
    )
    columns = {
        "spikes": np.diff(positions),
        "first_s": first,
        "last_s": last,
        "duplicates": duplicates,
        "closer_than_1.5_ms": refractory,
    }
    return Spikes(pd.DataFrame(columns, index=ids), short, unsorted, step_ms or 0)


def _common_step_ms(times_s: np.ndarray, step_ms: int) -> int:
    """The longest step of whole milliseconds that all times, and `step_ms`, are multiples of; 0 for none."""
    for some_times in (times_s[:1000], times_s):  # a few tell enough of most recordings
        ticks = np.rint(some_times * 1e3)
        if (np.abs(some_times * 1e3 - ticks) >= 1e-6).any() or np.abs(ticks).max() > 1e15:
            return 0
    return int(np.gcd.reduce(ticks.astype(np.int64), initial=step_ms))


def _per_unit(flags: np.ndarray, index: np.ndarray) -> np.ndarray:
    """How many flags each unit has; `flags` (spike,), `index` (unit + 1,)."""
    total = np.r_[0, np.cumsum(flags)]
    return total[index[1:]] - total[index[:-1]]


def clock_of(spikes: Spikes, tables: list[pd.DataFrame], time_unit: str) -> Clock:
    """What tells seconds from milliseconds: of all spikes, and of the intervals in `tables`."""
    firing = spikes.units[spikes.units["spikes"] > 0]
    first, last = (firing["first_s"].min(), firing["last_s"].max()) if len(firing) else (0.0, 0.0)
    n_spikes = int(firing["spikes"].sum())
    n_isi = n_spikes - len(firing)
    intervals = interval_clock(tables)
    return Clock(
        len(firing),
        n_spikes,
        first,
        last,
        n_isi,
        spikes.short,
        *intervals,
        spikes.step_ms > 0 and spikes.step_ms % (1 if time_unit == "ms" else 1000) == 0,
    )


def mean_rate(recording: Recording, clock: Clock) -> pd.DataFrame:
    """Mean rate over units in at most RATE_POINTS bins of whole seconds: time_s, rate_hz."""
    seconds = clock.span
    if not seconds > 0:
        return pd.DataFrame({"time_s": [], "rate_hz": []})
    long = seconds > RATE_POINTS / 10
    width = max(1.0, np.ceil(seconds / RATE_POINTS)) if long else seconds / 30
    edges = clock.first + np.arange(max(1, int(seconds // width)) + 1) * width
    total = np.zeros(len(edges) - 1, np.int64)
    for lo, hi, times, index in recording.chunks(PIECE):
        for i in range(hi - lo):  # sorted within a unit: one search per edge, no pass over spikes
            total += np.diff(np.searchsorted(times[index[i] : index[i + 1]], edges))
    return pd.DataFrame(
        {"time_s": edges[:-1] + width / 2, "rate_hz": total / width / recording.n_units}
    )


def _same_trains(recording: Recording, units: pd.DataFrame) -> list[Any]:
    """Ids of units whose spike times are all those of an earlier unit."""
    firing = units.assign(place=np.arange(len(units)))[units["spikes"] > 0]
    alike = firing[firing.duplicated(["spikes", "first_s", "last_s"], keep=False)]
    content = [hashlib.sha256(recording.spike_times(i)).digest() for i in alike["place"]]
    return alike.index[pd.Series(content).duplicated()].tolist()


def odd_clocks(name: str, timed: pd.DataFrame, units: pd.DataFrame) -> list[str]:
    """Whether units (see `Spikes`) are silent through the first or last of the presentations in table
    `name`, or go on much longer: a probe may have a clock of its own."""
    if not len(timed):
        return []
    begin, end = timed["start_time"].min(), timed["stop_time"].max()
    first, last = units["first_s"], units["last_s"]
    silent = np.maximum(first.clip(begin, end) - begin, end - last.clip(begin, end))
    due = silent * units["spikes"] / (last - first).clip(lower=REFRACTORY_S)
    lost = (silent > SILENT * (end - begin)) & (due > DUE) & (units["spikes"] > DUE)
    return tell(
        lost | (last - begin > APART * (end - begin)),
        f"%n of %all units do not fire all the time of {name}, {begin:.6g} to {end:.6g} s, or much beyond it (unit "
        "%rows; %value). Where they were lost, that is no silence; where they have a clock of their own, write the "
        "file anew with one.",
        value=lambda i: Span(f"unit {units.index[i]}", first.iloc[i], last.iloc[i]),
    )


def odd_spikes(recording: Recording, spikes: Spikes, clock: Clock) -> list[str]:
    """What is odd in the spikes of units and in their times."""
    units, step_ms = spikes.units, spikes.step_ms
    same, twice = _same_trains(recording, units), units["duplicates"]
    rules = {
        "%n of %all units have no spikes (unit %rows).": units["spikes"] == 0,
        f"{twice.sum():,} spike times stand twice, in %n units (unit %rows); both are counted.": twice
        > 0,
        "%n units have the very spikes of a unit before them (unit %rows); each counts as one.": same,
        f"All spike times are multiples of {step_ms} ms: bins of 02 that are shorter, or no multiple of it, hold more or "
        "fewer of them by their place alone.": clock.n_isi >= LEAST_ISI and step_ms >= COARSE_MS,
        f"Spikes begin before time zero, at {clock.first:.4g} s.": clock.first < 0,
    }
    return told(rules) + perhaps_other_unit(clock, recording.meta.get("time_unit", "s"))


def report(recording: Recording) -> SessionReport:
    """Check a recording of spikes and describe it; raises what `session_report` says."""
    tables, begun = intervals.read(recording), None
    shown_s = stimulus.read(recording)[0] if recording.stimulus else None
    timed, odd = tables.timed, tables.odd
    if timed is not None:
        trials = recording.trial_table
        begun = trials[np.isfinite(trials["start_time"])]  # a clock is told by starts alone
        has_stop = begun.index.isin(timed.index)
        begun = begun.assign(stop_time=begun["stop_time"].where(has_stop, begun["start_time"]))
    spikes = pass_over(recording)
    clock = clock_of(spikes, tables.of_clock(), recording.meta.get("time_unit", "s"))
    check_clock(recording, clock, begun, spikes.unsorted)
    if shown_s is not None and clock.n_isi >= LEAST_ISI:
        place, samples = stimulus.place(recording), Span("samples", shown_s[0], shown_s[-1])
        check_samples(place, shown_s, clock.spikes)
        odd += intervals.perhaps_slower(samples, len(shown_s), clock.spikes)
    unit_rates = spikes.units.copy()
    unit_rates.insert(1, "rate_hz", unit_rates["spikes"] / clock.span)
    out = {
        "units": _units(recording, spikes, clock),
        "unit_rates": unit_rates,
        "rate": mean_rate(recording, clock),
    }
    out |= tables.check(clock.spikes)
    if timed is not None:
        made, lengths = intervals.trial_tables(recording, trials)
        out |= made | {"classes": pd.DataFrame({"class": recording.labelled.classes})}
        odd += lengths + odd_clocks(recording.trials, timed, spikes.units)
    observed, words = intervals.observed_tables(recording, timed, clock.spikes)
    out |= observed
    odd += words + odd_spikes(recording, spikes, clock)
    areas = pd.Series(counts_dataset.areas_of(recording.units)).value_counts(sort=False)
    odd += [f"units: {words}" for words in labelling.odd_areas(areas.to_dict())]
    if missing := recording.meta.get("left_out"):
        rows = list(missing.items())
        out["left_out"] = pd.DataFrame(rows, columns=["column of the units table not read", "why"])
    items = _summary(recording, clock, out.get("presentations", []))
    shown = "no trials"
    if recording.trials:
        shown = f"{items['presentations']:,} presentations of {items['labels']} labels"
    if recording.is_film:
        on, paused = recording.trial_table["label"] == 1, recording.trial_table["after_pause"]
        items = {k.replace("presentations", "frames"): v for k, v in items.items()}
        odd[:] = [words.replace("presentations", "frames") for words in odd]
        items |= {
            "onsets": int((on & ~on.shift(fill_value=False)).sum()),
            "pauses": int(paused.sum()),
        }
        shown = (
            f"{items['frames']:,} frames, in which {in_markdown(recording.label)} begins {items['onsets']:,} "
            f"times and the film pauses {items['pauses']} times"
        )
    out = {"summary": pd.DataFrame({"item": items.keys(), "value": items.values()}), **out}
    holds = (
        f"{recording.n_spikes:,} spikes of {recording.n_units:,} units (mean rate {items['mean rate [Hz]']} Hz) and "
        + shown
    )
    return SessionReport(recording.id, out, odd, holds)


def _units(recording: Recording, spikes: Spikes, clock: Clock) -> pd.DataFrame:
    units, area = recording.units, "unknown"
    if "area" in units:
        area = units["area"].astype(str).replace({"": "none", "nan": "none"})
    columns = {"area": area, "units": 1, "spikes": spikes.units["spikes"]}
    table = pd.DataFrame(columns, index=units.index)
    good = good_units(units)
    if good is not None:
        table["good"] = good.astype(int)
    table = table.groupby("area").sum().sort_values("units", ascending=False)
    table["rate_hz"] = table["spikes"] / table["units"] / clock.span
    return table.reset_index()


def _summary(recording: Recording, clock: Clock, labels: Sized) -> dict[str, Any]:
    good, rate = good_units(recording.units), clock.n_spikes / recording.n_units / clock.span
    left_out = recording.labelled.left_out if recording.trials else {}
    return {
        "recording": recording.id, "subject": recording.subject,
        "file": recording.path.name if recording.path else "", "units": recording.n_units,
        "units within the Allen limits": "not recorded" if good is None else int(good.sum()),
        "spikes": clock.n_spikes,
        "spikes from [s]": round(clock.first, 3), "spikes to [s]": round(clock.last, 3),
        "mean rate [Hz]": 0.0 if np.isnan(rate) else round(rate, 3),
        "trial table": recording.trials or "none",
        "presentations": len(recording.trial_table) if recording.trials else 0,
        "labels": len(labels), "trials left out": sum(left_out.values()),
        "invalid intervals": len(recording.invalid_times), "series": ", ".join(recording.series),
    }  # fmt: skip
