"""Learning curves: what is drawn, what is fitted on it, and what never changes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nblib import models
from nblib.core.errors import BadParameter
from nblib.core.params import SplitSettings
from nblib.evaluate import scores
from nblib.experiments import decode, few_labels, few_shot
from nblib.prepare.decoder_inputs import Samples

N_CLASSES, N_UNITS, N_BINS = 4, 9, 2
LIMITS = SplitSettings()


def counts_data(n=80, seed=0, signal=1.0):
    """A recording's data: 20 train presentations a class, Poisson counts, z-scored."""
    rng = np.random.default_rng(seed)
    rates = np.exp(
        0.5 + signal * np.random.default_rng(7).standard_normal((N_CLASSES, N_BINS, N_UNITS))
    )

    def samples(size, first):
        y = rng.permutation(np.arange(size) % N_CLASSES)
        return rng.poisson(rates[y]), y, np.arange(first, first + size)

    parts = [samples(n, 0), samples(20, 1000), samples(60, 2000)]
    mean = parts[0][0].reshape(-1, N_UNITS).mean(0)
    scale = parts[0][0].reshape(-1, N_UNITS).std(0)
    train, val, test = (Samples(((x - mean) / scale).astype(np.float32), y, t) for x, y, t in parts)
    return decode.Data(
        train, val, test, classes=np.arange(N_CLASSES), unit_ids=np.arange(N_UNITS),
        units=pd.DataFrame(index=range(N_UNITS)), scaling=(mean, scale), stop_s=np.array([0.1, 0.2]),
        label_name="frame", split_hash="h",
    ), parts  # fmt: skip


def asked(**given):
    return few_shot.Params(
        recipe="tiny", recording="tiny", n_permutations=100, n_bootstrap=200, **given
    )


def curves_of(data, limits=LIMITS, **given):
    return few_shot.learning_curves(data, asked(**given), limits)


def test_scaled_samples_become_the_counts_they_were():
    data, parts = counts_data()
    np.testing.assert_array_equal(few_shot.counts(data, data.test).x, parts[2][0])


def test_a_draw_holds_k_of_each_class_and_the_smaller_draws():
    y = counts_data()[0].train.y
    for k in (1, 3, 7):
        rows = few_labels.draw(y, k, [0, 2])
        assert np.bincount(y[rows]).tolist() == [k] * N_CLASSES and len(set(rows)) == len(rows)
        assert set(few_labels.draw(y, 1, [0, 2])) <= set(rows)
    assert set(few_labels.draw(y, 3, [0, 2])) != set(few_labels.draw(y, 3, [0, 3]))
    assert set(few_labels.draw(y, 3, [0, 2])) != set(few_labels.draw(y, 3, [1, 2]))


@pytest.mark.parametrize("k", [1, 4])
def test_below_five_there_is_no_validation(k):
    data, _ = counts_data()
    train, val = few_shot.drawn(data.train, k, 0, 0)
    assert val is None and len(train) == k * N_CLASSES


@pytest.mark.parametrize(("k", "n_val"), [(5, 1), (10, 2), (20, 4)])
def test_validation_is_part_of_the_k(k, n_val):
    data, _ = counts_data()
    train, val = few_shot.drawn(data.train, k, 0, 0)
    assert np.bincount(train.y).tolist() == [k - n_val] * N_CLASSES
    assert np.bincount(val.y).tolist() == [n_val] * N_CLASSES
    drawn = set(data.train.trial[few_labels.draw(data.train.y, k, [0, 0])])
    assert set(train.trial) | set(val.trial) == drawn and not set(train.trial) & set(val.trial)


def test_all_means_all_train_rows_and_chooses_among_them():
    data, _ = counts_data()
    train, val = few_shot.drawn(data.train, 0, 0, 0)
    assert sorted([*train.trial, *val.trial]) == sorted(data.train.trial)
    assert np.bincount(val.y).tolist() == [4] * N_CLASSES  # a fifth of twenty each
    assert np.bincount(train.y).tolist() == [16] * N_CLASSES


@pytest.mark.parametrize("name", ["nearest_mean", "poisson_naive_bayes", "logistic"])
def test_nothing_but_the_drawn_rows_teaches(name):
    """Poison every row that was not drawn: the decoder is the same to the last bit."""
    data, _ = counts_data()
    rows = few_labels.draw(data.train.y, 5, [0, 1])
    x = np.full_like(data.train.x, 250.0)
    x[rows] = data.train.x[rows]
    poisoned = replace(
        data,
        train=replace(data.train, x=x),
        val=replace(data.val, x=data.val.x + 99),
        test=replace(data.test, x=data.test.x + 99),
    )
    (one, scale), (two, other) = (
        few_shot.fit(name, d, 5, 1, asked(), LIMITS) for d in (data, poisoned)
    )
    for a, b in zip(one._weights().values(), two._weights().values(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(scale, other)


def test_a_unit_silent_in_the_draw_says_nothing():
    train = Samples(
        np.ones((4, 1, 2), np.float32) * [[[1, 0]]], np.array([0, 1, 0, 1]), np.arange(4)
    )
    train.x[::2, 0, 0] = 3
    scale = few_shot.scaling(train, LIMITS, True)
    seven = Samples(np.full((1, 1, 2), 7.0), np.zeros(1, int), np.zeros(1, int))
    x = few_shot.scaled(seven, *scale).x
    assert x[0, 0, 1] == 0 and x[0, 0, 0] == pytest.approx(5 / np.sqrt(4 / 3))
    assert np.isfinite(x).all()


def test_units_are_chosen_on_the_drawn_rows_alone():
    """A unit that all train rows would keep, and one that they would leave out."""
    data, parts = counts_data()
    rows = few_labels.draw(data.train.y, 3, [0, 0])
    x = np.array(parts[0][0], np.float32)
    x[:, :, 0] = 0
    x[np.setdiff1d(np.arange(len(x)), rows), :, 0] = 5  # silent in the draw
    x[np.setdiff1d(np.arange(len(x)), rows)[0], 0, 1] = 1e5  # far too large, but elsewhere
    every = replace(data, train=replace(data.train, x=x), scaling=(np.zeros(9), np.ones(9)))
    limits = SplitSettings(highest_value=10.0)
    scale = few_shot.fit("nearest_mean", every, 3, 0, asked(), limits)[1][1]
    assert np.isinf(scale[0]) and np.isfinite(scale[1:]).all()


def test_curves_rise_and_every_decoder_sees_the_same_draws(monkeypatch):
    data, _ = counts_data()
    seen = {}
    drawn = few_shot.drawn

    def watched(train, k, seed, number):
        learn, choose = drawn(train, k, seed, number)
        seen.setdefault((k, number), []).append(learn.trial.tolist())
        return learn, choose

    monkeypatch.setattr(few_shot, "drawn", watched)
    names = ["nearest_mean", "ridge", "poisson_naive_bayes"]
    result = curves_of(data, models=names, shots=[1, 5, 0], n_draws=4)
    curve, each = result.tables["curve"], result.tables["draws"]
    assert all(len(t) == 3 and t[0] == t[1] == t[2] for t in seen.values())
    assert each.groupby(["model", "k"]).size().unique().tolist() == [1, 4]
    for name in names:
        part = curve[curve["model"] == name].set_index("k")
        assert part.loc[0, "value"] > part.loc[1, "value"] > part.loc[1, "chance"]
        mean = each[(each["model"] == name) & (each["k"] == 5)]
        assert part.loc[5, "value"] == pytest.approx(mean["accuracy"].mean())
        assert part.loc[5, "n_draws"] == 4 and part.loc[0, "n_draws"] == 1
    assert result.best is None
    words = few_shot.in_words(result, data)
    assert words.startswith("**Result.**") and all(f"**{name}**" in words for name in names)


def test_presentations_that_hang_together_count_as_one():
    data, _ = counts_data()
    given = {"models": ["nearest_mean"], "shots": [5, 0], "n_draws_large": 2}
    alone, blocks = (
        curves_of(replace(data, group=group), **given).tables["curve"]
        for group in (np.arange(60), np.arange(60) // 12)
    )
    width = (blocks["ci_high"] - blocks["ci_low"]) / (alone["ci_high"] - alone["ci_low"])
    assert (width > 1.2).all() and (blocks["p"] > alone["p"]).all()


def test_shuffled_labels_stay_at_chance():
    data, _ = counts_data(seed=3)
    rng = np.random.default_rng(0)
    parts = {
        role: Samples(s.x, rng.permutation(s.y), s.trial)
        for role, s in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    shuffled = replace(data, **parts)
    curve = curves_of(shuffled, models=["nearest_mean"], shots=[1, 5, 0]).tables["curve"]
    assert (curve["p"] > 1e-3).all() and (curve["value"] < 0.45).all()


def test_score_counts_draws_and_presentations_as_luck():
    y = np.arange(100) % 4
    same = np.tile(np.where(np.arange(100) < 60, y, (y + 1) % 4), (5, 1))
    one = few_shot.score(same, y, n_permutations=200, seed=0)
    assert one.value == 0.6 and one.n == 100 and one.chance == 0.25 and one.p < 0.02
    assert one.ci_high - one.ci_low == pytest.approx(4 * 0.049, abs=0.03)  # sqrt(.6 * .4 / 100)
    unlike = same.copy()
    unlike[:2] = y  # two lucky draws: the mean rises, the interval widens
    other = few_shot.score(unlike, y, n_permutations=200, seed=0)
    assert other.value == pytest.approx(0.76) and other.ci_high - other.ci_low > 0.2
    wrong = few_shot.score((same + 1) % 4, y, n_permutations=200, seed=0)
    assert wrong.p > 0.05
    rare = few_shot.score(
        np.zeros((2, 10), int), np.repeat([0, 1], [7, 3]), n_permutations=9, seed=0
    )
    assert (
        rare.chance == rare.value == 0.7 and rare.p == 1.0
    )  # the frequent answer, whatever is asked


@pytest.mark.parametrize(
    ("n_draws", "n_test", "right", "of_draws"),
    [(3, 40, 0.6, 0.03), (10, 60, 0.95, 0.03), (1, 28, 0.97, 0.0), (4, 400, 0.6, 0.1)],
)
def test_the_interval_of_a_curve_counts_draws_and_presentations(n_draws, n_test, right, of_draws):
    rng, held, width = np.random.default_rng(5), 0, []
    for _ in range(200):
        skill = right + of_draws * rng.standard_normal((n_draws, 1))
        ease = 0.1 * rng.standard_normal(n_test) if right < 0.9 else 0
        hit = rng.random((n_draws, n_test)) < skill + ease
        s = few_shot.score(hit.astype(int), np.ones(n_test, int), n_permutations=1, seed=0)
        held += s.ci_low <= right <= s.ci_high and s.ci_high > s.ci_low
        width.append(s.ci_high - s.ci_low)
    assert held >= 184  # 92 %
    both = of_draws**2 / n_draws + right * (1 - right) / n_test
    assert np.median(width) < 8 * np.sqrt(both)  # and it says something


def test_needed_is_read_off_the_curve():
    curve = pd.DataFrame(
        {"model": "m", "k": [1, 10, 0], "per_class": [1.0, 10.0, 100.0], "value": [0.2, 0.6, 1.0]}
    )
    curve = curve.assign(ci_low=curve["value"] - 0.1, chance=0.1)
    row = few_shot.needed(curve).iloc[0]
    assert row["area"] == pytest.approx(0.6)
    assert row["k for 50%"] == pytest.approx(10**0.75)
    assert row["k for 80%"] == pytest.approx(10**1.5)
    low = few_shot.needed(curve.assign(value=[0.9, 0.95, 1.0])).iloc[0]
    assert low["k for 50%"] == 1 and low["k for 90%"] == 1
    assert np.isnan(few_shot.needed(curve.iloc[:2]).iloc[0]["k for 50%"])
    # Nothing is told of a decoder that guesses, nor of a level that guessing reaches.
    luck = few_shot.needed(curve.assign(ci_low=0.05)).iloc[0]
    assert luck[["k for 50%", "k for 90%"]].isna().all()
    coarse = few_shot.needed(curve.assign(chance=0.6)).iloc[0]
    assert np.isnan(coarse["k for 50%"]) and coarse["k for 80%"] == pytest.approx(10**1.5)


def test_a_decoder_named_twice_is_refused():
    with pytest.raises(BadParameter, match="named twice"):
        curves_of(counts_data()[0], models=["ridge", "ridge"])


@pytest.mark.parametrize(
    ("shots", "message"),
    [([21], "frame 0 has 20 train presentations, fewer than 21"), ([], "expected different"),
     ([3, 3], "expected different"), ([-1], "expected different")],
)  # fmt: skip
def test_shots_that_cannot_be_drawn_are_refused(shots, message):
    with pytest.raises(BadParameter, match=message):
        curves_of(counts_data()[0], shots=shots)


def test_what_carries_the_answer_is_told_of_the_first_decoder_at_the_largest_k():
    """A unit that never fires carries nothing; one that alone tells the class carries most."""
    data, _ = counts_data()
    train, test = (replace(s, x=s.x.copy()) for s in (data.train, data.test))
    for samples in (train, test):
        samples.x[:, :, 0] = samples.y[:, None] * 3
        samples.x[:, :, 1] = 0
    result = curves_of(
        replace(data, train=train, test=test),
        models=["ridge", "nearest_mean"],
        shots=[0, 1],
        n_draws=2,
    )
    units = result.tables["importance_units"]
    rise = units["rise"].to_numpy()
    assert rise.argmax() == 0 and units["ci_low"][0] > 0 and abs(rise[1]) < 1e-9
    assert units["unit"].tolist() == list(data.unit_ids)
    assert len(result.tables["importance_bins"]) == 2
    none = curves_of(data, models=["ridge"], shots=[1], importance=0)
    assert not {"importance_units", "importance_bins"} & set(none.tables)


def test_what_is_written(tmp_path):
    data, _ = counts_data()
    curves_of(data, models=["ridge"], shots=[1, 0], n_draws=2).save(tmp_path, {})
    assert len(pd.read_parquet(tmp_path / "draws.parquet")) == 3
    assert len(pd.read_parquet(tmp_path / "importance_units.parquet")) == len(data.unit_ids)
    curve = pd.read_parquet(tmp_path / "curve.parquet")
    assert {"model", "k", "value", "ci_low", "ci_high", "chance", "p", "n", "null"} <= set(curve)
    written = (tmp_path / scores.METRICS).read_text()
    assert '"ridge, k = all"' in written and '"split_hash": "h"' in written


@pytest.mark.parametrize("name", [n for n in models.MODELS if models.MODELS[n].fixed])
def test_fixed_settings_leave_nothing_to_choose(name):
    decoder = models.make(name, models.MODELS[name].fixed)
    lists = [v for v in decoder.params.values() if isinstance(v, tuple)]
    assert lists and all(len(v) == 1 for v in lists)
