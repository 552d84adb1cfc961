"""Likeness of spike trains: against their definitions, and what is refused."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter1d

from nblib.core.errors import BadInput
from nblib.evaluate import spike_trains as st


def pairs(n=50):
    rng = np.random.default_rng(0)
    return [
        (np.sort(rng.random(rng.integers(1, 40))), np.sort(rng.random(rng.integers(1, 40))))
        for _ in range(n)
    ]


def test_van_rossum_is_its_closed_form():
    for tau in (1e-4, 0.01, 1.0, 100.0):
        for at in (0.0, 0.5, 1e4):
            assert st.van_rossum(np.array([at]), np.array([]), tau) == pytest.approx(1, abs=1e-12)
    for a, b in pairs():
        kernel = lambda x, y: np.exp(-np.abs(x[:, None] - y) / 0.02).sum()  # noqa: E731
        known = np.sqrt(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
        assert st.van_rossum(a, b, 0.02) == pytest.approx(known, abs=1e-9)
        assert st.van_rossum(a, b, 0.02) == pytest.approx(st.van_rossum(b, a, 0.02), abs=1e-12)
        assert st.van_rossum(a + 7, b + 7, 0.02) == pytest.approx(known, abs=1e-9)
        assert st.van_rossum(a, a.copy(), 0.02) == 0


def test_victor_purpura_is_the_least_cost_and_quick():
    for a, b in pairs(30):
        cost = np.zeros((len(a) + 1, len(b) + 1))
        cost[:, 0], cost[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
        for i, j in np.ndindex(len(a), len(b)):
            moved = cost[i, j] + 30 * abs(a[i] - b[j])
            cost[i + 1, j + 1] = min(cost[i, j + 1] + 1, cost[i + 1, j] + 1, moved)
        assert st.victor_purpura(a, b, 30.0) == pytest.approx(cost[-1, -1], abs=1e-9)
    rng, started = np.random.default_rng(1), time.process_time()
    st.victor_purpura(rng.random(1000), rng.random(1000), 20.0)
    assert time.process_time() - started < 1


def test_distances_are_those_of_elephant():
    """Of `pairs()`, by elephant 1.2.1: `van_rossum_distance` at 20 ms, `victor_purpura_distance` at 30 Hz."""
    known = np.genfromtxt(Path(__file__).with_name("elephant.csv"), delimiter=",", skip_header=1)
    found = [(st.van_rossum(a, b, 0.02), st.victor_purpura(a, b, 30.0)) for a, b in pairs()]
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-9)


def test_schreiber_and_correlation_are_those_of_smoothed_bins():
    spikes = (np.random.default_rng(2).random((2, 3, 4000)) < 0.02).astype(np.uint8)
    smooth = gaussian_filter1d(spikes.astype(float), 10, mode="constant")
    a, b = smooth
    known = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert st.schreiber(*spikes, 10) == pytest.approx(known, abs=1e-9)
    a, b = gaussian_filter1d(spikes.astype(float), 50)
    known = [np.corrcoef(*rows)[0, 1] for rows in zip(a, b, strict=True)]
    assert st.correlation(*spikes) == pytest.approx(known, abs=1e-9)
    assert np.isnan(st.correlation(np.ones((1, 4000)), spikes[0, :1])).all()


@pytest.mark.parametrize("score", [st.van_rossum, st.victor_purpura, st.schreiber, st.correlation])
def test_two_empty_trains_have_no_score(score):
    empty = np.zeros((2, 200)) if score in (st.schreiber, st.correlation) else np.array([])
    with pytest.raises(BadInput, match="no score is given"):
        score(empty, empty, 10.0)


def test_bits_are_those_of_bernoulli_bins_and_the_truth_is_calibrated():
    rng = np.random.default_rng(3)
    log_hazard = rng.normal(-4, 1, (2, 50_000))
    p = -np.expm1(-np.exp(log_hazard))
    spikes = (rng.random(p.shape) < p).astype(np.uint8)
    rate = spikes.mean(axis=1)
    nats = np.where(spikes, np.log(p), np.log1p(-p)).sum(axis=1)
    assert st.bernoulli(log_hazard, spikes) == pytest.approx(nats)
    gain = nats - (np.log(rate) * spikes.sum(axis=1) + np.log1p(-rate) * (1 - spikes).sum(axis=1))
    assert st.bits_per_spike(nats, spikes, rate) == pytest.approx(
        gain / np.log(2) / spikes.sum(axis=1)
    )
    assert (np.abs(st.calibration(p, spikes)["z"]) < 3).sum() >= 9
    assert (np.abs(st.calibration(2 * p, spikes)["z"]) > 3).sum() >= 5


def test_trains_that_know_nothing_stand_beside_every_score():
    spikes = (np.random.default_rng(4).random((3, 20_000)) < 0.01).astype(np.uint8)
    known = st.references(spikes, spikes.mean(axis=1), 0.001)
    assert list(known) == list(st.REFERENCES)
    known["itself"] = spikes
    scores = {name: of.mean() for name, of in st.train_scores(known, spikes, 0.001).items()}
    assert scores["no spikes"]["van_rossum"] > 0.5 and scores["no spikes"]["count_ratio"] == 0
    assert scores["every bin"]["schreiber_50"] > 0.4  # it can be gamed; its count tells
    assert scores["every bin"]["count_ratio"] > 50
    assert abs(scores["the train, shifted"]["correlation"]) < 0.2
    assert scores["itself"]["van_rossum"] == 0 and scores["itself"]["correlation"] == pytest.approx(
        1
    )


def test_what_is_told_window_by_window_is_judged_window_by_window():
    """Nothing can be foreseen of this train, so to say the last window once more must earn nothing."""
    spikes = (np.random.default_rng(8).random((6, 80 * 300)) < 0.01).astype(np.uint8)
    again = np.roll(spikes, 80, axis=1)
    known = st.references(spikes, spikes.mean(axis=1), 0.001)["Poisson of the same rate"]
    trains = {"again": again, "noise": known}
    scores, of_noise = (of.mean() for of in st.train_scores(trains, spikes, 0.001, 80).values())
    assert abs(scores["correlation"]) < 0.05
    assert scores["van_rossum"] == pytest.approx(of_noise["van_rossum"], abs=0.05)
    for name in (f"schreiber_{sigma}" for sigma in st.SIGMAS):
        assert scores[name] == pytest.approx(of_noise[name], abs=0.05)
    assert st.correlation(again, spikes).mean() > 0.4  # as one train
    each = [st.smoothed(part, 50, "symmetric") for part in np.split(spikes, 300, axis=1)]
    np.testing.assert_allclose(
        st.smoothed(spikes, 50, "symmetric", 80), np.concatenate(each, axis=1), atol=1e-12
    )


def test_intervals_over_cells_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(5), []
    for seed in range(500):
        score = st.over_cells(rng.gamma(4.0, 0.25, 20), "bits/spike", n_bootstrap=200, seed=seed)
        held.append(score.ci_low <= 1.0 <= score.ci_high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_an_interval_of_pooled_cells_counts_how_they_differ_not_how_much_they_fire():
    spikes = np.random.default_rng(6).integers(5, 3000, 40)
    alike = st.over_cells(np.ones(40), "bits/spike", weight=spikes)
    assert (alike.value, alike.ci_low, alike.ci_high) == (1, 1, 1)
    bits = np.random.default_rng(7).normal(1, 0.2, 40)
    pooled = st.over_cells(np.r_[bits, np.nan], "bits/spike", weight=np.r_[spikes, 0])
    assert pooled.value == pytest.approx(bits @ spikes / spikes.sum())
    assert 0.03 < pooled.ci_high - pooled.value < 0.12 and pooled.n == 40


def test_scores_of_some_cells_at_a_time_are_those_of_all_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    spikes, said = (rng.random((2, 7, 400)) < 0.1).astype(np.uint8)
    found = []
    for at_once in (2, 7):
        monkeypatch.setattr(st, "AT_ONCE", at_once)
        table = st.train_scores({"said": said}, spikes, 0.001, 80)["said"]
        found.append(
            table.assign(alike=st.schreiber(said, spikes, 3), slow=st.correlation(said, spikes))
        )
    pd.testing.assert_frame_equal(*found, rtol=1e-12)
