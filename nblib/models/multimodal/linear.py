"""Linear models that decode signals and variables from counts, within a session and shared over sessions.

Each fits on some trials, chooses its strength on others, and is then a `LinearMap`. Signals are z-scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from nblib.models.linear import RidgePath, log_loss, logistic_path
from nblib.prepare.sessions import Session

PENALTIES = np.geomspace(10, 1e5, 9)
N_COMPONENTS, N_LAGS = 40, 8
N_FACTORS, N_ROUNDS, SHARED_PENALTY = 4, 6, 30.0
LEAST = 1e-3  # no class is less probable
STRENGTHS = np.geomspace(1e-5, 1e-1, 9)  # inverse penalties
NEVER = -30.0  # the logit of a class that no train trial has


@dataclass(frozen=True)
class LinearMap:
    """An answer that is linear in the z-scored roots of counts: weight (..., T, N), bias (...) -> (K, ...).

    link: "" for a signal (T,); "logits" or "shares" of the classes (C,), which become log-probabilities.
    """

    weight: np.ndarray
    bias: np.ndarray
    link: str = ""

    def __call__(self, session: Session) -> np.ndarray:
        """What it answers to all trials of a session."""
        return self.of_x(session.x)

    def of_x(self, x: np.ndarray) -> np.ndarray:
        """What it answers to x (K, T, N)."""
        answer = x.reshape(len(x), -1) @ self.weight.reshape(len(self.bias), -1).T + self.bias
        if not self.link:
            return answer
        share = np.maximum(softmax(answer, axis=1) if self.link == "logits" else answer, LEAST)
        return np.log(share / share.sum(axis=1, keepdims=True))


def smoothed(x: np.ndarray) -> np.ndarray:
    """Values (K, T, N) with a quarter of each neighbour in time. Weights (K, T, N) on values so smoothed
    become weights on the values themselves by the same, as it is symmetric."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return 0.25 * padded[:, :-2] + 0.5 * x + 0.25 * padded[:, 2:]


def on_raw(weight: np.ndarray, bias: np.ndarray, link: str = "", smooth: bool = True) -> LinearMap:
    """The map of weights (D, T, N), on smoothed values unless `smooth` is off."""
    weight = smoothed(weight) if smooth else weight
    return LinearMap(weight.astype(np.float32), bias.astype(np.float32), link)


def at_rest(session: Session, fit: np.ndarray) -> dict[str, np.ndarray]:
    """What the trials `fit` say of any other before it is looked at: of a signal its mean course (T,), of a
    variable the logarithms of its shares (C,)."""
    courses = np.moveaxis(session.signals[fit].mean(axis=0), -1, 0)
    rest = dict(zip(session.signal_names, courses, strict=True))
    for q, (name, known) in enumerate(session.classes.items()):
        share = np.bincount(session.variables[fit, q], minlength=known.size) + 0.5
        rest[name] = np.log(share / share.sum())
    return rest


def best(tried: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Of arrays (..., S), each with its errors (S,), the one with the least error for each of S."""
    least, kept = None, None
    for error, array in tried:
        if least is None:
            least, kept = error.copy(), array.copy()
        better = error < least
        kept[..., better], least[better] = array[..., better], error[better]
    return kept


def flat_ridge(session: Session, fit: np.ndarray, choose: np.ndarray) -> dict[str, LinearMap]:
    """Every bin of each signal from all bins of all units."""
    shape = session.signals.shape[1:]
    x, y = smoothed(session.x).reshape(len(session.x), -1), session.signals

    def tried() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for weight, bias in RidgePath(x[fit]).solutions(y[fit].reshape(len(fit), -1), PENALTIES):
            off = (x[choose] @ weight + bias).reshape(-1, *shape) - y[choose]
            yield (off**2).sum(axis=(0, 1)), weight.reshape(-1, *shape)

    weight = best(tried())  # (T * N, T, S)
    bias = y[fit].mean(axis=0) - np.tensordot(x[fit].mean(axis=0), weight, 1)
    by_signal = np.moveaxis(weight, 0, -1).reshape(*shape, *session.x.shape[1:])
    return _of_signals(session, by_signal, bias)


def _of_signals(session: Session, weight: np.ndarray, bias: np.ndarray, smooth: bool = True) -> dict[str, LinearMap]:  # fmt: skip
    """The map of each signal, from weights (T, S, T, N) and bias (T, S) of all."""
    return {name: on_raw(weight[:, s], bias[:, s], smooth=smooth) for s, name in enumerate(session.signal_names)}  # fmt: skip


def directions(x: np.ndarray, fit: np.ndarray, n: int) -> np.ndarray:
    """The n leading principal directions (N, n) of x (K, T, N), of the trials `fit`."""
    flat = x[fit].reshape(len(fit) * x.shape[1], x.shape[2]).astype(np.float64)
    return np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :n]


def around(n: int, causal: bool) -> range:
    """Lags up to n bins to either side; causal: as many back alone."""
    return range(0 if causal else -n, (2 if causal else 1) * n + 1)


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


def lagged_ridge(session: Session, fit: np.ndarray, choose: np.ndarray, causal: bool = False) -> dict[str, LinearMap]:  # fmt: skip
    """Each signal beside its mean course, from components in bins around, or before; the same in all bins."""
    lags = around(N_LAGS, causal)
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
    return _of_signals(session, weight, course, smooth=not causal)


def logistic(session: Session, fit: np.ndarray, choose: np.ndarray) -> dict[str, LinearMap]:
    """Each variable by logistic regression on all bins of all units, from their kernel; one that does not
    change in `fit`, or that no strength tells better than its shares do, by these."""
    x = smoothed(session.x).reshape(len(session.x), -1)
    mean = x[fit].mean(axis=0)
    values, vectors = np.linalg.eigh(((x[fit] - mean) @ (x[fit] - mean).T).astype(np.float64))
    kept = values > 1e-6 * values.max()
    basis = (x[fit] - mean).T @ (vectors[:, kept] / np.sqrt(values[kept]))  # (T * N, components)
    rest, maps = at_rest(session, fit), {}
    for y, name in zip(session.variables.T, session.classes, strict=True):
        known, n_classes = np.unique(y[fit]), len(rest[name])
        none = np.zeros((n_classes, *session.x.shape[1:]))
        maps[name] = on_raw(none, rest[name], "logits")
        least = log_loss(maps[name].of_x(session.x[choose]), y[choose])
        path = logistic_path(
            (x[fit] - mean) @ basis, np.searchsorted(known, y[fit]), STRENGTHS, 200
        )
        for _, weight, bias in path if len(known) > 1 else ():
            by_class, logits = np.zeros((n_classes, x.shape[1])), np.full(n_classes, NEVER)
            by_class[known], logits[known] = (basis @ weight).T, bias - mean @ basis @ weight
            tried = on_raw(by_class.reshape(none.shape), logits, "logits")
            if (loss := log_loss(tried.of_x(session.x[choose]), y[choose])) < least:
                least, maps[name] = loss, tried
    return maps


def _unit_weights(x: np.ndarray, y: np.ndarray, maps: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (N, R) of a session's units: ridge of y (K, D) on x (K, T, N) through maps (R, T, D)."""
    flat, (n_bins, n_units) = x.reshape(len(x), -1).astype(np.float64), x.shape[1:]
    between = (flat.T @ flat).reshape(n_bins, n_units, n_bins, n_units)
    gram = np.einsum("tnsm,rtd,qsd->nrmq", between, maps, maps, optimize=True)
    gram = gram.reshape(n_units * len(maps), -1)
    right = np.einsum("tnd,rtd->nr", (flat.T @ y).reshape(n_bins, n_units, -1), maps, optimize=True)
    solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), right.ravel())
    return solved.reshape(n_units, len(maps))


def target(session: Session, fit: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """What is known of a signal or variable without spikes (D,): its course, the shares of its classes; and
    what it is beyond that in each trial (K, D)."""
    rest = at_rest(session, fit)[task]
    if task in session.signal_names:
        return rest, session.signals[..., session.signal_names.index(task)] - rest
    y = session.variables[:, list(session.classes).index(task)]
    return np.exp(rest), np.eye(rest.size)[y] - np.exp(rest)


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
    rank = (
        max(N_FACTORS, d // 3) if task in sessions[0].classes else N_FACTORS
    )  # many classes need more
    weights = []  # at first the session's own leading directions
    for x, y in zip(xs, ys, strict=True):
        flat = x.reshape(len(x), -1)
        own = flat.T @ np.linalg.solve(flat @ flat.T + 300 * np.eye(len(x)), y)
        by_unit = own.reshape(n_bins, x.shape[2], d).transpose(1, 0, 2).reshape(x.shape[2], -1)
        weights.append(np.linalg.svd(by_unit, full_matrices=False)[0][:, :rank])
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
