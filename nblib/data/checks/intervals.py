"""Intervals of a session: presentations, other tables, invalid and unobserved times; what is odd in them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.findings import Span, counted, seconds, tell, told
from nblib.data.checks.clock import NO_ORDER, check_shared, check_unit
from nblib.data.recording import Recording
from nblib.data.trials import columns, labelling, usable
from nblib.data.trials.time_intervals import check_intervals, merged, open_ended, says_of_validity

LENGTH_TOLERANCE = 0.05  # presentations whose length is further off the median are odd
LONG_GAP = 5.0  # a gap longer than so many median steps starts a new block
MEND = "Mend or remove it in the file."
FEW_TIMES = 3  # so many intervals can be written into a condition
SLOWER = {"minutes": 60.0, "hours": 3600.0}
LEAST_ROWS = 10  # fewer intervals can lie anywhere
FILLS = 0.2  # read in the other unit, intervals fill so much of the session at least
SLACK = 0.05  # and reach so much of it beyond the session at most


@dataclass
class Tables:
    """The interval tables of a recording: what can be used of them, and what is odd in them.

    timed: trials with a proper start and stop, None without trials; sound: tables that can be used, the
    trials first.
    """

    recording: Recording
    timed: pd.DataFrame | None = None
    sound: dict[str, pd.DataFrame] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    def of_clock(self) -> list[pd.DataFrame]:
        """Those that must be on the clock of the session."""
        return [t for name, t in self.sound.items() if name not in self.recording.invalid]

    def check(self, data: Span) -> dict[str, pd.DataFrame]:
        """The tables of a report on intervals in a session whose spikes or signal are `data`; what is
        odd is added. Raises BadInput for what is on another clock."""
        recording, timed = self.recording, self.timed
        if timed is not None:
            check_restart(recording, timed)
            self.odd += odd_times(recording.trials, timed, data)
        made, odd = invalid_tables(recording, timed, data)
        others = {n: t for n, t in self.sound.items() if n != recording.trials}
        self.odd += odd + odd_tables(others, data)
        return {"intervals": interval_table(self.sound), **made}


def read(recording: Recording) -> Tables:
    """Every interval table that can be read; told are which cannot, their broken columns, which seem to
    hold invalid times that nothing uses, and what is odd in trials."""
    tables = Tables(recording, odd=list(recording.meta.get("notes", [])))
    for name in recording.intervals:
        try:
            table = recording.intervals[name]
        except BadInput as error:
            tables.odd.append(
                f"The interval table {name} is left out, since it cannot be read: {error}"
            )
            continue
        tables.odd += columns.broken(table, name)
        used, validity = name in (*recording.invalid, recording.trials), says_of_validity(name)
        if validity and len(table) and not used:
            named = ", ".join([*recording.invalid, name])
            leave = f"To leave them out, set invalid_times: [{named}] in the recipe."
            what, remedy = "leave out", leave
            if validity == "sound":
                what, remedy = "keep", _keep_to(recording, table)
            tables.odd.append(
                f"{name}: by its name, its {len(table)} rows are times to {what}; nothing uses them. {remedy}"
            )
        if len(table) and name != recording.trials:
            wrong = [] if name in recording.invalid else unsound(name, table)
            tables.odd += wrong
            tables.sound |= {} if wrong else {name: table.reset_index(drop=True)}
    if recording.trials:
        tables.timed = timed = recording.timed_trials
        tables.sound = ({recording.trials: timed} if len(timed) else {}) | tables.sound
        tables.odd += odd_trials(recording)
    return tables


def odd_trials(recording: Recording) -> list[str]:
    """What is odd in the labels and times of a recording's trials: trials left out, labels that are
    probably one, trials without a proper start and stop."""
    name, trials, table = recording.trials, recording.labelled, recording.trial_table
    n_rows = len(recording.intervals[name])
    odd = [
        f"{name}: {n} of {n_rows} trials are left out: {why}." for why, n in trials.left_out.items()
    ]
    odd += [f"{name}: {words}" for words in labelling.odd_labels(trials, recording.rules)]
    odd += labelling.unused_flags(trials, recording.label, recording.rules, name)
    odd += tell(
        len(trials.classes) < 2 and trials.classes != [""],
        f"{name}: only one label ({trials.classes[0]}); nothing can be decoded from it.",
    )
    for why, rows in usable.unusable(table, usable.SPAN, recording.trial_place).items():
        odd += tell(
            rows,
            f"{name}: %n of %all trials have {why} (row %rows); 02 refuses those that its binning cannot use, or "
            "leaves them out (unusable_trials: leave_out).",
            of=table.index,
        )
    return odd


def _times(table: pd.DataFrame | None) -> np.ndarray:
    """Starts and stops (2, row) [s]; none without a table."""
    return (
        np.empty((2, 0)) if table is None else table[["start_time", "stop_time"]].to_numpy(float).T
    )


def unsound(name: str, table: pd.DataFrame) -> list[str]:
    """Why another table than the trials cannot be used; nothing where it can."""
    start, stop = _times(table)
    return tell(
        ~np.isfinite(start) | ~np.isfinite(stop) | (stop < start),
        f"{name}: %n of %all rows have NaN or negative-length times (row %rows).",
    )


def interval_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a table of intervals: table, rows, first_s, last_s, median_s, columns."""
    rows: list[dict[str, Any]] = []
    for name, table in tables.items():
        start, stop = _times(table)
        rows.append(
            {"table": name, "rows": len(table), "first_s": start.min(), "last_s": stop.max(),
             "median_s": np.median(stop - start), "columns": ", ".join(map(str, table.columns[2:]))}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["table", "rows", "first_s", "last_s", "median_s", "columns"])


def trial_tables(
    recording: Recording, trials: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The tables presentations, blocks and lengths of a `SessionReport`, and whether lengths are odd.

    All but the first are of trials with a proper start and stop. A row is the trial's place in the
    file's table.
    """
    length = trials["stop_time"] - trials["start_time"]
    by_label = pd.DataFrame({"label": trials["label"], "length": length}).groupby("label")["length"]
    presentations = by_label.agg(n="size", median_s="median").reset_index()
    trials = recording.timed_trials
    start, stop = _times(trials)
    length = stop - start

    order = np.argsort(start, kind="stable")
    gap = start[order][1:] - np.maximum.accumulate(stop[order])[:-1]
    step = float(np.median(np.diff(start[order]))) if len(start) > 1 else 0.0
    long = np.flatnonzero(gap > max(LONG_GAP * step, 1e-9))
    edges = np.unique(np.r_[0, long + 1, len(start)])
    blocks = pd.DataFrame(
        {
            "start_s": start[order][edges[:-1]],
            "stop_s": [stop[order][a:b].max() for a, b in itertools.pairwise(edges)],
            "presentations": np.diff(edges),
            "gap_before_s": np.r_[np.nan, gap[long]][: len(edges) - 1],
        }
    )
    median = np.median(length) if len(length) else np.nan
    off = np.abs(length - median) > LENGTH_TOLERANCE * median
    columns = {"row": trials.index, "start_s": start, "length_s": length}
    columns["label"] = trials["label"].to_numpy()
    lengths = pd.DataFrame({name: values[off] for name, values in columns.items()})
    odd = tell(
        off,
        f"{recording.trials}: %n of %all presentations are more than 5 % longer or shorter than the median of "
        f"{median:.4g} s (row %rows).",
        of=trials.index,
    )
    return {"presentations": presentations, "blocks": blocks, "lengths": lengths}, odd


def _overlapping(table: pd.DataFrame) -> np.ndarray:
    """(row,) Whether a row begins before an earlier one has ended (by more than a microsecond)."""
    start, stop = _times(table)
    order = np.argsort(start, kind="stable")
    early = np.zeros(len(start), bool)
    early[order[1:]] = start[order][1:] < np.maximum.accumulate(stop[order])[:-1] - 1e-6
    return early


def perhaps_slower(own: Span, n: int, session: Span) -> list[str]:
    """Whether the times of n intervals or samples fill those of the session only when they are read as
    minutes or hours."""
    room, odd = SLACK * session.lasts, []
    for unit, factor in SLOWER.items() if n >= LEAST_ROWS else ():
        begin, end = own.first * factor, own.last * factor
        inside = session.first - room <= begin and end <= session.last + room
        odd += tell(
            inside and end - begin > FILLS * session.lasts,
            f"{own}, in a session with {session}: if its times are {unit}, which would fit, write the file anew with "
            f"each multiplied by {factor:g}.",
        )
    return odd[:1]


def odd_tables(tables: dict[str, pd.DataFrame], data: Span) -> list[str]:
    """Which tables have intervals that overlap, or lie outside the spikes or the signal."""
    odd = []
    for name, table in tables.items():
        own = Span(name, table["start_time"].min(), table["stop_time"].max())
        odd += tell(
            own.first > data.last or own.last < data.first,
            f"{own}, {data}: {name} may be of another clock.",
        ) or perhaps_slower(own, len(table), data)
        odd += tell(
            _overlapping(table),
            f"{name}: %n of %all intervals begin before an earlier one has ended (row %rows).",
            of=table.index,
        )
    return odd


def odd_times(name: str, trials: pd.DataFrame, data: Span) -> list[str]:
    """What is odd in the times of the presentations in table `name`."""
    outside = (trials["stop_time"] < data.first) | (trials["start_time"] > data.last)
    rules = {
        f"{name}: %n of %all presentations lie outside the {data} (row %rows).": outside,
        f"{name}: %n of %all presentations begin before the row above them: the table is not in time order, or its clock "
        "begins anew (row %rows).": trials["start_time"].diff() < 0,
    }
    return odd_tables({name: trials}, data) + told(rules)


def check_restart(recording: Recording, trials: pd.DataFrame) -> None:
    """Refuse trials whose clock begins anew within their table: a part of them, each after the other,
    overlaps those of an earlier part that have the same labels.

    Raises BadInput with the row, the times and what mends it. A table in another order than that of
    time is let pass: its parts do not overlap, or have labels of their own.
    """
    start, stop = _times(trials)
    falls = np.flatnonzero(np.diff(start) < 0) + 1
    if len(falls) > NO_ORDER * len(start):
        return
    parts = np.split(np.arange(len(start)), falls)
    for earlier, part in itertools.pairwise(parts):
        if min(len(earlier), len(part)) < LEAST_ROWS:
            continue
        order = earlier[np.argsort(start[earlier])]
        place = np.searchsorted(start[order], stop[part]) - 1  # the last that begins before it ends
        over = part[(place >= 0) & (stop[order[place]] > start[part])]
        alone = sum((start[rows[1:]] < stop[rows[:-1]]).sum() for rows in (earlier, part))
        shared = np.isin(trials["label"].iloc[over], trials["label"].iloc[earlier]).sum()
        if min(len(over), shared) < LEAST_ROWS or alone > len(over) / 10:
            continue
        row, table = part[0], recording.intervals[recording.trials]
        some_rows = ""
        if table.index.name == "id" and table.index.is_monotonic_increasing:
            one_part = labelling.and_where(recording.rules, f"id < {trials.index[row]}")
            some_rows = f" To decode from the first part alone, set in the recipe  {one_part}"
        raise BadInput(
            f"{recording.trial_place} begins anew in row {trials.index[row]}: from {seconds(start[row - 1])} s to "
            f"{seconds(start[row])} s, and {len(over)} of the trials after it overlap earlier ones. Where its clock "
            "began anew, write the file anew with the end of the earlier part added to the later times, or a file a "
            "part; where trials stand twice or are only in another order, mend the table, and sort it by "
            f"start_time.{some_rows}"
        )


def _keep_to(recording: Recording, table: pd.DataFrame) -> str:
    """How to keep to the times of a table."""
    times = merged(open_ended(_times(table).T))
    if recording.trials and not recording.lfp and 0 < len(times) <= FEW_TIMES:
        inside = " or ".join(
            f"start_time >= {a!r}" + (f" and stop_time <= {b!r}" if np.isfinite(b) else "")
            for a, b in times.tolist()
        )
        return "To decode from trials inside them alone, set in the recipe  " + labelling.and_where(
            recording.rules, inside
        )
    return (
        "To keep to them, write the times between them into a table of the file, and name that in invalid_times "
        "of the recipe."
    )


def _session(recording: Recording, data: Span, start: np.ndarray, stop: np.ndarray) -> Span:
    """The time of spikes or signal and of the trials together."""
    name = " and ".join(filter(None, [data.name, recording.trials]))
    return Span(name, min([data.first, *start]), max([data.last, *stop]))


def invalid_tables(
    recording: Recording, trials: pd.DataFrame | None, data: Span
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The tables `invalid` and `overlaps` of a session report, and what they come to in words.

    A row counts for all units, whatever its tags. One without an end lasts until the last spike or
    presentation. Raises BadInput for invalid times in another unit of time.
    """
    start, stop = _times(trials)
    session = _session(recording, data, start, stop)
    times, named = recording.invalid_times, ", ".join(recording.invalid)
    endless = np.isinf(times[:, 1])
    times[endless, 1] = np.maximum(session.last, times[endless, 0])
    times[:, 0] = np.where(
        np.isinf(times[:, 0]), np.minimum(session.first, times[:, 1]), times[:, 0]
    )
    if len(times):
        check_unit(recording.where, Span(named, times.min(), times.max()), session, MEND)
    touched = (start[None, :] < times[:, 1:]) & (stop[None, :] > times[:, :1])  # (interval, trial)
    touched &= times[:, 1:] > times[:, :1]
    rows = np.flatnonzero(touched.any(axis=0))
    numbers = rows if trials is None else trials.index[rows]
    unused = "; no window touches them" if recording.lfp else ""
    odd = tell(
        len(times) > 0,
        f"{counted(len(times), 'invalid interval')} of {np.diff(merged(times)).sum():.4g} s in all touch{'es' if len(times) == 1 else ''} {len(rows)} of "
        f"{len(start)} presentations{f' (row {some(numbers)})' if len(rows) else ''}{unused}.",
    )
    odd += tell(endless, f"{named} has no end in row %rows: taken to last until the session's end.")
    table = pd.DataFrame(
        {"start_time": times[:, 0], "stop_time": times[:, 1], "presentations": touched.sum(axis=1)}
    )
    overlaps = pd.DataFrame({"row": numbers, "start_s": start[rows], "stop_s": stop[rows]})
    return {"invalid": table, "overlaps": overlaps}, odd


def observed_tables(
    recording: Recording, trials: pd.DataFrame | None, spikes: Span
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The table `observed` of a session report (unit: observed_s, share, presentations), and what it
    comes to in words; none where the file does not tell when its units were observed.

    observed_s and share are of the time from the first spike of all to the last; presentations are
    those observed as a whole. Raises BadInput, with unit and row, for intervals without a start or
    reversed, and for times on another clock than the spikes.
    """
    if recording.observed is None:
        return {}, []
    ids, start, stop = recording.units.index, *_times(trials)
    first, last, field = spikes.first, spikes.last, "units/obs_intervals"
    known = [unit for unit, times in enumerate(recording.observed) if times is not None]
    observed_s = np.full(len(ids), last - first)
    for unit in known:
        times = recording.observed[unit]
        check_intervals(recording.where, f"{field} of unit {ids[unit]}", times)
        observed_s[unit] = np.diff(merged(np.clip(times, first, last))).sum()
    ends = np.concatenate([recording.observed[unit].ravel() for unit in known])
    begin, end = float(ends.min()), float(ends[np.isfinite(ends)].max(initial=last))
    check_shared(recording.where, Span(field, begin, float(ends.max())), spikes)
    check_unit(
        recording.where, Span(field, begin, end), _session(recording, spikes, start, stop), MEND
    )
    seen = recording.observed_in(start, stop)
    table = pd.DataFrame(
        {"observed_s": observed_s, "share": observed_s / max(last - first, 1e-9), "presentations": seen.sum(axis=0)},
        index=ids,
    )  # fmt: skip
    shown = ""
    if len(start):
        unseen = int((~seen.all(axis=1)).sum())
        shown = f", and {unseen} of {len(start)} presentations were not observed by every unit"
    partly = int(((table["share"] < 1 - 1e-3) | ~seen.all(axis=0)).sum())
    odd = tell(
        partly > 0 or not seen.all(),
        f"{partly} of {len(ids)} units were not observed all the time: {1 - table['share'].mean():.1%} of the "
        f"units' time is unobserved{shown}. What is unobserved is not silence; 03 leaves it out.",
    )
    odd += tell(
        [unit for unit, times in enumerate(recording.observed) if times is None],
        f"{field} says nothing of %n units; they are taken as always observed.",
    )
    return {"observed": table}, odd
