"""Poisson naive Bayes: each unit and bin counts for itself."""

from __future__ import annotations

import numpy as np

from nblib.core.errors import BadInput
from nblib.models.base import require
from nblib.models.linear import LinearDecoder
from nblib.models.nearest_mean import class_sums


class PoissonNaiveBayes(LinearDecoder):
    """Independent Poisson counts with a rate for each class, unit and bin; linear in the counts.

    pseudo: how many presentations of the average response each class's rate is mixed with (the
    mean of a Gamma prior), values that are tried. Scaled samples become counts again by
    `scaling`. Source: Zhang et al. 1998, J. Neurophysiol. 79:1017. Raises BadInput for counts
    below zero.
    """

    name = "poisson_naive_bayes"
    title = "Poisson naive Bayes"
    fixed = {"pseudo": (1.0,)}

    def __init__(self, *, pseudo: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)):
        require(min(pseudo) > 0, self, "pseudo > 0 needed")

    def _solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        mean, scale = self._per_feature(x.shape[1])
        counts = x * scale + mean  # (B, T*N)
        if counts.min() < -0.01:
            raise BadInput(
                f"{self.name} needs counts, none below 0; the least of these is {counts.min():.3g}. "
                "Set `scaling` to the mean and scale that made them."
            )
        counts = np.maximum(counts, 0.0)
        sums, shown = class_sums(counts, y)
        average = counts.mean(axis=0) + 1e-3  # a bin that is empty in training is not impossible
        for pseudo in sorted(self.params["pseudo"], reverse=True):
            rate = (sums + pseudo * average) / (shown[:, None] + pseudo)  # (C, D)
            log_rate = np.log(rate)
            weight = (log_rate * scale).T.copy()
            yield {"c": 1 / pseudo}, weight, log_rate @ mean - rate.sum(axis=1)

    def _per_feature(self, n_features: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale of each bin of each unit, (T*N,)."""
        if self.scaling is None:
            return np.zeros(n_features), np.ones(n_features)
        mean, scale = self.scaling
        return np.tile(mean, self.n_bins), np.tile(scale, self.n_bins)
