"""Which units and trials are left out before any statistics: recorded quality, regions, invalid times.

Nothing here looks at counts across trials, so nothing here can leak. Every removal is counted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nblib.core.errors import BadInput, BadParameter, there_is
from nblib.core.findings import refuse
from nblib.core.params import CleanSettings
from nblib.data.counts_dataset import UNIT_TEXT, edges_of, to_ns, units_of
from nblib.data.counts_dataset import save as save_counts
from nblib.data.recording import Recording
from nblib.data.trials.time_intervals import merged, touches
from nblib.prepare import binning, continuous
from nblib.prepare.bin_of_spike import first_at_or_after

REMOVALS_FILE = "removals.parquet"


def spikes_inside(recording: Recording, union_ns: np.ndarray) -> int:
    """Number of spikes, over all units, inside a disjoint union of intervals (n, 2) [ns]."""
    if len(union_ns) == 0:
        return 0
    edges = first_at_or_after(union_ns.ravel())
    places = (np.searchsorted(times, edges).reshape(-1, 2) for times in recording.trains())
    return sum(int(np.diff(place, axis=1).sum()) for place in places)


def drop_invalid_spikes(
    binned: xr.Dataset, recording: Recording, union_ns: np.ndarray
) -> xr.Dataset:
    """Take the spikes inside invalid intervals (n, 2) [ns] out of the counts, and their time out of exposure."""
    edges = edges_of(binned)
    rows = np.flatnonzero(touches(edges[:, 0], edges[:, -1], union_ns))
    counts = binned.counts.values.copy()
    exposure = binned.exposure_s.values.copy()
    for start, stop in union_ns:
        hit = rows[(edges[rows, 0] < stop) & (edges[rows, -1] > start)]
        if len(hit) == 0:
            continue
        clipped = np.clip(edges[hit], start, stop)
        counts[hit] -= binning.count_spikes(recording, clipped).astype(counts.dtype)
        exposure[hit] -= np.diff(clipped, axis=1) / 1e9
    cleaned = binned.assign_coords(exposure_s=(("trial", "time"), exposure))
    return cleaned.assign(counts=(("trial", "time", "unit"), counts))


def unit_limits(binned: xr.Dataset, settings: CleanSettings) -> list[tuple[str, np.ndarray]]:
    """(reason, units that fail) for each recorded quality limit that is set."""
    limits = [
        ("isi_violations", settings.isi_violations_max, np.greater),
        ("amplitude_cutoff", settings.amplitude_cutoff_max, np.greater),
        ("presence_ratio", settings.presence_ratio_min, np.less),
    ]
    shares = {name for name, *_ in limits}
    for name, (lowest, highest) in settings.unit_limits.items():
        limits += [(name, lowest, np.less), (name, highest, np.greater)]
    failing = {}
    for name, limit, beyond in limits:
        if not np.isfinite(limit) and name not in settings.unit_limits:
            continue
        if name not in binned.coords or binned[name].dims != ("unit",):
            known = there_is([n for n in units_of(binned) if n not in UNIT_TEXT], name)
            raise BadParameter(
                f"recording {binned.attrs['recording']!r} has no recorded {name}, so its limit "
                f"({limit}) cannot be applied; {known} Else leave that limit out for this recording."
            )
        if not np.isfinite(limit):
            continue
        values = binned[name].values
        if values.dtype.kind not in "biuf":
            recorded, values = values, pd.to_numeric(values, errors="coerce")
            refuse(
                np.isnan(values),
                f"{binned.attrs['source']}: units column {name!r} holds %value in row %rows of the units, so its "
                f"limit ({limit}) cannot be applied.",
                value=recorded,
            )
        # Violations are a ratio to what is expected, and can be above 1.
        share = name != "isi_violations"
        refuse(
            (name in shares) & ((values < 0) | (share & (values > 1 + 1e-9))),
            f"{binned.attrs['source']}: units column {name!r} holds %value in row %rows of the units; it cannot be "
            f"below 0{' or above 1' if share else ''}, so its limit ({limit}) cannot be applied. Write a missing "
            "value as NaN, and a share as a share.",
            value=values,
        )
        word = "above" if beyond is np.greater else "below"
        reason = f"{name} {word} {limit:g}"
        failing[reason] = beyond(values, limit) | failing.get(reason, False)  # of like limits both
        failing[f"{name} not recorded"] = np.isnan(values)
    return list(failing.items())


def drop_unobserved(
    binned: xr.Dataset, seen: np.ndarray, unobserved: str
) -> tuple[xr.Dataset, list[tuple[str, str, int, int]]]:
    """Leave out presentations or units so that every unit was observed in every presentation.

    seen: bool (trial, unit), whether it was observed throughout; unobserved: the setting of that
    name. Returns what is left and rows of the table of removals. Raises BadInput when nothing is, with
    the setting that would leave most.
    """
    trials, units = np.ones(len(seen), bool), np.ones(seen.shape[1], bool)
    if unobserved == "largest":
        trials, units = largest_block(seen)
    elif unobserved == "presentations":
        trials = seen.all(axis=1)
    elif unobserved == "units":
        units = seen.all(axis=0)
    if not (trials.any() and units.any()):
        best_trials, best_units = largest_block(seen)
        other = (
            f"unobserved: largest leaves {best_units.sum()} of {len(units)} units and {best_trials.sum()} "
            f"of {len(trials)} presentations."
            if best_units.any()
            else "No unit was observed throughout any presentation."
        )
        raise BadInput(
            f"recording {binned.attrs['recording']!r}: units were observed at different times "
            f"(units/obs_intervals), and unobserved: {unobserved} would leave no {'unit' if trials.any() else 'presentation'}. {other}"
        )
    rows = [
        (what, "not observed throughout", int((~kept).sum()), int(kept.sum()))
        for what, kept in (("presentations", trials), ("units", units))
        if unobserved in (what, "largest")
    ]
    return binned.isel(trial=trials, unit=units), rows


def largest_block(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Presentations (trial,) and units (unit,) of the largest block that was observed as a whole.

    Looked at are the presentations in which some one unit was observed, with all units that were
    observed in them; the block with most counts is taken, the first of equals.
    """
    best = (np.zeros(len(seen), bool), np.zeros(seen.shape[1], bool))
    for trials in np.unique(seen, axis=1).T[::-1]:
        units = seen[trials].all(axis=0)
        if trials.sum() * units.sum() > best[0].sum() * best[1].sum():
            best = (trials, units)
    return best


def _outside(binned: xr.Dataset, regions: list[str], unread: str) -> np.ndarray:
    """Units (unit,) in none of some areas; unread: why the recording's areas could not be read, if so."""
    areas = binned["area"].values if "area" in binned.coords else np.array([], str)
    unknown = sorted(set(regions) - set(areas))
    if unknown:
        known = ", ".join(sorted(set(areas) - {""})) or (f"none ({unread})" if unread else "none")
        raise BadParameter(
            f"region {unknown[0]!r} is not in recording {binned.attrs['recording']!r}; its areas: {known}."
        )
    return ~np.isin(areas, regions)


def clean(
    binned: xr.Dataset, recording: Recording | None, settings: CleanSettings
) -> tuple[xr.Dataset, pd.DataFrame]:
    """Apply the settings of 03.

    Parameters
    ----------
    binned : counts of 02.
    recording : where they come from; None only for counts that came without their spike times.

    Returns
    -------
    The cleaned Dataset, and one row per removal: what, reason, removed, kept.

    Raises
    ------
    BadParameter : for a limit or region the recording does not have.
    BadInput : when no trial or no unit is left.
    """
    rows: list[tuple[str, str, int, int]] = []
    if recording is not None:
        union = merged(to_ns(recording.invalid_times))
        if settings.invalid_spikes == "drop":
            inside = spikes_inside(recording, union)
            rows.append(
                ("spikes", "inside an invalid interval", inside, recording.n_spikes - inside)
            )
        start, stop = to_ns(binned.start_s.values), to_ns(binned.stop_s.values)
        hit = touches(start, stop, union)
        if settings.invalid_presentations == "drop":
            n = int(hit.sum())
            rows.append(("presentations", "touches an invalid interval", n, len(hit) - n))
            binned = binned.isel(trial=~hit)
        elif settings.invalid_spikes == "drop" and hit.any():
            binned = drop_invalid_spikes(binned, recording, union)
    failing = unit_limits(binned, settings)
    if settings.regions:
        reason = f"area not in {', '.join(settings.regions)}"
        unread = recording.meta.get("left_out", {}).get("area", "") if recording else ""
        failing.append((reason, _outside(binned, settings.regions, unread)))
    kept = np.ones(binned.sizes["unit"], bool)
    for reason, fails in failing:  # a unit that fails several limits counts once, at the first
        rows.append(("units", reason, int((kept & fails).sum()), int((kept & ~fails).sum())))
        kept &= ~fails
    binned = binned.isel(unit=kept)
    if recording is not None and recording.observed is not None and binned.counts.size:
        place = recording.units.index.get_indexer(binned.unit.values)
        seen = recording.observed_in(binned.start_s.values, binned.stop_s.values)[:, place]
        binned, more = drop_unobserved(binned, seen, settings.unobserved)
        rows += more
    n_left = binned.sizes["unit"]
    if settings.n_units > n_left:
        raise BadParameter(
            f"n_units = {settings.n_units}: only {n_left} units are left to choose from; most_units takes fewer."
        )
    if asked := [n for n in (settings.n_units, settings.most_units) if n]:
        n = min(*asked, n_left)
        chosen = np.random.default_rng(settings.units_seed).choice(n_left, n, replace=False)
        reason = f"not in the random subset (seed {settings.units_seed})"
        rows.append(("units", reason, n_left - n, n))
        binned = binned.isel(unit=np.sort(chosen))
    if settings.most_trials:
        first = np.sort(np.argsort(binned.start_s.values, kind="stable")[: settings.most_trials])
        n = binned.sizes["trial"] - len(first)
        rows.append(("presentations", f"after the first {settings.most_trials}", n, len(first)))
        binned = binned.isel(trial=first)
    for dim, word in (("trial", "presentation"), ("unit", "unit")):
        if binned.sizes[dim] == 0:
            raise BadInput(
                f"recording {binned.attrs['recording']!r}: no {word} is left after cleaning."
            )
    removals = pd.DataFrame(rows, columns=["what", "reason", "removed", "kept"])
    removals["what"] = removals["what"].replace("presentations", continuous.row_word(binned))
    return binned, removals


def sentence(binned: xr.Dataset, cleaned: xr.Dataset) -> str:
    """What 03 left of the counts, in a sentence."""
    return (
        f"**Result.** {cleaned.sizes['unit']:,} of {binned.sizes['unit']:,} units and "
        f"{cleaned.sizes['trial']:,} of {binned.sizes['trial']:,} {continuous.row_word(binned)} are left, with "
        f"{int(cleaned['counts'].sum()):,} of {int(binned['counts'].sum()):,} spikes."
    )


def save(cleaned: xr.Dataset, removals: pd.DataFrame, folder: Path) -> None:
    """Write the cleaned counts (see `counts_dataset.save`) and the table of what was removed."""
    save_counts(cleaned, folder)
    removals.to_parquet(folder / REMOVALS_FILE, index=False)
