"""The two networks that SUMMER ships, LinearLabel and LinearNextBin, of one hidden layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, log_expit

HIDDEN, BATCH, RATE, EPOCHS = 64, 32, 1e-3, 20
KEEP, KEEP_SQUARES, TINY = 0.9, 0.999, 1e-8  # of Adam


def network(
    x: np.ndarray, y: np.ndarray, *, on_off: bool, n_epochs: int = EPOCHS, seed: int = 0
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit Linear(D, 64)-ReLU-Linear(64, K) to x (B, D) and y (B, K): Adam, batches of 32, the last weights.

    on_off: y is 0 or 1 and the outputs are log-odds, taught by cross entropy; else y is what they should
    be, taught by squared error. Returns what gives the outputs (n, K) of other x (n, D). Start, order and
    steps are those of scikit-learn's MLPClassifier and MLPRegressor, in a tenth of their time: a batch is
    so small that what counts is the number of calls. Source: Kingma and Ba 2014, arXiv:1412.6980.
    """
    rng, (n, n_in), n_out = np.random.RandomState(seed), x.shape, y.shape[1]
    shapes = (n_in, HIDDEN), (HIDDEN, n_out), (HIDDEN,), (n_out,)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    weights, slope, mean, square, step = np.zeros((5, ends[-1]), x.dtype)  # all layers, laid flat

    def layers(flat: np.ndarray) -> list[np.ndarray]:
        parts = np.split(flat, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    (w1, w2, b1, b2), (of_w1, of_w2, of_b1, of_b2) = layers(weights), layers(slope)
    for w, b in ((w1, b1), (w2, b2)):
        most = np.sqrt(6 / sum(w.shape))
        w[:], b[:] = rng.uniform(-most, most, w.shape), rng.uniform(-most, most, b.shape)
    order, y, n_steps = np.arange(n), y.astype(x.dtype), 0
    for _ in range(n_epochs):
        order = order[rng.permutation(n)]
        for first in range(0, n, BATCH):
            rows = order[first : first + BATCH]
            seen = x[rows]
            hidden = np.maximum(seen @ w1 + b1, 0)
            said = hidden @ w2 + b2
            error = ((expit(said) if on_off else said) - y[rows]) / len(rows)
            back = error @ w2.T
            back *= hidden > 0
            np.dot(hidden.T, error, out=of_w2)
            np.dot(seen.T, back, out=of_w1)
            error.sum(axis=0, out=of_b2)
            back.sum(axis=0, out=of_b1)
            n_steps += 1
            mean *= KEEP
            mean += (1 - KEEP) * slope
            square *= KEEP_SQUARES
            slope *= slope
            square += (1 - KEEP_SQUARES) * slope
            np.sqrt(square, out=step)
            step += TINY
            np.divide(mean, step, out=step)
            step *= RATE * np.sqrt(1 - KEEP_SQUARES**n_steps) / (1 - KEEP**n_steps)
            weights -= step
    return lambda x: np.maximum(x @ w1 + b1, 0) @ w2 + b2


class LinearLabel:
    """Which of two labels a bin has, from its raw counts."""

    def __init__(self, n_epochs: int = EPOCHS, seed: int = 0):
        self.asked = {"n_epochs": n_epochs, "seed": seed}

    def fit(self, x: np.ndarray, y: np.ndarray) -> LinearLabel:
        """Fit to counts (B, T, N) and labels (B,) of 0 or 1."""
        self.odds = network(x.reshape(len(x), -1), y[:, None], on_off=True, **self.asked)
        return self

    def predict_log_proba(self, x: np.ndarray) -> np.ndarray:
        """Log-probability (B, 2) of either label."""
        return log_expit(self.odds(x.reshape(len(x), -1)) * [-1, 1])
