"""Columns of a table that a recipe names: that they are there, with one value a row, and numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.findings import refuse, tell
from nblib.core.params import MISSING

# In a table's `attrs`: the columns that were not read, with the reason. Most are only not flat
# (waveforms, lists), which is as it should be.
LEFT_OUT = "left_out"
BROKEN = "broken"  # also there: which of these are broken
TIME_SUFFIX = "_time"  # of columns of time besides start_time and stop_time: NWB's own habit
# So many events that last so much less than their table are on another clock.
FEW_EVENTS, UNLIKE = 10, 20.0


def broken(table: pd.DataFrame, place: str) -> list[str]:
    """A sentence for each column that could not be read."""
    why = table.attrs.get(LEFT_OUT, {})
    names = table.attrs.get(BROKEN, [])
    return [f"{place}: column {name!r} is left out: {why[name]}." for name in names]


def require(table: pd.DataFrame, name: str, where: str, setting: str = "") -> pd.Series:
    """A column with one value a row that is needed; `where` names file and table.

    Raises BadInput that says what is there instead, and which setting of the recipe names it.
    """
    mend = (
        f" Set `{setting}` in the recipe to a column that has one value a row." if setting else ""
    )
    if name not in table:
        reason = table.attrs.get(LEFT_OUT, {}).get(name)
        if reason:
            raise BadInput(f"{where}: column {name!r} cannot be used: {reason}.{mend}")
        raise BadInput(
            f"{where} has no column {name!r}; its columns are {some(table.columns, 40)}."
            + (f" Set `{setting}` in the recipe." if setting else "")
        )
    values = table[name]
    if values.dtype == object:
        for row, value in enumerate(values):
            if isinstance(value, list | dict):
                raise BadInput(
                    f"{where}: column {name!r} holds lists, in row {row} {value}; one value a row "
                    f"is needed.{mend}"
                )
    return values


def numbers(values: pd.Series, where: str) -> np.ndarray:
    """A column as float64; text that holds numbers is read, missing text is NaN.

    Raises BadInput with the row and value that is no number; `where` names file, table and column.
    """
    if values.dtype.kind in "biuf":
        return values.to_numpy(np.float64)
    words = values.astype(str).str.strip()
    parsed = pd.to_numeric(words, errors="coerce")
    wrong = parsed.isna() & values.notna() & ~words.isin(["", *MISSING])
    refuse(
        wrong.to_numpy(), f"{where} holds %value in row %rows; a number is needed.", value=values
    )
    return parsed.to_numpy(np.float64)


def check_event(where: str, name: str, table: pd.DataFrame, event: str) -> list[str]:
    """Refuse a column of event times [s] that is not on the clock of its own table, `name`.

    Most events lie between the first start and the last stop, give or take a presentation, and
    they last about as long as the table. Raises BadInput with both ranges. Returns a sentence on those
    that lie outside their own presentation.
    """
    rows = table[[event, "start_time", "stop_time"]].to_numpy(np.float64)
    has_both = np.isfinite(rows[:, :2]).all(axis=1)
    times, start, stop = rows[has_both].T
    if not len(times):
        return []
    first, last = start.min(), max(start.max(), np.nanmax(stop, initial=start.max()))
    step = float(np.median(np.diff(np.sort(start)))) if len(start) > 1 else last - first
    outside = np.mean((times < first - step) | (times > last + step))
    short = len(times) >= FEW_EVENTS and np.ptp(times) * UNLIKE < last - first
    if outside > 0.5 or short:
        raise BadInput(
            f"{where}: column {event!r} of {name} lies from {times.min():,.6g} to {times.max():,.6g} s, {name} "
            f"itself from {first:,.6g} to {last:,.6g} s: they are not on one clock. Choose another column "
            "as `event`, or write it anew in seconds from the session's start."
        )
    return tell(
        (times < start - step) | (times > stop + step),
        f"{name}: %n of %all times of {event!r} lie outside their own presentation (row %rows); their clock may "
        "begin anew.",
        of=np.flatnonzero(has_both),
    )
