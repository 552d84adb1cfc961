"""Intervals of time: their union, and what lies in it."""

from __future__ import annotations

import re

import numpy as np

from nblib.core.findings import Span, refuse

# In the name of a table or of a column of trials: what is to be left out, or else what is to be kept.
UNSOUND = re.compile(
    r"(?i:invalid|art[ei]fact|exclu[ds]|reject|corrupt|unusable|outlier|discard)|(?<![a-z])bad(?![a-z])|Bad|BAD"
)
SOUND = re.compile(
    r"(?i:valid(?!at|it)|inclu[ds]|accepted|(?<!un)usable)|(?<![a-z])(good|keep|kept|use)(?![a-z])|Good|GOOD"
)


def says_of_validity(name: str) -> str:
    """What a name says of its times or trials: "unsound", "sound" or "" for nothing."""
    return "unsound" if UNSOUND.search(name) else "sound" if SOUND.search(name) else ""


def tables_name(place: str) -> str:
    """The name of an interval table here, by its name or its place in an NWB file."""
    return place.strip("/").removeprefix("intervals/")


def check_intervals(where: str, name: str, times: np.ndarray) -> None:
    """Refuse intervals (n, 2) without a start, or that end before it; one without an end is sound.

    Raises BadInput with the rows, from 0.
    """
    start, stop = times.T
    for rows, fault in (
        (np.isnan(start) | np.isposinf(start), "has no start"),
        (stop < start, "ends before it starts"),
    ):
        refuse(
            rows,
            f"{where}: {name} {fault} in row %rows (%value); mend or remove these rows in the file.",
            value=lambda row: Span(f"row {row}", *times[row]),
        )


def open_ended(times: np.ndarray) -> np.ndarray:
    """Intervals (n, 2) with infinity for an end that is NaN: they last until everything ends."""
    return np.where(np.isnan(times) & [False, True], np.inf, times)


def merged(intervals: np.ndarray) -> np.ndarray:
    """Union of intervals (n, 2) as disjoint rising intervals (m, 2); one of no length holds nothing."""
    intervals = intervals[intervals[:, 1] > intervals[:, 0]]
    if len(intervals) == 0:
        return np.empty((0, 2), np.asarray(intervals).dtype)
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(intervals[:, 1])
    first = np.concatenate([[True], intervals[1:, 0] > reach[:-1]])
    last = np.concatenate([np.flatnonzero(first)[1:] - 1, [len(intervals) - 1]])
    return np.column_stack([intervals[first, 0], reach[last]])


def touches(start: np.ndarray, stop: np.ndarray, union: np.ndarray) -> np.ndarray:
    """True for each half-open [start, stop) that overlaps an interval of a disjoint union."""
    if len(union) == 0:
        return np.zeros(len(start), bool)
    before = np.searchsorted(union[:, 0], stop, side="left")  # intervals that begin before stop
    return (before > 0) & (union[np.maximum(before - 1, 0), 1] > start)


def covers(start: np.ndarray, stop: np.ndarray, intervals: np.ndarray, slack: float) -> np.ndarray:
    """True for each [start, stop) that lies inside the union of `intervals` (n, 2), each of which is
    taken to reach `slack` further on both sides."""
    if len(intervals) == 0:
        return np.zeros(len(start), bool)
    union = merged(intervals + np.array([-slack, slack]))
    place = np.searchsorted(union[:, 0], start, side="right") - 1
    return (place >= 0) & (union[place, 1] >= stop)
