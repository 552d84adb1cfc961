"""The simulated retina: the same for its seed, refractory, and a truth that is the truth."""

import subprocess
import sys

import numpy as np
import pytest

from nblib.core import store
from nblib.data import nwb
from nblib.data.files.arrays import load_arrays
from nblib.simulate import retina

SMALL = retina.Settings(n_cells=6, n_types=3, duration_s=60.0, seed=4)


def trains(path):
    made = nwb.open_nwb(path, intervals="", label="")
    return [made.spike_times(i) for i in range(made.n_units)]


@pytest.fixture
def small(home):
    return retina.make(SMALL, "r1")


def test_the_same_spikes_for_the_same_seed(small, tmp_path):
    retina.simulate(tmp_path / "again.nwb", SMALL, "r1")
    for one, other in zip(trains(small), trains(tmp_path / "again.nwb"), strict=True):
        np.testing.assert_array_equal(one, other)
    other = SMALL.model_copy(update={"seed": 5})
    assert retina.key(other, "r1") != retina.key(SMALL, "r1") != retina.key(SMALL, "r2")
    assert store.is_committed("00_simulate_retina", "r1", retina.key(SMALL, "r1"))


def test_kinds_and_stimulus_are_those_of_the_seed_cells_those_of_the_recording(small):
    one, two = (load_arrays(retina.truth_path(retina.make(SMALL, who))) for who in ("r1", "r2"))
    for name in ("kinds", "rows"):
        np.testing.assert_array_equal(one[name], two[name])
    assert (one["filters"] != two["filters"]).all()
    assert sorted(one["kind"]) == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(
        retina.unit_types(SMALL, "r1", np.array([4, 0])), one["kind"][[4, 0]]
    )


def test_no_cell_fires_within_its_refractory_time(small):
    gaps = np.concatenate([np.diff(times) for times in trains(small)])
    assert gaps.min() > 0.0029 and (gaps < 0.005).mean() > 0.05  # and then it bursts


def test_the_stimulus_is_that_of_the_file(small):
    series = nwb.open_nwb(small, intervals="", label="").series[retina.SERIES]
    np.testing.assert_array_equal(
        series.read(0, series.n_samples), load_arrays(retina.truth_path(small))["rows"]
    )
    np.testing.assert_allclose(np.diff(series.timestamps()), 0.048)


def test_the_intensity_by_a_plain_loop(small):
    """Bin after bin: the filter over the last 60 whole steps, the time since a spike, the fatigue."""
    truth, cell, n_bins = load_arrays(retina.truth_path(small)), 2, 9_000
    fired = set(np.floor(trains(small)[cell] / retina.BIN_S).astype(int).tolist())
    steps = np.repeat(truth["rows"] - 0.5, 48, axis=0)[:n_bins].reshape(-1, 8, 4).mean(axis=1)
    padded = np.concatenate([np.zeros((60, 4)), steps])  # nothing was shown before
    expected, last, worn = np.empty(n_bins), -(10**6), 0.0
    for t in range(n_bins):
        drive = (truth["filters"][cell] * padded[t // 8 : t // 8 + 60][::-1].T).sum()
        expected[t] = truth["log_rate"][cell] + np.clip(drive, -6, 3.2)
        expected[t] += truth["fatigue"][cell] * worn
        if t - last <= 40:
            expected[t] += truth["after"][cell, t - last - 1]
        worn *= np.exp(-1 / 150)
        if t in fired:
            last, worn = t, worn + 1
    found = retina.log_intensity(SMALL, "r1", np.array([cell]), np.arange(n_bins))
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)
    later = retina.log_intensity(SMALL, "r1", np.array([cell]), np.arange(7_000, n_bins))
    np.testing.assert_array_equal(later, found[7_000:])


def surprise(settings, recording, seconds):
    """Of each cell: spikes, log-likelihood over the mean rate, what it should be, and its variance."""
    path, cells = retina.make(settings, recording), np.arange(settings.n_cells)
    first, stop = (round(s / retina.BIN_S) for s in seconds)
    log_hazard = retina.log_intensity(settings, recording, cells, np.arange(first, stop))
    rows = []
    for cell, times in zip(cells, trains(path), strict=True):
        counts = np.bincount((times / retina.BIN_S).astype(int), minlength=stop)
        hazard = np.exp(log_hazard[:, cell].astype(float))
        p, rate = -np.expm1(-hazard), counts[:stop].mean()
        on, off = np.log(p / rate), -hazard - np.log1p(-rate)
        fired = counts[first:stop]
        expected, variance = p * on + (1 - p) * off, p * (1 - p) * (on - off) ** 2
        rows.append((fired.sum(), (fired * on + (1 - fired) * off).sum(), expected.sum(), variance.sum()))  # fmt: skip
    return np.array(rows).T


@pytest.mark.parametrize("history", [1.0, 0.0])
def test_spikes_are_as_likely_as_the_truth_says(home, history):
    """The log-likelihood of what was drawn is its expectation, within its standard error."""
    settings = SMALL.model_copy(update={"n_cells": 12, "history": history})
    n, found, expected, variance = surprise(settings, "r1", (0, 60))
    z = (found - expected) / np.sqrt(variance)
    assert np.abs(z).max() < 4 and 0.4 < z.std() < 1.7
    pooled = (found.sum() - expected.sum()) / np.sqrt(variance.sum())
    assert abs(pooled) < 3 and found.sum() / n.sum() / np.log(2) > 0.7


WHOLE = """
import sys, time
from pathlib import Path
from nblib.simulate import retina
began = time.process_time()
retina.simulate(Path(sys.argv[1]), retina.Settings(), "r1")
status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory too
print(time.process_time() - began, status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_a_whole_session_in_seconds(home, tmp_path):
    """60 cells and 15 minutes: at most 15 s, 1 GB; the best prediction is worth more than a bit a spike."""
    command = [sys.executable, "-c", WHOLE, str(tmp_path / "r1.nwb")]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak_kb = map(float, out.stdout.split())
    assert seconds < 15 and peak_kb < 1e6
    n, found, expected, variance = surprise(retina.Settings(), "r1", (720, 900))
    assert abs(found.sum() - expected.sum()) < 3 * np.sqrt(variance.sum())
    assert found.sum() / n.sum() / np.log(2) > 1.0
