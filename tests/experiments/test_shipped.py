"""The networks of SUMMER take the steps of scikit-learn's own, only faster."""

import warnings

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from nblib.experiments.film import shipped

SIZES = {"hidden_layer_sizes": 64, "alpha": 0, "batch_size": 32, "max_iter": 4, "random_state": 3}


def test_they_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.poisson(0.5, (1000, 12)).astype(float)
    y = (x[:, :1] - x[:, 1:2] + rng.normal(size=(1000, 1)) > 0).astype(int)
    with warnings.catch_warnings(action="ignore"):  # that epochs are few
        label = MLPClassifier(**SIZES, n_iter_no_change=9).fit(x, y[:, 0])
        counts = MLPRegressor(**SIZES, tol=0).fit(x[:-1], x[1:])
    odds = shipped.network(x, y, on_off=True, n_epochs=4, seed=3)(x)[:, 0]
    assert np.allclose(odds, label.predict_log_proba(x) @ [-1, 1], atol=1e-6)
    later = shipped.network(x[:-1], x[1:], on_off=False, n_epochs=4, seed=3)(x)
    assert np.allclose(later, counts.predict(x), atol=1e-6)
