"""Forecasts of counts: bits a spike over the train mean, within roles, segments and pauses."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_film import seen

from nblib.core import errors, params
from nblib.evaluate import ratios
from nblib.experiments.film import decoding, forecast
from nblib.report.plots import films
from nblib.simulate import movie

FEW = {"n_permutations": 20, "n_bootstrap": 100}


def film(n=3000, n_units=4, swing=0.8, seed=0):
    """Poisson counts whose rates drift together; blocks of 300 bins are segments, dealt as 3 : 1 : 1."""
    rng = np.random.default_rng(seed)
    slow = swing * np.sin(np.arange(n) / 60.0)[:, None]
    counts = rng.poisson(0.5 * np.exp(slow + 0 * np.ones(n_units))).astype(float)
    segment = np.arange(n) // 300
    roles = np.array(["train", "train", "train", "val", "test"])[segment % 5][None]
    pause = np.zeros(n, bool)
    pause[[100, 1350]] = True
    return decoding.Film(counts, np.zeros(n, int), "none", roles, segment, np.arange(n), pause, np.arange(n_units), np.full(n_units, "A"), 0.08, "", params.SplitSettings())  # fmt: skip


def test_bits_are_those_of_a_hand_count():
    counts = np.array([[0, 1], [2, 0], [1, 1]])
    null, rate = np.array([1.0, 0.5]), np.array([[0.5, 1.0], [2.0, 0.25], [1.0, 0.5]])
    expected = np.array([[0.5, np.log(2) - 0.5], [2 * np.log(2) - 1, 0.25], [0, 0]]) / np.log(2)
    assert np.allclose(ratios.gain_in_bits(counts, rate, null), expected)
    assert abs(ratios.gain_in_bits(counts, np.tile(null, (3, 1)), null)).max() < 1e-12


def test_no_pair_crosses_a_pause_a_role_or_a_segment():
    data = film()
    at = forecast.pairs(data, 0, "train", 25)
    assert len(at) and (data.segment[at] == data.segment[at + 25]).all()
    assert (data.roles[0][at + 25] == "train").all()
    assert not set(at) & set(range(75, 100))  # the pause before bin 100 lies between
    assert {74, 100} <= set(at)
    gone = replace(data, trial=np.arange(3000) + (np.arange(3000) >= 50))
    assert not set(forecast.pairs(gone, 0, "train", 25)) & set(range(25, 50))


def test_running_means_look_back_and_begin_anew_after_a_pause():
    data = film()
    means = forecast.running_means(data)
    later = data.counts.copy()
    later[500:] = 7
    changed = forecast.running_means(replace(data, counts=later))
    assert means.shape == (3, 3000, 4)
    assert (
        np.array_equal(changed[:, :500], means[:, :500]) and (changed[:, 500] > means[:, 500]).all()
    )
    other = replace(data, counts=np.r_[data.counts[:100] + 9, data.counts[100:]])
    again = forecast.running_means(other)
    assert (again[:, 99] > means[:, 99]).all() and np.array_equal(again[:, 100:], means[:, 100:])


def test_a_drift_is_forecast_and_noise_shrinks_to_the_mean():
    asked = decoding.Params(horizons_s=[0.08, 2.0], **FEW)
    rows, table = forecast.forecast(film(), asked)
    bits = {row.what: row.score for row in rows}
    assert len(bits) == 10 and len(table) == 10 * 4
    for name in ("running mean", "Poisson GLM", "reduced rank"):
        assert bits[f"{name}, 0.08 s ahead"].value > 0.02
    last = table[table["model"] == "last count"]
    assert (last["unshrunk"] < -1).all() and (last["over_train_mean"] > -0.05).all()
    _, quiet = forecast.forecast(film(swing=0.0), asked)
    told = np.average(quiet["over_train_mean"], weights=quiet["n_spikes"])
    assert told > -0.005 and set(quiet["weight"]) <= set(forecast.WEIGHTS)
    with pytest.raises(errors.BadParameter, match="no bins lie 30 s apart in a segment"):
        forecast.forecast(film(), asked.model_copy(update={"horizons_s": [30.0]}))
    with pytest.raises(errors.BadParameter, match=r"0\.01 s is no whole bin of 0\.08 s ahead"):
        forecast.forecast(film(), asked.model_copy(update={"horizons_s": [2.0, 0.01]}))


def test_the_test_mean_as_null_stands_in_a_column_of_its_own(monkeypatch):
    """By hand: test bins hold twice the spikes of train bins, and the model says the rate of the test bins."""
    monkeypatch.setattr(forecast, "MODELS", ("running mean",))
    counts = np.tile([[4.0, 0.0], [0.0, 4.0]], (30, 1))
    null, rate = np.ones((60, 2)), np.full((60, 2), 2.0)
    told = np.array([1.0]), np.repeat(np.arange(6), 10), counts, rate, rate, null
    monkeypatch.setattr(forecast, "of_fold", lambda *asked: told)
    data, few = film(n_units=2), decoding.Params(horizons_s=[0.08], folds=[0], **FEW)
    rows, table = forecast.forecast(data, few)
    over_train = 1 - 0.5 / np.log(
        2
    )  # log2(2) a spike, less one spike a bin more than the null expects
    assert np.allclose(table["over_train_mean"], over_train) and np.allclose(
        table["over_test_mean"], 0
    )
    assert rows[0].score.value == pytest.approx(over_train) and rows[0].score.chance == 0
    assert (
        "bits/spike over the train mean" not in table
        and films.AXES["bits/spike"][1] == "mean of train bins"
    )


def test_a_horizon_is_named_by_its_whole_bins(monkeypatch):
    monkeypatch.setattr(forecast, "MODELS", ("last count",))
    asked = decoding.Params(horizons_s=[0.1, 0.08, 0.2], **FEW)
    rows, table = forecast.forecast(film(), asked)
    assert [row.what for row in rows] == ["last count, 0.08 s ahead", "last count, 0.16 s ahead"]
    assert set(table["horizon_s"]) == {0.08, 0.16}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_units", "signal", "drift", "horizons_s", "share"),
    [(60, 0.5, 1.0, [0.08, 2.0, 10.0], 0.20), (40, 0.6, 1.7, [0.08], 0.45)],
)
def test_a_regression_tells_a_share_of_the_true_rate(n_units, signal, drift, horizons_s, share):
    """The whole film, one fold; and one whose gains drift more, as much as forecasts need."""
    rng = np.random.default_rng(1)
    story, units = movie.draw_film(59_080, rng), movie.draw_units(n_units, signal, rng)
    rate = movie.rates(story, units, movie.draw_gains(59_080, n_units, drift, rng)) * 0.082
    data = seen(rng.poisson(rate), story["hero"])
    asked = decoding.Params(horizons_s=horizons_s, folds=[0], n_bootstrap=100)
    rows, table = forecast.forecast(data, asked)
    bits = {row.what: row.score for row in rows}
    teach, at = forecast.pairs(data, 0, "train", 1) + 1, forecast.pairs(data, 0, "test", 1) + 1
    gain = ratios.gain_in_bits(data.counts[at], rate[at], data.counts[teach].mean(axis=0))
    true = gain.sum() / data.counts[at].sum()
    print(f"true rate {true:.4f}", {name: round(score.value, 4) for name, score in bits.items()})
    unshrunk = table[table["horizon_s"] == 0.08].groupby("model")["unshrunk"].mean()
    print(unshrunk.round(3).to_dict())
    assert bits["Poisson GLM, 0.08 s ahead"].value >= share * true
    assert bits["reduced rank, 0.08 s ahead"].value > 0
    assert unshrunk["LinearNextBin"] < unshrunk["Poisson GLM"] and unshrunk["last count"] < -5
    assert all(score.ci_high >= 0 for score in bits.values())


def test_an_interval_of_bits_a_spike_is_that_of_a_ratio(monkeypatch):
    """A film whose segments differ in their spikes alone, not in what one is worth."""
    rng, segment = np.random.default_rng(0), np.repeat(np.arange(20), 50)
    null = np.repeat(rng.choice([1.0, 10.0], 20), 50)[:, None] * np.ones(3)
    counts = rng.poisson(2 * null)
    told = np.array([1.0]), segment, counts, 2 * null, 2 * null, null
    monkeypatch.setattr(forecast, "of_fold", lambda *asked: told)
    data, few = film(n_units=3), decoding.Params(horizons_s=[0.08], folds=[0], **FEW)
    rows, table = forecast.forecast(data, few)
    score, gain = rows[0].score, ratios.gain_in_bits(counts, 2 * null, null)
    assert score.value == pytest.approx(gain.sum() / counts.sum())
    assert 0.01 < score.ci_high - score.ci_low < 0.06 and score.ci_low < score.value < score.ci_high
    assert (table["ci_high"] - table["ci_low"]).max() < 0.1
