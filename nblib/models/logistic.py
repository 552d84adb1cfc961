"""Multinomial logistic regression on every bin of every unit: the baseline to beat."""

from __future__ import annotations

import numpy as np

from nblib.models.base import require
from nblib.models.linear import LinearDecoder, logistic_solution


class Logistic(LinearDecoder):
    """Multinomial logistic regression with an L2 penalty (scikit-learn, L-BFGS).

    c_values: inverse penalties tried, the best on validation is kept; max_iter: L-BFGS steps.
    """

    name = "logistic"
    title = "Logistic regression"
    fixed = {"c_values": (1e-2,)}

    def __init__(
        self,
        *,
        c_values: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        max_iter: int = 200,
    ):
        require(min(c_values) > 0 and max_iter >= 1, self, "c_values > 0 and max_iter >= 1 needed")

    def _solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        yield from logistic_path(x, y, self.params["c_values"], self.params["max_iter"])


def logistic_path(x: np.ndarray, y: np.ndarray, c_values: tuple[float, ...], max_iter: int):
    """Yield ({"c": c}, weight, bias) from the strongest penalty to the weakest, each from the last."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(tol=1e-4, max_iter=max_iter, warm_start=True)
    for c in sorted(c_values):
        model.set_params(C=c)
        with warnings.catch_warnings():
            # Stopping early is a penalty of its own; validation judges it like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # One presentation a class is no mistake here: it is where a learning curve begins.
            warnings.filterwarnings("ignore", "The number of unique classes is greater than")
            model.fit(x, y)
        yield ({"c": c}, *logistic_solution(model, int(y.max()) + 1))
