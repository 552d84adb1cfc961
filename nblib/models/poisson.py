"""Decoders of Poisson counts: naive Bayes, and rates by empirical Bayes. Linear in the counts."""

from __future__ import annotations

import numpy as np

from nblib.core.errors import BadInput
from nblib.models.base import Decoder, require
from nblib.models.linear import LinearDecoder, class_sums

LEAST_SPREAD = 0.01  # variance of a time course to start with
OF_ALL_UNITS = 3.0  # classes that the mean of all units counts for, beside a unit's own
STEPS = 10  # of Newton and EM
LEAST_RATE = 1e-4  # spikes a bin; a bin that is empty in training is not impossible
LEAST_GAIN_SD = 1e-6  # as good as none
MOST_LOOKED_AT = 500  # rows
MOST_KINDS = 300  # of units, out of all that are known


def per_feature(model: Decoder) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (T*N,) that make its samples counts again."""
    mean, scale = model.scaling or (np.zeros(model.n_units), np.ones(model.n_units))
    return np.tile(mean, model.n_bins), np.tile(scale, model.n_bins)


def as_counts(x: np.ndarray, model: Decoder) -> np.ndarray:
    """Samples x (B, T*N) as the counts that they were; BadInput for any below 0."""
    mean, scale = per_feature(model)
    counts = x * scale + mean
    if counts.min() < -0.01:
        raise BadInput(
            f"{model.name} needs counts, none below 0; the least of these is {counts.min():.3g}. "
            "Set `scaling` to the mean and scale that made them."
        )
    return np.maximum(counts, 0.0)  # rounding leaves some a little below


def holds_counts(x: np.ndarray, model: Decoder) -> bool:
    """Are samples x (B, T, N), with the model's scaling undone, whole numbers from 0 on?"""
    mean, scale = per_feature(model)
    some = x[:: -(-len(x) // MOST_LOOKED_AT)]
    counts = some.reshape(len(some), -1) * scale + mean
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
        counts = as_counts(x, self)
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
    fixed = {"gain_sd": (1.0,)}
    most_scored = 500

    def check(self) -> None:
        require(self.params["courses"] >= 1, self, "courses >= 1 needed")
        spreads = self.params["gain_sd"]
        require(min(spreads) >= 0 and max(spreads) < np.inf, self, "finite gain_sd >= 0 needed")

    def solutions(
        self, x: np.ndarray, y: np.ndarray, seed: int,
        *, courses: int = 4, gain_sd: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0),
    ):  # fmt: skip
        mean, scale = per_feature(self)
        log_rate, evidence, total = self.log_rates(x, y, courses)
        for sd in gain_sd:
            weight, bias = evidence_of_counts(log_rate, evidence, total, sd)
            yield {"gain_sd": sd}, weight * scale[:, None], mean @ weight + bias

    def log_rates(
        self, x: np.ndarray, y: np.ndarray, courses: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See the function `log_rates`; x (B, T*N) scaled, y (B,)."""
        seen = np.empty((y.max() + 1, self.n_bins, self.n_units))
        totals = np.empty((len(y), self.n_units))
        for k in range(len(seen)):  # class by class: no second copy of all counts
            counts = as_counts(x[y == k], self).reshape(-1, self.n_bins, self.n_units)
            seen[k], totals[y == k] = counts.sum(axis=0), counts.sum(axis=1)
        return log_rates(seen, totals, y, courses)


def log_rates(
    seen: np.ndarray,
    totals: np.ndarray,
    y: np.ndarray,
    courses: int,
    kinds: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log of the rates (T*N, C), the weight of the evidence of each bin and unit (T*N,), and the sum of
    rates so weighted (C,).

    seen: spikes of each class (C, T, N); totals: of each presentation (B, N), whose class is y (B,). Rates
    are told by `log_tuning`, or, where there are kinds of units, by these (`log_tuning_of_kinds`).
    """
    shown = np.bincount(y, minlength=len(seen)).astype(float)  # (C,)
    average = seen.sum(axis=0) / shown.sum() + LEAST_RATE  # (T, N)
    expected = shown[:, None, None] * average
    if kinds is None:
        log = log_tuning(seen, expected, courses)
    else:
        log = log_tuning_of_kinds(seen, expected, kinds)
    rate = average * np.exp(log)
    scatter = dispersion(totals, rate.sum(axis=1)[y])
    evidence = np.tile(1 / np.maximum(scatter, 1), len(average))
    rate = rate.reshape(len(shown), -1)
    return np.log(rate).T, evidence, rate @ evidence


def evidence_of_counts(
    log_rate: np.ndarray, evidence: np.ndarray, total: np.ndarray, gain_sd: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (T*N, C) of counts and bias (C,) that say log p of each class, from `log_rates`."""
    b = max(gain_sd, LEAST_GAIN_SD) ** -2
    a_spike = np.log1p(total / b)  # what the gain takes off the score of each class (C,)
    return evidence[:, None] * (log_rate - a_spike), -b * a_spike


def dispersion(counts: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """How much more the counts of each unit scatter than Poisson's, (N,): 1 is as much.

    counts, rates: of each presentation (B, N), whose gain is that of its count of all units.
    """
    expected = counts.sum(axis=1, keepdims=True) / rates.sum(axis=1, keepdims=True) * rates
    return ((counts - expected) ** 2).sum(axis=0) / (expected.sum(axis=0) + LEAST_RATE)


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


def kinds_of_units(seen: np.ndarray, shown: np.ndarray, courses: int) -> np.ndarray:
    """Rate over mean rate of known units in each class and bin (N, C, T), for `log_tuning_of_kinds`.

    seen: spikes of each class (C, T, N), which was shown so often (C,).
    """
    average = seen.sum(axis=0) / shown.sum() + LEAST_RATE
    rate = np.exp(log_tuning(seen, shown[:, None, None] * average, courses))
    return (rate / rate.mean(axis=0)).transpose(2, 0, 1)


def log_tuning_of_kinds(seen: np.ndarray, expected: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Log of rate / mean rate of each class, bin and unit (C, T, N): posterior mean, where a unit is of one of
    some kinds.

    A kind (J, C', T) is how a known unit answered to classes of any sort (`kinds_of_units`): how strongly,
    how early, how long, and how often so. Each class of a new unit is answered like some class of its kind,
    any with the same chance; which class that is, is not looked at. So units that were told of mixed-up
    classes hold nothing, and no unit is of their kind. seen, expected: spikes (C, T, N).

    Source of the idea: Kiefer and Wolfowitz 1956, Ann. Math. Stat. 27:887 (a prior that is a sample).
    """
    n_classes, n_bins, n_units = seen.shape
    kinds = kinds[:: -(-len(kinds) // MOST_KINDS)]
    rates = kinds.reshape(-1, n_bins).T.astype(np.float32)  # (T, J * C')
    rates = np.maximum(rates, LEAST_RATE)
    logs, likelihood = np.log(rates), np.empty(seen.shape)
    for i in range(n_units):
        log = seen[..., i].astype(np.float32) @ logs - expected[..., i].astype(np.float32) @ rates
        log = log.reshape(n_classes, len(kinds), -1)  # (C, J, C')
        most = log.max(axis=2, keepdims=True)
        chance = np.exp(log - most)
        of_kind = chance.sum(axis=2, keepdims=True)
        evidence = (most + np.log(of_kind)).sum(axis=0, dtype=float)  # (J, 1)
        kind = np.exp(evidence - evidence.max())
        chance *= kind / kind.sum() / of_kind
        likelihood[..., i] = chance.reshape(n_classes, -1) @ rates.T
    return np.log(likelihood)
