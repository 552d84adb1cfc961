"""The stimulus of a recording without trials: when it is known, and what is in force at a time."""

import itertools

import h5py
import numpy as np
import nwb_files
import pytest

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import Recipe
from nblib.data import opening, sources, stimulus
from nblib.data.checks import session_report


def with_series(path, times, data, name="noise"):
    """A minimal file with a stimulus; its spikes lie between 0 and 20 s."""

    def change(file):
        group = file.create_group(f"stimulus/presentation/{name}")
        group.attrs["neurodata_type"] = "TimeSeries"
        group["timestamps"], group["data"] = times, data

    return nwb_files.make(path, change)


def recipe(path, **given):
    values = {
        "recipe": "mine",
        "recordings": ["r"],
        "source": "nwb",
        "path": str(path),
        "intervals": "",
    }
    return Recipe(**values | {"binning": "continuous", "bin_s": 0.01} | given)


def opened(path, **given):
    asked = recipe(path, **given)
    sources.check(asked)
    return opening.open_recording(asked, "r")


TIMES = np.arange(0, 20.5, 0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, x: t.__setitem__(7, 0.55), "timestamps falls after row 6"),
        (lambda t, x: t.__setitem__(7, np.nan), "timestamps is NaN or infinite in row 7"),
    ],
)
def test_a_broken_clock_is_named_with_file_and_field(tmp_path, change, words):
    times, data = TIMES.copy(), np.ones((len(TIMES), 2))
    change(times, data)
    made = opened(with_series(tmp_path / "mine.nwb", times, data))
    for look in (stimulus.read, session_report):
        with pytest.raises(BadInput, match=f"mine.nwb: series 'noise': {words}"):
            look(made)


def test_a_stimulus_in_minutes_is_told(tmp_path):
    data = np.ones((len(TIMES), 2))
    odd = [
        " ".join(session_report(opened(with_series(tmp_path / f"{unit}.nwb", times, data))).odd)
        for unit, times in (("s", TIMES), ("min", TIMES / 60))
    ]
    assert "which would fit" not in odd[0] and "if its times are minutes" in odd[1]


def test_the_value_in_force_and_means_of_it(tmp_path):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.05, 0.15, 60))
    values = rng.normal(size=(60, 3)).astype(np.float32)
    at = rng.uniform(times[0], times[-1] + 0.05, 500)
    expected = [values[max(k for k in range(60) if times[k] <= t)] for t in at]
    np.testing.assert_array_equal(stimulus.held(times, values, at), expected)
    assert (stimulus.held(times, values, times) == values).all()  # from its timestamp on
    edges = np.sort(rng.uniform(times[0] - 0.2, times[-1], 40))
    fine = [np.linspace(a, b, 20_001) for a, b in itertools.pairwise(edges)]
    expected = [stimulus.held(times, values, f[:-1] + np.diff(f) / 2).mean(axis=0) for f in fine]
    np.testing.assert_allclose(stimulus.mean_of(times, values, edges), expected, atol=1e-3)


def test_it_is_known_up_to_a_gap_and_not_where_it_is_nan():
    times = np.r_[0:1:0.1, 3:4:0.1]
    values = np.zeros((20, 1))
    values[14] = np.nan
    np.testing.assert_allclose(stimulus.known(times, values), [[0, 0.9], [3, 3.4], [3.5, 4.0]])


def test_which_series_it_is(tmp_path):
    path = with_series(tmp_path / "one.nwb", TIMES, np.ones((len(TIMES), 2)))
    made = opened(path)
    assert made.stimulus == "noise" and made.label == ""
    with pytest.raises(BadParameter, match="no series 'nois'; did you mean noise"):
        opened(path, series="nois")
    with pytest.raises(BadInput, match=r"no series that can be read, .* a rate\.$"):
        stimulus.of(opened(nwb_files.make(tmp_path / "none.nwb")))
    images = opened(with_series(tmp_path / "images.nwb", TIMES, np.ones((len(TIMES), 4, 5))))
    with pytest.raises(BadInput, match=r"Left out: .*noise/data is float64 of shape \(205, 4, 5\)"):
        stimulus.of(images)
    path = with_series(tmp_path / "numbers.nwb", TIMES, np.arange(len(TIMES)) % 7)
    with h5py.File(path, "r+") as file:
        file["stimulus/presentation/noise"].attrs["neurodata_type"] = "IndexSeries"
    with pytest.raises(
        BadParameter, match="noise is an IndexSeries: its data are numbers of images"
    ):
        opened(path, series="noise")

    def two(file):
        for name in ("a", "b"):
            group = file.create_group(f"acquisition/{name}")
            group["timestamps"], group["data"] = TIMES, np.ones(len(TIMES))

    several = opened(nwb_files.make(tmp_path / "two.nwb", two))
    assert several.stimulus == ""
    with pytest.raises(BadParameter, match="name the stimulus with `series`: a, b"):
        stimulus.of(several)


def test_settings_that_would_change_nothing_are_refused(tmp_path):
    path = nwb_files.make(tmp_path / "one.nwb")
    trials = {"intervals": "trials", "label": "stim"}
    with pytest.raises(BadParameter, match="bins all of the time, without trials"):
        sources.check(recipe(path, **trials))
    for given in ({"series": "noise"}, {"gaps": "cut"}, {"stimulus_value": "mean"}):
        with pytest.raises(BadParameter, match="does not use"):
            sources.check(recipe(path, **trials, binning="fixed_width", **given))
        sources.check(recipe(path, **given))
