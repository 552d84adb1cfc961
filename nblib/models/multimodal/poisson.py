"""Poisson regressions of counts: from behaviour (encoding), and from other units (imputation)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from nblib.models.multimodal import linear
from nblib.prepare.sessions import Session

PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0)
LEAST = 1e-3  # spikes a bin; no rate is less
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


def _around(n_lags: int, causal: bool) -> range:
    """The lags to either side of a bin, or as far back alone."""
    return range(0 if causal else -n_lags, (2 if causal else 1) * n_lags + 1)


def behaviour(session: Session, of: list[str] | None = None, causal: bool = False) -> np.ndarray:
    """What is known of behaviour in each bin (K, T, D): signals around it, variables in bumps of time.

    of: the signals and variables to take, by name; None = all. causal: signals up to the bin alone.
    """
    parts = []
    for s, name in enumerate(session.signal_names):
        if of is None or name in of:
            parts.append(linear.lagged(session.signals[..., [s]], _around(BEHAVIOUR_LAGS, causal)))
    for q, (name, known) in enumerate(session.classes.items()):
        if of is None or name in of:
            one_hot = np.eye(len(known))[session.variables[:, q]]
            parts.append(in_time(one_hot, session.counts.shape[1]))
    return np.concatenate(parts, axis=-1)


def other_units(session: Session, fit: np.ndarray, seen: np.ndarray, causal: bool) -> np.ndarray:
    """Components of the units `seen` in the bins around each, or up to it (K, T, D)."""
    x = session.x[..., seen] if causal else linear.smoothed(session.x[..., seen])
    return linear.lagged(linear.components(x, fit, N_COMPONENTS), _around(UNIT_LAGS, causal))


def regression(
    x: np.ndarray, counts: np.ndarray, offset: np.ndarray, fit: np.ndarray, choose: np.ndarray
) -> np.ndarray:
    """Expected counts (K, T, N) by Poisson regression on x (K, T, D) beside log rates `offset` (T, N).

    L2-penalised; the strength is the one that is most likely in the trials `choose`, for all units.
    """
    mean, scale = x[fit].mean(axis=(0, 1)), x[fit].std(axis=(0, 1)) + 1e-6
    x = np.clip((x - mean) / scale, -MOST, MOST)
    flat, y = x[fit].reshape(-1, x.shape[2]), counts[fit].reshape(-1, counts.shape[2]).astype(float)
    base = np.broadcast_to(offset, counts[fit].shape).reshape(y.shape)
    shape = (x.shape[2], counts.shape[2])
    weights, answer, most = np.zeros(shape), np.exp(offset) + np.zeros(counts.shape), None

    def loss(w: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        w = w.reshape(shape)
        log = np.minimum(base + flat @ w, 5.0)
        rate = np.exp(log)
        value = (rate - y * log).sum() + 0.5 * penalty * (w**2).sum()
        return value, (flat.T @ (rate - y) + penalty * w).ravel()

    most = log_likelihood(counts[choose], answer[choose]).sum()
    for penalty in PENALTIES:
        step = minimize(
            loss, weights.ravel(), (penalty,), "L-BFGS-B", jac=True, options={"maxiter": STEPS}
        )
        weights = step.x.reshape(shape)
        tried = np.exp(np.minimum(offset + x @ weights, 5.0))
        likely = log_likelihood(counts[choose], tried[choose]).sum()
        if likely <= most:
            break
        most, answer = likely, tried
    return np.maximum(answer, LEAST)


def log_likelihood(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Poisson log-likelihood of counts under rates, less what only the counts decide [nats]."""
    return counts * np.log(rate) - rate


def encode(
    session: Session, fit: np.ndarray, choose: np.ndarray, of: list[str] | None = None, causal: bool = False
) -> np.ndarray:  # fmt: skip
    """Expected counts (K, T, N) from behaviour (see `behaviour`)."""
    offset = np.log(psth(session, fit))
    return regression(behaviour(session, of, causal), session.counts, offset, fit, choose)


def impute(
    session: Session, fit: np.ndarray, choose: np.ndarray, hidden: np.ndarray, causal: bool = False
) -> np.ndarray:
    """Expected counts (K, T, hidden) of units from those of all others."""
    seen = np.setdiff1d(np.arange(session.counts.shape[2]), hidden)
    offset = np.log(psth(session, fit)[:, hidden])
    x = other_units(session, fit, seen, causal)
    return regression(x, session.counts[..., hidden], offset, fit, choose)
