"""Decoders of Poisson counts: naive Bayes, and rates by empirical Bayes. Linear in the counts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from nblib.core.errors import BadInput
from nblib.models.base import Decoder, require
from nblib.models.linear import LinearDecoder, class_sums, log_loss, temperature
from nblib.models.settings import FitSettings
from nblib.prepare.decoder_inputs import Samples

LEAST_SPREAD = 0.01  # variance of a time course to start with
OF_ALL_UNITS = 3.0  # classes that the mean of all units counts for, beside a unit's own
STEPS = 10  # of Newton and EM
LEAST_RATE = 1e-4  # spikes a bin; a bin that is empty in training is not impossible
MOST_JUDGED = 500  # train rows that `train_loss` is of


def per_feature(model: Decoder) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (T*N,) that make its samples counts again."""
    if model.scaling is None:
        return np.zeros(model.n_bins * model.n_units), np.ones(model.n_bins * model.n_units)
    mean, scale = model.scaling
    return np.tile(mean, model.n_bins), np.tile(scale, model.n_bins)


def as_counts(counts: np.ndarray, model: Decoder) -> np.ndarray:
    """Counts without the rounding that leaves some a little below 0; BadInput for any that are."""
    if counts.min() < -0.01:
        raise BadInput(
            f"{model.name} needs counts, none below 0; the least of these is {counts.min():.3g}. "
            "Set `scaling` to the mean and scale that made them."
        )
    return np.maximum(counts, 0.0)


def holds_counts(x: np.ndarray, model: Decoder) -> bool:
    """Are samples x (B, T, N), with the model's scaling undone, whole numbers from 0 on?"""
    mean, scale = per_feature(model)
    some = np.linspace(0, len(x) - 1, min(len(x), MOST_JUDGED)).astype(int)
    counts = x[some].reshape(len(some), -1) * scale + mean
    return bool(counts.min() > -0.01 and np.abs(counts - counts.round()).max() < 0.01)


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

    def solutions(
        self, x: np.ndarray, y: np.ndarray, seed: int,
        *, pseudo: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0),
    ):  # fmt: skip
        mean, scale = per_feature(self)
        counts = as_counts(x * scale + mean, self)  # (B, T*N)
        sums, shown = class_sums(counts, y)
        average = counts.mean(axis=0) + 1e-3  # a bin that is empty in training is not impossible
        for prior in sorted(pseudo, reverse=True):
            rate = (sums + prior * average) / (shown[:, None] + prior)  # (C, D)
            log_rate = np.log(rate)
            weight = (log_rate * scale).T.copy()
            yield {"c": 1 / prior}, weight, log_rate @ mean - rate.sum(axis=1)


class BayesPoisson(LinearDecoder):
    """Counts n of class k, bin t and unit i are Poisson with rate g * r[k,t,i].

    1. r = m * exp(u + B a): m[t,i] is the mean over classes; B (T, courses) the time courses that
       responses of all units share; a[k,i] is normal with the covariance of its unit.
    2. That covariance is found by EM from the classes' counts, drawn to the mean of all units:
       empirical Bayes. a is at its posterior mode; u makes the mean of r over classes m.
    3. The gain g of a presentation is Gamma with mean 1 and spread gain_sd, and is integrated out:
       log p(k | n) = sum n log r - (N + b) log(R + b), N = sum n, R = sum r, b = 1 / gain_sd^2.

    So the scores are linear in the counts, between Poisson (gain_sd = 0) and multinomial (large:
    nothing is known of the gain, which drops out). The evidence of a unit, its n and r in 3, is
    divided by how much more its counts scatter than Poisson's (quasi-Poisson). A factor on the
    scores, set on validation rows, makes probabilities calibrated.

    courses: most time courses; gain_sd: values that are tried, the best on validation is kept. Scaled
    samples become counts again by `scaling`. `train_loss` of the history is that of at most 500 train
    rows. Raises BadInput for counts below zero.

    Sources: Robbins 1956, Efron and Morris 1973, JASA 68:117 (empirical Bayes); Aitchison and Ho 1989,
    Biometrika 76:643 (Poisson-log normal); Wedderburn 1974, Biometrika 61:439 (quasi-likelihood);
    Zhang et al. 1998, J. Neurophysiol. 79:1017.
    """

    name = "bayes_poisson"
    title = "Bayesian Poisson"
    more = {"courses": 4, "gain_sd": (0.0, 0.1, 0.3, 1.0)}
    fixed = {"gain_sd": (1.0,)}

    @classmethod
    def source(cls) -> None:
        """Its hyper-parameters are those of `more`."""

    def check(self) -> None:
        require(self.params["courses"] >= 1, self, "courses >= 1 needed")
        spreads = self.params["gain_sd"]
        require(min(spreads) >= 0 and max(spreads) < np.inf, self, "finite gain_sd >= 0 needed")

    def log_rates(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log of the rates (T*N, C), the weight of the evidence of each bin and unit (T*N,), and the
        sum of rates so weighted (C,); x (B, T*N) scaled, y (B,).
        """
        mean, scale = per_feature(self)
        shown = np.bincount(y).astype(float)  # (C,)
        sums, totals = np.empty((len(shown), x.shape[1])), []
        for k in range(len(shown)):  # class by class: no second copy of all counts
            counts = as_counts(x[y == k] * scale + mean, self)  # (b, T*N)
            sums[k] = counts.sum(axis=0)
            by_bin = counts.reshape(-1, self.n_bins, self.n_units)
            totals.append(by_bin.sum(axis=1, dtype=np.float32))  # (b, N)
        average = sums.sum(axis=0) / shown.sum() + LEAST_RATE
        shape = len(shown), self.n_bins, self.n_units
        expected = (shown[:, None] * average).reshape(shape)
        tuning = log_tuning(sums.reshape(shape), expected, self.params["courses"])
        rate = average * np.exp(tuning).reshape(len(shown), -1)
        scatter = dispersion(totals, rate.reshape(shape).sum(axis=1))
        weight = np.tile(1 / np.maximum(scatter, 1), self.n_bins)
        return np.log(rate).T, weight, rate @ weight

    def _fit(
        self, train: Samples, val: Samples | None, settings: FitSettings, folder: Any, resume: Any
    ) -> pd.DataFrame:
        self.refuse_resume(resume)
        started = time.perf_counter()
        spreads = self.params_with(val)["gain_sd"]
        some = np.linspace(0, len(train) - 1, min(len(train), MOST_JUDGED)).astype(int)
        told = Samples(train.x[some], train.y[some], train.trial[some])
        judge = told if val is None else val
        mean, scale = per_feature(self)
        rows, best = [], np.inf
        with threadpool_limits(limits=settings.threads or None):
            rates = self.log_rates(train.x.reshape(len(train), -1), train.y)
            log_rate, evidence, total = rates
            counts = (s.x.reshape(len(s), -1) * scale + mean for s in (told, judge))  # (b, T*N)
            # The counts so weighted, in all and by class, serve every gain.
            each = [(c @ evidence, c @ (evidence[:, None] * log_rate)) for c in counts]
            for sd in spreads if val is not None else spreads[:1]:
                a_spike, once = off_by_gain(total, sd)
                of_train, of_judge = (p - n[:, None] * a_spike - once for n, p in each)
                factor = 1.0 if val is None else temperature(of_judge, judge.y)
                log_proba = log_softmax(factor * of_judge, axis=1)
                row = {
                    "gain_sd": sd,
                    "train_loss": log_loss(log_softmax(factor * of_train, axis=1), told.y),
                    "val_loss": log_loss(log_proba, judge.y),
                    "val_accuracy": float((log_proba.argmax(axis=1) == judge.y).mean()),
                }
                rows.append(row)
                if row["val_loss"] < best:
                    best, self.choice = row["val_loss"], (sd, factor)
            self._keep(*rates, *self.choice)
        return self.history_of(rows, {"gain_sd": self.choice[0]}, settings, started)

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        rates = self.log_rates(both.x.reshape(len(both), -1), both.y)
        self._keep(*rates, *self.choice)

    def _keep(
        self, log_rate: np.ndarray, evidence: np.ndarray, total: np.ndarray, sd: float, factor: float
    ) -> None:  # fmt: skip
        """Weight and bias on scaled samples, of what `log_rates` gives, a gain and a temperature."""
        mean, scale = per_feature(self)
        a_spike, once = off_by_gain(total, sd)
        weight = factor * evidence[:, None] * (log_rate - a_spike)
        self.weight, self.bias = weight * scale[:, None], mean @ weight - factor * once


def off_by_gain(total: np.ndarray, sd: float) -> tuple[np.ndarray, np.ndarray]:
    """What the gain takes off the score of each class (C,): for every spike, and once.

    total (C,): expected spikes R; sd: spread of the gain. Together (N + b) log(R / b + 1), without
    a gain R.
    """
    if sd == 0:
        return np.zeros_like(total), total
    b = sd**-2
    return np.log1p(total / b), b * np.log1p(total / b)


def dispersion(totals: list[np.ndarray], rates: np.ndarray) -> np.ndarray:
    """How much more the counts of each unit scatter than Poisson's, (N,): 1 is as much.

    totals: of each class, counts of its presentations (b, N); rates: of each class (C, N). Each
    presentation has the gain that its count of all units has.
    """
    residual, expected = np.zeros((2, rates.shape[1]))
    for counts, rate in zip(totals, rates, strict=True):
        expected_here = counts.sum(axis=1, keepdims=True) / rate.sum() * rate
        residual += ((counts - expected_here) ** 2).sum(axis=0)
        expected += expected_here.sum(axis=0)
    return residual / (expected + LEAST_RATE)


def log_tuning(seen: np.ndarray, expected: np.ndarray, courses: int) -> np.ndarray:
    """Log of rate / mean rate of each class, bin and unit (C, T, N): posterior mode.

    seen, expected: spikes of each class (C, T, N). It is u + B a of `BayesPoisson`: B (T, K) are the
    principal time courses of the class means of all units, without the scatter of Poisson counts;
    a (N, C, K) gets one step of Newton and its covariance one of EM, in turn.
    """
    n_bins = seen.shape[1]
    off, due = (z.swapaxes(0, 1).reshape(n_bins, -1) for z in (seen - expected, expected))
    spread = (off @ off.T - np.diag(seen.sum(axis=(0, 2)))) / (due @ due.T)  # (T, T)
    spreads, basis = np.linalg.eigh(spread)  # ascending
    spreads, basis = np.maximum(spreads[-courses:], LEAST_SPREAD), basis[:, -courses:]
    pairs = (basis[:, :, None] * basis[:, None]).reshape(n_bins, -1)  # (T, K*K)
    seen, expected = (np.ascontiguousarray(z.transpose(2, 0, 1)) for z in (seen, expected))
    n_units, n_classes, _ = seen.shape
    covariance = np.tile(np.diag(spreads), (n_units, 1, 1))
    a = np.zeros((n_units, n_classes, len(spreads)))
    for _ in range(STEPS):
        level = -0.5 * (covariance.reshape(n_units, -1) @ pairs.T)[:, None]  # u (N, 1, T)
        rate = expected * np.exp(level + a @ basis.T)  # (N, C, T)
        precision = np.linalg.inv(covariance)  # (N, K, K)
        curvature = (rate @ pairs).reshape(*a.shape, -1) + precision[:, None]
        unsure = np.linalg.inv(curvature)  # (N, C, K, K): posterior covariance
        slope = (seen - rate) @ basis - a @ precision
        a += np.clip((unsure @ slope[..., None])[..., 0], -1, 1)
        of_unit = a.swapaxes(1, 2) @ a + unsure.sum(axis=1)  # a sum over classes
        shared = OF_ALL_UNITS * of_unit.mean(axis=0) / n_classes
        covariance = (of_unit + shared) / (n_classes + OF_ALL_UNITS)
    return (level + a @ basis.T).transpose(1, 2, 0)
