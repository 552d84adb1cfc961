"""What no recording may hold, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nblib.errors import BadInput

SHORT_ISI = 0.1  # in seconds common, in milliseconds next to impossible
FEW_SHORT = 0.02  # share of intervals below SHORT_ISI that a train in milliseconds stays under
LEAST_ISI = 100  # fewer intervals between spikes tell nothing
LEAST_RATE = 0.05  # mean spikes a second and unit: below it a session is implausible
MOST_RATE = 200.0
APART = 300.0  # one clock beyond the other by so much: not the same unit


def some(values: Iterable[Any], most: int = 5) -> str:
    """The first few values as text, with the count when there are more."""
    items = [str(v) for v in values]
    return ", ".join(items[:most]) + (f", … ({len(items)} in all)" if len(items) > most else "")


def check_presentations(where: str, name: str, table: pd.DataFrame) -> None:
    """Refuse NaN or negative-length presentations; `where` names the file, `name` the table.

    Rows count from 0. Raises BadInput with the rows.
    """
    start, stop = (table[c].to_numpy(np.float64) for c in ("start_time", "stop_time"))
    for column, values in (("start_time", start), ("stop_time", stop)):
        rows = np.flatnonzero(~np.isfinite(values))
        if len(rows):
            raise BadInput(
                f"{where}: {name} has no finite {column} (NaN or infinite) in row {some(rows)}; "
                "mend or remove these rows in the file."
            )
    rows = np.flatnonzero(stop < start)
    if len(rows):
        first = rows[0]
        raise BadInput(
            f"{where}: {name} has presentations of negative length in row {some(rows)} "
            f"(row {first}: start_time {start[first]:g}, stop_time {stop[first]:g}); mend or "
            "remove these rows in the file."
        )


@dataclass(frozen=True)
class Clock:
    """What tells seconds from milliseconds: all times as they would be taken for seconds."""

    n_units: int  # units with spikes
    n_spikes: int  # their spikes
    first: float  # first and last spike
    last: float
    n_isi: int  # intervals between a unit's spikes that were looked at
    n_short: int  # those below SHORT_ISI
    interval_last: float  # end of the last presentation, NaN when there is none
    shortest: float  # least median presentation length over the interval tables, NaN likewise


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


def perhaps_milliseconds(clock: Clock) -> bool:
    """Whether times let pass as seconds are odd for seconds: fast units in milliseconds may be so."""
    if clock.n_isi < LEAST_ISI or not clock.last > clock.first:
        return False
    sparse = clock.n_short < FEW_SHORT * clock.n_isi
    slow = clock.n_spikes / (clock.n_units * (clock.last - clock.first)) < 0.5
    return bool(sparse and slow and not clock.shortest < 5)


def check_time_unit(where: str, clock: Clock, time_unit: str) -> None:
    """Refuse milliseconds taken for seconds, and seconds taken for milliseconds.

    Spikes decide: in seconds, a unit's spikes come closer than 0.1 now and then and some unit
    fires more than once in 20; in milliseconds neither holds. Sparse spikes are let pass when the
    interval tables share their clock and hold intervals shorter than 5, which no table in
    milliseconds would. Raises BadInput with the reasons and what to set.
    """
    span = clock.last - clock.first
    if clock.n_isi < LEAST_ISI or not span > 0:
        return
    rate = clock.n_spikes / (clock.n_units * span)
    sparse = clock.n_short < FEW_SHORT * clock.n_isi
    spikes_beyond = clock.last / clock.interval_last if clock.interval_last > 0 else np.nan
    seen = (
        f"{clock.n_units} units fire {rate:.2g} spikes per unit and second, "
        f"{100 * clock.n_short / clock.n_isi:.3g} % of the intervals between a unit's spikes are "
        f"below {SHORT_ISI} s, the last spike lies at {clock.last:.6g} s"
    )
    if time_unit == "ms":
        if rate > MOST_RATE:
            raise BadInput(
                f"{where}: read as milliseconds (time_unit: ms), {seen}; these times look like "
                "seconds already. Set time_unit: s."
            )
        return
    if sparse and rate < LEAST_RATE * 4 and spikes_beyond > APART:
        raise BadInput(
            f"{where}: read as seconds, {seen}, {spikes_beyond:.0f} times beyond the end of the "
            f"last interval ({clock.interval_last:.6g} s). Spike times look like milliseconds, "
            "interval tables like seconds; write the file anew with the spike times in seconds."
        )
    one_clock = 1 / APART < spikes_beyond < APART
    if sparse and rate < LEAST_RATE and not (one_clock and clock.shortest < 5):
        raise BadInput(
            f"{where}: read as seconds, {seen}. These times look like milliseconds. "
            "Set time_unit: ms in the recipe."
        )
    if not sparse and 0 < spikes_beyond < 1 / APART:
        raise BadInput(
            f"{where}: the interval tables end at {clock.interval_last:.6g} s, "
            f"{1 / spikes_beyond:.0f} times beyond the last spike ({clock.last:.6g} s). Interval "
            "tables look like milliseconds, spike times like seconds; write the file anew with "
            "one unit."
        )
