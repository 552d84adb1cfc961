"""What no recording may hold, whatever file it comes from."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput
from nblib.core.errors import some as some  # many import it from here

FEW_EVENTS, UNLIKE = (
    10,
    20.0,
)  # so many events that last so much less than their table: another clock


def check_event(where: str, name: str, table: pd.DataFrame, event: str) -> None:
    """Refuse a column of event times [s] that is not on the clock of its own table, `name`.

    Most events lie between the first start and the last stop, give or take a presentation, and
    they last about as long as the table. Raises BadInput with both ranges.
    """
    rows = table[[event, "start_time", "stop_time"]].to_numpy(np.float64)
    times, start, stop = rows[np.isfinite(rows[:, :2]).all(axis=1)].T
    if not len(times):
        return
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
