"""Look before you leap: what a recording holds, what is odd in it, and what is broken.

Broken is refused with the unit ids or rows; odd is reported. Spikes stream past in pieces, so
memory does not grow with the recording.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nblib.errors import BadInput
from nblib.recording import Recording
from nblib.sources.checks import (
    SHORT_ISI,
    Clock,
    check_presentations,
    check_time_unit,
    interval_clock,
    perhaps_milliseconds,
    some,
)

PIECE = 500_000  # spikes at a time: small enough to stay in the processor's cache
LENGTH_TOLERANCE = 0.05  # presentations whose length is further off the median are odd
RATE_POINTS = 300  # at most so many points in the rate over time
LONG_GAP = 5.0  # a gap longer than so many median steps starts a new block
REFRACTORY_S = 0.0015
# The Allen Institute's own limits: a unit is good when all that are recorded hold.
QUALITY = {
    "isi_violations": (-np.inf, 0.5),
    "amplitude_cutoff": (-np.inf, 0.1),
    "presence_ratio": (0.95, np.inf),
}


@dataclass(frozen=True)
class SessionReport:
    """What a recording holds, as tables, and what is odd in it, as sentences.

    tables: `summary` (item, value); `units` (area, units, good, spikes, rate_hz); `unit_rates`
    (one row a unit); `presentations` (label, n, median_s); `intervals` (one row a table);
    `rate` (time_s, rate_hz: mean over units); `blocks` (runs of trials without a long gap);
    `invalid` (start_time, stop_time, presentations it touches); `lengths` (trials whose length is
    off); `overlaps` (trials that touch an invalid interval). Times in seconds.
    """

    recording: str
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{k}: {v}" for k, v in self.tables["summary"].itertuples(index=False)]
        return "\n".join(
            [*lines, "odd:" if self.odd else "nothing odd", *(f"- {o}" for o in self.odd)]
        )


@dataclass
class _Spikes:
    """What one pass over all spikes found; one entry per unit."""

    count: np.ndarray
    first: np.ndarray
    last: np.ndarray
    duplicates: np.ndarray
    refractory: np.ndarray
    short: int = 0  # intervals within a unit below SHORT_ISI


def session_report(recording: Recording) -> SessionReport:
    """Check a recording and describe it.

    Raises BadInput, naming unit ids or rows, for NaN or infinite spike times, spike times that
    are not sorted within a unit, a spike index that does not fit, milliseconds taken for seconds,
    and NaN or negative-length trials.
    """
    where = str(recording.path or recording.id)
    _check_index(recording, where)
    trials = recording.trial_table.reset_index(drop=True) if recording.trials else None
    if trials is not None:
        check_presentations(where, recording.trials, trials)
    odd: list[str] = list(recording.meta.get("notes", []))
    tables = dict(recording.intervals)
    sound = {n: t for n, t in tables.items() if n == recording.trials or _is_sound(n, t, odd)}
    spikes = _pass_over(recording, where)
    clock = _clock(spikes, [t for n, t in sound.items() if n != "invalid_times"])
    check_time_unit(where, clock, "s")
    out = {
        "units": _units(recording, spikes, clock),
        "unit_rates": _unit_rates(recording, spikes, clock),
        "intervals": _interval_table(sound),
        "rate": _rate(recording, clock),
    }
    if trials is not None:
        out |= _trial_tables(recording, trials, odd)
        _odd_trials(recording.trials, trials, clock, odd)
    _odd_intervals({n: t for n, t in sound.items() if n != recording.trials}, odd)
    _odd_spikes(recording, spikes, clock, odd)
    if missing := recording.meta.get("left_out"):
        out["left_out"] = pd.DataFrame({"column of the units table not read": missing})
    out = {"summary": _summary(recording, trials, spikes, clock, out), **out}
    return SessionReport(recording.id, out, odd)


def _check_index(recording: Recording, where: str) -> None:
    index = np.asarray(recording.spike_index, np.int64)
    falls = np.flatnonzero(np.diff(index) < 0)
    if index[0] != 0 or len(falls):
        at = (
            f"falls at unit {some(recording.units.index[falls])}"
            if len(falls)
            else f"begins at {index[0]}"
        )
        raise BadInput(f"{where}: the spike index {at}; expected rising positions from 0.")


def _is_sound(name: str, table: pd.DataFrame, odd: list[str]) -> bool:
    """Whether another table than the trials can be used; if not, say so."""
    times = table[["start_time", "stop_time"]].to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(times).all(axis=1) | (times[:, 1] < times[:, 0]))
    if len(bad):
        odd.append(
            f"{name}: {len(bad)} of {len(table)} rows have NaN or negative-length times (row {some(bad)})."
        )
    return len(bad) == 0 and len(table) > 0


def _pass_over(recording: Recording, where: str) -> _Spikes:
    """One pass over all spikes; refuses NaN and unsorted times with the unit ids."""
    n = recording.n_units
    found = _Spikes(
        np.diff(recording.spike_index),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.zeros(n, int),
        np.zeros(n, int),
    )
    bad: dict[str, list[int]] = {"NaN or infinite": [], "unsorted": []}
    for lo, hi, times, index in recording.chunks(PIECE):
        count = np.diff(index)
        firing = np.flatnonzero(count)
        if not len(times):
            continue
        with np.errstate(invalid="ignore"):  # infinite times are told below
            total, step = times.sum(), np.diff(times)
        found.first[lo + firing] = times[index[firing]]
        found.last[lo + firing] = times[index[firing + 1] - 1]
        if not np.isfinite(total):
            # A piece is summed first: looking at each value is needed only when the sum is off.
            broken = _per_unit(~np.isfinite(times), index)
            bad["NaN or infinite"] += (lo + np.flatnonzero(broken)).tolist()
        step[index[1:-1][(index[1:-1] > 0) & (index[1:-1] < len(times))] - 1] = (
            np.inf
        )  # from unit to unit
        if not (step >= 0).all():
            bad["unsorted"] += (
                lo + np.flatnonzero(_per_unit(np.r_[False, step < 0], index))
            ).tolist()
        close = np.flatnonzero(step < REFRACTORY_S)
        unit = np.searchsorted(index, close, side="right") - 1
        found.refractory[lo:hi] = np.bincount(unit, minlength=hi - lo)
        found.duplicates[lo:hi] = np.bincount(unit[step[close] == 0], minlength=hi - lo)
        found.short += int(np.count_nonzero(step < SHORT_ISI))
    for what, units in bad.items():
        if units:
            raise BadInput(
                f"{where}: {what} spike times in unit {some(recording.units.index[units])}; "
                + (
                    "mend or remove these units in the file."
                    if what != "unsorted"
                    else "sort them in the file."
                )
            )
    return found


def _per_unit(flags: np.ndarray, index: np.ndarray) -> np.ndarray:
    """How many flags each unit has; `flags` (spike,), `index` (unit + 1,)."""
    total = np.r_[0, np.cumsum(flags)]
    return total[index[1:]] - total[index[:-1]]


def _clock(spikes: _Spikes, tables: list[pd.DataFrame]) -> Clock:
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
    )


def good_units(units: pd.DataFrame) -> np.ndarray | None:
    """Which units meet every recorded quality limit of the Allen Institute; None without any."""
    known = [q for q in QUALITY if q in units]
    if not known:
        return None
    good = np.ones(len(units), bool)
    for name in known:
        low, high = QUALITY[name]
        values = units[name].to_numpy(np.float64)
        good &= (values >= low) & (values <= high)
    return good


def _units(recording: Recording, spikes: _Spikes, clock: Clock) -> pd.DataFrame:
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
    table["rate_hz"] = table["spikes"] / table["units"] / _span(clock)
    return table.reset_index()


def _span(clock: Clock) -> float:
    return clock.last - clock.first if clock.last > clock.first else np.nan


def _unit_rates(recording: Recording, spikes: _Spikes, clock: Clock) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "spikes": spikes.count,
            "rate_hz": spikes.count / _span(clock),
            "first_s": spikes.first,
            "last_s": spikes.last,
            "duplicates": spikes.duplicates,
            "closer_than_1.5_ms": spikes.refractory,
        },
        index=recording.units.index,
    )


def _rate(recording: Recording, clock: Clock) -> pd.DataFrame:
    """Mean rate over units in at most RATE_POINTS bins of whole seconds."""
    span = _span(clock)
    if not span > 0:
        return pd.DataFrame({"time_s": [], "rate_hz": []})
    width = max(1.0, np.ceil(span / RATE_POINTS)) if span > RATE_POINTS / 10 else span / 30
    edges = clock.first + np.arange(max(1, int(span // width)) + 1) * width
    total = np.zeros(len(edges) - 1, np.int64)
    for lo, hi, times, index in recording.chunks(PIECE):
        for i in range(hi - lo):  # sorted within a unit: one search per edge, no pass over spikes
            total += np.diff(np.searchsorted(times[index[i] : index[i + 1]], edges))
    return pd.DataFrame(
        {"time_s": edges[:-1] + width / 2, "rate_hz": total / width / recording.n_units}
    )


def _interval_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, table in tables.items():
        start, stop = table["start_time"].to_numpy(float), table["stop_time"].to_numpy(float)
        rows.append(
            {"table": name, "rows": len(table), "first_s": start.min(), "last_s": stop.max(),
             "median_s": np.median(stop - start), "columns": ", ".join(map(str, table.columns[2:]))}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["table", "rows", "first_s", "last_s", "median_s", "columns"])


def _trial_tables(
    recording: Recording, trials: pd.DataFrame, odd: list[str]
) -> dict[str, pd.DataFrame]:
    start, stop = trials["start_time"].to_numpy(float), trials["stop_time"].to_numpy(float)
    length = stop - start
    by_label = pd.DataFrame({"label": trials["label"], "length": length}).groupby(
        "label", dropna=False
    )["length"]
    presentations = by_label.agg(n="size", median_s="median").reset_index()

    order = np.argsort(start, kind="stable")
    gap = start[order][1:] - np.maximum.accumulate(stop[order])[:-1]
    step = float(np.median(np.diff(start[order]))) if len(start) > 1 else 0.0
    long = np.flatnonzero(gap > max(LONG_GAP * step, 1e-9))
    edges = np.r_[0, long + 1, len(start)]
    blocks = pd.DataFrame(
        {
            "start_s": start[order][edges[:-1]],
            "stop_s": [stop[order][a:b].max() for a, b in itertools.pairwise(edges)],
            "presentations": np.diff(edges),
            "gap_before_s": np.r_[np.nan, gap[long]],
        }
    )
    median = np.median(length)
    off = np.flatnonzero(np.abs(length - median) > LENGTH_TOLERANCE * median)
    lengths = pd.DataFrame(
        {
            "row": off,
            "start_s": start[off],
            "length_s": length[off],
            "label": trials["label"].to_numpy()[off],
        }
    )
    if len(off):
        odd.append(
            f"{recording.trials}: {len(off)} of {len(trials)} presentations are more than 5 % longer or shorter "
            f"than the median of {median:.4g} s (row {some(off)})."
        )
    invalid, overlaps = _invalid(recording, start, stop, odd)
    return {
        "presentations": presentations,
        "blocks": blocks,
        "lengths": lengths,
        "invalid": invalid,
        "overlaps": overlaps,
    }


def _invalid(
    recording: Recording, start: np.ndarray, stop: np.ndarray, odd: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Invalid intervals with the presentations each touches, and those presentations."""
    times = recording.invalid_times
    touches = (start[None, :] < times[:, 1:]) & (stop[None, :] > times[:, :1])  # (interval, trial)
    invalid = pd.DataFrame(
        {"start_time": times[:, 0], "stop_time": times[:, 1], "presentations": touches.sum(axis=1)}
    )
    rows = np.flatnonzero(touches.any(axis=0))
    if len(times):
        odd.append(
            f"{len(times)} invalid interval{'s' if len(times) > 1 else ''} of {(times[:, 1] - times[:, 0]).sum():.4g} s in all touch {len(rows)} "
            f"of {len(start)} presentations" + (f" (row {some(rows)})." if len(rows) else ".")
        )
    return invalid, pd.DataFrame({"row": rows, "start_s": start[rows], "stop_s": stop[rows]})


def _overlapping(table: pd.DataFrame) -> np.ndarray:
    """Rows that begin before an earlier row has ended (by more than a microsecond)."""
    start, stop = table["start_time"].to_numpy(float), table["stop_time"].to_numpy(float)
    order = np.argsort(start, kind="stable")
    early = start[order][1:] < np.maximum.accumulate(stop[order])[:-1] - 1e-6
    return np.sort(order[1:][early])


def _odd_intervals(tables: dict[str, pd.DataFrame], odd: list[str]) -> None:
    for name, table in tables.items():
        rows = _overlapping(table)
        if len(rows):
            odd.append(
                f"{name}: {len(rows)} of {len(table)} intervals begin before an earlier one has ended (row {some(rows)})."
            )


def _odd_trials(name: str, trials: pd.DataFrame, clock: Clock, odd: list[str]) -> None:
    _odd_intervals({name: trials}, odd)
    start, stop = trials["start_time"].to_numpy(float), trials["stop_time"].to_numpy(float)
    for rows, what in (
        (np.flatnonzero(stop == start), "have no length"),
        (np.flatnonzero((stop < clock.first) | (start > clock.last)), "lie outside the time in which there are spikes"),
        (np.flatnonzero(np.r_[False, np.diff(start) < 0]), "begin before the row above them: the table is not in time order"),
    ):  # fmt: skip
        if len(rows):
            odd.append(
                f"{name}: {len(rows)} of {len(trials)} presentations {what} (row {some(rows)})."
            )
    labels = trials["label"]
    if labels.nunique() < 2:
        odd.append(
            f"{name}: only one label ({some(labels.unique())}); nothing can be decoded from it."
        )


def _odd_spikes(recording: Recording, spikes: _Spikes, clock: Clock, odd: list[str]) -> None:
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
    if perhaps_milliseconds(clock):
        odd.append(
            "Spikes are far apart and intervals long for seconds: if these times are milliseconds, "
            "set time_unit: ms in the recipe."
        )
    if clock.first < 0:
        odd.append(f"Spikes begin before time zero, at {clock.first:.4g} s.")
    if not clock.n_spikes:
        odd.append("There is no spike at all.")


def _summary(
    recording: Recording,
    trials: pd.DataFrame | None,
    spikes: _Spikes,
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
        "mean rate [Hz]": round(clock.n_spikes / recording.n_units / _span(clock), 3)
        if _span(clock) > 0
        else 0.0,
        "trial table": recording.trials or "none",
        "presentations": 0 if trials is None else len(trials),
        "labels": 0 if trials is None else len(tables["presentations"]),
        "invalid intervals": len(recording.invalid_times),
        "series": ", ".join(recording.series),
    }
    return pd.DataFrame({"item": items.keys(), "value": items.values()})
