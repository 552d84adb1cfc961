"""Scores by hand, by definition, and refused when they cannot be true."""

import json
import time

import numpy as np
import pandas as pd
import pytest

from nblib import metrics
from nblib.errors import BadInput, BadParameter
from nblib.windows import Samples


def guess(y, n_classes, right, seed=0):
    """Log-probabilities of a decoder that is right on a share of the presentations."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(y), n_classes))
    told = np.where(rng.random(len(y)) < right, y, rng.integers(0, n_classes, len(y)))
    logits[np.arange(len(y)), told] += 6
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_scores_by_hand():
    y = np.array([0, 0, 0, 1])
    p = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
    s = metrics.scores(y, np.log(p), n_permutations=200, n_bootstrap=200)
    assert s["accuracy"].value == 0.5 and s["accuracy"].chance == 0.75
    assert s["balanced_accuracy"].value == pytest.approx((2 / 3 + 0) / 2)
    assert s["balanced_accuracy"].chance == 0.5
    assert s["top5"].value == 1.0 and s["top5"].chance == 1.0
    assert s["log_loss"].value == pytest.approx(-np.log([0.7, 0.6, 0.2, 0.3]).mean())
    assert s["log_loss"].chance == pytest.approx(np.log(3)) and s["log_loss"].unit == "nats"
    np.testing.assert_array_equal(metrics.rank_of_truth(np.log(p), y), [1, 1, 3, 2])
    assert all(v.n == 4 and v.ci_low <= v.value <= v.ci_high for v in s.values())


def test_a_constant_answer_scores_exactly_chance():
    """Whatever it answers: no way of guessing may look like decoding."""
    y = np.random.default_rng(0).integers(0, 20, 500)
    constant = np.tile(np.log(np.full(20, 1 / 20)), (500, 1))
    s = metrics.scores(y, constant)
    assert s["top5"].value == 0.0  # ties count against the decoder
    assert s["balanced_accuracy"].value == pytest.approx(s["balanced_accuracy"].chance)
    assert s["log_loss"].value == pytest.approx(s["log_loss"].chance)
    assert all(v.p > 0.9 for v in s.values())
    majority = np.bincount(y).argmax()
    tilted = constant.copy()
    tilted[:, majority] += 1
    assert (
        metrics.scores(y, tilted)["accuracy"].value == metrics.scores(y, tilted)["accuracy"].chance
    )


def test_permuted_labels_are_not_significant_and_true_ones_are():
    y = np.random.default_rng(1).integers(0, 8, 400)
    log_proba = guess(y, 8, right=0.3)
    assert all(s.p == pytest.approx(1 / 1001) for s in metrics.scores(y, log_proba).values())
    p = [
        metrics.scores(np.random.default_rng(i).permutation(y), log_proba, n_permutations=200)[
            "accuracy"
        ].p
        for i in range(60)
    ]
    assert 0.3 < np.mean(p) < 0.7 and np.mean(np.array(p) < 0.05) < 0.2


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for i in range(100):
        y = np.random.default_rng(i).integers(0, 5, 300)
        s = metrics.scores(y, guess(y, 5, 0.5, seed=1000 + i), n_permutations=100, n_bootstrap=300)
        covered += s["accuracy"].ci_low <= 0.6 <= s["accuracy"].ci_high  # 0.5 + 0.5 / 5
    assert 88 <= covered <= 100


def test_a_thousand_permutations_of_the_demo_are_quick():
    y = np.random.default_rng(0).integers(0, 119, 1180)
    log_proba = guess(y, 119, 0.8)
    started = time.process_time()
    metrics.scores(y, log_proba)
    assert time.process_time() - started < 5  # a second when the machine is quiet


def test_bad_shapes():
    with pytest.raises(BadInput, match="scores need"):
        metrics.scores(np.zeros(3, int), np.zeros((4, 2)))
    with pytest.raises(BadInput, match="below C"):
        metrics.scores(np.array([0, 2]), np.zeros((2, 2)))
    with pytest.raises(BadInput, match="not NaN"):
        metrics.scores(np.array([0, 1]), np.full((2, 2), np.nan))


class FirstBin:
    """Knows the label from bin 2 on: the sum of the first unit's bins is the class."""

    def predict(self, x):
        return x[:, :, 0].sum(axis=1).round().astype(int)


def test_accuracy_over_time_uses_no_later_bin():
    y = np.arange(40) % 2
    x = np.zeros((40, 4, 3), np.float32)
    x[:, 2, 0] = y
    x[:, 3, 1] = 99
    table = metrics.accuracy_over_time(
        FirstBin(), Samples(x, y, np.arange(40)), np.arange(1, 5) * 0.05, np.zeros((4, 3))
    )
    assert table.accuracy.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert table.time.tolist() == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert x[:, 3, 1].min() == 99  # the caller's samples are left alone


class LastBin:
    def predict(self, x):
        return (x[:, -1, 0] > 4).astype(int)


def test_bins_not_yet_known_hold_the_training_mean():
    """Counts that are not scaled: 0 is a rare value, the mean is not."""
    samples = Samples(np.full((4, 2, 1), 5.0), np.ones(4, int), np.arange(4))
    known = np.array([0.05, 0.1])
    table = metrics.accuracy_over_time(LastBin(), samples, known, np.array([[5.0], [5.0]]))
    assert table.accuracy.tolist() == [1.0, 1.0]
    table = metrics.accuracy_over_time(LastBin(), samples, known, np.zeros((2, 1)))
    assert table.accuracy.tolist() == [0.0, 1.0]


def test_predictions_and_confusion():
    y = np.array([0, 1, 1])
    log_proba = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
    classes = np.array([-1, 7])
    table = metrics.predictions(
        Samples(np.zeros((3, 1, 1)), y, np.array([4, 5, 6])), log_proba, classes
    )
    assert table.predicted.tolist() == [-1, -1, 7] and table["rank"].tolist() == [1, 2, 1]
    np.testing.assert_array_equal(metrics.confusion(table, classes), [[1, 0], [1, 1]])


def test_out_of_fold_pools_and_refuses_a_presentation_tested_twice():
    def fold(trial, label, predicted):
        table = pd.DataFrame({"trial": trial, "label": label, "predicted": predicted})
        return table.assign(correct=table["label"] == table["predicted"])

    one, two = fold([0, 1], [0, 1], [0, 1]), fold([2, 3, 4, 5], [0, 0, 1, 0], [0, 1, 0, 1])
    pooled = metrics.out_of_fold([one, two])
    # Swapping the two labels of fold one costs two hits; fold two has one or three hits.
    assert pooled["p"] == pytest.approx(0.75, abs=0.05)
    assert pooled["value"] == 0.5 and pooled["n"] == 6 and pooled["chance"] == pytest.approx(4 / 6)
    assert (pooled["fold_min"], pooled["fold_max"]) == (0.25, 1.0)
    with pytest.raises(BadInput, match="trial 0 is tested in more than one"):
        metrics.out_of_fold([one, one])


GOOD = {
    "value": 0.5,
    "ci_low": 0.4,
    "ci_high": 0.6,
    "chance": 0.1,
    "p": 0.001,
    "n": 10,
    "unit": "fraction",
}


def test_metrics_are_written_with_their_scores(tmp_path):
    y = np.arange(100) % 4
    found = metrics.scores(y, guess(y, 4, 0.6), n_permutations=100, n_bootstrap=100)
    metrics.write_metrics(
        tmp_path, {"model": "x", "scores": found, "oracle": None, "n_test": np.int64(100)}
    )
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert (
        stored["scores"]["accuracy"]["value"] == found["accuracy"].value and stored["n_test"] == 100
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": 1.12}, "1.12: a fraction lies between 0 and 1"),
        ({"value": 92.69}, "92.69"),
        ({"value": -0.1}, "-0.1"),
        ({"value": float("nan")}, "not a finite number"),
        ({"chance": None}, "not a finite number"),
        ({"ci_high": 1.5}, "ci_high = 1.5"),
        ({"n": 0}, "n = 0"),
    ],
)
def test_impossible_scores_are_refused(tmp_path, change, says):
    for group in ("scores", "oracle"):
        metrics_ = {"scores": {"accuracy": GOOD}} | {group: {"accuracy": GOOD | change}}
        with pytest.raises(BadParameter, match=says):
            metrics.write_metrics(tmp_path, metrics_)
    assert list(tmp_path.iterdir()) == []


def test_a_score_never_stands_alone(tmp_path):
    for field in ("chance", "ci_low", "n", "p"):
        with pytest.raises(BadParameter, match=f"without {field}"):
            metrics.write_metrics(
                tmp_path, {"scores": {"accuracy": {k: v for k, v in GOOD.items() if k != field}}}
            )
    with pytest.raises(BadParameter, match="nothing to report"):
        metrics.write_metrics(tmp_path, {"scores": {}})
