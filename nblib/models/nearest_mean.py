"""Nearest class mean: the strong simple decoder when examples are few."""

from __future__ import annotations

import numpy as np

from nblib.models.base import require
from nblib.models.linear import LinearDecoder


class NearestMean(LinearDecoder):
    """The class whose mean training response is nearest (Euclid); linear in the response.

    shrink: how far each class mean is drawn to the mean of all classes, values between 0 and 1
    that are tried. Source: Tibshirani et al. 2002, PNAS 99:6567 (shrunken centroids, here with
    one factor for all).
    """

    name = "nearest_mean"
    title = "Nearest class mean"
    fixed = {"shrink": (0.0,)}

    def __init__(self, *, shrink: tuple[float, ...] = (0.0, 0.25, 0.5)):
        require(min(shrink) >= 0 and max(shrink) < 1, self, "0 <= shrink < 1 needed")

    def _solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        sums, shown = class_sums(x, y)
        means = sums / shown[:, None]  # (C, D)
        centre = means.mean(axis=0)
        for shrink in sorted(self.params["shrink"]):
            mean = centre + (1 - shrink) * (means - centre)
            yield {"c": 1 - shrink}, mean.T.copy(), -0.5 * (mean**2).sum(axis=1)


def class_sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the rows of each class, float64 (C, D), and how many there are (C,)."""
    order = np.argsort(y, kind="stable")
    shown = np.bincount(y)
    first = np.concatenate([[0], np.cumsum(shown)[:-1]])
    return np.add.reduceat(np.asarray(x, np.float64)[order], first, axis=0), shown
