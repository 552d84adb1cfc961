"""Presentations and other intervals: tables of them, and what is odd in them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from nblib.data.checks import some
from nblib.data.recording import Recording
from nblib.data.session.clock import Clock
from nblib.data.trials import labelling

LENGTH_TOLERANCE = 0.05  # presentations whose length is further off the median are odd
LONG_GAP = 5.0  # a gap longer than so many median steps starts a new block


def trial_oddities(recording: Recording) -> list[str]:
    """What is odd in the labels and times of a recording's trials, a sentence each."""
    name, n_rows = recording.trials, len(recording.intervals[recording.trials])
    return [
        *labelling.odd_labels(recording.labelled, n_rows, recording.rules.join_labels, name),
        *labelling.odd_times(recording.trial_table, name, recording.trial_place),
    ]


def is_sound(name: str, table: pd.DataFrame, odd: list[str]) -> bool:
    """Whether another table than the trials can be used; if not, say so."""
    times = table[["start_time", "stop_time"]].to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(times).all(axis=1) | (times[:, 1] < times[:, 0]))
    if len(bad):
        odd.append(
            f"{name}: {len(bad)} of {len(table)} rows have NaN or negative-length times (row {some(bad)})."
        )
    return len(bad) == 0


def interval_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a table of intervals: table, rows, first_s, last_s, median_s, columns."""
    rows: list[dict[str, Any]] = []
    for name, table in tables.items():
        start, stop = table["start_time"].to_numpy(float), table["stop_time"].to_numpy(float)
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
    start, stop = trials["start_time"].to_numpy(float), trials["stop_time"].to_numpy(float)
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
    lengths = pd.DataFrame(
        {
            "row": trials.index[off],
            "start_s": start[off],
            "length_s": length[off],
            "label": trials["label"].to_numpy()[off],
        }
    )
    if len(off):
        odd.append(
            f"{recording.trials}: {len(off)} of {len(trials)} presentations are more than 5 % longer or shorter "
            f"than the median of {median:.4g} s (row {some(trials.index[off])})."
        )
    return {"presentations": presentations, "blocks": blocks, "lengths": lengths}


def _overlapping(table: pd.DataFrame) -> np.ndarray:
    """Rows that begin before an earlier row has ended (by more than a microsecond)."""
    start, stop = table["start_time"].to_numpy(float), table["stop_time"].to_numpy(float)
    order = np.argsort(start, kind="stable")
    early = start[order][1:] < np.maximum.accumulate(stop[order])[:-1] - 1e-6
    return table.index.to_numpy()[np.sort(order[1:][early])]


def odd_intervals(tables: dict[str, pd.DataFrame], clock: Clock, odd: list[str]) -> None:
    """Add to `odd` a sentence for each table whose intervals overlap or lie outside the spikes."""
    for name, table in tables.items():
        first, last = table["start_time"].min(), table["stop_time"].max()
        if first > clock.last or last < clock.first:
            odd.append(
                f"{name} lies from {first:.6g} to {last:.6g} s, the spikes from {clock.first:.6g} to "
                f"{clock.last:.6g} s: it may be of another clock."
            )
        rows = _overlapping(table)
        if len(rows):
            odd.append(
                f"{name}: {len(rows)} of {len(table)} intervals begin before an earlier one has ended (row {some(rows)})."
            )


def odd_trials(name: str, trials: pd.DataFrame, clock: Clock, odd: list[str]) -> None:
    """Add to `odd` a sentence for each oddity of the presentations in table `name`."""
    odd_intervals({name: trials}, clock, odd)
    start, stop = trials["start_time"].to_numpy(float), trials["stop_time"].to_numpy(float)
    for rows, what in (
        (np.flatnonzero((stop < clock.first) | (start > clock.last)), f"lie outside the time in which there are spikes, {clock.first:.6g} to {clock.last:.6g} s"),
        (np.flatnonzero(np.r_[False, np.diff(start) < 0]), "begin before the row above them: the table is not in time order, or its clock begins anew"),
    ):  # fmt: skip
        if len(rows):
            odd.append(
                f"{name}: {len(rows)} of {len(trials)} presentations {what} (row {some(trials.index[rows])})."
            )
