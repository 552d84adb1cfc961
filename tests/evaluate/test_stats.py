"""Intervals and tests against closed forms, other libraries and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from nblib.core.errors import BadParameter
from nblib.evaluate.stats import (
    binomial_interval,
    bootstrap_weights,
    effective_interval,
    fraction_interval,
    holm,
    mean_interval,
    mean_variance,
    paired_difference,
    permutation_p,
    permutation_slices,
    sign_flip_p,
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
def test_binomial_interval_is_exact(k, n):
    theirs = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(binomial_interval(k, n), (theirs.low, theirs.high))


@pytest.mark.parametrize(("k", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_binomial_interval_refuses_nonsense(k, n):
    with pytest.raises(BadParameter):
        binomial_interval(k, n)


def test_bootstrap_draws_every_sample_with_replacement():
    rows = bootstrap_weights(50, 400, np.random.default_rng(0))
    assert rows.shape == (400, 50)
    assert (rows.sum(axis=1) == 50).all()
    assert rows.mean(axis=0) == pytest.approx(np.ones(50), abs=0.25)
    assert (rows == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)  # left out once in e


def test_slices_do_not_change_the_number_of_draws(monkeypatch):
    losses = np.random.default_rng(0).exponential(size=20)
    whole = mean_interval(losses, n_bootstrap=10)
    monkeypatch.setattr("nblib.evaluate.stats._DRAWS_AT_ONCE", 70)
    assert mean_interval(losses, n_bootstrap=10) == pytest.approx(whole)
    assert [len(s) for s in permutation_slices(np.arange(20), 10, seed=0)] == [3, 3, 3, 1]


def test_permutations_keep_the_labels_and_differ():
    labels = np.array([0, 0, 1, 2, 2, 2])
    rows = np.concatenate(list(permutation_slices(labels, 200, seed=0)))
    assert (np.sort(rows, axis=1) == labels).all()
    assert len(np.unique(rows, axis=0)) > 40  # of 60 orders
    assert rows.mean(axis=0) == pytest.approx(np.full(6, labels.mean()), abs=0.25)


def test_labels_in_blocks_move_along_time_as_a_whole():
    labels, blocks = np.arange(6), np.repeat([0, 1, 2], 2)
    rows = np.concatenate(list(permutation_slices(labels, 300, seed=0, group=blocks)))
    assert {tuple(r) for r in rows} == {tuple(np.roll(labels, k)) for k in range(6)}


def test_labels_move_along_time_inside_their_own_group():
    labels, groups = np.array([0, 1, 10, 2, 11]), np.array(["a", "a", "b", "a", "b"])
    rows = list(permutation_slices(labels, 600, seed=0, group=groups, unit="time within groups"))
    seen, times = np.unique(np.concatenate(rows), axis=0, return_counts=True)
    turns = [np.roll([0, 1, 2], k) for k in range(3)]
    expected = {(x, y, b, z, 21 - b) for x, y, z in turns for b in (10, 11)}
    assert {tuple(row) for row in seen} == expected
    assert times == pytest.approx(np.full(6, 100), abs=35)  # each as often, the true one among them


def test_what_cannot_be_exchanged_is_refused():
    with pytest.raises(BadParameter, match="unit = 'rows': expected presentations, time"):
        next(permutation_slices(np.arange(4), 10, seed=0, unit="rows"))
    for alone in (None, np.arange(4)):
        with pytest.raises(BadParameter, match="needs groups of several"):
            next(permutation_slices(np.arange(4), 10, 0, alone, unit="time within groups"))


def test_moving_within_groups_is_an_honest_null_for_slow_signals_and_sees_what_is_there():
    """Segments of a slow target and of a slow signal that knows nothing, or knows it."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(6), 40)

    def slow():
        sums = rng.normal(size=(6, 48)).cumsum(axis=1)
        return (sums[:, 8:] - sums[:, :-8]).ravel()  # moving averages: slow, and stationary

    def p(target, signal, unit):
        slices = permutation_slices(target, 99, 0, groups, unit)
        return permutation_p(target @ signal, np.concatenate([part @ signal for part in slices]))

    pairs = [(slow(), slow()) for _ in range(200)]
    p_within = np.array([p(*pair, "time within groups") for pair in pairs])
    p_free = np.array([p(*pair, "presentations") for pair in pairs])
    assert (p_within < 0.05).mean() <= 0.09 and (p_free < 0.05).mean() > 0.15
    assert p(pairs[0][0], pairs[0][0] + pairs[0][1] / 4, "time within groups") == 0.01


def test_mean_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = mean_interval(values, n_bootstrap=4000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert mean_interval(values) == mean_interval(values)  # same seed
    assert mean_interval(values) != mean_interval(values, seed=1)
    both = mean_interval(np.stack([values, -values]), n_bootstrap=4000)
    assert both[0][0] == pytest.approx(low) and both[1][1] == pytest.approx(-low)


def test_few_groups_get_student_s_interval_and_one_group_the_bounds():
    values, blocks = np.arange(12.0), np.repeat([0, 1, 2], 4)
    means = values.reshape(3, 4).mean(axis=1)
    assert mean_interval(values, group=blocks) == pytest.approx(t_interval(means))
    assert mean_interval(values, group=np.zeros(12), least=0, most=700) == (0, 700)
    assert t_interval(np.array([0.5]), 0.0, 1.0) == (0, 1)
    assert t_interval(np.array([0.9, 1.0, 0.95]), 0.0, 1.0)[1] == 1.0
    with pytest.raises(BadParameter, match="at least 2"):
        t_interval(np.array([0.5]))


def test_fractions_by_hand():
    assert fraction_interval(np.arange(28) < 27) == pytest.approx(binomial_interval(27, 28))
    assert fraction_interval(np.ones(28)) == pytest.approx(binomial_interval(28, 28))
    blocks = np.repeat(np.arange(4), 7)
    assert fraction_interval(np.ones(28), group=blocks) == pytest.approx(binomial_interval(4, 4))
    assert fraction_interval(np.ones(28), group=np.zeros(28)) == (0, 1)
    tenths = np.full(10, 0.1)  # their sum is no whole 1
    assert mean_variance(tenths)[0] == pytest.approx(0.1)
    assert fraction_interval(tenths) == pytest.approx(effective_interval(0.1, 0, 10, 9))
    mean, variance, n = mean_variance(np.array([0.0, 1.0, 1.0]), np.array([2, 1, 1]))
    assert (mean, n) == (0.5, 3) and variance == pytest.approx(1.5 * (0.25**2 + 2 * 0.125**2))


def beta(rng, p, alike, size):
    """Chances of answering right that differ between units; `alike`: correlation within one."""
    return rng.beta(p * (1 - alike) / alike, (1 - p) * (1 - alike) / alike, size)


def in_groups(rng, p, n_groups, alike=0.2, size=10):
    right = rng.random((n_groups, size)) < beta(rng, p, alike, (n_groups, 1))
    return fraction_interval(right.ravel(), group=np.repeat(np.arange(n_groups), size))


def difference(rng, p, other, n):
    both = [(rng.random(n) < share).astype(float) for share in (p, other)]
    d = paired_difference(*both, n_permutations=1)
    return d.ci_low, d.ci_high


def difference_in_groups(rng, n_groups, size=8):
    both = [
        (rng.random((n_groups, size)) < beta(rng, 0.8, 0.3, (n_groups, 1))).ravel() for _ in "ab"
    ]
    blocks = np.repeat(np.arange(n_groups), size)
    d = paired_difference(*np.float64(both), group=blocks, n_permutations=1)
    return d.ci_low, d.ci_high


# name -> (the truth, one interval of independent units)
COVERED = {
    **{f"accuracy {p} of {n}": (p, lambda r, p=p, n=n: fraction_interval(r.random(n) < p))
       for p in (0.5, 0.95, 0.97, 0.99) for n in (5, 28, 200)},
    **{f"accuracy {p} of {g} groups": (p, lambda r, p=p, g=g: in_groups(r, p, g))
       for p in (0.5, 0.9, 0.97) for g in (3, 6, 12)},
    **{f"{p} in {n} subjects": (p, lambda r, p=p, n=n: fraction_interval(np.clip(r.normal(p, 0.03, n), 0, 2 * p if p < 0.5 else 1)))
       for p in (0.6, 0.9) for n in (2, 3, 6, 12)},
    **{f"t of {n}": (0.5, lambda r, n=n: t_interval(r.normal(0.5, 0.1, n))) for n in (2, 3, 12)},
    **{f"mean of {n}": (0.0, lambda r, n=n: mean_interval(r.normal(size=n), n_bootstrap=200)) for n in (3, 10, 28)},
    **{f"loss of {n}": (1.0, lambda r, n=n: mean_interval(r.exponential(size=n), n_bootstrap=200)) for n in (10, 28)},
    "loss of 12 groups": (1.0, lambda r: mean_interval(
        (r.gamma(2, 0.5, (12, 1)) * r.exponential(size=(12, 6))).ravel(),
        group=np.repeat(np.arange(12), 6), n_bootstrap=200)),
    **{f"difference of {p} and {q}": (p - q, lambda r, p=p, q=q: difference(r, p, q, 28))
       for p, q in ((0.97, 0.97), (0.99, 0.95), (0.97, 0.6))},
    **{f"difference over {g} groups": (0.0, lambda r, g=g: difference_in_groups(r, g)) for g in (3, 6, 12)},
}  # fmt: skip


@pytest.mark.parametrize("name", COVERED)
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    truth, draw = COVERED[name]
    rng = np.random.default_rng(11)
    ends = np.array([draw(rng) for _ in range(250)])
    held = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert held >= 0.92, f"{name}: {held:.1%}"
    assert (ends[:, 1] > ends[:, 0]).all(), "an interval of width 0"


def test_p_is_never_0_and_right_for_few():
    assert sign_flip_p(np.ones(3)) == 1 / 8
    assert sign_flip_p(np.array([0.2])) == 0.5
    assert 0 < sign_flip_p(np.full(40, 0.3), n_permutations=200) == 1 / 201
    assert sign_flip_p(np.array([-0.1, 0.1, 0.0])) > 0.5


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
    assert (found.value, found.p) == (0, 1)
    assert -0.05 < found.ci_low < 0 < found.ci_high < 0.05  # alike so far, not for certain
    one = paired_difference(np.ones(1), np.zeros(1))
    assert (one.value, one.ci_low, one.ci_high) == (1, -1, 1)


def test_paired_p_is_uniform_under_the_null():
    rng = np.random.default_rng(2)
    p = [
        paired_difference(rng.random(40), rng.random(40), n_permutations=200, seed=s).p
        for s in range(200)
    ]
    assert scipy_stats.kstest(p, "uniform").pvalue > 0.001


def test_paired_difference_agrees_with_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.random(60) * 0.9 + 0.1, rng.random(60)
    ours = paired_difference(a, b, n_permutations=20_000).p
    theirs = scipy_stats.ttest_1samp(a - b, 0).pvalue
    assert ours == pytest.approx(theirs, abs=0.01)


def test_paired_difference_needs_the_same_presentations():
    with pytest.raises(BadParameter, match="same presentations"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(BadParameter, match="between 0 and 1"):
        paired_difference(np.array([3.0]), np.ones(1))
    with pytest.raises(BadParameter, match="finite"):
        paired_difference(np.array([np.nan]), np.ones(1))


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.02]), [0.02])
    with pytest.raises(BadParameter):
        holm([0.5, 1.5])
