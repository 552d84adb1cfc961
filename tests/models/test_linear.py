"""The linear decoders against scikit-learn's own, and what validation may decide."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from easy_task import N_CLASSES, easy
from easy_task import fit as fit_on
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from nblib.core.errors import BadParameter
from nblib.models import make
from nblib.models.linear import squared_hinge, temperature
from nblib.prepare.decoder_inputs import Samples


def flat(samples):
    return samples.x.reshape(len(samples), -1)


def fit(name, task, **params):
    decoder = make(name, params)
    return decoder, fit_on(decoder, task["train"], task["val"])


def direction(decoder):
    """Scores without what softmax and the temperature do not see."""
    w = decoder.weight - decoder.weight.mean(axis=1, keepdims=True)
    return w / np.linalg.norm(w)


def centred(coef):
    w = coef.T - coef.T.mean(axis=1, keepdims=True)
    return w / np.linalg.norm(w)


def test_logistic_is_scikit_learns(task):
    decoder, _ = fit("logistic", task, c_values=[0.01], max_iter=2000)
    theirs = LogisticRegression(C=0.01, tol=1e-6, max_iter=5000)
    theirs.fit(flat(task["train"]), task["train"].y)
    np.testing.assert_allclose(direction(decoder), centred(theirs.coef_), atol=2e-3)


def test_pca_is_folded_into_one_matrix(task):
    decoder, _ = fit("pca_logistic", task, components=[7], c_values=[0.01])
    pca = PCA(7).fit(flat(task["train"]))
    theirs = LogisticRegression(C=0.01, tol=1e-6, max_iter=5000)
    theirs.fit(pca.transform(flat(task["train"])), task["train"].y)
    scores = theirs.decision_function(pca.transform(flat(task["test"])))
    ours = flat(task["test"]) @ decoder.weight + decoder.bias
    scores -= scores.mean(axis=1, keepdims=True)
    ours -= ours.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        ours / np.linalg.norm(ours), scores / np.linalg.norm(scores), atol=2e-3
    )
    assert np.linalg.matrix_rank(decoder.weight, tol=1e-8) <= 7


def test_the_svm_is_that_of_liblinear(task):
    x, y = flat(task["train"]).astype(np.float64), task["train"].y
    theirs = LinearSVC(C=0.05, tol=1e-8, max_iter=100_000).fit(x, y)
    with_bias = np.hstack([x, np.ones((len(x), 1))])
    start = np.zeros(with_bias.shape[1] * N_CLASSES)
    ours = squared_hinge(with_bias, y, N_CLASSES, 0.05, 5000, start).reshape(-1, N_CLASSES)
    expected = np.vstack([theirs.coef_.T, theirs.intercept_])
    np.testing.assert_allclose(ours, expected, atol=5e-3)


@pytest.mark.parametrize("name", ["logistic", "pca_logistic", "linear_svm"])
def test_validation_chooses_the_strength_and_nothing_else(name, task):
    decoder, history = fit(name, task)
    assert decoder.fitted["c"] == history["c"].iloc[history["val_loss"].argmin()]
    assert history["c"].is_monotonic_increasing
    # Other validation rows, the strength held: the same weights but for one factor.
    one = {"c_values": [decoder.fitted["c"]], "max_iter": 500}
    if name == "pca_logistic":
        one["components"] = [decoder.fitted["components"]]
    first, _ = fit(name, task, **one)
    second, _ = fit(name, {**task, "val": easy(24, 17)}, **one)
    np.testing.assert_allclose(direction(first), direction(second), atol=1e-12)


def test_a_validation_set_of_noise_prefers_caution(task):
    rng = np.random.default_rng(0)
    noise = replace(task["val"], y=rng.permutation(task["val"].y))
    decoder, _ = fit("logistic", {**task, "val": noise})
    log_proba = decoder.predict_log_proba(noise.x)
    assert -log_proba[np.arange(40), noise.y].mean() < np.log(N_CLASSES) + 0.02


def test_one_presentation_a_class_is_fitted_without_a_warning(task):
    first = [int(np.flatnonzero(task["train"].y == c)[0]) for c in range(N_CLASSES)]
    one = Samples(*(getattr(task["train"], name)[first] for name in ("x", "y", "trial")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder = make("logistic")
        fit_on(decoder, one, None)
    assert (decoder.predict(one.x) == one.y).all()


def test_temperature_undoes_a_factor():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((5000, 3)) * 2
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    y = (rng.random(5000)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    assert temperature(scores * 10, y) == pytest.approx(0.1, rel=0.1)


def test_nothing_to_resume(task, tmp_path):
    with pytest.raises(BadParameter, match="no checkpoints"):
        fit_on(make("logistic"), task["train"], task["val"], resume=tmp_path / "x.ckpt")
