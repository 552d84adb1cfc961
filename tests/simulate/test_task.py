"""The simulated task: its best possible answers against enumeration, and what its files say."""

from itertools import product

import numpy as np
import nwb_files
import pandas as pd
import pytest

from nblib.core import params, recipes
from nblib.data import opening
from nblib.prepare import binning
from nblib.simulate import task, task_oracle


@pytest.fixture(scope="module")
def tiny():
    """Two onsets, four bins, two whisker levels, four units: 360 causes times 16 whisker courses."""
    made, rng = task.make_task(4, (1, 2), 2, 1), np.random.default_rng(0)
    units = task.Units(np.zeros(4), np.log(rng.uniform(0.2, 1.0, 4)), rng.normal(0, 1, (4, 6)))
    return made, units, rng.poisson(0.7, (3, 4, 4))


def enumerated(made, units, counts, seen):
    """Weights (K, H, courses) of every cause and whisker course, one by one."""
    courses = np.array(list(product(range(len(made.first)), repeat=4)))
    rates = task_oracle.rates_of(made, units)
    weight = np.empty((len(counts), len(made.prior), len(courses)))
    for h in range(len(made.prior)):
        for c, course in enumerate(courses):
            p = made.prior[h] * made.first[course[0]]
            for t in range(1, 4):
                p *= made.steps[int(made.moving[h, t])][course[t - 1], course[t]]
            rate = rates[h, np.arange(4), course][:, seen]
            for k, n in enumerate(counts):
                weight[k, h, c] = p * np.exp((n[:, seen] * np.log(rate) - rate).sum())
    return weight / weight.sum(axis=(1, 2), keepdims=True), courses, rates


def test_the_best_decoder_is_that_of_enumeration(tiny):
    made, units, counts = tiny
    assert made.prior.sum() == pytest.approx(1, abs=1e-12)
    weight, courses, _ = enumerated(made, units, counts, slice(None))
    said = task_oracle.Ceiling(made, units, np.zeros(3, int), np.zeros((3, 4), int)).decode(counts)
    cause = weight.sum(axis=2)
    np.testing.assert_allclose(said["wheel"], cause @ made.wheel, atol=1e-10)
    whisker = np.einsum("kc,ct->kt", weight.sum(axis=1), made.levels[courses])
    np.testing.assert_allclose(said["whisker"], whisker, atol=1e-10)
    np.testing.assert_allclose(said["choice"][:, 1], cause @ (made.choice == 1), atol=1e-10)
    np.testing.assert_allclose(
        said["probabilityLeft"][:, 0], cause @ (made.block == -1), atol=1e-10
    )


def test_the_best_imputation_is_that_of_enumeration(tiny):
    made, units, counts = tiny
    weight, courses, rates = enumerated(made, units, counts, [0, 2, 3])
    each = rates[:, np.arange(4), courses][..., 1]  # (H, courses, T)
    said = task_oracle.Ceiling(made, units, np.zeros(3, int), np.zeros((3, 4), int)).impute(
        counts, np.array([1])
    )
    np.testing.assert_allclose(said[..., 0], np.einsum("khc,hct->kt", weight, each), atol=1e-10)


def test_the_best_encoder_sums_out_what_behaviour_does_not_tell(tiny):
    made, units, _ = tiny
    cause, level = np.array([5, 300]), np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    said, rates = (
        task_oracle.Ceiling(made, units, cause, level).encode(np.arange(2)),
        task_oracle.rates_of(made, units),
    )
    for k in range(2):
        alike = [h for h in range(len(made.prior)) if all(
            getattr(made, n)[h] == getattr(made, n)[cause[k]] for n in ("block", "choice", "onset", "speed"))]  # fmt: skip
        p = made.prior[alike] / made.prior[alike].sum()
        expected = sum(w * rates[h, np.arange(4), level[k]] for w, h in zip(p, alike, strict=True))
        np.testing.assert_allclose(said[k], expected, atol=1e-12)


def test_bins_hold_the_signals_and_variables_that_were_simulated(home):
    recipe = recipes.find_recipe("task_tiny")
    recording = opening.open_recording(recipe, "t1")
    binned = binning.bin_recording(recording, recipe.settings(params.BinSettings))
    known = task.ceiling(recipe, "t1", binned.unit.values)
    np.testing.assert_allclose(binned.wheel, known.task.wheel[known.cause], atol=1e-5)
    np.testing.assert_allclose(binned.whisker, known.level / 3, atol=1e-6)
    np.testing.assert_array_equal(binned.choice, known.task.choice[known.cause])
    np.testing.assert_array_equal(binned.probabilityLeft, np.array([0.2, 0.5, 0.8])[known.task.block[known.cause].astype(int) + 1])  # fmt: skip
    rates = task_oracle.rates_of(known.task, known.units, known.cause)
    expected = np.take_along_axis(rates, known.level[:, :, None, None], axis=2)[:, :, 0]
    apart = (binned.counts.values - expected).sum(axis=(0, 1)) / np.sqrt(expected.sum(axis=(0, 1)))
    assert np.abs(apart).max() < 4, "the counts are those of these units"
    assert task.ceiling(recipe.model_copy(update={"bin_s": 0.02}), "t1", binned.unit.values) is None


def test_the_same_session_from_nwb_is_the_same(home, tmp_path):
    recipe = recipes.find_recipe("task_tiny")
    from_alf = opening.open_recording(recipe, "t1")
    table, spikes = from_alf.trial_table, [np.array(times) for times in from_alf.trains()]

    def change(file):
        del file["intervals/trials"]
        for name in ("start_time", "stop_time", "stimOn_times", "choice", "probabilityLeft"):
            file[f"intervals/trials/{name}"] = table[name].to_numpy(float)
        file["intervals/trials/id"] = np.arange(len(table))
        for name in ("wheel", "left_motion_energy"):
            series = from_alf.series[name]
            place = file.create_group(f"processing/behavior/{name}")
            place.attrs["neurodata_type"] = "TimeSeries"
            place["data"], place["timestamps"] = series.read(0, series.n_samples), series.times()

    path = nwb_files.make(tmp_path / "s.nwb", change, spikes)
    nwb = {"source": "nwb", "path": str(path), "source_params": {}, "recordings": ["t1"]}
    recipe_of_nwb = params.Recipe(**recipe.model_dump() | nwb)
    from_nwb = opening.open_recording(recipe_of_nwb, "t1")
    one, two = (
        binning.bin_recording(r, recipe.settings(params.BinSettings)) for r in (from_alf, from_nwb)
    )
    for name in ("counts", "wheel", "whisker", "choice", "probabilityLeft"):
        np.testing.assert_array_equal(one[name].values, two[name].values)


def test_one_seed_gives_one_session_and_recordings_differ(home, tmp_path):
    settings = task.Settings(n_units=4, n_trials=10)
    for name, who in (("a", "x"), ("b", "x"), ("c", "y")):
        task.simulate(tmp_path / name / "session", settings, who)
    files = ["alf/probe00/pykilosort/spikes.times.npy", "alf/_ibl_wheel.position.npy"]
    for file in files:
        a, b, c = (np.load(tmp_path / n / "session" / file) for n in "abc")
        assert np.array_equal(a, b) and not np.array_equal(a, c)
    table = pd.read_parquet(tmp_path / "a/session/alf/_ibl_trials.table.pqt")
    assert {"stimOn_times", "choice", "probabilityLeft", "contrastLeft"} <= set(table)
