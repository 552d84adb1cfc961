"""Aligned spikes, PSTHs and tuning on recordings small enough to count by hand."""

import numpy as np
import pytest
from handmade import recording

from nblib.core.errors import BadParameter
from nblib.core.params import BinSettings
from nblib.data.counts_dataset import areas_of, units_of
from nblib.prepare import binning_stage, responses
from nblib.prepare.binning import bin_recording


@pytest.fixture
def two_units():
    start = 10 + np.arange(8) * 0.5
    labels = [0, 1] * 4
    tuned = np.concatenate([start[1::2] + 0.1, start[1::2] + 0.2])
    return recording([np.sort(tuned), start[0::2] + 0.05], labels, start, areas=["VISp", "CA1"])


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_align_by_hand(offset):
    spikes = np.array([0.9, 1.0, 1.2, 2.1, 2.3]) + offset
    trial, time = responses.align(spikes, np.array([1.0, 2.0, 9.0]) + offset, (-0.05, 0.25))
    assert trial.tolist() == [0, 0, 1]
    np.testing.assert_allclose(time, [0.0, 0.2, 0.1], atol=1e-9)


def test_align_shares_spikes_between_overlapping_windows():
    trial, time = responses.align(np.array([1.0]), np.array([0.9, 0.95]), (0, 0.2))
    assert trial.tolist() == [0, 1]
    np.testing.assert_allclose(time, [0.1, 0.05])


def test_align_of_a_silent_unit():
    trial, time = responses.align(np.empty(0), np.array([1.0]), (0, 1))
    assert len(trial) == len(time) == 0


def test_spikes_between_is_half_open(two_units):
    time, unit = responses.spikes_between(two_units, 10.05, 10.6)
    assert time.tolist() == [10.05] and unit.tolist() == [1]


def test_tuning_curves_are_spikes_over_exposure(two_units):
    tuning, labels = responses.tuning_curves(bin_recording(two_units, BinSettings()))
    assert labels.tolist() == [0, 1]
    np.testing.assert_allclose(tuning, [[0, 8], [4, 0]])


def test_area_psth_finds_the_response(two_units):
    psth = binning_stage.area_psth(two_units)
    assert set(psth["area"]) == {"VISp", "CA1"}
    ca1 = psth[psth["area"] == "CA1"]
    assert len(ca1) == 40 and ca1["n_units"].unique().tolist() == [1]
    peak = ca1.loc[ca1["rate_hz"].idxmax()]
    assert abs(peak["time_s"] - 0.05) <= 0.0051
    assert np.isclose(ca1["rate_hz"].sum() * 0.01, 0.5)  # 4 spikes over 8 presentations
    assert (ca1["sem_hz"] == 0).all()


def test_binned_psth_agrees_with_the_counts(two_units):
    psth = binning_stage.binned_psth(bin_recording(two_units, BinSettings()))
    visp = psth[psth["area"] == "VISp"]
    np.testing.assert_allclose(visp["time_s"], [0.025, 0.075, 0.125, 0.175, 0.225])
    np.testing.assert_allclose(visp["rate_hz"].sum() * 0.05, 8 / 8)


def test_areas_may_be_unknown():
    plain = recording([np.array([1.01])], [0, 1], [1.0, 2.0])
    assert binning_stage.area_psth(plain)["area"].unique().tolist() == [""]
    units = units_of(bin_recording(plain, BinSettings()))
    assert areas_of(units).tolist() == [""] and units.index.tolist() == [100]


def test_units_of_counts_keep_area_and_order(two_units):
    units = units_of(bin_recording(two_units, BinSettings()))
    assert units["area"].tolist() == ["VISp", "CA1"]


def test_clearest_example_is_the_tuned_unit(two_units):
    assert responses.clearest_example(two_units) == (0, 1)


def test_example_window_lies_in_the_trials(two_units):
    start, stop = responses.example_window(two_units, 4)
    assert start == pytest.approx(10.75) and stop == pytest.approx(13.0)


def test_onsets_of_an_unknown_label(two_units):
    assert responses.onsets(two_units, 1).tolist() == [10.5, 11.5, 12.5, 13.5]
    with pytest.raises(BadParameter, match="7"):
        responses.onsets(two_units, 7)
