"""A minimal NWB file, written by hand, that each test changes."""

import h5py
import numpy as np

from nblib.data import nwb
from nblib.data.nwb import electrodes as nwb_electrodes

TRIALS = {"intervals": "trials", "label": "stim"}
COUNTS = [120, 0, 200, 80]  # spikes of each unit; one is silent


def trains(seed=0, rate=10.0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, n / rate, n)) for n in COUNTS]


def text(group, name, values, kind=None):
    return group.create_dataset(name, data=values, dtype=kind or h5py.string_dtype())


def make(path, change=None, spikes=None):
    """Write a minimal file; `change(file)` may add to it. Returns its path."""
    spikes = trains() if spikes is None else spikes
    with h5py.File(path, "w") as file:
        text(file, "identifier", "lab-7")
        units = file.create_group("units")
        units["id"] = 10 + np.arange(len(spikes))
        units["spike_times"] = np.concatenate(spikes)
        units["spike_times_index"] = np.cumsum([len(s) for s in spikes]).astype(np.uint16)
        trials = file.create_group("intervals/trials")
        trials["id"] = np.arange(6)
        trials["start_time"] = np.arange(6) * 2.0
        trials["stop_time"] = np.arange(6) * 2.0 + 0.5
        trials["stim"] = np.array([0, 1, 2, 0, 1, 2], np.float64)
        if change:
            change(file)
    return path


def opened(path, **settings):
    recording = nwb.open_nwb(path, **{**TRIALS, **settings})
    if recording.trials:
        assert len(recording.trial_table)  # is looked at when it is asked for
    return recording


def electrodes(file, areas=("CA1", "VISp", "", "CA3")):
    table = file.create_group(nwb_electrodes.PLACE)
    table["id"] = 500 + np.arange(len(areas))
    text(table, "location", list(areas))
    text(table, "group_name", ["shank0", "shank0", "shank1", "shank1"])
    for k, axis in enumerate("xyz"):
        table[axis] = np.arange(len(areas)) * 10.0 + k
    groups = table.create_dataset("group", (len(areas),), dtype=h5py.ref_dtype)
    groups[:] = [file["units"].ref] * len(areas)
