"""Rates by empirical Bayes, against their definition, and what they are worth where little is known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from easy_task import fit
from scipy.integrate import quad
from scipy.stats import gamma
from test_simple_models import N_CLASSES, poisson_task

from nblib.core.errors import BadInput, BadParameter
from nblib.models import make
from nblib.models.poisson import LEAST_RATE, dispersion, prior_variance
from nblib.prepare.decoder_inputs import Samples

ONE = {"smooth": [0.0], "gain_sd": [0.5]}


def spikes(n: int, seed: int, n_classes: int = 20, n_bins: int = 4, n_units: int = 30) -> Samples:
    """Sparse counts: tuning that lasts over bins, and a gain that each presentation has of its own."""
    truth = np.random.default_rng(3)
    tuning = truth.gamma(1.0, 1.0, (n_classes, 1, n_units))
    rates = 0.5 * tuning * np.linspace(0.7, 1.3, n_bins)[:, None]
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    gain = rng.gamma(4, 1 / 4, (n, 1, 1))
    return Samples(rng.poisson(gain * rates[y]).astype(np.float32), y, np.arange(n))


def rates(train: Samples, width: float) -> np.ndarray:
    """Posterior mean rates (C, T, N), one by one from the formulas of the docstring."""
    n_bins, n_units = train.x.shape[1:]
    shown = np.bincount(train.y)
    seen = np.stack([train.x[train.y == k].sum(axis=0) for k in range(len(shown))]).astype(float)
    average = seen.sum(axis=0) / shown.sum() + LEAST_RATE
    expected = shown[:, None, None] * average
    v = prior_variance(seen.reshape(len(shown), -1), expected.reshape(len(shown), -1))
    v = v.reshape(n_bins, n_units)
    found = np.empty(seen.shape)
    for k, t, i in np.ndindex(seen.shape):
        near = np.exp(-0.5 * ((np.arange(n_bins) - t) / (width * n_bins)) ** 2)
        s, e = near @ seen[k, :, i], near @ expected[k, :, i]
        found[k, t, i] = average[t, i] * (v[t, i] * s + 1) / (v[t, i] * e + 1)
    return found


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("sd", [0.0, 0.5])
def test_it_is_the_posterior_with_the_gain_integrated_out(is_scaled, sd):
    train, test = poisson_task(), poisson_task(12, seed=1)
    train.x[::2, :, 0] = 0  # a unit that is there half the time scatters more than Poisson's
    mean, scale = np.linspace(0.5, 2, 6), np.linspace(1, 3, 6)

    def given(s):
        return Samples(((s.x - mean) / scale).astype(np.float32), s.y, s.trial) if is_scaled else s

    scaling = (mean, scale) if is_scaled else None
    decoder = make("bayes_poisson", {"smooth": [0.3], "gain_sd": [sd]}, scaling=scaling)
    fit(decoder, given(train), None, n_classes=N_CLASSES)
    rate = rates(train, 0.3)
    expected = rate.sum(axis=1)[train.y]  # (B, N)
    expected *= (train.x.sum(axis=(1, 2)) / expected.sum(axis=1))[:, None]
    scatter = ((train.x.sum(axis=1) - expected) ** 2).sum(axis=0) / expected.sum(axis=0)
    weight = 1 / np.maximum(scatter, 1)
    assert weight[0] < 0.9 and weight.max() > 0.9

    def likelihood(x, k):
        def at(gain):  # up to what is alike for all classes
            mean = gain * rate[k]
            return np.exp((weight * (x * np.log(mean) - mean)).sum())

        if sd == 0:
            return at(1.0)
        return quad(lambda g: at(g) * gamma.pdf(g, sd**-2, scale=sd**2), 0, 8, epsabs=0)[0]

    p = np.array([[likelihood(x, k) for k in range(N_CLASSES)] for x in test.x])
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(decoder.predict_proba(given(test).x), p, atol=1e-4)


def test_the_spread_of_rates_is_found_and_shared_where_little_is_known():
    rng = np.random.default_rng(0)

    def found(variance, n_classes, expected, n=400):
        rate = rng.gamma(1 / variance, variance, (n_classes, n)) if variance else 1.0
        seen = rng.poisson(expected * rate, (n_classes, n))
        return prior_variance(seen.astype(float), np.full(seen.shape, expected))

    assert found(0.5, 200, 20.0).mean() == pytest.approx(0.5, rel=0.1)
    assert found(2.0, 200, 20.0).mean() == pytest.approx(2.0, rel=0.1)
    assert found(0.0, 200, 20.0).mean() < 0.015  # no more than chance: the least there is
    alone, together = found(0.5, 10, 1.0, n=1), found(0.5, 10, 1.0)
    assert together.std() < 0.2 and together.mean() == pytest.approx(0.5, rel=0.3)
    assert alone.shape == (1,)


def test_a_unit_that_comes_and_goes_has_less_to_say():
    rng = np.random.default_rng(0)
    rates = rng.gamma(2.0, 2.0, (5, 40))
    y = np.arange(400) % 5
    there = np.ones((400, 40))
    there[200:, 0] = 0  # one unit is lost half-way
    gain = rng.gamma(10, 0.1, (400, 1))  # of all units: no scatter of their own
    counts = rng.poisson(gain * there * rates[y])
    totals = [counts[y == k] for k in range(5)]
    scatter = dispersion(totals, np.stack([c.mean(axis=0) for c in totals]))
    assert scatter[0] > 2 and abs(scatter[1:].mean() - 1) < 0.1 and scatter[1:].max() < 1.4
    assert dispersion([np.zeros((3, 2))], np.full((1, 2), 1e-4)).tolist() == [0, 0]


def test_few_presentations_and_an_unsteady_gain_are_where_it_helps():
    train, val, test = spikes(60, 1), spikes(100, 2), spikes(600, 3)

    def right(name, **params):
        decoder = make(name, params)
        fit(decoder, train, val, n_classes=20)
        return (decoder.predict(test.x) == test.y).mean()

    ours = right("bayes_poisson")
    assert ours > right("poisson_naive_bayes") + 0.1
    assert ours > right("logistic") + 0.1
    # Each of its parts earns its keep: the neighbouring bins, and the gain.
    assert ours > right("bayes_poisson", smooth=[0.0]) + 0.02
    assert ours > right("bayes_poisson", gain_sd=[0.0]) + 0.02


def test_shuffled_labels_stay_at_chance():
    train, val, test = spikes(200, 1), spikes(100, 2), spikes(600, 3)
    rng = np.random.default_rng(0)
    shuffled = [Samples(s.x, rng.permutation(s.y), s.trial) for s in (train, val)]
    decoder = make("bayes_poisson")
    fit(decoder, *shuffled, n_classes=20)
    assert (decoder.predict(test.x) == test.y).mean() < 0.08  # chance is 0.05
    assert -decoder.predict_log_proba(test.x)[np.arange(600), test.y].mean() < 1.1 * np.log(20)


def test_validation_rows_choose_and_calibrate_and_teach_nothing():
    train, val = spikes(200, 1), spikes(200, 2)
    decoder, other = make("bayes_poisson", ONE), make("bayes_poisson", ONE)
    fit(decoder, train, val, n_classes=20)
    fit(other, train, spikes(60, 9), n_classes=20)
    ratio = decoder.weight / other.weight  # nothing but the temperature differs
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-9)
    sure = decoder.predict_proba(val.x).max(axis=1).mean()
    assert sure == pytest.approx((decoder.predict(val.x) == val.y).mean(), abs=0.05)
    history = fit(make("bayes_poisson"), train, val, n_classes=20)
    assert history["smooth"].tolist() == [0.0, 0.05, 0.1, 0.15]


def test_what_is_no_count_and_no_width_is_refused():
    train = poisson_task()
    with pytest.raises(BadInput, match="bayes_poisson needs counts, none below 0"):
        make("bayes_poisson").fit(train.x - 3, train.y)
    for params in ({"smooth": [-0.1]}, {"gain_sd": [float("inf")]}):
        with pytest.raises(BadParameter, match=r"model_params of bayes_poisson.*finite"):
            make("bayes_poisson", params)


def test_it_works_without_torch():
    code = (
        "import sys, numpy as np; from nblib.models import make; x = np.arange(24).reshape(6, 2, 2);"
        "make('bayes_poisson').fit(x, [0, 1] * 3).predict(x); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
