"""Linear decoders: one weight per bin, unit and class.

They differ in how they find the weights. What they predict with is the same, and all that is
stored is the matrix and the bias.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from nblib.core.errors import BadParameter
from nblib.models import FitSettings
from nblib.models.base import Decoder, hyper_parameters, require
from nblib.prepare.decoder_inputs import Samples


class LinearDecoder(Decoder):
    """Scores = x (B, T*N) @ weight (T*N, C) + bias (C,); probabilities by softmax.

    Every strength is fitted on the train rows; the one with the lowest validation log-loss is kept,
    and fitted again with the validation rows where `refit` says so. A single factor on the scores
    (temperature, Guo et al. 2017, ICML) is set on the validation rows. Without validation rows,
    strengths that were left at their defaults are those of `fixed`, and the first is taken.
    """

    weight: np.ndarray
    bias: np.ndarray
    choice: Any  # of the last fit: the solution by number, and its temperature
    most_scored = 0  # train rows at most that `train_loss` is of, 0: all

    @classmethod
    def source(cls) -> Callable:
        return cls.solutions

    def solutions(self, x: np.ndarray, y: np.ndarray, seed: int):
        """Yield (setting, weight (D, C), bias (C,)) for all that is tried; x (B, D), y (B,).

        setting: plain values, last the strength ("c" is the inverse penalty). Its keyword-only
        arguments are the decoder's hyper-parameters.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Strengths, sizes and numbers of steps lie above 0."""
        for name, value in self.params.items():
            least = min(value) if isinstance(value, tuple) else value
            require(least > 0, self, f"{name} > 0 needed")

    def _fit(
        self, train: Samples, val: Samples | None, settings: FitSettings, **checkpoint: Any
    ) -> pd.DataFrame:
        if (resume := checkpoint["resume"]) not in ("", "auto"):
            raise BadParameter(
                f"resume = {resume!r}: a {self.name} has no checkpoints; leave it out."
            )
        started = time.perf_counter()
        judge, params = val, dict(self.params)
        if val is None:
            judge, default = train, hyper_parameters(type(self))
            params |= {k: v for k, v in self.fixed.items() if params[k] == default[k]}
        x, sampled = train.x.reshape(len(train), -1), train  # (B, T*N)
        if self.most_scored:
            n = min(len(train), self.most_scored)
            sampled = train.rows(np.linspace(0, len(train) - 1, n).astype(int))
        rows, best = [], np.inf
        with blas_threads(settings.threads):
            solutions = self.solutions(x, train.y, settings.seed, **params)
            for number, (setting, weight, bias) in enumerate(solutions):
                raw = scores(judge.x, weight, bias)
                factor = 1.0 if val is None else temperature(raw, judge.y)
                weight, bias = factor * weight, factor * bias
                log_proba = log_softmax(factor * raw, axis=1)
                of_train = log_softmax(scores(sampled.x, weight, bias), axis=1)
                row = {
                    **setting,
                    "train_loss": log_loss(of_train, sampled.y),
                    "val_loss": log_loss(log_proba, judge.y),
                    "val_accuracy": float((log_proba.argmax(axis=1) == judge.y).mean()),
                }
                rows.append(row)
                if row["val_loss"] < best:
                    best = row["val_loss"]
                    self.weight, self.bias, chosen = weight, bias, setting
                    self.choice = number, factor
                if val is None:
                    break
        *path, _ = chosen  # the path that holds the choice: one row for each strength
        history = pd.DataFrame([r for r in rows if all(r[k] == chosen[k] for k in path)])
        history.insert(0, "epoch", range(len(history)))
        self.fitted = {
            "device": "cpu",
            "seed": settings.seed,
            **chosen,
            "best_epoch": int(history["val_loss"].argmin()),
            "best_val_loss": best,
            "fit_s": round(time.perf_counter() - started, 3),
        }
        return history

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        number, factor = self.choice
        x = both.x.reshape(len(both), -1)
        with blas_threads(settings.threads):
            solutions = self.solutions(x, both.y, settings.seed, **self.params)
            _, weight, bias = next(islice(solutions, number, None))
        self.weight, self.bias = factor * weight, factor * bias

    def _log_proba(self, x: np.ndarray) -> np.ndarray:
        return log_softmax(scores(x, self.weight, self.bias), axis=1)

    def _weights(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight, "bias": self.bias}

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        weight, bias = weights["weight"], weights["bias"]
        shape = (self.n_bins * self.n_units, self.n_classes)
        if weight.shape != shape or bias.shape != shape[1:]:
            raise ValueError(f"weight {weight.shape} and bias {bias.shape}, expected {shape}")
        self.weight, self.bias = weight, bias


def blas_threads(n: int) -> AbstractContextManager:
    """So many threads of BLAS; 0 is what the environment says, and then nothing is looked up."""
    return threadpool_limits(limits=n) if n else nullcontext()


def scores(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x (B, T, N) or (B, T*N) -> (B, C), float64; part by part, so that there is no second copy of x."""
    parts = np.split(x.reshape(len(x), -1), range(512, len(x), 512))
    weight = np.ascontiguousarray(
        weight
    )  # as a stored one lies: BLAS rounds by the order in memory
    return np.concatenate([part.astype(np.float64) @ weight + bias for part in parts])


def temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """The factor on the scores (B, C) that gives labels y (B,) the least log-loss, 1e-3 to 1e3."""
    over = np.ascontiguousarray(scores.T) - scores[np.arange(len(y)), y]  # the truth, (C, B)
    most = over.max(axis=0)
    over -= most

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return (factor * most + np.log(np.exp(factor * over).sum(axis=0))).mean()

    minimum = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded")
    return float(np.exp(minimum.x))


def log_loss(log_proba: np.ndarray, y: np.ndarray) -> float:
    """Mean over presentations of -log_proba (B, C) of the true class y (B,) [nats]."""
    return float(-log_proba[np.arange(len(y)), y].mean())


class Logistic(LinearDecoder):
    """Multinomial logistic regression with an L2 penalty (scikit-learn, L-BFGS).

    c_values: inverse penalties tried, the best on validation is kept; max_iter: L-BFGS steps.
    """

    name = "logistic"
    title = "Logistic regression"
    fixed = {"c_values": (1e-2,)}

    def solutions(
        self, x: np.ndarray, y: np.ndarray, seed: int,
        *, c_values: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0), max_iter: int = 200,
    ):  # fmt: skip
        yield from logistic_path(x, y, c_values, max_iter)


def logistic_path(x: np.ndarray, y: np.ndarray, c_values: tuple[float, ...], max_iter: int):
    """Yield ({"c": c}, weight, bias) from the strongest penalty to the weakest, each from the last."""
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
        weight, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
        if len(bias) == 1:  # of two classes: the score of class 1 against class 0
            weight, bias = np.hstack([np.zeros_like(weight), weight]), np.array([0.0, bias[0]])
        yield {"c": c}, weight, bias


class PCALogistic(LinearDecoder):
    """PCA of the bins x units of a presentation, fitted on train rows, then logistic regression.

    Both steps are linear, so one matrix is stored. components: numbers of components tried (at
    most min(B, T*N) count); c_values and max_iter as in the logistic decoder. The best pair on
    validation is kept.
    """

    name = "pca_logistic"
    title = "PCA + logistic regression"
    fixed = {"components": (100,), "c_values": (1e-2,)}

    def solutions(
        self, x: np.ndarray, y: np.ndarray, seed: int,
        *, components: tuple[int, ...] = (50, 100, 200, 400),
        c_values: tuple[float, ...] = (1e-3, 1e-2, 1e-1), max_iter: int = 200,
    ):  # fmt: skip
        from sklearn.decomposition import PCA

        sizes = sorted({min(k, *x.shape) for k in components})
        # The covariance is small for few features; for many, a randomised sketch is far faster.
        solver = "covariance_eigh" if x.shape[1] <= 2000 else "randomized"
        pca = PCA(sizes[-1], svd_solver=solver, random_state=seed)
        scores = pca.fit_transform(x)  # (B, T*N) -> (B, K)
        basis, mean = pca.components_.T.astype(np.float64), pca.mean_.astype(np.float64)
        for k in sizes:
            first = np.ascontiguousarray(scores[:, :k])
            path = logistic_path(first, y, c_values, max_iter)
            for setting, weight, bias in path:
                folded = basis[:, :k] @ weight  # (T*N, k) @ (k, C)
                yield {"components": k, **setting}, folded, bias - mean @ folded


class LinearSVM(LinearDecoder):
    """One-against-rest linear SVM with the squared hinge loss and an L2 penalty.

    c_values: inverse penalties tried, the best on validation is kept; max_iter: L-BFGS steps.
    The objective is that of scikit-learn's LinearSVC (Fan et al. 2008, JMLR 9:1871). It is smooth,
    so all classes are solved together with matrix products, some fifty times faster than one by
    one for 119 classes. Margins become probabilities by softmax and a temperature.
    """

    name = "linear_svm"
    title = "Linear SVM"
    fixed = {"c_values": (1e-4,)}

    def solutions(
        self, x: np.ndarray, y: np.ndarray, seed: int,
        *, c_values: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2), max_iter: int = 200,
    ):  # fmt: skip
        n_classes = int(y.max()) + 1
        x = np.hstack([x, np.ones((len(x), 1), dtype=x.dtype)])  # the bias as a last feature
        start = np.zeros(x.shape[1] * n_classes)
        for c in sorted(c_values):
            start = squared_hinge(x, y, n_classes, c, max_iter, start)
            solution = start.reshape(-1, n_classes)
            yield {"c": c}, solution[:-1].copy(), solution[-1].copy()


def squared_hinge(
    x: np.ndarray, y: np.ndarray, n_classes: int, c: float, max_iter: int, start: np.ndarray
) -> np.ndarray:
    """Minimise `|w|^2 / 2 + c * sum max(0, 1 - s x w)^2` for all classes; x (B, D) -> w (D*C,)."""
    sign = np.full((len(x), n_classes), -1, dtype=x.dtype)  # (B, C): +1 at the true class
    sign[np.arange(len(y)), y] = 1

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(-1, n_classes).astype(x.dtype)  # (D, C)
        short = np.maximum(1 - sign * (x @ w), 0)  # (B, C): how far each margin falls short
        slope = w - 2 * c * (x.T @ (sign * short))
        value = 0.5 * np.sum(w * w, dtype=np.float64) + c * np.sum(short**2, dtype=np.float64)
        return value, slope.ravel().astype(np.float64)

    options = {"maxiter": max_iter, "ftol": 1e-7}
    return minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options=options).x


class RidgePath:
    """Least squares with an L2 penalty on x (B, D): one decomposition for all penalties and targets.

    Of the smaller of the two Gram matrices (Hastie, Tibshirani and Friedman 2009, section 3.4).
    unit: the mean over features of their sum of squares, a scale for penalties.
    """

    def __init__(self, x: np.ndarray):
        x = np.asarray(x, np.float64)
        self.mean = x.mean(axis=0)
        self.x = x - self.mean
        n, d = x.shape
        self.by_rows = n < d
        gram = self.x @ self.x.T if self.by_rows else self.x.T @ self.x
        values, self.vectors = np.linalg.eigh(gram)  # of size min(B, D)
        self.values = np.maximum(values, 0.0)
        self.unit = self.values.sum() / d or 1.0  # the trace is that of either matrix

    def solutions(self, target: np.ndarray, penalties: Iterable[float | np.ndarray]):
        """Yield weight (D, K) and bias (K,) for targets (B, K), penalty by penalty, each a number or (K,)."""
        target_mean = target.mean(axis=0)
        target = target - target_mean
        right = self.vectors.T @ (target if self.by_rows else self.x.T @ target)
        for penalty in penalties:
            solved = self.vectors @ (right / (self.values[:, None] + penalty))
            weight = self.x.T @ solved if self.by_rows else solved
            yield weight, target_mean - self.mean @ weight


class Ridge(LinearDecoder):
    """Least squares on one column a class with an L2 penalty, in closed form.

    c_values: inverse penalties in units of the mean variance of the data, tried on validation.
    One decomposition serves all of them (`RidgePath`). Scores become probabilities by softmax and
    a temperature.
    """

    name = "ridge"
    title = "Ridge regression"
    fixed = {"c_values": (0.1,)}

    def solutions(
        self, x: np.ndarray, y: np.ndarray, seed: int,
        *, c_values: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0),
    ):  # fmt: skip
        path, c_values = RidgePath(x), sorted(c_values)
        solutions = path.solutions(np.eye(int(y.max()) + 1)[y], [path.unit / c for c in c_values])
        for c, (weight, bias) in zip(c_values, solutions, strict=True):
            yield {"c": c}, weight, bias


class NearestMean(LinearDecoder):
    """The class whose mean training response is nearest (Euclid); linear in the response.

    shrink: how far each class mean is drawn to the mean of all classes, values between 0 and 1
    that are tried. Source: Tibshirani et al. 2002, PNAS 99:6567 (shrunken centroids, here with
    one factor for all).
    """

    name = "nearest_mean"
    title = "Nearest class mean"
    fixed = {"shrink": (0.0,)}

    def check(self) -> None:
        shrink = self.params["shrink"]
        require(min(shrink) >= 0 and max(shrink) < 1, self, "0 <= shrink < 1 needed")

    def solutions(
        self, x: np.ndarray, y: np.ndarray, seed: int,
        *, shrink: tuple[float, ...] = (0.0, 0.25, 0.5),
    ):  # fmt: skip
        sums, shown = class_sums(x, y)
        means = sums / shown[:, None]  # (C, D)
        centre = means.mean(axis=0)
        for factor in sorted(shrink):
            mean = centre + (1 - factor) * (means - centre)
            yield {"c": 1 - factor}, mean.T.copy(), -0.5 * (mean**2).sum(axis=1)


def class_sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the rows of each class, float64 (C, D), and how many there are (C,)."""
    member = np.eye(y.max() + 1)[y]  # (B, C)
    return member.T @ x, member.sum(axis=0)
