"""Principal components, then logistic regression on their scores."""

from __future__ import annotations

import numpy as np

from nblib.models.base import require
from nblib.models.linear import LinearDecoder
from nblib.models.logistic import logistic_path


class PCALogistic(LinearDecoder):
    """PCA of the bins x units of a presentation, fitted on train rows, then logistic regression.

    Both steps are linear, so one matrix is stored. components: kept, at most min(B, T*N);
    c_values and max_iter as in the logistic decoder.
    """

    name = "pca_logistic"
    title = "PCA + logistic regression"

    def __init__(
        self,
        *,
        components: int = 100,
        c_values: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        max_iter: int = 200,
    ):
        require(components >= 1, self, "components >= 1 needed")
        require(min(c_values) > 0 and max_iter >= 1, self, "c_values > 0 and max_iter >= 1 needed")

    def _solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        from sklearn.decomposition import PCA

        components = min(self.params["components"], *x.shape)
        pca = PCA(components, svd_solver="covariance_eigh" if x.shape[1] <= 2000 else "randomized",
                  random_state=seed)  # fmt: skip
        scores = pca.fit_transform(x)  # (B, T*N) -> (B, K)
        basis, mean = pca.components_.T.astype(np.float64), pca.mean_.astype(np.float64)
        path = logistic_path(scores, y, self.params["c_values"], self.params["max_iter"])
        for c, weight, bias in path:
            folded = basis @ weight  # (T*N, K) @ (K, C)
            yield c, folded, bias - mean @ folded
