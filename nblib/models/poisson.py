"""Decoders of Poisson counts: naive Bayes, and rates by empirical Bayes. Linear in the counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaln, log_softmax
from threadpoolctl import threadpool_limits

from nblib.core.errors import BadInput
from nblib.models.base import Decoder, require
from nblib.models.linear import LinearDecoder, class_sums, log_loss, temperature
from nblib.models.settings import FitSettings
from nblib.prepare.decoder_inputs import Samples

SPREADS = np.geomspace(0.01, 10.0, 10)  # variances of the prior that are weighed against each other
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

    1. r = m * q: m[t,i] is the mean over classes; q[k,t,i] ~ Gamma with mean 1 and variance v[t,i].
    2. v is the posterior mean given the classes' counts (negative binomial), under a prior that all
       bins and units share, found by EM: empirical Bayes, pooled where a unit tells little.
    3. q has mean (v S + 1) / (v E + 1): S spikes seen and E expected, each a Gaussian sum over bins.
    4. The gain g of a presentation is Gamma with mean 1 and spread gain_sd, and is integrated out:
       log p(k | n) = sum n log r - (N + b) log(R + b), N = sum n, R = sum r, b = 1 / gain_sd^2.

    So the scores are linear in the counts, between Poisson (gain_sd = 0) and multinomial (large:
    nothing is known of the gain, which drops out). The evidence of a unit, its n and r in 4, is
    divided by how much more its counts scatter than Poisson's (quasi-Poisson). A factor on the
    scores, set on validation rows, makes probabilities calibrated.

    smooth: width of the Gaussian, share of all bins; gain_sd: values of both that are tried, the
    best pair on validation is kept. Scaled samples become counts again by `scaling`. `train_loss` of the
    history is that of at most 500 train rows. Raises BadInput for counts below zero.

    Sources: Robbins 1956 (empirical Bayes); Efron and Morris 1973, JASA 68:117; Tibshirani and Hastie
    1987, JASA 82:559 (local likelihood); Wedderburn 1974, Biometrika 61:439 (quasi-likelihood); Zhang
    et al. 1998, J. Neurophysiol. 79:1017.
    """

    name = "bayes_poisson"
    title = "Bayesian Poisson"
    more = {"smooth": (0.0, 0.05, 0.1, 0.15), "gain_sd": (0.0, 0.1, 0.3, 10.0)}
    fixed = {"smooth": (0.1,), "gain_sd": (10.0,)}

    @classmethod
    def source(cls) -> None:
        """Its hyper-parameters are those of `more`."""

    def check(self) -> None:
        for name, values in self.params.items():
            require(min(values) >= 0 and max(values) < np.inf, self, f"finite {name} >= 0 needed")

    def log_rates(
        self, x: np.ndarray, y: np.ndarray, smooth: tuple[float, ...]
    ) -> Iterator[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
        """Each width, log of its posterior mean rates (T*N, C), the weight of the evidence of each
        bin and unit (T*N,), and the sum of rates so weighted (C,).

        x (B, T*N) scaled, y (B,).
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
        expected = shown[:, None] * average
        spread = prior_variance(sums, expected).reshape(self.n_bins, -1)
        bins = np.arange(self.n_bins)
        shape = len(shown), self.n_bins, self.n_units
        for width in smooth:
            apart = (bins[:, None] - bins) / (width * self.n_bins or 1e-9)
            near = np.exp(-0.5 * apart**2)  # (T, T), one on the diagonal
            seen, due = near @ sums.reshape(shape), near @ expected.reshape(shape)
            tuning = (spread * seen + 1) / (spread * due + 1)
            rate = average * tuning.reshape(len(shown), -1)
            scatter = dispersion(totals, rate.reshape(shape).sum(axis=1))
            weight = np.tile(1 / np.maximum(scatter, 1), self.n_bins)
            yield width, np.log(rate).T, weight, rate @ weight

    def _fit(
        self, train: Samples, val: Samples | None, settings: FitSettings, folder: Any, resume: Any
    ) -> pd.DataFrame:
        self.refuse_resume(resume)
        started = time.perf_counter()
        params = self.params_with(val)
        some = np.linspace(0, len(train) - 1, min(len(train), MOST_JUDGED)).astype(int)
        told = Samples(train.x[some], train.y[some], train.trial[some])
        if val is None:
            params = {name: values[:1] for name, values in params.items()}
        judge = told if val is None else val
        mean, scale = per_feature(self)
        counts = [s.x.reshape(len(s), -1) * scale + mean for s in (told, judge)]  # (b, T*N)
        rows, best = [], np.inf
        with threadpool_limits(limits=settings.threads or None):
            x = train.x.reshape(len(train), -1)
            for width, *rates in self.log_rates(x, train.y, params["smooth"]):
                log_rate, evidence, total = rates
                # The counts so weighted, in all and by class, serve every gain.
                each = [(c @ evidence, c @ (evidence[:, None] * log_rate)) for c in counts]
                for sd in params["gain_sd"]:
                    a_spike, once = off_by_gain(total, sd)
                    of_train, of_judge = (p - n[:, None] * a_spike - once for n, p in each)
                    factor = 1.0 if val is None else temperature(of_judge, judge.y)
                    log_proba = log_softmax(factor * of_judge, axis=1)
                    row = {
                        "smooth": width, "gain_sd": sd,
                        "train_loss": log_loss(log_softmax(factor * of_train, axis=1), told.y),
                        "val_loss": log_loss(log_proba, judge.y),
                        "val_accuracy": float((log_proba.argmax(axis=1) == judge.y).mean()),
                    }  # fmt: skip
                    rows.append(row)
                    if row["val_loss"] < best:
                        best, kept = row["val_loss"], (*rates, sd, factor)
                        chosen = {"smooth": width, "gain_sd": sd}
            self._keep(*kept)
        self.choice = chosen["smooth"], *kept[3:]
        path = [r for r in rows if r["gain_sd"] == chosen["gain_sd"]]  # that holds the choice
        return self.history_of(path, chosen, settings, started)

    def _refit(self, both: Samples, settings: FitSettings) -> None:
        width, *gain_and_factor = self.choice
        x = both.x.reshape(len(both), -1)
        _, *rates = next(self.log_rates(x, both.y, (width,)))
        self._keep(*rates, *gain_and_factor)

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


def prior_variance(seen: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Variance over classes of rate / mean rate, of each feature (D,): posterior mean.

    seen, expected: spikes of each class (C, D). The likelihood of a variance is negative binomial;
    the prior over `SPREADS` is shared by all features and found by 30 steps of EM.
    """
    log_likelihood = np.empty((len(SPREADS), seen.shape[1]))
    for i, a in enumerate(1 / SPREADS):
        terms = gammaln(seen + a) - (seen + a) * np.log(expected + a)
        log_likelihood[i] = terms.sum(axis=0) + len(seen) * (a * np.log(a) - gammaln(a))
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=0))
    prior = np.full(len(SPREADS), 1 / len(SPREADS))
    for _ in range(30):
        posterior = prior[:, None] * likelihood
        posterior /= posterior.sum(axis=0)
        prior = posterior.mean(axis=1)
    return SPREADS @ posterior
