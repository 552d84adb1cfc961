"""A film: opening a patient beside the bare reads, the exact oracle, the leak curve, 29 patients at once."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from measure import Row, best, memory, process

GROUP = "film"
FULL = {"n_frames": 118_161, "n_units": 60, "seed": 3}
ANNOTATIONS = "movie_annotations_indicator_functions"
BUFFERS = [0.0, 4.0, 8.0, 16.0, 32.0]


def rows(*, sizes: dict[str, Any] = FULL, gap_s: float = 32.0, patients: int = 29, units: int = 79, **asked: Any) -> list[Row]:  # fmt: skip
    """One patient of `sizes`; then so many patients of so many units as one. asked: of the leak curve."""
    part = {"sizes": sizes, "gap_s": gap_s, "patients": 1, "units": sizes["n_units"]}
    took, memory_share = _beside_bare(part)
    share = took["nblib"] / took["h5py"]
    oracle = _alone("oracle", part)
    leak_s = _leak_curve(part, asked)
    pooled = _alone("pooled", part | {"patients": patients, "units": units})
    return [
        Row(GROUP, "opening and binning a patient", took["nblib"], ratio=share, against="h5py, film",
            limit="at most 2 times the bare reads", holds=share <= 2, note="80 ms, all annotations"),
        Row(GROUP, "h5py, film", took["h5py"], note="bare reads and one searchsorted a unit"),
        Row(GROUP, "memory of opening and binning, in spikes", memory_share, "times",
            limit="at most 4 times", holds=memory_share <= 4, note="highest, over 8 bytes a spike"),
        Row(GROUP, "exact oracle", oracle["cpu_s"], limit="at most 30 s", holds=oracle["cpu_s"] <= 30,
            note="CPU seconds, whole film"),
        Row(GROUP, "memory of the exact oracle", oracle["peak"] / 1e9, "GB", limit="at most 1 GB",
            holds=oracle["peak"] <= 1e9),
        Row(GROUP, "leak curve", leak_s, limit="at most 180 s", holds=leak_s <= 180,
            note="five buffers, five folds: clock, logistic windows, LinearLabel"),
        Row(GROUP, "memory of all patients", pooled["peak"] / 1e9, "GB", limit="at most 6 GB",
            holds=pooled["peak"] <= 6e9,
            note=f"{patients * units:,} units opened, binned and decoded in {pooled['cpu_s']:.0f} s"),
    ]  # fmt: skip


def _recipe(given: dict[str, Any]) -> Any:
    from nblib.core import recipes

    names = [f"p{k + 1}" for k in range(given["patients"])]
    of_film = given["sizes"] | {"n_units": given["units"], "pool": {"pool": names}}
    changes = {"source_params": of_film, "gap_s": given["gap_s"], "recordings": [*names, "pool"]}
    return recipes.find_recipe("movie_demo").model_copy(update=changes)


def _counts(given: dict[str, Any]) -> Any:
    from nblib.core.params import BinSettings
    from nblib.data import opening
    from nblib.prepare import binning

    recipe = _recipe(given)
    recording = "pool" if given["patients"] > 1 else "p1"
    return binning.bin_recording(
        opening.open_recording(recipe, recording), recipe.settings(BinSettings)
    )


def _file(given: dict[str, Any], recording: str = "p1") -> Path:
    from nblib.data import sources
    from nblib.simulate import movie

    return movie.make(sources.own_settings(_recipe(given)), recording)


def _film(given: dict[str, Any], asked: dict[str, Any]) -> Any:
    """The film as 11 has it, and what is asked of it."""
    from nblib.core.params import SplitSettings
    from nblib.data import counts_dataset
    from nblib.experiments.film import decoding
    from nblib.prepare import split_roles, stored_splits, train_statistics

    recipe = _recipe(given)
    counts = _counts(given)
    settings = recipe.settings(SplitSettings)
    roles = split_roles.make_split(counts, settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts_dataset.save(counts, folder)
        stored_splits.save(folder, roles, train_statistics.fit_folds(counts, roles, settings))
        del counts
        params = decoding.Params(recording="p1", n_bootstrap=100, **asked)
        # The oracle is measured by itself.
        recipe = recipe.model_copy(update={"source": "movie", "source_params": {}})
        return decoding.load_film(folder, folder, recipe, params), params


def _beside_bare(given: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Seconds of opening and binning beside the bare reads; its highest memory over that of the spikes."""
    import h5py
    import numpy as np

    path = _file(given)

    def bare() -> int:
        with h5py.File(path, "r") as file:
            times, stops = file["units/spike_times"][:], file["units/spike_times_index"][:]
            log = file["stimulus/presentation/cleaned_watchlogs"]
            clock, _ = log["neural_recording_time"][:], log["pts"][:]
            file["processing/machine_learning"][f"{ANNOTATIONS}/indicator_function"][:]
        for train in np.split(times, stops[:-1].astype(int)):
            np.searchsorted(train, clock)
        return times.nbytes

    seconds = best(3, nblib=lambda: _counts(given), h5py=bare)
    tracemalloc.start()
    _counts(given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / bare()


def _leak_curve(given: dict[str, Any], asked: dict[str, Any]) -> float:
    from nblib.experiments.film import beyond

    asked = {"models": ["logistic", "linear_label"], "smooth": False, "leak": BUFFERS} | asked
    data, params = _film(given, asked)
    began = time.perf_counter()
    beyond.leak_curve(data, params)
    return time.perf_counter() - began


def _alone(what: str, given: dict[str, Any]) -> dict[str, float]:
    """What a process of its own measures; its recordings are made before."""
    for patient in _recipe(given).recordings[:-1]:
        _file(given, patient)
    return json.loads(process(sys.executable, __file__, what, json.dumps(given)))


def main(what: str, given: dict[str, Any]) -> None:
    """Print the highest memory above that of the interpreter with its libraries [bytes], and CPU time [s]."""
    from nblib.data import sources
    from nblib.experiments.film import decoding
    from nblib.simulate import movie

    before, began = memory("VmRSS"), time.process_time()
    if what == "oracle":
        binned = _counts(given)
        of_bins = binned.counts.values[:, 0], binned.exposure_s.values[:, 0]
        settings = sources.own_settings(_recipe(given))
        began = time.process_time()
        movie.film_oracle(settings, "p1", binned.unit.values, *of_bins)
    else:
        asked = {"models": ["ridge"], "windows": [[-0.5, 1.0]], "folds": [0], "smooth": False}
        decoding.judged(*_film(given, asked))
    told = {"peak": memory("VmHWM") - before, "cpu_s": time.process_time() - began}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
