"""Poisson regressions of counts: from behaviour (encoding), and from any other units (imputation)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from nblib.models.multimodal import courses, linear
from nblib.models.multimodal.tasks import EVERY, LEAST
from nblib.prepare.sessions import Session

PENALTIES = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0)
MOST_LOG_RATE = 5.0
WIDTHS = (1.5, 3.0, 6.0, 12.0)  # of the Gaussian that smooths a PSTH [bins]
FOLDS = 5
N_BUMPS = 6
LEAST_FACTORS, MOST_FACTORS, UNITS_A_FACTOR = 3, 15, 15
BEHAVIOUR_LAGS = 6  # bins to either side, or as many before
N_WAVES = 60  # of behaviour
UNIT_WIDTHS = (0, 2, 8, 49)  # of the means of factors around a bin [bins to either side]
SLOW = 2  # bins to either side, over which units go together
MOST = 5.0  # standard deviations; further out a feature is held there
STEPS = 20  # of the optimiser, from one penalty to the next
ROUNDS = 8  # of finding how weights vary between units
FIRST_VARIANCE = 1 / 300  # of these
MOST_A_STEP = 2.0  # a step changes no logarithm of a rate by more
MOST_BINS = 8000  # that factors are found in


def psth(session: Session, rows: np.ndarray) -> np.ndarray:
    """Mean counts of each bin and unit in the trials `rows`, smoothed in time: (T, N).

    The width of the Gaussian is the one under which folds of these trials are most likely, told from the others.
    """
    folds = np.array_split(rows, min(FOLDS, len(rows)))
    sums = np.array([session.counts[fold].sum(axis=0) for fold in folds], float)  # (fold, T, N)
    total, t, least = sums.sum(axis=0), np.arange(session.counts.shape[1]), np.inf
    for width in WIDTHS:
        kernel = np.exp(-0.5 * ((t - t[:, None]) / width) ** 2)
        kernel /= kernel.sum(axis=1, keepdims=True)
        loss = 0.0
        for fold, counts in zip(folds, sums, strict=True):
            others = max(len(rows) - len(fold), 1)
            rate = np.maximum(kernel @ (total - counts) / others, LEAST)
            loss += (len(fold) * rate - counts * np.log(rate)).sum()
        if loss < least:
            least, smooth = loss, np.maximum(kernel @ total / len(rows), LEAST)
    return smooth


def in_time(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Values (K, C) of whole trials in smooth bumps of time: (K, T, C * N_BUMPS)."""
    bumps = courses.bumps_of_time(n_bins, N_BUMPS)
    return np.einsum("kc,tb->ktcb", values, bumps).reshape(len(values), n_bins, -1)


def n_features(session: Session) -> int:
    """How many features of each bin all behaviour is read by (see `PoissonMap.features`)."""
    lags, classes = 2 * BEHAVIOUR_LAGS + 1, map(len, session.classes.values())
    return len(session.signal_names) * lags + N_BUMPS * sum(classes)


@dataclass(frozen=True)
class PoissonMap:
    """Expected counts (K, T, N): offset (T, N), log rates of the PSTH, and weight (D, N) on features that
    are scaled by mean and scale (D,).

    It reads the signals and variables `of`, by name, beside cosines and sines of what it reads along the
    directions `waves` (D', R) where there are some; or, where it has a `loading` (R, N) of units on factors and
    their `noise` (N,), what any units say of these factors, and of those that have `courses` over the trial.
    causal: nothing after a bin.
    """

    offset: np.ndarray
    of: tuple[str, ...] = ()
    waves: np.ndarray | None = None
    loading: np.ndarray | None = None
    noise: np.ndarray | None = None
    courses: courses.Courses | None = None
    causal: bool = False
    weight: np.ndarray | None = None
    mean: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0

    def features(self, session: Session, seen: np.ndarray | None = None) -> np.ndarray:
        """What it reads of each bin (K, T, D): signals around it and variables in bumps of time, or what the
        units `seen` (None: all) say of factors around it."""
        if self.loading is not None:
            seen = np.arange(len(session.area)) if seen is None else seen
            told = self._factors(session.x[..., seen], seen)
            means = linear.averaged(told, UNIT_WIDTHS, self.causal)
            if self.courses is None:
                return means
            return np.concatenate([means, self.courses(session, seen)], axis=-1)
        parts, lags = [], linear.around(BEHAVIOUR_LAGS, self.causal)
        for name in session.signal_names:
            if name in self.of:
                parts.append(linear.lagged(session.signal(name)[..., None], lags))
        for name in session.classes:
            if name in self.of:
                parts.append(in_time(session.one_hot(name), session.counts.shape[1]))
        read = np.concatenate(parts, axis=-1)
        if self.waves is not None:
            phase = read @ self.waves
            read = np.concatenate([read, np.cos(phase), np.sin(phase)], axis=-1)
        return read

    def _factors(self, x: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Posterior mean of the factors (K, T, R), from the units `seen`: x (K, T, n)."""
        loading = self.loading[:, seen]
        reading = loading / self.noise[seen]
        precision = np.eye(len(loading)) + reading @ loading.T
        return x @ np.linalg.solve(precision, reading).T

    def scaled(self, session: Session, seen: np.ndarray | None = None) -> np.ndarray:
        """Its features, scaled."""
        return np.clip((self.features(session, seen) - self.mean) / self.scale, -MOST, MOST)

    def __call__(self, session: Session, seen: np.ndarray | None = None) -> np.ndarray:
        """What it expects in all trials of a session, of all units."""
        log = self.offset + self.scaled(session, seen) @ self.weight
        return np.maximum(np.exp(np.minimum(log, MOST_LOG_RATE)), LEAST)


def regression(
    model: PoissonMap, session: Session, rows: np.ndarray, groups: list[np.ndarray]
) -> Iterator[PoissonMap]:
    """The map without weights, then fitted to the counts of the trials `rows`, under ever weaker L2 penalties.

    groups: units that are told together, and from no unit of their own where units tell.
    """
    part, everyone = session.at(rows), np.arange(len(session.area))
    x = model.features(part)
    model = replace(model, mean=x.mean(axis=(0, 1)), scale=x.std(axis=(0, 1)) + 1e-6)
    weight = np.zeros((len(model.scale), len(everyone)))
    yield replace(model, weight=weight)
    fits = [(units, *_data(model, part, units, np.setdiff1d(everyone, units))) for units in groups]
    for penalty in PENALTIES:
        weight = weight.copy()
        for units, *data in fits:
            options = {"maxiter": STEPS}
            start = weight[:, units].ravel()
            step = minimize(_loss, start, (*data, penalty), "L-BFGS-B", True, options=options)
            weight[:, units] = step.x.reshape(len(weight), -1)
        yield replace(model, weight=weight)


def _data(
    model: PoissonMap, part: Session, units: np.ndarray | slice, seen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (B, D) of all bins of some trials, counts of some units and their log rates without the features
    (B, n); float32."""
    x = model.scaled(part, seen).reshape(-1, len(model.scale))
    y = part.counts[..., units].reshape(len(x), -1)
    base = np.tile(model.offset[:, units], (len(part.counts), 1))
    return x.astype(np.float32), y, base.astype(np.float32)


def _loss(
    w: np.ndarray, x: np.ndarray, y: np.ndarray, base: np.ndarray, penalty: float
) -> tuple[float, np.ndarray]:
    """Penalised loss [nats] of weights (D * n,) and its gradient, of features x (B, D) and counts y (B, n)."""
    w = w.reshape(x.shape[1], -1).astype(np.float32)
    log = np.minimum(base + x @ w, MOST_LOG_RATE)
    rate = np.exp(log)
    value = (rate - y * log).sum(dtype=np.float64) + 0.5 * penalty * (w**2).sum(dtype=np.float64)
    return value, (x.T @ (rate - y) + penalty * w).ravel().astype(np.float64)


def encode(
    session: Session,
    rows: np.ndarray,
    of: tuple[str, ...],
    causal: bool = False,
    curved: bool = False,
) -> Iterator[PoissonMap]:
    """Counts of all units from signals and variables, by name; see `regression`.

    curved: from waves along random directions of them too. Source: Rahimi and Recht 2007, NeurIPS 20.
    """
    model = PoissonMap(np.log(psth(session, rows)), of, causal=causal)
    if curved:
        n = model.features(session.at(rows[:1])).shape[2]
        waves = np.random.default_rng(0).normal(0, 1 / np.sqrt(n), (n, N_WAVES))
        model = replace(model, waves=waves)
    return regression(model, session, rows, [np.arange(len(session.area))])


@dataclass(frozen=True)
class Prior:
    """How the weights of units on features of behaviour vary: normal, of this mean (D,) and covariance (D, D);
    scale (D,) of the features."""

    mean: np.ndarray
    covariance: np.ndarray
    scale: np.ndarray


def encode_together(
    sessions: list[Session],
    rows: list[np.ndarray],
    causal: bool = False,
    prior: Prior | None = None,
) -> tuple[list[PoissonMap], Prior]:
    """Counts of all units of each session from all behaviour, by weights of a prior that is the same for the units
    of all sessions. Returns the map of each session, and the prior.

    The prior is learnt from these units by expectation and maximisation with a Gaussian about the mode of
    each unit (empirical Bayes), or is that of others. Source: MacKay 1992, Neural Comput. 4:415.
    """
    models, parts = [], [one.at(at) for one, at in zip(sessions, rows, strict=True)]
    for one, at, part in zip(sessions, rows, parts, strict=True):
        model = PoissonMap(np.log(psth(one, at)), one.behaviour, causal=causal)
        x = model.features(part)
        models.append(replace(model, mean=x.mean(axis=(0, 1)), scale=x.std(axis=(0, 1)) + 1e-6))
    learn = prior is None
    if learn:
        scale = np.mean([model.scale for model in models], axis=0)
        prior = Prior(np.zeros(len(scale)), FIRST_VARIANCE * np.eye(len(scale)), scale)
    models = [replace(model, scale=prior.scale) for model in models]
    data = [_data(model, part, slice(None)) for model, part in zip(models, parts, strict=True)]
    weights = [np.tile(prior.mean[:, None], len(one.area)) for one in sessions]
    for _ in range(ROUNDS):
        steps = [_step(w, *of, prior) for w, of in zip(weights, data, strict=True)]
        weights = [weight for weight, _ in steps]
        if learn:
            every = np.concatenate(weights, axis=1)
            mean, (d, n) = every.mean(axis=1), every.shape
            spread = sum(unsure for _, unsure in steps) + (every - mean[:, None]) @ (every.T - mean)
            # One unit more, which varies alike in all directions, so that there is some way in each.
            spread += np.trace(spread) / (n * d) * np.eye(d)
            prior = replace(prior, mean=mean, covariance=spread / (n + 1))
    maps = [replace(model, weight=w) for model, w in zip(models, weights, strict=True)]
    return maps, prior


def _step(
    weight: np.ndarray, x: np.ndarray, y: np.ndarray, base: np.ndarray, prior: Prior
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, n) after a step of Newton for each unit (see `_data`), and the sum of their posterior
    covariances (D, D)."""
    precision = np.linalg.inv(prior.covariance)
    rate = np.exp(np.minimum(base + x @ weight.astype(np.float32), MOST_LOG_RATE))
    slope = x.T @ (y - rate) - precision @ (weight - prior.mean[:, None])
    unsure = np.linalg.inv(_curvature(x, rate) + precision)  # (n, D, D)
    step = np.einsum("nde,en->dn", unsure, slope)
    most = np.abs(x @ step.astype(np.float32)).max(axis=0)
    return weight + step * np.minimum(1, MOST_A_STEP / np.maximum(most, 1e-9)), unsure.sum(axis=0)


def _curvature(x: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Sums over bins of products of features x (B, D), weighed by the rate (B, n) of each unit: (n, D, D)."""
    by_feature = np.ascontiguousarray(x.T)
    d = len(by_feature)
    curvature = np.empty((d, d, rate.shape[1]), np.float32)
    for i, one in enumerate(by_feature):  # of all units at once, which is faster than unit by unit
        curvature[i, : i + 1] = curvature[: i + 1, i] = (by_feature[: i + 1] * one) @ rate
    return curvature.transpose(2, 0, 1)


def impute(
    session: Session, rows: np.ndarray, causal: bool = False, by_area: bool = False
) -> Iterator[PoissonMap]:
    """Counts of all units from any others: the factors of a factor analysis and, unless causal, those that have
    a course over the trial, told by whoever is seen, and a regression on them. A unit is fitted to factors that
    four fifths of the others tell; by_area: to those that the units of other areas tell."""
    from sklearn.decomposition import FactorAnalysis

    # The mean of 2 * SLOW + 1 bins has less noise, by the root of that.
    x = linear.averaged(session.x[rows], [SLOW]) * np.sqrt(2 * SLOW + 1)
    x = x.reshape(-1, x.shape[2])
    every = -(-len(x) // MOST_BINS)
    n = x.shape[1]
    n_factors = min(MOST_FACTORS, max(n // UNITS_A_FACTOR, LEAST_FACTORS), max(n // 3, 1))
    analysis = FactorAnalysis(n_factors, random_state=0).fit(x[::every])
    model = PoissonMap(
        np.log(psth(session, rows)),
        loading=analysis.components_,
        noise=analysis.noise_variance_,
        courses=None if causal else courses.fit(session, rows),
        causal=causal,
    )
    units = np.arange(x.shape[1])
    groups = [units[i::EVERY] for i in range(min(EVERY, len(units)))]
    if by_area:
        groups = [units[session.area == area] for area in np.unique(session.area)]
    return regression(model, session, rows, groups)
