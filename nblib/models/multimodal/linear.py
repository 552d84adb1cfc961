"""Linear models that decode signals and variables from counts, within a session and shared over sessions.

Each is a path: fitted to some trials, it yields its maps from the strongest penalty to the weakest, and
`branch` chooses. Signals are z-scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import softmax

from nblib.models import poisson as bayes
from nblib.models.linear import RidgePath, logistic_path
from nblib.prepare.sessions import Session

PENALTIES = np.geomspace(1e5, 10, 9)
N_COMPONENTS, N_LAGS = 40, 8
WIDTHS = (2.0, 0.7)  # of a Gaussian over time, of which known trials choose for a signal [bins]
SMOOTH, ALIKE = WIDTHS[0], 5.0  # else; how far bins of a signal are told alike [bins]
N_FACTORS, N_ROUNDS, SHARED_PENALTY = 4, 6, 30.0
THROUGH_PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)
LEAST = 1e-3  # no class is less probable
STRENGTHS = np.geomspace(1e-5, 1e-1, 9)  # inverse penalties
NEVER = -30.0  # the logit of a class that no trial has
COURSES, GAIN_SD = 3, 0.3  # see `bayes.BayesPoisson`
SURENESS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)  # factors on logits


@dataclass(frozen=True)
class LinearMap:
    """An answer that is linear in the scaled roots of counts: weight (..., T, N), bias (...) -> (K, ...).

    link: "" for a signal (T,); "logits" or "shares" of the classes (C,), which become log-probabilities;
    "evidence": logits, from the counts themselves.
    """

    weight: np.ndarray
    bias: np.ndarray
    link: str = ""

    def __call__(self, session: Session, shown: Sequence[str] = ()) -> np.ndarray:
        """What it answers to all trials of a session, from counts alone, whatever else is shown."""
        x = session.counts if self.link == "evidence" else session.x
        answer = x.reshape(len(x), -1) @ self.weight.reshape(len(self.bias), -1).T + self.bias
        if not self.link:
            return answer
        return log_shares(answer if self.link == "shares" else softmax(answer, axis=1))


def log_shares(share: np.ndarray) -> np.ndarray:
    """Log-probabilities of shares of classes (K, C), none of them below `LEAST`."""
    share = np.maximum(share, LEAST)
    return np.log(share / share.sum(axis=1, keepdims=True))


def smoothed(x: np.ndarray, width: float = SMOOTH) -> np.ndarray:
    """Values (K, T, N) smoothed in time by a Gaussian of `width` bins. Weights (K, T, N) on values so smoothed become weights
    on the values themselves by the same, as it is symmetric, at the ends too."""
    return gaussian_filter1d(np.eye(x.shape[1], dtype=x.dtype), width, axis=0) @ x


def on_raw(
    weight: np.ndarray, bias: np.ndarray, link: str = "", width: float = SMOOTH
) -> LinearMap:
    """The map of weights (D, T, N), on values that were smoothed by `width` bins; 0: on the values."""
    weight = smoothed(weight, width) if width else weight
    return LinearMap(weight.astype(np.float32), bias.astype(np.float32), link)


def of_signals(
    session: Session, weight: np.ndarray, bias: np.ndarray, width: float
) -> dict[str, LinearMap]:
    """The map of each signal, from weights (T, S, T, N) and bias (T, S) of all."""
    return {
        name: on_raw(weight[:, s], bias[:, s], width=width)
        for s, name in enumerate(session.signal_names)
    }


def at_rest(session: Session, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the trials `rows` say of any other before it is looked at: of a signal its mean course (T,), of a
    variable the logarithms of its shares (C,)."""
    rest = {name: session.signal(name)[rows].mean(axis=0) for name in session.signal_names}
    for name, known in session.classes.items():
        share = np.bincount(session.variable(name)[rows], minlength=known.size) + 0.5
        rest[name] = np.log(share / share.sum())
    return rest


def flat_ridge(
    session: Session, rows: np.ndarray, width: float = SMOOTH
) -> Iterator[dict[str, LinearMap]]:
    """Every bin of each signal from all bins of all units, smoothed by `width` bins, by weights that are more alike
    the nearer two bins are."""
    n_bins, n_signals = session.signals.shape[1:]
    x = smoothed(session.x[rows], width).reshape(len(rows), -1)
    t = np.arange(n_bins)
    alike, turn = np.linalg.eigh(np.exp(-np.abs(t - t[:, None]) / ALIKE))
    y = np.einsum("kts,tu->kus", session.signals[rows], turn).reshape(len(rows), -1)
    penalties = PENALTIES[:, None] / np.repeat(alike, n_signals)
    for weight, bias in RidgePath(x).solutions(y, penalties):
        weight, bias = (a.reshape(-1, n_bins, n_signals) for a in (weight, bias))
        by_signal = np.tensordot(turn, weight, (1, 1)).transpose(0, 2, 1)  # (T, S, T * N)
        by_signal = by_signal.reshape(n_bins, n_signals, *session.x.shape[1:])
        yield of_signals(session, by_signal, turn @ bias[0], width)


def directions(x: np.ndarray, n: int) -> np.ndarray:
    """The n leading principal directions (N, n) of x (K, T, N)."""
    flat = x.reshape(-1, x.shape[2]).astype(np.float64)
    return np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :n]


def around(n: int, causal: bool) -> range:
    """Lags up to n bins to either side; causal: as many back alone."""
    return range(0 if causal else -n, (2 if causal else 1) * n + 1)


def lagged(x: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    """Values (K, T, N) of the bins `lags` before each bin, side by side (K, T, N * lags), 0 outside."""
    before, after, n_bins = max(*lags, 0), -min(*lags, 0), x.shape[1]
    padded = np.pad(x, ((0, 0), (before, after), (0, 0)))
    moved = [padded[:, before - lag : before - lag + n_bins] for lag in lags]
    return np.concatenate(moved, axis=-1)


def averaged(x: np.ndarray, widths: Sequence[int], causal: bool = False) -> np.ndarray:
    """Means of values (K, T, N) over the bins up to each of `widths` away, or as many before alone, side by side
    (K, T, N * widths); of the bins that there are."""
    n_bins = x.shape[1]
    t, sums = np.arange(n_bins), np.pad(x, ((0, 0), (1, 0), (0, 0))).cumsum(axis=1, dtype=float)
    means = []
    for width in widths:
        first, last = np.maximum(t - width, 0), t + 1 + (0 if causal else width)
        last = np.minimum(last, n_bins)
        means.append((sums[:, last] - sums[:, first]) / (last - first)[:, None])
    return np.concatenate(means, axis=-1)


def lagged_ridge(
    session: Session, rows: np.ndarray, width: float = SMOOTH
) -> Iterator[dict[str, LinearMap]]:
    """Each signal beside its mean course, from components in bins around, smoothed by `width` bins; 0: from
    components as they are, and in no later bin. The same in all bins."""
    lags = around(N_LAGS, causal=not width)
    z = smoothed(session.x[rows], width) if width else session.x[rows]
    basis, course = directions(z, N_COMPONENTS), session.signals[rows].mean(axis=0)
    x = lagged(z @ basis, lags)
    flat = x.reshape(-1, x.shape[2])
    gram = flat.T @ flat
    right = flat.T @ (session.signals[rows] - course).reshape(len(flat), -1)
    n_bins, n_signals = course.shape
    for penalty in PENALTIES:
        solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), right)
        weight = np.zeros((n_bins, n_signals, *session.x.shape[1:]))
        by_lag = basis @ solved.reshape(len(lags), basis.shape[1], -1)  # (lags, N, S)
        for lag, of_unit in zip(lags, by_lag, strict=True):
            for t in range(max(lag, 0), n_bins + min(lag, 0)):
                weight[t, :, t - lag] = of_unit.T
        yield of_signals(session, weight, course, width)


def logistic(session: Session, rows: np.ndarray) -> Iterator[dict[str, LinearMap]]:
    """Each variable by logistic regression on all bins of all units, from their kernel; one that does not
    change in `rows` by its shares alone."""
    x = smoothed(session.x[rows]).reshape(len(rows), -1)
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(((x - mean) @ (x - mean).T).astype(np.float64))
    kept = values > 1e-6 * values.max()
    basis = (x - mean).T @ (vectors[:, kept] / np.sqrt(values[kept]))  # (T * N, components)
    rest, paths, shape = at_rest(session, rows), {}, session.x.shape[1:]
    none = {name: np.zeros((len(rest[name]), *shape)) for name in session.classes}
    maps = {name: on_raw(none[name], rest[name], "logits") for name in session.classes}
    for name in session.classes:
        known, y = np.unique(session.variable(name)[rows], return_inverse=True)
        if len(known) > 1:
            paths[name] = known, logistic_path((x - mean) @ basis, y, STRENGTHS, 200)
    for _ in STRENGTHS:
        maps = dict(maps)
        for name, (known, path) in paths.items():
            _, weight, bias = next(path)
            by_class, logits = none[name].copy(), np.full(len(none[name]), NEVER)
            by_class[known] = (basis @ weight).T.reshape(len(known), *shape)
            logits[known] = bias - mean @ basis @ weight
            maps[name] = on_raw(by_class, logits, "logits")
        yield maps


def class_counts(
    session: Session, rows: np.ndarray, task: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spikes of each class of a variable (C, T, N) in the trials `rows`, how often it was shown (C,), and the
    class of each trial."""
    member = session.one_hot(task)[rows]
    seen = np.tensordot(member.T, session.counts[rows], 1)
    return seen, member.sum(axis=0), session.variable(task)[rows]


def kinds(session: Session, rows: np.ndarray, task: str) -> np.ndarray:
    """What kinds of units a session has, by how they answer to a variable (see `bayes.kinds_of_units`)."""
    seen, shown, _ = class_counts(session, rows, task)
    return bayes.kinds_of_units(seen, shown, COURSES).astype(np.float32)


def by_rates(
    session: Session, rows: np.ndarray, kinds: Mapping[str, Mapping[str, np.ndarray]] | None = None
) -> Iterator[dict[str, LinearMap]]:
    """Each variable by Bayes' rule from Poisson counts, every class as likely (see `bayes.BayesPoisson`), ever
    more sure of it. kinds: of units of other sessions, by session to be told and by variable; None: rates
    are told by these trials alone."""
    totals, solved = session.counts[rows].sum(axis=1), {}
    for task in session.classes:
        seen, _, y = class_counts(session, rows, task)
        known = kinds[session.name][task] if kinds else None
        rates = bayes.log_rates(seen, totals, y, COURSES, known)
        weight, bias = bayes.evidence_of_counts(*rates, GAIN_SD)
        solved[task] = weight.T.reshape(-1, *session.x.shape[1:]), bias
    for sure in SURENESS:
        yield {
            task: on_raw(sure * weight, sure * bias, "evidence", width=0)
            for task, (weight, bias) in solved.items()
        }


def unit_weights(x: np.ndarray, y: np.ndarray, maps: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (N, R) of a session's units: ridge of y (K, D) on x (K, T, N) through maps (R, T, D)."""
    (n_maps, n_bins, d), n_units = maps.shape, x.shape[2]
    turn, few = np.linalg.qr(maps.reshape(-1, d).T)  # of many targets, as many as the maps can tell
    maps, y = few.T.reshape(n_maps, n_bins, -1), y @ turn
    if n_bins**2 < maps.shape[2] * n_maps**2:  # of few bins, sums over trials come first
        flat, rows = x.reshape(len(x), -1).astype(np.float64), maps.reshape(n_maps * n_bins, -1)
        pairs = (flat.T @ flat).reshape(n_bins, n_units, n_bins, n_units)
        of_maps = (rows @ rows.T).reshape(n_maps, n_bins, n_maps, n_bins)
        gram = np.einsum("tnum,rtsu->nrms", pairs, of_maps, optimize=True)
        gram = gram.reshape(n_units * n_maps, -1)
        sums = (flat.T @ y).reshape(n_bins, n_units, -1)
        right = np.einsum("tnd,rtd->nr", sums, maps, optimize=True).ravel()
    else:
        read = x.swapaxes(1, 2).astype(np.float64) @ maps.swapaxes(0, 1).reshape(n_bins, -1)
        read = read.reshape(len(x), n_units, n_maps, -1).transpose(0, 3, 1, 2)  # (K, D, N, R)
        read = np.ascontiguousarray(read).reshape(y.size, -1)
        gram, right = read.T @ read, read.T @ y.ravel()
    solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), right)
    return solved.reshape(n_units, n_maps)


def beyond_rest(session: Session, rows: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """What is known of a signal or variable without spikes (D,): its course, the shares of its classes; and
    what it is beyond that in each of the trials `rows` (K, D)."""
    rest = at_rest(session, rows)[task]
    if task in session.signal_names:
        return rest, session.signal(task)[rows] - rest
    return np.exp(rest), session.one_hot(task)[rows] - np.exp(rest)


def components(session: Session, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading components (K, T, n) of a session, all where its units are few, and their directions (N, n)."""
    smooth = smoothed(session.x[rows])
    basis = directions(smooth, N_COMPONENTS)
    return smooth @ basis, basis


def factors(sessions: list[Session], rows: list[np.ndarray], task: str) -> np.ndarray:
    """What a few factors say of a signal or variable over time, the same in all sessions: (R, T, D).

    Reduced rank by alternating ridge: units to factors in each session, factors and time to targets in
    all. Source of the model: Zhang et al. 2024, bioRxiv 2024.09.14.613047.
    """
    xs = [components(*part)[0] for part in zip(sessions, rows, strict=True)]
    ys = [beyond_rest(*part, task)[1] for part in zip(sessions, rows, strict=True)]
    n_bins, d = xs[0].shape[1], ys[0].shape[1]
    weights = []  # at first the session's own leading directions
    for x, y in zip(xs, ys, strict=True):
        flat = x.reshape(len(x), -1)
        alone = flat.T @ np.linalg.solve(flat @ flat.T + 300 * np.eye(len(x)), y)
        by_unit = alone.reshape(n_bins, x.shape[2], d).transpose(1, 0, 2).reshape(x.shape[2], -1)
        weights.append(np.linalg.svd(by_unit, full_matrices=False)[0][:, :N_FACTORS])
    together = np.concatenate(ys)
    for i in range(N_ROUNDS):
        pairs = list(zip(xs, weights, strict=True))
        some = pairs[:1] if i == 0 else pairs  # one session says what the factors are at first
        z = np.concatenate([(x @ w).reshape(len(x), -1) for x, w in some])
        gram = z.T @ z + SHARED_PENALTY * np.eye(z.shape[1])
        solved = np.linalg.solve(gram, z.T @ together[: len(z)])
        maps = solved.reshape(n_bins, -1, d).transpose(1, 0, 2)
        maps /= np.sqrt((maps**2).sum(axis=(1, 2), keepdims=True)) + 1e-9
        weights = [unit_weights(x, y, maps, SHARED_PENALTY) for x, y in zip(xs, ys, strict=True)]
    return maps


def through(
    session: Session, rows: np.ndarray, factors: Mapping[str, np.ndarray]
) -> Iterator[dict[str, LinearMap]]:
    """Each signal or variable through factors (R, T, D) that sessions share: its units' weights alone are
    fitted."""
    x, basis = components(session, rows)
    targets = {task: beyond_rest(session, rows, task) for task in factors}
    for penalty in THROUGH_PENALTIES:
        maps = {}
        for task, of_factors in factors.items():
            rest, y = targets[task]
            by_unit = basis @ unit_weights(x, y, of_factors, penalty)
            weight = np.einsum("nr,rtd->dtn", by_unit, of_factors)
            link = "" if task in session.signal_names else "shares"
            maps[task] = on_raw(weight, rest, link)
        yield maps
