"""A recording made by hand, small enough to count its spikes."""

import numpy as np
import pandas as pd

from nblib.data.recording import Recording


def recording(spikes, labels, start, length=0.25, areas=None, invalid=None, observed=None):
    units = pd.DataFrame(index=pd.Index(np.arange(len(spikes)) + 100, name="unit_id"))
    if areas is not None:
        units["area"] = areas
    start = np.asarray(start, float)
    trials = pd.DataFrame({"start_time": start, "stop_time": start + length, "frame": labels})
    intervals = {"natural_scenes_presentations": trials}
    if invalid is not None:
        intervals["invalid_times"] = pd.DataFrame(invalid, columns=["start_time", "stop_time"])
    return Recording(
        "r", "mouse", None, units, np.cumsum([0, *map(len, spikes)]),
        np.concatenate(spikes).astype(float), intervals,
        "natural_scenes_presentations", "frame", observed=observed,
    )  # fmt: skip


def to_lab_dataframe(binned) -> pd.DataFrame:
    """The lab's layout: one row per bin, time ordered; a column per unit, then `frame`."""
    _n_trials, n_bins, n_units = binned.counts.shape
    order = np.argsort(binned.start_s.values, kind="stable")
    table = pd.DataFrame(
        binned.counts.values[order].reshape(-1, n_units).astype(np.int64),
        columns=binned.unit.values,
    )
    table["frame"] = np.repeat(binned.label.values[order], n_bins)
    return table
