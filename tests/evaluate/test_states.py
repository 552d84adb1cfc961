"""Scores of labels that hold for seconds: right, with chance, and counted by segments."""

import inspect

import numpy as np
import pytest
from sklearn import metrics

from nblib.core import errors
from nblib.evaluate import states, stats
from nblib.evaluate.scores import _check_score

N_PERMUTATIONS = 100


def film(n_segments=40, length=60, spell=15, signal=1.0, seed=0):
    """Labels in spells, answers that follow them as far as the signal goes and drift as slowly."""
    rng = np.random.default_rng(seed)
    n = n_segments * length
    y = np.repeat(rng.integers(0, 2, n // spell), spell)
    slow = np.repeat(rng.normal(size=n // spell), spell)
    p = 1 / (1 + np.exp(-(signal * (2 * y - 1) + slow + 0.1 * rng.normal(size=n))))
    return y, p, np.repeat(np.arange(n_segments), length)


def scored(y, p, segment):
    return states.state_scores(states.Answers(y, p, segment), N_PERMUTATIONS)


def test_scores_are_those_of_scikit_learn():
    y, p, segment = film()
    weight = np.random.default_rng(1).integers(0, 4, len(y)).astype(float)
    p = np.round(p, 1)  # many ties
    said = (p > 0.5).astype(int)
    for w in (np.ones(len(y)), weight):
        expected = [
            metrics.cohen_kappa_score(y, said, sample_weight=w),
            metrics.f1_score(y, said, sample_weight=w),
            metrics.average_precision_score(y, p, sample_weight=w),
            metrics.roc_auc_score(y, p, sample_weight=w),
        ]
        assert np.allclose(states.Answers(y, p, segment).scores(y, w), expected, atol=1e-12)


def test_guessing_scores_chance():
    y, _, segment = film()
    base = y.mean()
    always, _ = scored(y, np.full(len(y), 0.9), segment)
    for name, score in always.items():
        assert np.isclose(score.value, score.chance, atol=1e-12), name
        assert score.p == 1.0
    assert always["kappa"].value == 0 and always["pr_auc"].value == pytest.approx(base)
    assert always["f1"].chance == pytest.approx(2 * base / (1 + base))


def test_a_signal_is_found_and_a_score_can_be_stored():
    scores, n_effective = scored(*film())
    assert scores["kappa"].p <= 0.01 and scores["kappa"].ci_low > 0
    assert 1 <= n_effective < 2400 / 5
    for name, score in scores.items():
        _check_score(name, score.fields())
        assert (
            score.ci_low <= score.value <= score.ci_high and score.null == stats.NULLS[states.MOVED]
        )


def test_bins_are_worth_what_they_tell():
    """Copies tell nothing: every answer twenty times is worth a twentieth of the bins."""
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 1200), rng.random(1200)
    alone = scored(y, p, np.arange(1200) // 20)[1]
    copied = scored(np.repeat(y, 20), np.repeat(p, 20), np.arange(24_000) // 400)[1]
    assert 600 < alone <= 1200 and 600 < copied < 2400


def test_slow_noise_is_no_result():
    """Bins of one spell say the same: of 30 films without signal few are called significant."""
    called = [scored(*film(20, 60, signal=0.0, seed=s))[0]["kappa"] for s in range(30)]
    assert sum(k.p <= 0.05 for k in called) <= 4
    assert sum(k.ci_low > 0 or k.ci_high < 0 for k in called) <= 6


def test_one_segment_tells_nothing_of_others():
    y, p, segment = film(5, 60)
    score = scored(y[:60], p[:60], segment[:60])[0]["kappa"]
    assert (score.ci_low, score.ci_high) == (-1.0, 1.0)


def test_there_is_no_test_bin_by_bin():
    assert [*inspect.signature(states.state_scores).parameters] == [
        "answers",
        "n_permutations",
        "seed",
    ]
    names = [*inspect.signature(states.Answers).parameters]
    assert names == ["y", "p", "segment", "fold", "n_train"]
    with pytest.raises(errors.BadInput, match="both labels"):
        states.Answers(np.ones(4), np.ones(4), np.arange(4))


def test_decoders_are_compared_on_the_same_segments():
    y, p, segment = film(signal=2.0)
    weak = states.Answers(y, film(signal=0.0)[1], segment)
    strong = states.Answers(y, p, segment)
    value, low, high = strong.over(weak)
    assert low > 0 and low < value < high
    assert strong.over(strong) == (0, 0, 0)


def test_an_interval_is_over_segments_or_folds_and_what_was_learned():
    """By hand: kappa of what is left of three segments, two of them in one fold."""
    y, p, segment = film(3, 60)
    fold = np.repeat([0, 0, 1], 60)
    alone, learned = states.Answers(y, p, segment), states.Answers(y, p, segment, fold, n_train=90)

    def variance(units):
        k = [
            metrics.cohen_kappa_score(y[units != u], p[units != u] > 0.5) for u in np.unique(units)
        ]
        return (len(k) - 1) / len(k) * np.sum((k - np.mean(k)) ** 2)

    for answers, most in (
        (alone, variance(segment)),
        (learned, max(variance(segment), variance(fold)) * (1 + 180 / 90)),
    ):
        low, high = answers.interval()[:, 0]
        half = 4.302653 * np.sqrt(most)
        assert low == pytest.approx(max(-1, answers.values[0] - half))
        assert high == pytest.approx(min(1, answers.values[0] + half))
