"""What no recording may hold, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from nblib.errors import BadInput


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


def check_intervals(where: str, name: str, times: np.ndarray) -> None:
    """Refuse intervals (n, 2) without a start, or that end before it; one without an end is sound.

    Raises BadInput with the rows, from 0.
    """
    for rows, fault in (
        (np.flatnonzero(np.isnan(times[:, 0]) | np.isposinf(times[:, 0])), "has no start"),
        (np.flatnonzero(times[:, 1] < times[:, 0]), "ends before it starts"),
    ):
        if len(rows):
            first, last = times[rows[0]]
            raise BadInput(
                f"{where}: {name} {fault} in row {some(rows)} (row {rows[0]}: {first:g} to {last:g} "
                "s); mend or remove these rows in the file."
            )
