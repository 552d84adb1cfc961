"""Intervals and tests against closed forms, other libraries and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from nblib.errors import BadParameter
from nblib.stats import (
    binomial_interval,
    bootstrap_interval,
    bootstrap_slices,
    holm,
    paired_difference,
    permutation_p,
    permutation_slices,
    t_interval,
)


def test_permutation_p_counts_the_observed_order_too():
    assert permutation_p(0.5, np.array([0.1, 0.5, 0.9])) == 3 / 4
    assert permutation_p(1.0, np.zeros(999)) == 1 / 1000  # never 0
    assert permutation_p(0.0, np.zeros(999)) == 1.0  # ties count against the decoder
    assert permutation_p(0.1 + 0.2, np.array([0.3])) == 1.0  # a tie but for rounding


@pytest.mark.parametrize("null", [[], [np.nan]])
def test_permutation_p_needs_a_null(null):
    with pytest.raises(BadParameter, match="finite null"):
        permutation_p(0.5, np.array(null))


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 20), (7, 20), (20, 20), (5, 1190)])
@pytest.mark.parametrize("level", [0.95, 0.9999])
def test_binomial_interval_is_exact(k, n, level):
    theirs = scipy_stats.binomtest(k, n).proportion_ci(level, method="exact")
    np.testing.assert_allclose(binomial_interval(k, n, level), (theirs.low, theirs.high))


@pytest.mark.parametrize(
    ("k", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0)]
)
def test_binomial_interval_refuses_nonsense(k, n, level):
    with pytest.raises(BadParameter):
        binomial_interval(k, n, level)


def test_bootstrap_draws_every_sample_with_replacement():
    rows = np.concatenate(list(bootstrap_slices(50, 400, seed=0)))
    assert rows.shape == (400, 50)
    assert (rows.sum(axis=1) == 50).all()
    assert rows.mean(axis=0) == pytest.approx(np.ones(50), abs=0.25)
    assert (rows == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)  # left out once in e


def test_slices_do_not_change_the_number_of_draws(monkeypatch):
    monkeypatch.setattr("nblib.stats._DRAWS_AT_ONCE", 70)
    assert [len(s) for s in bootstrap_slices(20, 10, seed=0)] == [3, 3, 3, 1]
    assert [len(s) for s in permutation_slices(np.arange(20), 10, seed=0)] == [3, 3, 3, 1]


def test_permutations_keep_the_labels_and_differ():
    labels = np.array([0, 0, 1, 2, 2, 2])
    rows = np.concatenate(list(permutation_slices(labels, 200, seed=0)))
    assert (np.sort(rows, axis=1) == labels).all()
    assert len(np.unique(rows, axis=0)) > 40  # of 60 orders
    assert rows.mean(axis=0) == pytest.approx(np.full(6, labels.mean()), abs=0.25)


def test_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(values, n_bootstrap=4000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert bootstrap_interval(values) == bootstrap_interval(values)  # same seed
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.random(150) < 0.3, n_bootstrap=300, seed=seed)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_paired_difference_sees_what_unpaired_intervals_hide():
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    a, b = (hard < 0.62).astype(float), (hard < 0.58).astype(float)  # a is right wherever b is
    found = paired_difference(a, b)
    assert found.value == pytest.approx((a - b).mean()) and found.n == 400
    assert 0 < found.ci_low < found.value < found.ci_high
    assert found.p < 0.01
    back = paired_difference(b, a)
    assert back.value == -found.value and back.p == found.p


def test_paired_difference_of_equals_is_nothing():
    a = (np.arange(100) % 2).astype(float)
    found = paired_difference(a, a)
    assert (found.value, found.ci_low, found.ci_high, found.p) == (0, 0, 0, 1)


def test_paired_p_is_uniform_under_the_null():
    rng = np.random.default_rng(2)
    p = [
        paired_difference(rng.normal(size=40), rng.normal(size=40), n_permutations=200, seed=s).p
        for s in range(200)
    ]
    assert scipy_stats.kstest(p, "uniform").pvalue > 0.001


def test_paired_difference_agrees_with_scipy():
    rng = np.random.default_rng(3)
    a = rng.normal(0.25, 1, 60)
    ours = paired_difference(a, np.zeros(60), n_permutations=20_000).p
    theirs = scipy_stats.ttest_1samp(a, 0).pvalue
    assert ours == pytest.approx(theirs, abs=0.01)


def test_paired_difference_needs_the_same_presentations():
    with pytest.raises(BadParameter, match="same presentations"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(BadParameter, match="finite"):
        paired_difference(np.array([np.nan]), np.ones(1))


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.02]), [0.02])
    with pytest.raises(BadParameter):
        holm([0.5, 1.5])


@pytest.mark.parametrize("n", [3, 12])
def test_a_t_interval_holds_the_mean_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(2000):
        low, high = t_interval(rng.normal(0.5, 0.1, n))
        held += low <= 0.5 <= high
    assert abs(held / 2000 - 0.95) < 0.02  # four standard errors
    assert t_interval(np.array([0.9, 1.0, 0.95]), 0.0, 1.0)[1] == 1.0
    with pytest.raises(BadParameter, match="at least 2"):
        t_interval(np.array([0.5]))
