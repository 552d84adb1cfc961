"""One file of every kind that the package writes as HDF5, made and read."""

from __future__ import annotations

from pathlib import Path

from nblib.core import params
from nblib.data import counts_dataset
from nblib.data.nwb import open_nwb
from nblib.data.opening import open_recording
from nblib.prepare import binning, split_roles, stored_splits, train_statistics
from nblib.prepare.potentials import lfp_windows, stored_windows
from nblib.simulate import lfp, scene_oracle
from nblib.simulate.allen import simulate, truth_path

TRIALS = {"intervals": "natural_scenes_presentations", "label": "frame"}


def make(folder: Path) -> None:
    """Recordings with their truth, counts, statistics of a split, windows."""
    recording = open_nwb(
        simulate(folder / "spikes.nwb", n_units=6, n_scenes=3, n_repeats=12), **TRIALS
    )
    binned = binning.bin_recording(recording, params.BinSettings())
    counts_dataset.save(binned, folder)
    settings = params.SplitSettings(gap_s=0.0)
    split = split_roles.make_split(binned, settings)
    stored_splits.save(folder, split, [train_statistics.fit_statistics(binned, split, 0, settings)])
    given = {"source": "lfp_nwb", "path": str(folder / "lfp.nwb"), "intervals": "states"}
    recipe = params.Recipe(recipe="r", recordings=["a"], label="state", **given)
    lfp.simulate(folder / "lfp.nwb", params.SimulateLfpSettings(state_s=20.0), "a")
    stored_windows.save(lfp_windows.cut(open_recording(recipe, "a"), params.BinSettings()), folder)


def read(folder: Path) -> dict[str, float]:
    """A number out of each of them."""
    spikes = folder / "spikes.nwb"
    return {
        "spikes": float(open_nwb(spikes, **TRIALS).spike_times(0).sum()),
        "truth": float(scene_oracle.read_truth(truth_path(spikes)).rates.sum()),
        "counts": float(counts_dataset.load(folder).counts.sum()),
        "mean": float(stored_splits.load(folder)[1][0].mean.sum()),
        "windows": float(abs(stored_windows.load(folder).x).sum()),
    }
