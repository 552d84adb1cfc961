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
from nblib.models.poisson import dispersion, kinds_of_units, log_tuning, log_tuning_of_kinds
from nblib.prepare.decoder_inputs import Samples

ONE = {"gain_sd": [0.5]}


def spikes(n: int, seed: int, n_classes: int = 20, n_bins: int = 4, n_units: int = 30) -> Samples:
    """Sparse counts: tuning that lasts over bins, and a gain that each presentation has of its own."""
    truth = np.random.default_rng(3)
    tuning = truth.gamma(1.0, 1.0, (n_classes, 1, n_units))
    rates = 0.5 * tuning * np.linspace(0.7, 1.3, n_bins)[:, None]
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    gain = rng.gamma(4, 1 / 4, (n, 1, 1))
    return Samples(rng.poisson(gain * rates[y]).astype(np.float32), y, np.arange(n))


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("sd", [0.0, 0.5])
def test_it_is_the_posterior_with_the_gain_integrated_out(is_scaled, sd):
    train, test = poisson_task(), poisson_task(12, seed=1)
    train.x[::2, :, 0] = 0  # a unit that is there half the time scatters more than Poisson's
    mean, scale = np.linspace(0.5, 2, 6), np.linspace(1, 3, 6)

    def given(s):
        return Samples(((s.x - mean) / scale).astype(np.float32), s.y, s.trial) if is_scaled else s

    scaling = (mean, scale) if is_scaled else None
    decoder = make("bayes_poisson", {"gain_sd": [sd]}, scaling=scaling)
    fit(decoder, given(train), None, n_classes=N_CLASSES)
    log_rate = decoder.log_rates(given(train).x.reshape(len(train), -1), train.y, 4)[0]
    rate = np.exp(log_rate).T.reshape(N_CLASSES, *train.x.shape[1:])
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


def tuned(n_classes: int, expected: float, spread: float, n_units: int = 200, seed: int = 0):
    """Log tuning (C, 5, N) with two time courses, of another size in each unit, and its spikes."""
    rng = np.random.default_rng(seed)
    courses = np.stack([np.ones(5), np.linspace(-1, 1, 5)])
    size = spread * rng.uniform(0, 2, (2, 1, n_units))
    truth = np.einsum("kt,kci->cti", courses, size * rng.standard_normal((2, n_classes, n_units)))
    truth -= np.log(np.exp(truth).mean(axis=0))  # the mean over classes is known
    due = np.full(truth.shape, expected)
    return truth, rng.poisson(due * np.exp(truth)).astype(float), due


def test_many_spikes_are_taken_at_their_word():
    _, seen, due = tuned(30, 5e4, 0.3)
    np.testing.assert_allclose(log_tuning(seen, due, 5), np.log(seen / due), atol=0.05)
    few = log_tuning(seen, due, 2) - log_tuning(seen, due, 5)
    assert few.std() < 0.02  # two courses are all there is
    assert (log_tuning(seen, due, 1) - log_tuning(seen, due, 5)).std() > 0.1


def test_few_spikes_are_drawn_to_the_mean_as_far_as_the_unit_is_untuned():
    truth, seen, due = tuned(60, 3.0, 0.3)
    ours = log_tuning(seen, due, 2)
    raw = np.log((seen + 0.5) / (due + 0.5))
    assert ((ours - truth) ** 2).mean() < 0.35 * ((raw - truth) ** 2).mean()
    slope = (ours * truth).sum() / (ours**2).sum()
    assert slope == pytest.approx(1, abs=0.1)  # neither too bold nor too shy
    spread = truth.std(axis=(0, 1))
    assert np.corrcoef(ours.std(axis=(0, 1)), spread)[0, 1] > 0.9  # each unit by its own
    flat = np.random.default_rng(1).poisson(due).astype(float)
    assert np.abs(log_tuning(flat, due, 2)).mean() < 0.08  # no more than chance


def test_classes_that_are_few_learn_the_spread_from_all_units():
    truth, seen, due = tuned(2, 3.0, 0.5)
    together = log_tuning(seen, due, 2)
    alone = np.concatenate(
        [log_tuning(seen[..., i : i + 1], due[..., i : i + 1], 2) for i in range(200)], axis=2
    )
    assert ((together - truth) ** 2).mean() < 0.8 * ((alone - truth) ** 2).mean()


def of_two_sorts(n_units: int, seed: int) -> np.ndarray:
    """Rate over mean rate (C, 5, N) of 40 classes: a fifth of them drives a unit, early or late, or none does."""
    rng, rates = np.random.default_rng(seed), []
    for sort in rng.integers(0, 3, n_units):
        driven = rng.permutation(np.arange(40) < 8)[:, None]
        course = [np.zeros(5), np.array([6.0, 3, 1, 0, 0]), np.array([0.0, 0, 1, 3, 6])][sort]
        rates.append(0.3 + driven * course)
    rates = np.stack(rates, axis=-1)
    return rates / rates.mean(axis=0)


def test_how_known_units_answer_says_much_of_one_with_few_spikes_and_mixed_up_ones_nothing():
    shown, rng = np.full(40, 15.0), np.random.default_rng(0)
    known, truth = of_two_sorts(60, 1), of_two_sorts(30, 2)
    kinds = kinds_of_units(rng.poisson(0.5 * 15 * known).astype(float), shown, 3)
    mixed = kinds_of_units(rng.poisson(0.5 * 15 * np.ones_like(known)).astype(float), shown, 3)
    due = np.full(truth.shape, 0.5 * 3)
    seen = rng.poisson(due * truth).astype(float)

    def off(log):
        return ((np.exp(log) - truth) ** 2).mean()

    assert off(log_tuning_of_kinds(seen, due, kinds)) < 0.6 * off(log_tuning(seen, due, 3))
    both = np.concatenate([kinds, mixed])
    assert off(log_tuning_of_kinds(seen, due, both)) < 1.1 * off(
        log_tuning_of_kinds(seen, due, kinds)
    )
    assert off(log_tuning_of_kinds(seen, due, mixed)) > 0.8 * off(0 * due)  # no more than the mean


def test_a_rate_told_by_kinds_is_the_posterior_mean():
    kinds = np.array([[[0.5, 1.0], [1.5, 1.0]], [[1.0, 0.2], [1.0, 1.8]]])  # (J, C', T)
    seen, due = np.array([[2.0, 0], [1, 3], [0, 0]])[..., None], np.full((3, 2, 1), 1.5)

    def likelihood(k, rate):
        return np.prod(np.exp(-due[k, :, 0] * rate) * rate ** seen[k, :, 0])

    of = np.array([[[likelihood(k, rate) for rate in kind] for kind in kinds] for k in range(3)])
    kind = of.sum(axis=2).prod(axis=0)
    share = of / of.sum(axis=2, keepdims=True) * (kind / kind.sum())[:, None]
    ours = np.exp(log_tuning_of_kinds(seen, due, kinds))[..., 0]
    np.testing.assert_allclose(ours, np.einsum("kja,jat->kt", share, kinds), rtol=1e-5)
    apart = np.array([[[1.9, 0.1]] * 2, [[0.1, 1.9]] * 2])  # no kind explains both classes
    many = np.array([[1000.0, 0], [0, 2000]])[..., None]
    told = log_tuning_of_kinds(many, np.full((2, 2, 1), 1000.0), apart)
    np.testing.assert_allclose(np.exp(told[..., 0]), [[0.1, 1.9]] * 2, rtol=1e-5)


def test_a_unit_that_comes_and_goes_has_less_to_say():
    rng = np.random.default_rng(0)
    rates = rng.gamma(2.0, 2.0, (5, 40))
    y = np.arange(400) % 5
    there = np.ones((400, 40))
    there[200:, 0] = 0  # one unit is lost half-way
    gain = rng.gamma(10, 0.1, (400, 1))  # of all units: no scatter of their own
    counts = rng.poisson(gain * there * rates[y])
    scatter = dispersion(counts, np.stack([counts[y == k].mean(axis=0) for k in range(5)])[y])
    assert scatter[0] > 2 and abs(scatter[1:].mean() - 1) < 0.1 and scatter[1:].max() < 1.4
    assert dispersion(np.zeros((3, 2)), np.full((3, 2), 1e-4)).tolist() == [0, 0]


def test_few_presentations_and_an_unsteady_gain_are_where_it_helps():
    train, val, test = spikes(60, 1), spikes(100, 2), spikes(600, 3)

    def right(name, **params):
        decoder = make(name, params)
        fit(decoder, train, val, n_classes=20)
        return (decoder.predict(test.x) == test.y).mean()

    ours = right("bayes_poisson")
    assert ours > right("poisson_naive_bayes") + 0.1
    assert ours > right("logistic") + 0.1
    # The gain earns its keep.
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
    assert history["gain_sd"].tolist() == [0.0, 0.1, 0.3, 1.0]


def test_what_is_no_count_and_no_spread_is_refused():
    train = poisson_task()
    with pytest.raises(BadInput, match="bayes_poisson needs counts, none below 0"):
        make("bayes_poisson").fit(train.x - 3, train.y)
    for params in ({"courses": 0}, {"gain_sd": [-0.1]}, {"gain_sd": [float("inf")]}):
        with pytest.raises(BadParameter, match=r"model_params of bayes_poisson.* >= "):
            make("bayes_poisson", params)


def test_it_works_without_torch_and_so_does_the_list_of_names():
    code = (
        "import sys, numpy as np; from nblib.models import MODELS, make; assert 'lstm' in list(MODELS);"
        "x = np.arange(24).reshape(6, 2, 2);"
        "make('bayes_poisson').fit(x, [0, 1] * 3).predict(x); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
