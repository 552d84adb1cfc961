"""Scores by hand, by definition, and refused when they cannot be true."""

import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import BadInput, BadParameter
from nblib.evaluate import scores, stats
from nblib.prepare.decoder_inputs import Samples
from nblib.prepare.stored_splits import label_block


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
    s = scores.decoding_scores(y, np.log(p), n_permutations=200, n_bootstrap=200)
    assert s["accuracy"].value == 0.5 and s["accuracy"].chance == 0.75
    assert s["balanced_accuracy"].value == pytest.approx((2 / 3 + 0) / 2)
    assert s["balanced_accuracy"].chance == 0.5
    assert s["top5"].value == 1.0 and s["top5"].chance == 1.0
    assert s["log_loss"].value == pytest.approx(-np.log([0.7, 0.6, 0.2, 0.3]).mean())
    assert s["log_loss"].chance == pytest.approx(np.log(3)) and s["log_loss"].unit == "nats"
    np.testing.assert_array_equal(scores.rank_of_truth(np.log(p), y), [1, 1, 3, 2])
    assert all(v.n == 4 and v.ci_low <= v.value <= v.ci_high for v in s.values())


def test_a_constant_answer_scores_exactly_chance():
    """Whatever it answers: no way of guessing may look like decoding."""
    y = np.random.default_rng(0).integers(0, 20, 500)
    constant = np.tile(np.log(np.full(20, 1 / 20)), (500, 1))
    s = scores.decoding_scores(y, constant)
    assert s["top5"].value == 0.0  # ties count against the decoder
    assert s["balanced_accuracy"].value == pytest.approx(s["balanced_accuracy"].chance)
    assert s["log_loss"].value == pytest.approx(s["log_loss"].chance)
    assert all(v.p > 0.9 for v in s.values())
    often = np.argsort(np.bincount(y))[::-1]  # the five most frequent, whatever is asked
    ranked = scores.decoding_scores(y, np.tile(-1.0 * np.argsort(often), (500, 1)))["top5"]
    assert ranked.value == ranked.chance == np.isin(y, often[:5]).mean() > 5 / 20
    majority = np.bincount(y).argmax()
    tilted = constant.copy()
    tilted[:, majority] += 1
    assert (
        scores.decoding_scores(y, tilted)["accuracy"].value
        == scores.decoding_scores(y, tilted)["accuracy"].chance
    )


def test_permuted_labels_are_not_significant_and_true_ones_are():
    y = np.random.default_rng(1).integers(0, 8, 400)
    log_proba = guess(y, 8, right=0.3)
    assert all(
        s.p == pytest.approx(1 / 1001) for s in scores.decoding_scores(y, log_proba).values()
    )
    p = [
        scores.decoding_scores(
            np.random.default_rng(i).permutation(y), log_proba, n_permutations=100
        )["accuracy"].p
        for i in range(60)
    ]
    assert 0.3 < np.mean(p) < 0.7 and np.mean(np.array(p) < 0.05) < 0.2


FEW = {"n_permutations": 1, "n_bootstrap": 200}


@pytest.mark.parametrize("name", ["accuracy", "top5", "balanced_accuracy", "log_loss"])
@pytest.mark.parametrize(("n", "right"), [(28, 0.97), (60, 0.6)])
def test_intervals_of_scores_hold_the_truth(name, n, right):
    """28 presentations near 1, and classes that are unlike in number and in how hard they are."""
    easy = np.array([right, right, 2 * right - 1, right, right, right, right])
    often = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    log_loss = {"shape": 2.0, "scale": 0.5}  # mean 1
    truth = {
        "accuracy": easy @ often,
        "top5": 0.95,
        "balanced_accuracy": easy.mean(),
        "log_loss": 1.0,
    }
    rng, held = np.random.default_rng(3), 0
    for _ in range(250):
        y = rng.choice(7, n, p=often)
        p_true = np.exp(-rng.gamma(**log_loss, size=n))
        if name != "log_loss":
            p_true = np.where(rng.random(n) < easy[y], 0.6, 0.1)
        if name == "top5":
            p_true = np.where(rng.random(n) < 0.95, 0.6, 0.01)
        p = np.repeat((1 - p_true)[:, None] / 6, 7, axis=1) * (1 + 1e-6 * np.arange(7))
        p[np.arange(n), y] = p_true
        s = scores.decoding_scores(y, np.log(p), **FEW)[name]
        held += s.ci_low <= truth[name] <= s.ci_high and s.ci_high > s.ci_low
        if name == "balanced_accuracy" and len(np.unique(y)) < 7:
            held += not s.ci_low <= truth[name] <= s.ci_high  # of other classes than asked for
    assert held >= 0.92 * 250, held / 250


@pytest.mark.parametrize("seed", range(20))
def test_a_perfect_score_is_1(seed):
    """Sums of shares of unequal classes miss 1 by a last digit."""
    y = np.random.default_rng(seed).integers(0, 7, 61)
    found = scores.decoding_scores(
        y, np.log(np.eye(7)[y] + 1e-12), n_permutations=20, n_bootstrap=20
    )
    assert found["balanced_accuracy"].value == 1 == found["balanced_accuracy"].ci_high
    assert found["accuracy"].value == found["top5"].value == 1
    assert 0 < found["balanced_accuracy"].ci_low < 1 and found["accuracy"].p > 0
    wrong = scores.decoding_scores(
        y, np.log(np.eye(7)[(y + 1) % 7] + 1e-12), n_permutations=20, n_bootstrap=20
    )
    assert wrong["balanced_accuracy"].value == wrong["accuracy"].ci_low == 0


def test_one_presentation_and_one_class_have_scores_that_say_little(tmp_path):
    for y in (np.array([1]), np.array([1, 1, 1]), np.array([0, 0, 2])):
        found = scores.decoding_scores(
            y, np.log(np.full((len(y), 4), 0.1) + 0.6 * np.eye(4)[y]), **FEW
        )
        assert found["accuracy"].ci_low < 0.31 and found["accuracy"].ci_high == 1
        assert found["log_loss"].ci_low <= found["log_loss"].value <= found["log_loss"].ci_high
        scores.write_metrics(tmp_path, {"scores": found})
    alone = scores.decoding_scores(np.array([1]), np.log(np.full((1, 4), 0.25)), **FEW)["log_loss"]
    assert (alone.ci_low, alone.ci_high) == (0, 700)


def slow(rng, knows, n=260):
    """Labels in runs, and six slow signals: x (n, 6), y (n,). knows: what the label adds to them."""
    kinds = np.concatenate([rng.permutation(3) for _ in range(n)])
    y = np.repeat(kinds[:n], rng.integers(6, 14, n))[:n]
    x = np.zeros((n, 6))
    for i, step in enumerate(0.5 * rng.standard_normal((n - 1, 6)), start=1):
        x[i] = 0.97 * x[i - 1] + step
    return x + 0.3 * rng.standard_normal((n, 6)) + knows * np.eye(6)[y], y


def nearest_mean(x, y, test):
    means = np.stack([x[y == c].mean(axis=0) for c in range(3)])
    return -((test[:, None] - means) ** 2).sum(axis=2)


@pytest.mark.parametrize("knows", [0, 5])
def test_slow_signals_are_no_decoders_where_labels_come_in_runs(knows):
    """What is slow matches labels in runs by luck: p below .05 in at most about 7 % of cases, and
    below it where the signals do know."""
    rng, small, free = np.random.default_rng(4), [], []
    how = {"n_permutations": 100, "n_bootstrap": 5}
    for _ in range(40 if knows else 100):
        x, y = slow(rng, knows)
        log_proba = nearest_mean(x[:170], y[:170], x[180:])
        blocks = np.arange(80) // label_block(y)
        p = scores.decoding_scores(y[180:], log_proba, group=blocks, **how)["accuracy"].p
        small.append(p < 0.05)
        if knows:
            continue
        free.append(scores.decoding_scores(y[180:], log_proba, **how)["accuracy"].p < 0.05)
    if knows:
        assert np.mean(small) > 0.8
    else:
        assert np.mean(small) <= 0.07
        assert np.mean(free) > 0.12  # by random orders


def test_a_thousand_permutations_of_the_demo_are_quick():
    y = np.random.default_rng(0).integers(0, 119, 1180)
    log_proba = guess(y, 119, 0.8)
    started = time.process_time()
    scores.decoding_scores(y, log_proba)
    assert time.process_time() - started < 5  # a second when the machine is quiet


def test_bad_shapes():
    with pytest.raises(BadInput, match="scores need"):
        scores.decoding_scores(np.zeros(3, int), np.zeros((4, 2)))
    with pytest.raises(BadInput, match="below C"):
        scores.decoding_scores(np.array([0, 2]), np.zeros((2, 2)))
    with pytest.raises(BadInput, match="not NaN"):
        scores.decoding_scores(np.array([0, 1]), np.full((2, 2), np.nan))


@pytest.mark.parametrize("group", [None, np.arange(60) // 3])
def test_presentations_without_a_label_take_no_part_and_are_counted(group, tmp_path):
    y = np.arange(60) % 4
    log_proba, known = guess(y, 4, 0.6), np.random.default_rng(3).random(60) < 0.7
    few = {"n_permutations": 50, "n_bootstrap": 50}
    some = scores.decoding_scores(np.where(known, y, np.nan), log_proba, group=group, **few)
    rest = None if group is None else group[known]
    alone = scores.decoding_scores(y[known], log_proba[known], group=rest, **few)
    assert all(some[name].absent == (~known).sum() for name in some)
    assert {name: replace(score, absent=0) for name, score in some.items()} == alone
    scores.write_metrics(tmp_path, {"scores": {"some": some["top5"], "all": alone["top5"]}})
    stored = json.loads((tmp_path / "metrics.json").read_text())["scores"]
    assert stored["some"]["absent"] == (~known).sum() and "absent" not in stored["all"]
    with pytest.raises(BadInput, match="none of 60 presentations has one"):
        scores.decoding_scores(np.full(60, np.nan), log_proba)


def test_the_unit_that_is_exchanged_is_named_in_the_score():
    y, group = np.arange(60) % 4, np.arange(60) // 20
    few = {"n_permutations": 50, "n_bootstrap": 50, "group": group}
    scored = {u: scores.decoding_scores(y, guess(y, 4, 0.6), unit=u, **few) for u in stats.NULLS}
    assert {u: s["accuracy"].null for u, s in scored.items()} == stats.NULLS
    default = scores.decoding_scores(y, guess(y, 4, 0.6), **few)
    assert default == scored["time"]


class FirstBin:
    """Knows the label from bin 2 on: the sum of the first unit's bins is the class."""

    def predict(self, x):
        return x[:, :, 0].sum(axis=1).round().astype(int)


def test_accuracy_over_time_uses_no_later_bin():
    y = np.arange(40) % 2
    x = np.zeros((40, 4, 3), np.float32)
    x[:, 2, 0] = y
    x[:, 3, 1] = 99
    table = scores.accuracy_over_time(
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
    table = scores.accuracy_over_time(LastBin(), samples, known, np.array([[5.0], [5.0]]))
    assert table.accuracy.tolist() == [1.0, 1.0]
    table = scores.accuracy_over_time(LastBin(), samples, known, np.zeros((2, 1)))
    assert table.accuracy.tolist() == [0.0, 1.0]


def test_predictions():
    y = np.array([0, 1, 1])
    log_proba = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
    classes = np.array([-1, 7])
    table = scores.predictions(
        Samples(np.zeros((3, 1, 1)), y, np.array([4, 5, 6])), log_proba, classes
    )
    assert table.predicted.tolist() == [-1, -1, 7] and table["rank"].tolist() == [1, 2, 1]
    assert table["group"].tolist() == [4, 5, 6]  # each stands alone


def test_out_of_fold_pools_and_refuses_a_presentation_tested_twice():
    def fold(trial, label, predicted):
        table = pd.DataFrame(
            {"trial": trial, "label": label, "predicted": predicted, "group": trial}
        )
        return table.assign(correct=table["label"] == table["predicted"])

    one, two = fold([0, 1], [0, 1], [0, 1]), fold([2, 3, 4, 5], [0, 0, 1, 0], [0, 1, 0, 1])
    pooled = scores.out_of_fold([one, two])
    # Swapping the two labels of fold one costs two hits; fold two has one or three hits.
    assert pooled["p"] == pytest.approx(0.75, abs=0.05)
    assert pooled["value"] == 0.5 and pooled["n"] == 6 and pooled["chance"] == pytest.approx(4 / 6)
    assert (pooled["fold_min"], pooled["fold_max"]) == (0.25, 1.0)
    with pytest.raises(BadInput, match="trial 0 is tested in more than one"):
        scores.out_of_fold([one, one])


def test_the_interval_over_folds_is_that_of_all_presentations():
    """Two folds of 30 with nearly equal shares: their means say nothing of the luck within."""
    y = np.arange(30) % 3
    right = np.arange(30) < 18
    folds = [
        pd.DataFrame({"trial": y * 0 + np.arange(30) + 30 * k, "label": y, "group": np.arange(30) + 30 * k,
                      "predicted": np.where(right, y, (y + 1) % 3), "correct": right})
        for k in range(2)
    ]  # fmt: skip
    pooled = scores.out_of_fold(folds, n_permutations=50)
    assert (pooled["ci_low"], pooled["ci_high"]) == pytest.approx(stats.binomial_interval(36, 60))
    blocks = [fold.assign(group=fold["trial"] // 10) for fold in folds]
    wide = scores.out_of_fold(blocks, n_permutations=50)
    assert wide["ci_high"] - wide["ci_low"] > pooled["ci_high"] - pooled["ci_low"]
    # One fold whose labels change once: of 30 places along time, one scores as well.
    once = blocks[0].assign(label=np.arange(30) // 15, predicted=np.arange(30) // 15, correct=True)
    assert scores.out_of_fold([once])["p"] == pytest.approx(1 / 30, abs=0.01)


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
    found = scores.decoding_scores(y, guess(y, 4, 0.6), n_permutations=100, n_bootstrap=100)
    scores.write_metrics(
        tmp_path, {"model": "x", "scores": found, "oracle": None, "n_test": np.int64(100)}
    )
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert (
        stored["scores"]["accuracy"]["value"] == found["accuracy"].value and stored["n_test"] == 100
    )


def test_fractions_are_rounded_where_they_are_made_and_where_they_are_written(tmp_path):
    loose = {"value": 1.0000000000000002, "ci_high": 1.0000000000000004, "ci_low": -1e-17}
    kept = scores.Score(**(GOOD | loose))
    assert (kept.value, kept.ci_low, kept.ci_high) == (1, 0, 1)
    scores.write_metrics(
        tmp_path, {"scores": {"a": GOOD | loose}, "rows": [{"scores": {"a": kept}}]}
    )
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["scores"]["a"] == stored["rows"][0]["scores"]["a"]
    assert stored["scores"]["a"]["value"] == 1 and stored["scores"]["a"]["ci_low"] == 0
    nats = scores.Score(**(GOOD | {"unit": "nats", "value": 1.0000000000000002}))
    assert nats.value == 1.0000000000000002


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
            scores.write_metrics(tmp_path, metrics_)
    assert list(tmp_path.iterdir()) == []


def test_a_score_never_stands_alone(tmp_path):
    for field in ("chance", "ci_low", "n", "p"):
        with pytest.raises(BadParameter, match=f"without {field}"):
            scores.write_metrics(
                tmp_path, {"scores": {"accuracy": {k: v for k, v in GOOD.items() if k != field}}}
            )
    with pytest.raises(BadParameter, match="nothing to report"):
        scores.write_metrics(tmp_path, {"scores": {}})


def test_what_is_frequent_in_a_session_is_no_answer_to_its_trials():
    """Sessions that differ in their classes, and a decoder that looks at no trial."""
    rng, session = np.random.default_rng(3), np.repeat(np.arange(6), 50)
    often = np.array([0, 1, 1, 0, 1, 0])[session]
    y = (rng.random(300) < np.array([0.35, 0.65])[often]).astype(int)
    blind = np.log(np.array([[0.6, 0.4], [0.4, 0.6]])[often])
    how = {"group": np.arange(300) // 10, "n_permutations": 200}
    together = scores.decoding_scores(y, blind, **how)["balanced_accuracy"]
    each = scores.decoding_scores(y, blind, apart=session, **how)["balanced_accuracy"]
    assert together.value == each.value > 0.6 and together.p < 0.01
    assert each.p == 1 and each.null == "moving labels along time within groups"
    sees = np.where(y[:, None] == [0, 1], 0.0, -1.0) + rng.normal(0, 1, (300, 2))
    assert scores.decoding_scores(y, sees, apart=session, **how)["balanced_accuracy"].p < 0.01
