"""Poisson regressions of counts: from behaviour (encoding), and from other units (imputation)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from nblib.models.multimodal import linear
from nblib.models.multimodal.tasks import LEAST
from nblib.prepare.sessions import Session

PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0)
MOST_LOG_RATE = 5.0
WIDTH = 1.5  # of the Gaussian that smooths a PSTH [bins]
N_BUMPS, N_COMPONENTS = 6, 10
BEHAVIOUR_LAGS, UNIT_LAGS = 6, 2  # bins to either side, or as many before
MOST = 5.0  # standard deviations; further out a feature is held there
STEPS = 40


def psth(session: Session, fit: np.ndarray) -> np.ndarray:
    """Mean counts of each bin and unit in the trials `fit`, smoothed in time: (T, N)."""
    t = np.arange(session.counts.shape[1])
    kernel = np.exp(-0.5 * ((t - t[:, None]) / WIDTH) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return np.maximum(kernel @ session.counts[fit].mean(axis=0), LEAST)


def in_time(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Values (K, C) of whole trials in smooth bumps of time: (K, T, C * N_BUMPS)."""
    centre = np.linspace(0, n_bins - 1, N_BUMPS)
    bumps = np.exp(-0.5 * ((np.arange(n_bins)[:, None] - centre) / (centre[1] - centre[0])) ** 2)
    return np.einsum("kc,tb->ktcb", values, bumps).reshape(len(values), n_bins, -1)


@dataclass(frozen=True)
class PoissonMap:
    """Expected counts (K, T, n): offset (T, n), log rates of the PSTH, and weight (D, n) on features that
    are scaled by mean and scale (D,).

    It reads the signals and variables `of`, by name, or units through `basis` (N, R), 0 for those that it
    may not read. causal: nothing after a bin.
    """

    offset: np.ndarray
    of: tuple[str, ...] = ()
    basis: np.ndarray | None = None
    causal: bool = False
    weight: np.ndarray | None = None
    mean: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0

    def features(self, session: Session) -> np.ndarray:
        """What it reads of each bin (K, T, D): signals or units around it, variables in bumps of time."""
        if self.basis is not None:
            x = session.x if self.causal else linear.smoothed(session.x)
            return linear.lagged(x @ self.basis, linear.around(UNIT_LAGS, self.causal))
        parts, lags = [], linear.around(BEHAVIOUR_LAGS, self.causal)
        for s, name in enumerate(session.signal_names):
            if name in self.of:
                parts.append(linear.lagged(session.signals[..., [s]], lags))
        for q, (name, known) in enumerate(session.classes.items()):
            if name in self.of:
                one_hot = np.eye(len(known))[session.variables[:, q]]
                parts.append(in_time(one_hot, session.counts.shape[1]))
        return np.concatenate(parts, axis=-1)

    def __call__(self, session: Session) -> np.ndarray:
        """What it expects in all trials of a session."""
        x = np.clip((self.features(session) - self.mean) / self.scale, -MOST, MOST)
        return np.maximum(np.exp(np.minimum(self.offset + x @ self.weight, MOST_LOG_RATE)), LEAST)


def regression(model: PoissonMap, session: Session, units: np.ndarray, fit: np.ndarray, choose: np.ndarray) -> PoissonMap:  # fmt: skip
    """Fit a map to the counts of `units`.

    L2-penalised; the strength is the one that is most likely in the trials `choose`, for all units.
    """
    counts, x = session.counts[..., units], model.features(session)
    mean, scale = x[fit].mean(axis=(0, 1)), x[fit].std(axis=(0, 1)) + 1e-6
    x = np.clip((x - mean) / scale, -MOST, MOST)
    shape = x.shape[2], len(units)
    y = counts[fit].reshape(-1, shape[1]).astype(float)
    flat = x[fit].reshape(len(y), shape[0])
    base = np.broadcast_to(model.offset, counts[fit].shape).reshape(y.shape)

    def loss(w: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        w = w.reshape(shape)
        log = np.minimum(base + flat @ w, MOST_LOG_RATE)
        rate = np.exp(log)
        value = (rate - y * log).sum() + 0.5 * penalty * (w**2).sum()
        return value, (flat.T @ (rate - y) + penalty * w).ravel()

    weights = chosen = np.zeros(shape)
    most = log_likelihood(counts[choose], np.exp(model.offset)).sum()
    for penalty in PENALTIES if shape[0] else ():
        step = minimize(loss, weights.ravel(), penalty, "L-BFGS-B", True, options={"maxiter": STEPS})  # fmt: skip
        weights = step.x.reshape(shape)
        rate = np.exp(np.minimum(model.offset + x[choose] @ weights, MOST_LOG_RATE))
        likely = log_likelihood(counts[choose], rate).sum()
        if likely <= most:
            break
        most, chosen = likely, weights
    return replace(model, weight=chosen, mean=mean, scale=scale)


def log_likelihood(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Poisson log-likelihood of counts under rates, less what only the counts decide [nats]."""
    return counts * np.log(rate) - rate


def encode(
    session: Session, fit: np.ndarray, choose: np.ndarray, of: tuple[str, ...] = (), causal: bool = False
) -> PoissonMap:  # fmt: skip
    """Counts of all units from signals and variables, by name; none named: all of them."""
    model = PoissonMap(np.log(psth(session, fit)), of or session.behaviour, causal=causal)
    return regression(model, session, np.arange(session.counts.shape[2]), fit, choose)


def impute(
    session: Session, fit: np.ndarray, choose: np.ndarray, hidden: np.ndarray, causal: bool = False,
    seen: np.ndarray | None = None,
) -> PoissonMap:  # fmt: skip
    """Counts of the units `hidden` from components of the units `seen`; None: of all others. Where there
    are none it is their PSTH."""
    if seen is None:
        seen = np.setdiff1d(np.arange(session.counts.shape[2]), hidden)
    x = session.x[..., seen] if causal else linear.smoothed(session.x[..., seen])
    basis = np.zeros((session.counts.shape[2], min(N_COMPONENTS, len(seen))))
    basis[seen] = linear.directions(x, fit, N_COMPONENTS)
    model = PoissonMap(np.log(psth(session, fit)[:, hidden]), basis=basis, causal=causal)
    return regression(model, session, hidden, fit, choose)
