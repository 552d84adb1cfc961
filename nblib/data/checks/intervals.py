"""Intervals of a session: presentations, other tables, invalid and unobserved times; what is odd in them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.data.checks.clock import NO_ORDER, Clock, check_shared, check_unit, seconds
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


def trial_oddities(recording: Recording) -> list[str]:
    """What is odd in the labels and times of a recording's trials: trials left out, labels that are
    probably one, trials without a proper start and stop."""
    name, trials, table = recording.trials, recording.labelled, recording.trial_table
    n_rows = len(recording.intervals[name])
    odd = [
        f"{name}: {n} of {n_rows} trials are left out: {why}." for why, n in trials.left_out.items()
    ]
    odd += [f"{name}: {words}" for words in labelling.odd_labels(trials, recording.rules)]
    odd += labelling.unused_flags(trials, recording.label, recording.rules, name)
    if len(trials.classes) < 2 and trials.classes != [""]:
        odd.append(f"{name}: only one label ({trials.classes[0]}); nothing can be decoded from it.")
    for why, rows in usable.unusable(table, usable.SPAN, recording.trial_place).items():
        odd.append(
            f"{name}: {rows.sum()} of {len(table)} trials have {why} (row {some(table.index[rows])}); 02 "
            "refuses those that its binning cannot use, or leaves them out (unusable_trials: leave_out)."
        )
    return odd


def _times(table: pd.DataFrame | None) -> np.ndarray:
    """Starts and stops (2, row) [s]; none without a table."""
    return (
        np.empty((2, 0)) if table is None else table[["start_time", "stop_time"]].to_numpy(float).T
    )


def is_sound(name: str, table: pd.DataFrame, odd: list[str]) -> bool:
    """Whether another table than the trials can be used; if not, say so."""
    start, stop = _times(table)
    bad = np.flatnonzero(~np.isfinite(start) | ~np.isfinite(stop) | (stop < start))
    if len(bad):
        odd.append(
            f"{name}: {len(bad)} of {len(table)} rows have NaN or negative-length times (row {some(bad)})."
        )
    return len(bad) == 0


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
    recording: Recording, trials: pd.DataFrame, odd: list[str]
) -> dict[str, pd.DataFrame]:
    """The tables presentations, blocks and lengths of a `SessionReport`; odd lengths are told.

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
    off = np.flatnonzero(np.abs(length - median) > LENGTH_TOLERANCE * median)
    columns = {"row": trials.index, "start_s": start, "length_s": length}
    columns["label"] = trials["label"].to_numpy()
    lengths = pd.DataFrame({name: values[off] for name, values in columns.items()})
    if len(off):
        odd.append(
            f"{recording.trials}: {len(off)} of {len(trials)} presentations are more than 5 % longer or shorter "
            f"than the median of {median:.4g} s (row {some(trials.index[off])})."
        )
    return {"presentations": presentations, "blocks": blocks, "lengths": lengths}


def _overlapping(table: pd.DataFrame) -> np.ndarray:
    """Rows that begin before an earlier row has ended (by more than a microsecond)."""
    start, stop = _times(table)
    order = np.argsort(start, kind="stable")
    early = start[order][1:] < np.maximum.accumulate(stop[order])[:-1] - 1e-6
    return table.index.to_numpy()[np.sort(order[1:][early])]


def perhaps_slower(
    name: str, start: np.ndarray, stop: np.ndarray, first: float, last: float
) -> str:
    """A sentence where times fill that of the spikes or of the signal, first to last [s], only when they
    are read as minutes or hours; "" where nothing speaks for it. start, stop (n,): of each interval."""
    if len(start) < LEAST_ROWS:
        return ""
    begin, end, lasts = np.min(start), np.max(stop), last - first
    for unit, factor in SLOWER.items():
        inside = first - SLACK * lasts <= begin * factor and end * factor <= last + SLACK * lasts
        if inside and (end - begin) * factor > FILLS * lasts:
            return (
                f"{name} lies from {seconds(begin)} to {seconds(end)} s, in a session from {seconds(first)} to "
                f"{seconds(last)} s: if its times are {unit}, which would fit, write the file anew with each "
                f"multiplied by {factor:g}."
            )
    return ""


def odd_intervals(tables: dict[str, pd.DataFrame], clock: Clock, odd: list[str]) -> None:
    """Add to `odd` a sentence for each table whose intervals overlap or lie outside the spikes."""
    for name, table in tables.items():
        first, last = table["start_time"].min(), table["stop_time"].max()
        if first > clock.last or last < clock.first:
            odd.append(
                f"{name} lies from {first:.6g} to {last:.6g} s, the spikes from {clock.first:.6g} to "
                f"{clock.last:.6g} s: it may be of another clock."
            )
        elif slower := perhaps_slower(name, *_times(table), clock.first, clock.last):
            odd.append(slower)
        rows = _overlapping(table)
        if len(rows):
            odd.append(
                f"{name}: {len(rows)} of {len(table)} intervals begin before an earlier one has ended (row {some(rows)})."
            )


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


def odd_trials(name: str, trials: pd.DataFrame, clock: Clock, odd: list[str]) -> None:
    """Add to `odd` a sentence for each oddity of the presentations in table `name`."""
    odd_intervals({name: trials}, clock, odd)
    start, stop = _times(trials)
    for rows, what in (
        (
            np.flatnonzero((stop < clock.first) | (start > clock.last)),
            f"lie outside the time in which there are spikes, {clock.first:.6g} to {clock.last:.6g} s",
        ),
        (
            np.flatnonzero(np.r_[False, np.diff(start) < 0]),
            "begin before the row above them: the table is not in time order, or its clock begins anew",
        ),
    ):
        if len(rows):
            odd.append(
                f"{name}: {len(rows)} of {len(trials)} presentations {what} (row {some(trials.index[rows])})."
            )


def readable(recording: Recording, odd: list[str]) -> dict[str, pd.DataFrame]:
    """Every interval table that can be read; adds to `odd` which cannot, and their broken columns, and
    which seem to hold invalid times that nothing uses."""
    tables = {}
    for name in recording.intervals:
        try:
            tables[name] = table = recording.intervals[name]
        except BadInput as error:
            odd.append(f"The interval table {name} is left out, since it cannot be read: {error}")
            continue
        columns.tell_broken(table, name, odd)
        used = name in recording.invalid or name == recording.trials
        says = says_of_validity(name)
        if says and len(table) and not used:
            remedy = (
                _keep_to(recording, table)
                if says == "sound"
                else f"To leave them out, set invalid_times: [{', '.join([*recording.invalid, name])}] in the recipe."
            )
            odd.append(
                f"{name}: by its name, its {len(table)} rows are times to {'keep' if says == 'sound' else 'leave out'}; "
                f"nothing uses them. {remedy}"
            )
    return tables


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


def invalid_tables(
    recording: Recording, where: str, trials: pd.DataFrame | None, clock: Clock, odd: list[str]
) -> dict[str, pd.DataFrame]:
    """The tables `invalid` and `overlaps` of a session report; what is in them is told in `odd`.

    A row counts for all units, whatever its tags. One without an end lasts until the last spike or
    presentation. Raises BadInput for invalid times in another unit of time.
    """
    start, stop = _times(trials)
    first, last = min([clock.first, *start]), max([clock.last, *stop])
    times, named = recording.invalid_times, ", ".join(recording.invalid)
    endless = np.flatnonzero(np.isinf(times[:, 1]))
    times[endless, 1] = np.maximum(last, times[endless, 0])
    times[:, 0] = np.where(np.isinf(times[:, 0]), np.minimum(first, times[:, 1]), times[:, 0])
    if len(times):
        begin, end = times.min(), times.max()
        both = (
            f"{named} lies from {seconds(begin)} to {seconds(end)} s, spikes and presentations "
            f"from {seconds(first)} to {seconds(last)} s"
        )
        check_unit(f"{where}: {both}", (first, last), (begin, end), MEND)
    touched = (start[None, :] < times[:, 1:]) & (stop[None, :] > times[:, :1])  # (interval, trial)
    touched &= times[:, 1:] > times[:, :1]
    rows = np.flatnonzero(touched.any(axis=0))
    if len(times):
        union = merged(times)
        odd.append(
            f"{len(times)} invalid interval{'s' if len(times) > 1 else ''} of {np.diff(union).sum():.4g} s in all touch {len(rows)} "
            f"of {len(start)} presentations"
            + (f" (row {some(trials.index[rows])})." if len(rows) else ".")
        )
    if len(endless):
        odd.append(
            f"{named} has no end in row {some(endless)}: taken to last until the session's end."
        )
    table = pd.DataFrame(
        {"start_time": times[:, 0], "stop_time": times[:, 1], "presentations": touched.sum(axis=1)}
    )
    numbers = rows if trials is None else trials.index[rows]
    overlaps = pd.DataFrame({"row": numbers, "start_s": start[rows], "stop_s": stop[rows]})
    return {"invalid": table, "overlaps": overlaps}


def observed_tables(
    recording: Recording, where: str, trials: pd.DataFrame | None, clock: Clock, odd: list[str]
) -> dict[str, pd.DataFrame]:
    """The table `observed` of a session report (unit: observed_s, share, presentations); no table
    where the file does not tell when its units were observed.

    observed_s and share are of the time from the first spike of all to the last; presentations are
    those observed as a whole. Raises BadInput, with unit and row, for intervals without a start or
    reversed, and for times on another clock than the spikes.
    """
    if recording.observed is None:
        return {}
    ids, start, stop = recording.units.index, *_times(trials)
    first, last = clock.first, clock.last
    known = [unit for unit, times in enumerate(recording.observed) if times is not None]
    observed_s = np.full(len(ids), last - first)
    for unit in known:
        times = recording.observed[unit]
        check_intervals(where, f"units/obs_intervals of unit {ids[unit]}", times)
        observed_s[unit] = np.diff(merged(np.clip(times, first, last))).sum()
    ends = np.concatenate([recording.observed[unit].ravel() for unit in known])
    begin, end = float(ends.min()), float(ends[np.isfinite(ends)].max(initial=last))
    both = (
        f"{where}: units/obs_intervals lies from {seconds(begin)} to {seconds(end)} s, spikes from "
        f"{seconds(first)} to {seconds(last)} s"
    )
    check_shared(both, (first, last), (begin, float(ends.max())))
    check_unit(both, (first, max([last, *stop])), (begin, end), MEND)
    seen = recording.observed_in(start, stop)
    table = pd.DataFrame(
        {"observed_s": observed_s, "share": observed_s / max(last - first, 1e-9), "presentations": seen.sum(axis=0)},
        index=ids,
    )  # fmt: skip
    partly = int(((table["share"] < 1 - 1e-3) | ~seen.all(axis=0)).sum())
    if partly or not seen.all():
        odd.append(
            f"{partly} of {len(ids)} units were not observed all the time: {1 - table['share'].mean():.1%} of the "
            f"units' time is unobserved, and {int((~seen.all(axis=1)).sum())} of {len(start)} presentations were not "
            "observed by every unit. What is unobserved is not silence; 03 leaves it out."
        )
    if len(known) < len(ids):
        odd.append(
            f"units/obs_intervals says nothing of {len(ids) - len(known)} units; they are taken as always observed."
        )
    return {"observed": table}
