"""Linear models that decode signals and variables from counts, within a session and shared over sessions.

Every function fits on some trials and answers for all K trials of a session; strengths are chosen on others.
Signals are answered as z-scores (K, T, S), variables as log-probabilities (K, C).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from nblib.prepare.sessions import Session

PENALTIES = np.geomspace(10, 1e5, 9)
N_COMPONENTS, N_LAGS = 40, 8
N_FACTORS, N_ROUNDS, SHARED_PENALTY = 4, 6, 30.0
LEAST = 1e-3  # no class is less probable


def smoothed(x: np.ndarray) -> np.ndarray:
    """Values (K, T, N) with a quarter of each neighbour in time."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return 0.25 * padded[:, :-2] + 0.5 * x + 0.25 * padded[:, 2:]


def mean_course(session: Session, fit: np.ndarray) -> np.ndarray:
    """The mean of each signal in each bin of the trials `fit`, for every trial (K, T, S)."""
    return np.broadcast_to(session.signals[fit].mean(axis=0), session.signals.shape)


def prior(session: Session, fit: np.ndarray, q: int) -> np.ndarray:
    """Log share of each class of variable q in the trials `fit`, for every trial (K, C)."""
    n_classes = list(session.classes.values())[q].size
    share = np.bincount(session.variables[fit, q], minlength=n_classes) + 0.5
    return np.tile(np.log(share / share.sum()), (len(session.role), 1))


def best(answers: Sequence[np.ndarray], truth: np.ndarray, choose: np.ndarray) -> np.ndarray:
    """Of several answers (K, T, S), for each signal the one with least squared error in trials `choose`."""
    errors = [((a[choose] - truth[choose]) ** 2).sum(axis=(0, 1)) for a in answers]
    chosen = np.argmin(errors, axis=0)
    return np.stack([answers[a][..., s] for s, a in enumerate(chosen)], axis=-1)


def kernel_ridge(x: np.ndarray, y: np.ndarray, fit: np.ndarray) -> list[np.ndarray]:
    """Ridge from x (K, D) to y (K, E), in trials x trials: answers (K, E) for each of `PENALTIES`."""
    x, mean = x - x[fit].mean(axis=0), y[fit].mean(axis=0)
    gram = (x @ x[fit].T).astype(np.float64)
    values, vectors = np.linalg.eigh(gram[fit])
    turned, target = gram @ vectors, vectors.T @ (y[fit] - mean)
    return [mean + turned @ (target / (np.maximum(values, 0) + a)[:, None]) for a in PENALTIES]


def flat_ridge(session: Session, fit: np.ndarray, choose: np.ndarray) -> np.ndarray:
    """Every bin of each signal from all bins of all units."""
    shape = session.signals.shape
    x = smoothed(session.x).reshape(shape[0], -1)
    answers = kernel_ridge(x, session.signals.reshape(shape[0], -1), fit)
    return best([a.reshape(shape) for a in answers], session.signals, choose)


def components(x: np.ndarray, fit: np.ndarray, n: int) -> np.ndarray:
    """The n leading principal components (K, T, n) of x (K, T, N), of the trials `fit`."""
    flat = x[fit].reshape(-1, x.shape[2]).astype(np.float64)
    vectors = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :n]
    return x @ vectors


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


def lagged_ridge(session: Session, fit: np.ndarray, choose: np.ndarray, causal: bool = False) -> np.ndarray:  # fmt: skip
    """Each signal beside its mean course, from components in bins around, or before; the same in all bins."""
    lags = range(0 if causal else -N_LAGS, (2 if causal else 1) * N_LAGS + 1)
    z = session.x if causal else smoothed(session.x)
    x = lagged(components(z, fit, N_COMPONENTS), lags)
    course = mean_course(session, fit)
    flat = x[fit].reshape(-1, x.shape[2])
    gram, target = flat.T @ flat, flat.T @ (session.signals - course)[fit].reshape(len(flat), -1)
    eye = np.eye(len(gram))
    answers = [course + x @ np.linalg.solve(gram + a * eye, target) for a in PENALTIES]
    return best(answers, session.signals, choose)


def logistic(session: Session, fit: np.ndarray, choose: np.ndarray, q: int) -> np.ndarray:
    """Log-probabilities of variable q by logistic regression on all bins of all units, from their kernel."""
    from sklearn.linear_model import LogisticRegression

    y, known = session.variables[:, q], np.unique(session.variables[fit, q])
    answer = prior(session, fit, q)
    if len(known) < 2:
        return answer
    x = smoothed(session.x).reshape(len(y), -1)
    x = x - x[fit].mean(axis=0)
    values, vectors = np.linalg.eigh((x[fit] @ x[fit].T).astype(np.float64))
    kept = values > 1e-6 * values.max()
    z = (x @ x[fit].T) @ (vectors[:, kept] / np.sqrt(values[kept]))  # (K, components)
    best_loss = -answer[choose, y[choose]].mean()
    with warnings.catch_warnings(action="ignore"):  # stopping early is a penalty of its own
        for c in np.geomspace(1e-5, 1e-1, 9):
            model = LogisticRegression(C=c, max_iter=200).fit(z[fit], y[fit])
            proba = np.full(answer.shape, LEAST)
            proba[:, known] = np.maximum(model.predict_proba(z), LEAST)
            log = np.log(proba / proba.sum(axis=1, keepdims=True))
            loss = -log[choose, y[choose]].mean()
            if loss < best_loss:
                best_loss, answer = loss, log
    return answer


def _unit_weights(x: np.ndarray, y: np.ndarray, maps: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (N, R) of a session's units: ridge of y (K, D) on x (K, T, N) through maps (R, T, D)."""
    seen = np.einsum("ktn,rtd->kdnr", x, maps, optimize=True).reshape(y.size, -1)
    gram = seen.T @ seen + penalty * np.eye(seen.shape[1])
    return np.linalg.solve(gram, seen.T @ y.ravel()).reshape(x.shape[2], len(maps))


def shared_map(xs: list[np.ndarray], ys: list[np.ndarray], fits: list[np.ndarray], choose: list[np.ndarray]) -> list[np.ndarray]:  # fmt: skip
    """Reduced rank shared over sessions: units to factors in each, factors and time to targets in all.

    By alternating ridge. xs (K, T, N), ys (K, D) less their mean; fits, choose: trials of each session.
    Returns answers (K, D). Source of the model: Zhang et al. 2024, bioRxiv 2024.09.14.613047.
    """
    n_bins, d = xs[0].shape[1], ys[0].shape[1]
    weights = []
    for x, y, fit in zip(
        xs, ys, fits, strict=True
    ):  # at first: the session's own leading directions
        flat = x[fit].reshape(len(fit), -1)
        own = flat.T @ np.linalg.solve(flat @ flat.T + 300 * np.eye(len(fit)), y[fit])
        by_unit = own.reshape(n_bins, x.shape[2], d).transpose(1, 0, 2).reshape(x.shape[2], -1)
        weights.append(np.linalg.svd(by_unit, full_matrices=False)[0][:, :N_FACTORS])
    target = np.concatenate([y[fit] for y, fit in zip(ys, fits, strict=True)])
    for i in range(N_ROUNDS):
        some = (
            slice(1) if i == 0 else slice(None)
        )  # one session alone says what the factors are at first
        z = np.concatenate([
            (x[fit] @ w).reshape(len(fit), -1)
            for x, w, fit in zip(xs[some], weights[some], fits[some], strict=True)
        ])  # fmt: skip
        gram = z.T @ z + SHARED_PENALTY * np.eye(z.shape[1])
        maps = (
            np.linalg.solve(gram, z.T @ target[: len(z)]).reshape(n_bins, -1, d).transpose(1, 0, 2)
        )
        maps /= np.sqrt((maps**2).sum(axis=(1, 2), keepdims=True)) + 1e-9
        weights = [
            _unit_weights(x[fit], y[fit], maps, SHARED_PENALTY)
            for x, y, fit in zip(xs, ys, fits, strict=True)
        ]
    answers = []
    for x, y, fit, judge in zip(xs, ys, fits, choose, strict=True):
        tried = []
        for penalty in (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0):
            w = _unit_weights(x[fit], y[fit], maps, penalty)
            tried.append(np.einsum("ktn,nr,rtd->kd", x, w, maps, optimize=True))
        answers.append(min(tried, key=lambda a: ((a[judge] - y[judge]) ** 2).sum()))
    return answers


def _few(sessions: list[Session], fits: list[np.ndarray]) -> list[np.ndarray]:
    """Leading components of each session, all of them where its units are few."""
    pairs = zip(sessions, fits, strict=True)
    return [components(smoothed(one.x), fit, N_COMPONENTS) for one, fit in pairs]


def shared_signals(sessions: list[Session], fits: list[np.ndarray], choose: list[np.ndarray]) -> list[np.ndarray]:  # fmt: skip
    """Each signal beside its mean course, by `shared_map`: (K, T, S) of each session."""
    xs = _few(sessions, fits)
    courses = [mean_course(one, fit) for one, fit in zip(sessions, fits, strict=True)]
    answers = []
    for s in range(len(sessions[0].signal_names)):
        ys = [one.signals[..., s] - c[..., s] for one, c in zip(sessions, courses, strict=True)]
        answers.append(shared_map(xs, ys, fits, choose))
    return [
        c + np.stack(a, axis=-1) for c, a in zip(courses, zip(*answers, strict=True), strict=True)
    ]


def shared_variable(sessions: list[Session], fits: list[np.ndarray], choose: list[np.ndarray], q: int) -> list[np.ndarray]:  # fmt: skip
    """Log-probabilities (K, C) of variable q by `shared_map` to its classes, cut to what a share can be."""
    xs, shares, ys = _few(sessions, fits), [], []
    for one, fit in zip(sessions, fits, strict=True):
        shares.append(np.exp(prior(one, fit, q)))
        ys.append(np.eye(shares[-1].shape[1])[one.variables[:, q]] - shares[-1])
    answers = []
    for share, answer in zip(shares, shared_map(xs, ys, fits, choose), strict=True):
        proba = np.maximum(share + answer, LEAST)
        answers.append(np.log(proba / proba.sum(axis=1, keepdims=True)))
    return answers
