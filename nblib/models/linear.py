"""The linear decoders' common part: one weight per bin, unit and class.

Logistic regression, PCA + logistic regression and the linear SVM differ in how they find the
weights. What they predict with is the same, and all that is stored is the matrix and the bias.
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from nblib.core.errors import BadParameter
from nblib.models.base import Decoder
from nblib.prepare.samples import Samples


class LinearDecoder(Decoder):
    """Scores = x (B, T*N) @ weight (T*N, C) + bias (C,); probabilities by softmax.

    Every strength in `c_values` is fitted on the train rows; the one with the lowest validation
    log-loss is kept as it is and not fitted again on validation rows. A single factor on the
    scores (temperature, Guo et al. 2017, ICML) is set on the validation rows. Without validation
    rows the first setting that is tried is taken, and the scores as they are.
    """

    weight: np.ndarray
    bias: np.ndarray

    @abstractmethod
    def _solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        """Yield (setting, weight (D, C), bias (C,)) for all that is tried; x (B, D), y (B,).

        setting: plain values; "c" is the inverse penalty.
        """

    def _fit(
        self, train: Samples, val: Samples | None, settings: Any, folder: Any, resume: Any
    ) -> pd.DataFrame:
        if resume not in ("", "auto"):
            raise BadParameter(
                f"resume = {resume!r}: a {self.name} has no checkpoints; leave it out."
            )
        started = time.perf_counter()
        choose, val = val is not None, train if val is None else val
        x, v = train.x.reshape(len(train), -1), val.x.reshape(len(val), -1)  # (B, T*N)
        rows, best = [], np.inf
        with _threads(getattr(settings, "threads", 0)):
            for setting, weight, bias in self._solutions(x, train.y, getattr(settings, "seed", 0)):
                factor = temperature(v @ weight + bias, val.y) if choose else 1.0
                weight, bias = factor * weight, factor * bias
                val_log_proba = log_softmax(v @ weight + bias, axis=1)
                row = {
                    **setting,
                    "train_loss": _log_loss(log_softmax(x @ weight + bias, axis=1), train.y),
                    "val_loss": _log_loss(val_log_proba, val.y),
                    "val_accuracy": float((val_log_proba.argmax(axis=1) == val.y).mean()),
                }
                rows.append(row)
                if row["val_loss"] < best:
                    best = row["val_loss"]
                    self.weight, self.bias, chosen = weight, bias, setting
                if not choose:
                    break
        # The path that holds the choice: one row for each strength.
        rows = [r for r in rows if all(r[k] == v for k, v in chosen.items() if k != "c")]
        history = pd.DataFrame(rows)
        history.insert(0, "epoch", range(len(rows)))
        self.fitted = {
            "device": "cpu",
            "seed": getattr(settings, "seed", 0),
            **chosen,
            "best_epoch": int(history["val_loss"].argmin()),
            "best_val_loss": best,
            "fit_s": round(time.perf_counter() - started, 3),
        }
        return history

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        scores = x.reshape(len(x), -1).astype(np.float64) @ self.weight + self.bias  # (B, C)
        return log_softmax(scores, axis=1)

    def _weights(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight, "bias": self.bias}

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        weight, bias = weights["weight"], weights["bias"]
        shape = (self.n_bins * self.n_units, self.n_classes)
        if weight.shape != shape or bias.shape != shape[1:]:
            raise ValueError(f"weight {weight.shape} and bias {bias.shape}, expected {shape}")
        self.weight, self.bias = weight, bias


def temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """The factor on the scores (B, C) that gives labels y (B,) the least log-loss, 1e-3 to 1e3."""
    found = minimize_scalar(
        lambda log_factor: _log_loss(log_softmax(np.exp(log_factor) * scores, axis=1), y),
        bounds=(np.log(1e-3), np.log(1e3)),
        method="bounded",
    )
    return float(np.exp(found.x))


def logistic_solution(model: Any, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """weight (D, C) and bias (C,) of a fitted scikit-learn classifier, two classes included."""
    weight, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    if n_classes == 2:  # scikit-learn keeps one column: the score of class 1 against class 0
        weight, bias = np.hstack([np.zeros_like(weight), weight]), np.array([0.0, bias[0]])
    return weight, bias


def _log_loss(log_proba: np.ndarray, y: np.ndarray) -> float:
    return float(-log_proba[np.arange(len(y)), y].mean())


@contextlib.contextmanager
def _threads(n: int):
    """Hold BLAS to n threads; 0 leaves it as the environment says."""
    if not n:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=n):
        yield
