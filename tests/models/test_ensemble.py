"""Several decoders that answer together: their weights, their own answers, and what may weigh them."""

from __future__ import annotations

import numpy as np
import pytest
from easy_task import N_CLASSES, fit, small
from scipy.special import log_softmax

from nblib.core.errors import BadParameter
from nblib.models import make
from nblib.models.ensemble import pool_weights, pooled
from nblib.prepare.decoder_inputs import Samples


def noisy(y: np.ndarray, good: float, rng: np.random.Generator) -> np.ndarray:
    """Log-probabilities that favour the label by `good`, in unit noise."""
    return log_softmax(good * np.eye(4)[y] + rng.standard_normal((len(y), 4)), axis=1)


def test_the_weights_are_the_best_of_the_simplex():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    answers = np.stack([noisy(y, good, rng) for good in (1.5, 1.0, -0.5)])

    def loss(weights):
        return -pooled(answers, weights)[np.arange(400), y].mean()

    weights = pool_weights(answers, y)
    assert weights.sum() == pytest.approx(1) and weights.min() >= 0
    assert weights[0] > weights[1] > 0.1 and weights[2] < 1e-6  # one that misleads gets nothing
    # Nowhere else on the simplex is it lower.
    grid = [(a, b, 1 - a - b) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1 - a, 41)]
    assert loss(weights) <= min(loss(np.array(w)) for w in grid) + 1e-9
    # By hand: p is the product of the members' probabilities to the power of their weights.
    product = np.prod(np.exp(answers) ** weights[:, None, None], axis=0)
    by_hand = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(pooled(answers, weights)), by_hand, atol=1e-12)


def test_a_member_that_knows_nothing_weighs_nothing(task):
    """Also in the fit: the history tells of each member alone, and of all together. Train rows, whose
    labels are no labels here, would weigh the one that learnt them."""
    rng = np.random.default_rng(0)
    blind = small("nearest_mean")
    train = Samples(task["train"].x, rng.permutation(task["train"].y), task["train"].trial)
    fit(blind, train, task["val"])
    seeing = small("bayes_poisson")
    fit(seeing, task["train"], task["val"])
    ensemble = small("ensemble", members=["nearest_mean", "bayes_poisson"])
    ensemble.known = {"nearest_mean": blind, "bayes_poisson": seeing}
    history = fit(ensemble, train, task["val"])
    assert ensemble.members["nearest_mean"] is blind  # taken as it is
    assert ensemble.weights[0] < 0.05
    assert history["member"].tolist() == ["nearest_mean", "bayes_poisson", "ensemble"]
    assert ensemble.fitted["best_val_loss"] == history["val_loss"].min()
    assert history["val_loss"][0] > np.log(N_CLASSES) * 0.9


def test_without_validation_nothing_is_weighed(task):
    ensemble = small("ensemble")
    assert len(fit(ensemble, task["train"], None)) == 1
    np.testing.assert_array_equal(ensemble.weights, [0.5, 0.5])


def test_refit_teaches_its_own_members_and_none_that_are_taken_as_they_are(task):
    ensemble, taught = small("ensemble"), small("ensemble")
    fit(ensemble, task["train"], task["val"])
    fit(taught, task["train"], task["val"], refit=True)
    np.testing.assert_array_equal(taught.weights, ensemble.weights)
    member = make("bayes_poisson", scaling=ensemble.scaling)
    fit(member, task["train"], task["val"], refit=True)
    np.testing.assert_allclose(taught.members["bayes_poisson"].weight, member.weight)
    ensemble.known = dict(ensemble.members)
    with pytest.raises(BadParameter, match="refit: validation rows weigh"):
        fit(ensemble, task["train"], task["val"], refit=True)


@pytest.mark.parametrize(
    "members", [["lstm"], ["lstm", "lstm"], ["lstm", "lstn"], ["lstm", "ensemble"]]
)
def test_members_are_two_or_more_different_decoders(members):
    with pytest.raises(BadParameter, match="model_params of ensemble: members: two or more"):
        make("ensemble", {"members": members})
