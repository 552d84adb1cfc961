"""Linear models that decode signals and variables from counts, within a session and shared over sessions.

Each fits on some trials, chooses its strength on others, and is then a `LinearMap`. Signals are z-scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from nblib.models.linear import RidgePath, log_loss, logistic_path
from nblib.prepare.sessions import Session

PENALTIES = np.geomspace(10, 1e5, 9)
N_COMPONENTS, N_LAGS = 40, 8
N_FACTORS, N_ROUNDS, SHARED_PENALTY = 4, 6, 30.0
LEAST = 1e-3  # no class is less probable
NEVER = -30.0  # the logit of a class that no train trial has


@dataclass(frozen=True)
class LinearMap:
    """An answer that is linear in the z-scored roots of counts: weight (..., T, N), bias (...) -> (K, ...).

    link: "" for signals (T, S); "logits" or "shares" of the classes (C,), which become log-probabilities.
    """

    weight: np.ndarray
    bias: np.ndarray
    link: str = ""

    def of_x(self, x: np.ndarray) -> np.ndarray:
        """What it answers to x (K, T, N)."""
        flat = x.reshape(len(x), -1) @ self.weight.reshape(self.bias.size, -1).T
        answer = flat.reshape(len(x), *self.bias.shape) + self.bias
        if not self.link:
            return answer
        share = np.maximum(softmax(answer, axis=1) if self.link == "logits" else answer, LEAST)
        return np.log(share / share.sum(axis=1, keepdims=True))

    def of_signal(self, s: int) -> LinearMap:
        """The map of signal s alone."""
        return LinearMap(self.weight[:, s], self.bias[:, s])

    def __call__(self, session: Session) -> np.ndarray:
        """What it answers to all trials of a session."""
        return self.of_x(session.x)


def smoothed(x: np.ndarray) -> np.ndarray:
    """Values (K, T, N) with a quarter of each neighbour in time. Weights (K, T, N) on values so smoothed
    become weights on the values themselves by the same, as it is symmetric."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return 0.25 * padded[:, :-2] + 0.5 * x + 0.25 * padded[:, 2:]


def on_raw(weight: np.ndarray, bias: np.ndarray, link: str = "", smooth: bool = True) -> LinearMap:
    """The map of weights (..., T, N), on smoothed values unless `smooth` is off."""
    if smooth:
        weight = smoothed(weight.reshape(-1, *weight.shape[-2:])).reshape(weight.shape)
    return LinearMap(weight.astype(np.float32), bias.astype(np.float32), link)


def nothing_of(session: Session, bias: np.ndarray, link: str = "") -> LinearMap:
    """A map that reads no spike."""
    return on_raw(np.zeros((*bias.shape, *session.counts.shape[1:])), bias, link, smooth=False)


def mean_course(session: Session, fit: np.ndarray) -> LinearMap:
    """The mean of each signal in each bin of the trials `fit`."""
    return nothing_of(session, session.signals[fit].mean(axis=0))


def prior(session: Session, fit: np.ndarray, q: int) -> LinearMap:
    """The share of each class of variable q in the trials `fit`."""
    n_classes = list(session.classes.values())[q].size
    share = np.bincount(session.variables[fit, q], minlength=n_classes) + 0.5
    return nothing_of(session, np.log(share / share.sum()), "logits")


def best(tried: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Of arrays (..., S), each with its errors (S,), the one with the least error for each of S."""
    least, kept = None, None
    for error, array in tried:
        if least is None:
            least, kept = error.copy(), array.copy()
        better = error < least
        kept[..., better], least[better] = array[..., better], error[better]
    return kept


def flat_ridge(session: Session, fit: np.ndarray, choose: np.ndarray) -> LinearMap:
    """Every bin of each signal from all bins of all units."""
    shape = session.signals.shape[1:]
    x, y = smoothed(session.x).reshape(len(session.x), -1), session.signals

    def tried() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for weight, bias in RidgePath(x[fit]).solutions(y[fit].reshape(len(fit), -1), PENALTIES):
            off = (x[choose] @ weight + bias).reshape(-1, *shape) - y[choose]
            yield (off**2).sum(axis=(0, 1)), weight.reshape(-1, *shape)

    weight = best(tried())  # (T * N, T, S)
    bias = y[fit].mean(axis=0) - np.tensordot(x[fit].mean(axis=0), weight, 1)
    return on_raw(np.moveaxis(weight, 0, -1).reshape(*shape, *session.x.shape[1:]), bias)


def directions(x: np.ndarray, fit: np.ndarray, n: int) -> np.ndarray:
    """The n leading principal directions (N, n) of x (K, T, N), of the trials `fit`."""
    flat = x[fit].reshape(len(fit) * x.shape[1], x.shape[2]).astype(np.float64)
    return np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :n]


def lagged(x: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    """Values (K, T, N) of the bins `lags` before each bin, side by side (K, T, N * lags), 0 outside."""
    n_bins, moved = x.shape[1], []
    for lag in lags:
        part = np.zeros_like(x)
        if abs(lag) < n_bins:
            low, high = max(lag, 0), n_bins + min(lag, 0)
            part[:, low:high] = x[:, low - lag : high - lag]
        moved.append(part)
    return np.concatenate(moved, axis=-1)


def lagged_ridge(session: Session, fit: np.ndarray, choose: np.ndarray, causal: bool = False) -> LinearMap:  # fmt: skip
    """Each signal beside its mean course, from components in bins around, or before; the same in all bins."""
    lags = range(0 if causal else -N_LAGS, (2 if causal else 1) * N_LAGS + 1)
    z = session.x if causal else smoothed(session.x)
    basis, course = directions(z, fit, N_COMPONENTS), session.signals[fit].mean(axis=0)
    x, y = lagged(z @ basis, lags), session.signals - course
    flat = x[fit].reshape(-1, x.shape[2])
    gram, target = flat.T @ flat, flat.T @ y[fit].reshape(len(flat), -1)

    def tried() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for penalty in PENALTIES:
            solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), target)
            yield ((x[choose] @ solved - y[choose]) ** 2).sum(axis=(0, 1)), solved

    by_lag = best(tried()).reshape(len(lags), basis.shape[1], -1)  # (lags, components, S)
    n_bins, n_signals = course.shape
    weight = np.zeros((n_bins, n_signals, *session.x.shape[1:]))
    for lag, of_unit in zip(lags, basis @ by_lag, strict=True):
        for t in range(max(lag, 0), n_bins + min(lag, 0)):
            weight[t, :, t - lag] = of_unit.T
    return on_raw(weight, course, smooth=not causal)


def logistic(session: Session, fit: np.ndarray, choose: np.ndarray, q: int) -> LinearMap:
    """Variable q by logistic regression on all bins of all units, from their kernel."""
    y, known = session.variables[:, q], np.unique(session.variables[fit, q])
    chosen = prior(session, fit, q)
    if len(known) < 2:
        return chosen
    x = smoothed(session.x).reshape(len(y), -1)
    mean = x[fit].mean(axis=0)
    values, vectors = np.linalg.eigh(((x[fit] - mean) @ (x[fit] - mean).T).astype(np.float64))
    kept = values > 1e-6 * values.max()
    basis = (x[fit] - mean).T @ (vectors[:, kept] / np.sqrt(values[kept]))  # (T * N, components)
    least = log_loss(chosen.of_x(session.x[choose]), y[choose])
    path = logistic_path((x[fit] - mean) @ basis, np.searchsorted(known, y[fit]), np.geomspace(1e-5, 1e-1, 9), 200)  # fmt: skip
    for _, weight, bias in path:
        logits = np.full(chosen.bias.shape, NEVER)
        logits[known] = bias - mean @ basis @ weight
        by_class = np.zeros((len(logits), x.shape[1]))
        by_class[known] = (basis @ weight).T
        tried = on_raw(by_class.reshape(-1, *session.x.shape[1:]), logits, "logits")
        loss = log_loss(tried.of_x(session.x[choose]), y[choose])
        if loss < least:
            least, chosen = loss, tried
    return chosen


def _unit_weights(x: np.ndarray, y: np.ndarray, maps: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (N, R) of a session's units: ridge of y (K, D) on x (K, T, N) through maps (R, T, D)."""
    seen = np.einsum("ktn,rtd->kdnr", x, maps, optimize=True).reshape(y.size, -1)
    gram = seen.T @ seen + penalty * np.eye(seen.shape[1])
    return np.linalg.solve(gram, seen.T @ y.ravel()).reshape(x.shape[2], len(maps))


def target(session: Session, fit: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """What is known of a signal or variable without spikes (D,): its course, the shares of its classes; and
    what it is beyond that in each trial (K, D)."""
    if task in session.signal_names:
        y = session.signals[..., session.signal_names.index(task)]
        return y[fit].mean(axis=0), y - y[fit].mean(axis=0)
    q = list(session.classes).index(task)
    share = np.exp(log_softmax(prior(session, fit, q).bias))
    return share, np.eye(share.size)[session.variables[:, q]] - share


def _reduced(session: Session, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading components (K, T, n) of a session, all where its units are few, and their directions (N, n)."""
    smooth = smoothed(session.x)
    basis = directions(smooth, fit, N_COMPONENTS)
    return smooth @ basis, basis


def factors(sessions: list[Session], fits: list[np.ndarray], task: str) -> np.ndarray:
    """What a few factors say of a signal or variable over time, the same in all sessions: (R, T, D).

    Reduced rank by alternating ridge: units to factors in each session, factors and time to targets in
    all. Source of the model: Zhang et al. 2024, bioRxiv 2024.09.14.613047.
    """
    pairs = list(zip(sessions, fits, strict=True))
    xs = [_reduced(one, fit)[0][fit] for one, fit in pairs]
    ys = [target(one, fit, task)[1][fit] for one, fit in pairs]
    n_bins, d = xs[0].shape[1], ys[0].shape[1]
    weights = []  # at first the session's own leading directions
    for x, y in zip(xs, ys, strict=True):
        flat = x.reshape(len(x), -1)
        own = flat.T @ np.linalg.solve(flat @ flat.T + 300 * np.eye(len(x)), y)
        by_unit = own.reshape(n_bins, x.shape[2], d).transpose(1, 0, 2).reshape(x.shape[2], -1)
        weights.append(np.linalg.svd(by_unit, full_matrices=False)[0][:, :N_FACTORS])
    together = np.concatenate(ys)
    for i in range(N_ROUNDS):
        some = slice(1) if i == 0 else slice(None)  # one session says what the factors are at first
        z = np.concatenate([
            (x @ w).reshape(len(x), -1) for x, w in zip(xs[some], weights[some], strict=True)
        ])  # fmt: skip
        gram = z.T @ z + SHARED_PENALTY * np.eye(z.shape[1])
        solved = np.linalg.solve(gram, z.T @ together[: len(z)])
        maps = solved.reshape(n_bins, -1, d).transpose(1, 0, 2)
        maps /= np.sqrt((maps**2).sum(axis=(1, 2), keepdims=True)) + 1e-9
        weights = [_unit_weights(x, y, maps, SHARED_PENALTY) for x, y in zip(xs, ys, strict=True)]
    return maps


def through(session: Session, fit: np.ndarray, choose: np.ndarray, task: str, maps: np.ndarray) -> LinearMap:  # fmt: skip
    """A signal or variable through factors (R, T, D) that others taught: its units' weights alone are fitted."""
    (x, basis), (base, y) = _reduced(session, fit), target(session, fit, task)
    tried = {}
    for penalty in (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0):
        w = _unit_weights(x[fit], y[fit], maps, penalty)
        off = np.einsum("ktn,nr,rtd->kd", x[choose], w, maps, optimize=True) - y[choose]
        tried[(off**2).sum()] = w
    weight = np.einsum("nr,rtd->dtn", basis @ tried[min(tried)], maps)
    return on_raw(weight, base, "" if task in session.signal_names else "shares")
