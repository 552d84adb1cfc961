"""R2 and bits a spike: worked by hand, by their formulas, and honest about chance."""

import numpy as np
import pytest

from nblib.core.errors import BadInput
from nblib.evaluate import ratios


def test_r2_of_two_trials_by_hand():
    truth, answer = np.array([[0.0, 1, 2], [2, 1, 0]]), np.array([[0.0, 1, 1], [2, 2, 0]])
    part = ratios.of_signal(truth, answer, truth.mean())
    assert ratios.value([part]) == pytest.approx(1 - 2 / 4)
    assert part.most.tolist() == [2, 2] and np.diag(part.each).tolist() == [1, 1]
    assert part.each[0, 1] == pytest.approx(2 - 5), "the first answer against the second truth"
    course = ratios.of_signal(truth, truth, np.array([1.0, 1, 1]))
    assert ratios.value([course]) == 1


def test_bits_a_spike_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    counts, rate = rng.poisson(0.8, (6, 3, 2)), rng.uniform(0.2, 2, (6, 3, 2))
    null = counts.mean(axis=(0, 1))  # as nlb_tools has it: the test mean of each unit
    log = (counts * np.log(rate) - rate).sum() - (counts * np.log(null) - null).sum()
    assert ratios.value([ratios.of_counts(counts, rate, null)]) == pytest.approx(
        log / counts.sum() / np.log(2), abs=1e-9
    )
    units = ratios.per_unit(counts, rate, null)
    spikes = counts.sum(axis=(0, 1))
    assert (units * spikes).sum() / spikes.sum() == pytest.approx(
        log / counts.sum() / np.log(2), abs=1e-9
    )
    silent = counts * [1, 0]
    assert np.isfinite(ratios.value([ratios.of_counts(silent, rate, null * [1, 0])]))
    assert np.isnan(ratios.per_unit(silent, rate, null)[1])


def test_poisson_d2_and_pooled_bits_of_two_trials_by_hand():
    counts = np.array([[[1.0], [0], [2]], [[0], [1], [2]]])  # two trials, three bins, mean 1
    rate = np.array([[[1.0], [0.5], [2]], [[0.5], [1], [2]]])
    ln2 = np.log(2)
    of_model, of_mean = 2 * (0.5 + 0.5), 2 * (1 + 1 + 2 * (2 * ln2 - 1))
    both = [np.concatenate([a, 0 * a], axis=2) for a in (counts, rate)]
    (d2, silent) = ratios.deviance_explained(*both)
    assert d2 == pytest.approx(1 - of_model / of_mean, abs=1e-9) and np.isnan(silent)
    assert ratios.deviance_explained(counts, np.ones_like(counts)) == pytest.approx([0], abs=1e-9)
    pooled = ratios.value([ratios.of_counts(counts, rate, counts.mean(axis=(0, 1)))])
    assert pooled == pytest.approx((4 * ln2 - 1) / (6 * ln2), abs=1e-9)


def test_sessions_are_pooled_by_their_sums():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(40, 5))
    a = y + rng.normal(size=y.shape)
    parts = [ratios.of_signal(y[rows], a[rows], 0.0) for rows in (slice(25), slice(25, 40))]
    assert ratios.value(parts) == pytest.approx(1 - ((y - a) ** 2).sum() / (y**2).sum())
    assert len(ratios.blocks(parts)[0]) == 3 + 2


def test_answers_that_know_nothing_score_at_chance_and_others_do_not():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(60, 8))
    knows = ratios.score(
        [ratios.of_signal(y, y + rng.normal(size=y.shape), 0.0)], ratios.R2, n_permutations=200
    )
    guess = ratios.score(
        [ratios.of_signal(y, 0.1 * rng.normal(size=y.shape), 0.0)], ratios.R2, n_permutations=200
    )
    assert knows.p < 0.05 and guess.p > 0.05 and guess.ci_low < guess.value < guess.ci_high
    assert (knows.unit, knows.n, knows.chance, knows.null) == ("R2", 60, 0.0, ratios.NULL)


def test_a_difference_is_paired():
    rng = np.random.default_rng(3)
    y, noise = rng.normal(size=(80, 6)), rng.normal(size=(80, 6))
    better, worse = (ratios.of_signal(y, y + k * noise, 0.0) for k in (0.9, 1.0))
    middle, low, high = ratios.difference([better], [worse])
    assert 0 < low < middle < high
    assert ratios.difference([worse], [worse]) == (0, 0, 0)


def test_intervals_of_few_blocks_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(4), []
    for seed in range(600):
        gain = rng.normal(0.3, 1.0, 4)
        half = ratios._half_width(gain, np.ones(4), 500, seed)
        held.append(abs(gain.mean() - 0.3) <= half)
    assert 0.935 <= np.mean(held) <= 0.985


def test_trials_of_one_block_tell_nothing_of_others():
    y = np.random.default_rng(5).normal(size=(ratios.BLOCK, 6))
    part = ratios.of_signal(y, 0.9 * y, 0.0)
    score = ratios.score([part], ratios.R2, n_permutations=20)
    assert score.ci_high - score.value > 100 and ratios.difference([part], [part])[1] < -100


def test_nothing_to_explain_is_refused():
    with pytest.raises(BadInput, match="nothing to explain"):
        ratios.value([ratios.of_signal(np.zeros((3, 2)), np.zeros((3, 2)), 0.0)])
