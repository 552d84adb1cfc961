"""Ridge regression on class indicators: every penalty from one decomposition."""

from __future__ import annotations

import numpy as np

from nblib.models.base import require
from nblib.models.linear import LinearDecoder


class Ridge(LinearDecoder):
    """Least squares on one column a class with an L2 penalty, in closed form.

    c_values: inverse penalties in units of the mean variance of the data, tried on validation.
    One eigendecomposition of the smaller of the two Gram matrices serves all of them (Hastie,
    Tibshirani and Friedman 2009, section 3.4). Scores become probabilities by softmax and a
    temperature.
    """

    name = "ridge"
    title = "Ridge regression"
    fixed = {"c_values": (0.1,)}

    def __init__(self, *, c_values: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)):
        require(min(c_values) > 0, self, "c_values > 0 needed")

    def _solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        x = np.asarray(x, np.float64)
        target = np.eye(int(y.max()) + 1)[y]  # (B, C)
        x_mean, y_mean = x.mean(axis=0), target.mean(axis=0)
        x, target = x - x_mean, target - y_mean
        n, d = x.shape
        gram = x @ x.T if n < d else x.T @ x
        values, vectors = np.linalg.eigh(gram)  # of size min(B, D)
        values = np.maximum(values, 0.0)
        unit = values.sum() / d or 1.0  # the trace is that of either matrix
        right = vectors.T @ (target if n < d else x.T @ target)
        for c in sorted(self.params["c_values"]):
            solved = vectors @ (right / (values + unit / c)[:, None])
            weight = x.T @ solved if n < d else solved  # (D, C)
            yield {"c": c}, weight, y_mean - x_mean @ weight
