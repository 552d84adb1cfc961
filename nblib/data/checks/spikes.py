"""One pass over all spikes: what each unit holds, and what is broken or odd in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.data.checks import intervals
from nblib.data.checks.clock import (
    SHORT_ISI,
    Clock,
    check_clock,
    interval_clock,
    perhaps_other_unit,
)
from nblib.data.checks.report import SessionReport
from nblib.data.nwb import tables as nwb_tables
from nblib.data.recording import Recording, good_units

PIECE = 500_000  # spikes at a time: small enough to stay in the processor's cache
RATE_POINTS = 300  # at most so many points in the rate over time
REFRACTORY_S = 0.0015


@dataclass
class Spikes:
    """What one pass over all spikes found; one entry per unit."""

    count: np.ndarray
    first: np.ndarray
    last: np.ndarray
    duplicates: np.ndarray
    refractory: np.ndarray
    short: int = 0  # intervals within a unit below SHORT_ISI
    unsorted: list[int] = field(default_factory=list)  # units whose times fall
    whole: bool = True  # every time is a whole number in the file


def check_index(recording: Recording, where: str) -> None:
    """BadInput when the positions of the units' spikes do not rise from 0; `where` names the file."""
    index = np.asarray(recording.spike_index, np.int64)
    falls = np.flatnonzero(np.diff(index) < 0)
    if index[0] != 0 or len(falls):
        at = (
            f"falls at unit {some(recording.units.index[falls])}"
            if len(falls)
            else f"begins at {index[0]}"
        )
        raise BadInput(f"{where}: the spike index {at}; expected rising positions from 0.")


def pass_over(recording: Recording, where: str) -> Spikes:
    """One pass over all spikes; refuses NaN with the unit ids, notes which units are not sorted."""
    n, per_second = recording.n_units, 1e3 if recording.meta.get("time_unit") == "ms" else 1.0
    spikes = Spikes(
        np.diff(recording.spike_index),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.zeros(n, int),
        np.zeros(n, int),
    )
    bad: list[int] = []
    for lo, hi, times, index in recording.chunks(PIECE):
        count = np.diff(index)
        firing = np.flatnonzero(count)
        if not len(times):
            continue
        with np.errstate(invalid="ignore"):  # infinite times are told below
            total, step = times.sum(), np.diff(times)
        spikes.first[lo + firing] = times[index[firing]]
        spikes.last[lo + firing] = times[index[firing + 1] - 1]
        if not np.isfinite(total):
            # A piece is summed first: looking at each value is needed only when the sum is off.
            broken = _per_unit(~np.isfinite(times), index)
            bad += (lo + np.flatnonzero(broken)).tolist()
            continue
        step[index[1:-1][(index[1:-1] > 0) & (index[1:-1] < len(times))] - 1] = (
            np.inf
        )  # from unit to unit
        if not (step >= 0).all():
            falls = np.flatnonzero(_per_unit(np.r_[False, step < 0], index))
            spikes.unsorted += (lo + falls).tolist()
            spikes.first[lo + falls] = [times[index[i] : index[i + 1]].min() for i in falls]
            spikes.last[lo + falls] = [times[index[i] : index[i + 1]].max() for i in falls]
        close = np.flatnonzero(step < REFRACTORY_S)
        unit = np.searchsorted(index, close, side="right") - 1
        spikes.refractory[lo:hi] = np.bincount(unit, minlength=hi - lo)
        spikes.duplicates[lo:hi] = np.bincount(unit[step[close] == 0], minlength=hi - lo)
        spikes.short += int(np.count_nonzero(step < SHORT_ISI))
        # A few tell enough of most recordings.
        spikes.whole = spikes.whole and _whole(times[:1000] * per_second) and _whole(times * per_second)  # fmt: skip
    if bad:
        raise BadInput(
            f"{where}: NaN or infinite spike times in unit {some(recording.units.index[bad])}; "
            "mend or remove these units in the file."
        )
    return spikes


def _whole(values: np.ndarray) -> bool:
    return bool((np.abs(values - np.rint(values)) < 1e-6).all())


def _per_unit(flags: np.ndarray, index: np.ndarray) -> np.ndarray:
    """How many flags each unit has; `flags` (spike,), `index` (unit + 1,)."""
    total = np.r_[0, np.cumsum(flags)]
    return total[index[1:]] - total[index[:-1]]


def clock_of(spikes: Spikes, tables: list[pd.DataFrame]) -> Clock:
    """What tells seconds from milliseconds: of all spikes, and of the intervals in `tables`."""
    firing = spikes.count > 0
    first = float(np.nanmin(spikes.first)) if firing.any() else 0.0
    last = float(np.nanmax(spikes.last)) if firing.any() else 0.0
    n_isi = int((spikes.count[firing] - 1).sum())
    return Clock(
        int(firing.sum()),
        int(spikes.count.sum()),
        first,
        last,
        n_isi,
        spikes.short,
        *interval_clock(tables),
        whole=spikes.whole,
    )


def span(clock: Clock) -> float:
    """From the first spike to the last [s]; NaN where that is no time."""
    return clock.last - clock.first if clock.last > clock.first else np.nan


def unit_rates(recording: Recording, spikes: Spikes, clock: Clock) -> pd.DataFrame:
    """One row a unit: spikes, rate_hz, first_s, last_s, duplicates, closer_than_1.5_ms."""
    return pd.DataFrame(
        {
            "spikes": spikes.count,
            "rate_hz": spikes.count / span(clock),
            "first_s": spikes.first,
            "last_s": spikes.last,
            "duplicates": spikes.duplicates,
            "closer_than_1.5_ms": spikes.refractory,
        },
        index=recording.units.index,
    )


def mean_rate(recording: Recording, clock: Clock) -> pd.DataFrame:
    """Mean rate over units in at most RATE_POINTS bins of whole seconds: time_s, rate_hz."""
    seconds = span(clock)
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


def odd_spikes(recording: Recording, spikes: Spikes, clock: Clock, odd: list[str]) -> None:
    """Add to `odd` a sentence for each oddity of the spikes."""
    ids = recording.units.index
    silent = np.flatnonzero(spikes.count == 0)
    if len(silent):
        odd.append(f"{len(silent)} of {len(ids)} units have no spikes (unit {some(ids[silent])}).")
    twice = np.flatnonzero(spikes.duplicates)
    if len(twice):
        odd.append(
            f"{spikes.duplicates.sum()} spike times stand twice, in {len(twice)} units (unit {some(ids[twice])}); "
            "both are counted."
        )
    if other := perhaps_other_unit(clock, recording.meta.get("time_unit", "s")):
        odd.append(other)
    if clock.first < 0:
        odd.append(f"Spikes begin before time zero, at {clock.first:.4g} s.")


def report(recording: Recording) -> SessionReport:
    """Check a recording of spikes and describe it; raises what `session_report` says."""
    where = str(recording.path or recording.id)
    check_index(recording, where)
    odd: list[str] = list(recording.meta.get("notes", []))
    tables = _tables(recording, odd)
    tables.pop(recording.trials, None)
    sound = {
        n: t.reset_index(drop=True)
        for n, t in tables.items()
        if len(t) and (n == "invalid_times" or intervals.is_sound(n, t, odd))
    }
    trials = timed = begun = None
    if recording.trials:
        trials, timed = recording.trial_table, recording.timed_trials
        begun = trials[np.isfinite(trials["start_time"])]  # a clock is told by starts alone
        has_stop = begun.index.isin(timed.index)
        begun = begun.assign(stop_time=begun["stop_time"].where(has_stop, begun["start_time"]))
        odd += intervals.trial_oddities(recording)
        sound = ({recording.trials: timed} if len(timed) else {}) | sound
    spikes = pass_over(recording, where)
    others = [t for n, t in sound.items() if n != "invalid_times"]
    clock = clock_of(spikes, others)
    check_clock(recording, where, clock, begun, spikes.unsorted)
    out = {
        "units": _units(recording, spikes, clock),
        "unit_rates": unit_rates(recording, spikes, clock),
        "intervals": intervals.interval_table(sound),
        "rate": mean_rate(recording, clock),
    }
    if trials is not None:
        out |= intervals.trial_tables(recording, trials, odd)
    out |= intervals.invalid_tables(recording, where, timed, clock, odd)
    out |= intervals.observed_tables(recording, where, timed, spikes, odd)
    if trials is not None:
        intervals.odd_trials(recording.trials, timed, clock, odd)
        out["classes"] = pd.DataFrame({"class": recording.labelled.classes})
    intervals.odd_intervals({n: t for n, t in sound.items() if n != recording.trials}, clock, odd)
    odd_spikes(recording, spikes, clock, odd)
    if missing := recording.meta.get("left_out"):
        rows = list(missing.items())
        out["left_out"] = pd.DataFrame(rows, columns=["column of the units table not read", "why"])
    out = {"summary": _summary(recording, trials, spikes, clock, out), **out}
    item = out["summary"].set_index("item")["value"]
    holds = (
        f"{recording.n_spikes:,} spikes of {recording.n_units:,} units (mean rate {item['mean rate [Hz]']} Hz) and "
        + (
            f"{item['presentations']:,} presentations of {item['labels']} labels"
            if recording.trials
            else "no trials"
        )
    )
    return SessionReport(recording.id, out, odd, holds)


def _tables(recording: Recording, odd: list[str]) -> dict[str, pd.DataFrame]:
    """Every interval table that can be read; adds to `odd` which cannot, and their broken columns."""
    tables = {}
    for name in recording.intervals:
        try:
            tables[name] = recording.intervals[name]
        except BadInput as error:
            odd.append(f"The interval table {name} is left out, since it cannot be read: {error}")
        else:
            nwb_tables.tell_broken(tables[name], name, odd)
    return tables


def _units(recording: Recording, spikes: Spikes, clock: Clock) -> pd.DataFrame:
    units = recording.units
    area = (
        units["area"].astype(str).replace({"": "none", "nan": "none"})
        if "area" in units
        else "unknown"
    )
    table = pd.DataFrame({"area": area, "units": 1, "spikes": spikes.count}, index=units.index)
    good = good_units(units)
    if good is not None:
        table["good"] = good.astype(int)
    table = table.groupby("area").sum().sort_values("units", ascending=False)
    table["rate_hz"] = table["spikes"] / table["units"] / span(clock)
    return table.reset_index()


def _summary(
    recording: Recording,
    trials: pd.DataFrame | None,
    spikes: Spikes,
    clock: Clock,
    tables: dict[str, pd.DataFrame],
) -> pd.DataFrame:
    good = good_units(recording.units)
    items = {
        "recording": recording.id,
        "subject": recording.subject,
        "file": recording.path.name if recording.path else "",
        "units": recording.n_units,
        "units within the Allen limits": "not recorded" if good is None else int(good.sum()),
        "spikes": clock.n_spikes,
        "spikes from [s]": round(clock.first, 3),
        "spikes to [s]": round(clock.last, 3),
        "mean rate [Hz]": round(clock.n_spikes / recording.n_units / span(clock), 3)
        if span(clock) > 0
        else 0.0,
        "trial table": recording.trials or "none",
        "presentations": 0 if trials is None else len(trials),
        "labels": 0 if trials is None else len(tables["presentations"]),
        "trials left out": 0 if trials is None else sum(recording.labelled.left_out.values()),
        "invalid intervals": len(recording.invalid_times),
        "series": ", ".join(recording.series),
    }
    return pd.DataFrame({"item": items.keys(), "value": items.values()})
