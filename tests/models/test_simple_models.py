"""Nearest mean, ridge and Poisson naive Bayes, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from easy_task import fit
from scipy.stats import poisson

from nblib.core.errors import BadInput
from nblib.models import make
from nblib.models.linear import class_sums
from nblib.prepare.decoder_inputs import Samples

N_CLASSES = 3


def poisson_task(n=90, seed=0):
    rates = np.random.default_rng(5).uniform(0.3, 6, (N_CLASSES, 2, 6))
    rng = np.random.default_rng(seed)
    y = np.arange(n) % N_CLASSES
    return Samples(rng.poisson(rates[y]).astype(np.float32), y, np.arange(n))


def test_class_sums():
    x = np.arange(12.0).reshape(6, 2)
    sums, shown = class_sums(x, np.array([1, 0, 1, 0, 0, 1]))
    np.testing.assert_array_equal(sums, [[2 + 6 + 8, 3 + 7 + 9], [0 + 4 + 10, 1 + 5 + 11]])
    assert shown.tolist() == [3, 3]


def test_nearest_mean_is_the_nearest():
    train, test = poisson_task(), poisson_task(seed=1)
    decoder = make("nearest_mean", {"shrink": [0.0]})
    fit(decoder, train, None, n_classes=N_CLASSES)
    means = np.stack([train.x[train.y == c].mean(0).ravel() for c in range(N_CLASSES)])
    distance = ((test.x.reshape(len(test), 1, -1) - means) ** 2).sum(-1)
    np.testing.assert_array_equal(decoder.predict(test.x), distance.argmin(1))


@pytest.mark.parametrize("n", [9, 90])  # fewer rows than features, and more
def test_ridge_equals_scikit_learn_s(n):
    linear_model = pytest.importorskip("sklearn.linear_model")
    train = poisson_task(n)
    decoder = make("ridge", {"c_values": [0.5]})
    fit(decoder, train, None, n_classes=N_CLASSES)
    x = train.x.reshape(n, -1).astype(float)
    centred = x - x.mean(0)
    alpha = (centred**2).sum() / centred.shape[1] / 0.5
    theirs = linear_model.Ridge(alpha=alpha).fit(x, np.eye(N_CLASSES)[train.y])
    np.testing.assert_allclose(decoder.weight.T, theirs.coef_, atol=1e-8)
    np.testing.assert_allclose(decoder.bias, theirs.intercept_, atol=1e-8)


@pytest.mark.parametrize("is_scaled", [False, True])
def test_naive_bayes_is_the_poisson_posterior(is_scaled):
    train, test = poisson_task(), poisson_task(seed=1)
    decoder = make("poisson_naive_bayes", {"pseudo": [2.0]})
    mean, scale = np.linspace(0.5, 2, 6), np.linspace(1, 3, 6)

    def given(s):
        return Samples(((s.x - mean) / scale).astype(np.float32), s.y, s.trial) if is_scaled else s

    decoder.scaling = (mean, scale) if is_scaled else None
    fit(decoder, given(train), None, n_classes=N_CLASSES)
    average = train.x.mean(0) + 1e-3
    rate = np.stack(
        [
            (train.x[train.y == c].sum(0) + 2 * average) / ((train.y == c).sum() + 2)
            for c in range(3)
        ]
    )
    log_p = poisson.logpmf(test.x[:, None], rate).sum((2, 3))
    log_p -= np.logaddexp.reduce(log_p, axis=1, keepdims=True)
    np.testing.assert_allclose(decoder.predict_log_proba(given(test).x), log_p, atol=1e-3)


def test_naive_bayes_refuses_what_is_no_count():
    train = poisson_task()
    with pytest.raises(BadInput, match="needs counts, none below 0"):
        fit(
            make("poisson_naive_bayes"),
            Samples(train.x - 3, train.y, train.trial),
            None,
            n_classes=N_CLASSES,
        )
