"""Principal components, then logistic regression on their scores."""

from __future__ import annotations

import numpy as np

from nblib.models.base import require
from nblib.models.linear import LinearDecoder
from nblib.models.logistic import logistic_path


class PCALogistic(LinearDecoder):
    """PCA of the bins x units of a presentation, fitted on train rows, then logistic regression.

    Both steps are linear, so one matrix is stored. components: numbers of components tried (at
    most min(B, T*N) count); c_values and max_iter as in the logistic decoder. The best pair on
    validation is kept.
    """

    name = "pca_logistic"
    title = "PCA + logistic regression"
    fixed = {"components": (100,), "c_values": (1e-2,)}

    def __init__(
        self,
        *,
        components: tuple[int, ...] = (50, 100, 200, 400),
        c_values: tuple[float, ...] = (1e-3, 1e-2, 1e-1),
        max_iter: int = 200,
    ):
        require(min(components) >= 1, self, "components >= 1 needed")
        require(min(c_values) > 0 and max_iter >= 1, self, "c_values > 0 and max_iter >= 1 needed")

    def _solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        from sklearn.decomposition import PCA

        sizes = sorted({min(k, *x.shape) for k in self.params["components"]})
        # The covariance is small for few features; for many, a randomised sketch is far faster.
        solver = "covariance_eigh" if x.shape[1] <= 2000 else "randomized"
        pca = PCA(sizes[-1], svd_solver=solver, random_state=seed)
        scores = pca.fit_transform(x)  # (B, T*N) -> (B, K)
        basis, mean = pca.components_.T.astype(np.float64), pca.mean_.astype(np.float64)
        for k in sizes:
            first = np.ascontiguousarray(scores[:, :k])
            path = logistic_path(first, y, self.params["c_values"], self.params["max_iter"])
            for setting, weight, bias in path:
                folded = basis[:, :k] @ weight  # (T*N, k) @ (k, C)
                yield {"components": k, **setting}, folded, bias - mean @ folded
