"""Stretches of a session that do not count: invalid times, and times when a unit was not observed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.data.checks import some
from nblib.data.recording import Recording
from nblib.data.session.clock import Clock, check_shared, check_unit, seconds
from nblib.data.session.spikes import Spikes
from nblib.data.trials.intervals import check_intervals, merged

MEND = "Mend or remove it in the file."


def _times(trials: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    if trials is None:
        return np.empty(0), np.empty(0)
    return trials["start_time"].to_numpy(float), trials["stop_time"].to_numpy(float)


def invalid_tables(
    recording: Recording, where: str, trials: pd.DataFrame | None, clock: Clock, odd: list[str]
) -> dict[str, pd.DataFrame]:
    """The tables `invalid` and `overlaps` of a session report; what is in them is told in `odd`.

    A row counts for all units, whatever its tags. One without an end lasts until the last spike or
    presentation. Raises BadInput for invalid times in another unit of time.
    """
    start, stop = _times(trials)
    first, last = min([clock.first, *start]), max([clock.last, *stop])
    times = recording.invalid_times
    endless = np.flatnonzero(np.isinf(times[:, 1]))
    times[endless, 1] = np.maximum(last, times[endless, 0])
    times[:, 0] = np.where(np.isinf(times[:, 0]), np.minimum(first, times[:, 1]), times[:, 0])
    if len(times):
        begin, end = times.min(), times.max()
        both = (
            f"invalid_times lies from {seconds(begin)} to {seconds(end)} s, spikes and presentations "
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
            f"invalid_times has no end in row {some(endless)}: taken to last until the session's end."
        )
    table = pd.DataFrame(
        {"start_time": times[:, 0], "stop_time": times[:, 1], "presentations": touched.sum(axis=1)}
    )
    numbers = rows if trials is None else trials.index[rows]
    overlaps = pd.DataFrame({"row": numbers, "start_s": start[rows], "stop_s": stop[rows]})
    return {"invalid": table, "overlaps": overlaps}


def observed_tables(
    recording: Recording, where: str, trials: pd.DataFrame | None, spikes: Spikes, odd: list[str]
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
    first, last = np.nanmin(spikes.first), np.nanmax(spikes.last)
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
