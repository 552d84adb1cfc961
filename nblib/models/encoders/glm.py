"""The baselines of spike prediction, a model a cell: LNP, and the GLM that also knows the cell's spikes.

Source: Pillow and others 2008, Nature 454:995. Fitted by Newton's method to the Poisson likelihood.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from nblib.prepare.continuous import STEP
from nblib.prepare.encoding.history import AGE, LAGS, N_AGES, TAUS, Inputs

N_BASES = 24  # raised cosines a channel, over the lags
RIDGE, MOST_RIDGE = 100.0, 1e6  # of a weight: where it begins, and of one that is 0
CEILINGS = (np.inf, 4.0, 3.5, 3.0, 2.5)  # of the log of what a stimulus does; train chooses
MOST = np.float32(3.0 + np.log(STEP))  # log of spikes a step; no step of Newton's says more
STEPS, LARGE, NEAR = 8, 0.2, 0.03  # of Newton's method: at most, a large one, and one that ends it
DOUBT = 1.0  # ridge of what traces add
MOST_ALIKE = 1e3  # spikes that the history of all cells counts for, at most, in that of a cell
FEWEST = 0.5  # spikes that all cells have so long after another, at least: nothing is impossible
LEAST = -20.0  # of what a time since the last spike adds
ROUNDS = 3  # of history, and stimulus again


def raised_cosines(n: int = N_BASES, lags: int = LAGS) -> np.ndarray:
    """Bumps (n, lags) over 1, 2, ... steps back, narrow near the spike, each with sum 1."""
    place = np.log(np.arange(1, lags + 1) + 3.0)
    middle = np.linspace(place[0], place[-1], n)
    width = 2 * (middle[1] - middle[0])
    away = np.abs(place - middle[:, None])
    bumps = np.where(away < width / 2, (1 + np.cos(2 * np.pi * away / width)) / 2, 0)
    return bumps / bumps.sum(axis=1, keepdims=True)


def stimulus_features(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """The stimulus before each step behind every bump, and 1: (T, channel * n + 1) float32; and the scale
    (channel * n,) by which the former are divided."""
    columns = [
        lfilter(np.r_[0, bump], [1.0], channel)
        for channel in inputs.stimulus.T
        for bump in raised_cosines()
    ]
    x = np.stack(columns, axis=1)
    scale = x[inputs.steps["train"]].std(axis=0) + 1e-9
    return np.column_stack([x / scale, np.ones(len(x))]).astype(np.float32), scale


def fit_cells(inputs: Inputs) -> dict[str, np.ndarray]:
    """What adds up to the log hazard of all cells without their spikes, the LNP: filters (C, channel, LAGS)
    of the stimulus, the latest last, the ceiling (C, 1) of what they add, and bias (C, 1); traces (C, 3) and
    age (C, N_AGES) of a cell's spikes, here 0. Beside them ridge (channel * n + 1,), of the bumps and of 1."""
    (x, scale), steps = stimulus_features(inputs), inputs.steps["train"]
    seen, n_cells = (x[steps], inputs.counts[steps], np.log(STEP)), inputs.n_cells
    w = np.zeros((n_cells, x.shape[1]), np.float32)
    w[:, -1] = np.log(inputs.rate)
    ridge, ceiling = np.append(np.full(len(scale), RIDGE), 0.0), np.inf
    for _ in range(2):  # without a ceiling, and with one
        w, ridge = _newton(*seen, ridge, w, ceiling)
        ceiling, expected = _ceilings(*seen, w)
    traces, age = (np.zeros((n_cells, n), np.float32) for n in (len(TAUS), N_AGES))
    more = seen[1].sum(axis=0) / expected
    return _weights(w, scale, ceiling, more, traces, age, ridge)


def with_history(inputs: Inputs, lnp: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same of a GLM: it begins where the LNP ends, and fits by turns what a cell's spikes add and what
    the stimulus does. Every bin counts."""
    (x, scale), steps = stimulus_features(inputs), inputs.steps["train"]
    x, count = x[steps], inputs.counts[steps]
    filters = lnp["filters"].reshape(inputs.n_cells, -1, LAGS)[..., ::-1]
    of_bumps = filters @ np.linalg.pinv(raised_cosines())
    w = np.column_stack([of_bumps.reshape(len(filters), -1) * scale, lnp["bias"]])
    w, traces, age = w.astype(np.float32), lnp["traces"].copy(), lnp["age"]
    ridge, ceiling = lnp["ridge"], lnp["ceiling"][:, 0]
    groups = [AGE[inputs.since[steps, :, cell]].astype(np.uint8) for cell in range(len(w))]
    fired = [inputs.spikes[steps, :, cell] > 0 for cell in range(len(w))]
    hits = [np.bincount(at[of], minlength=N_AGES) for at, of in zip(groups, fired, strict=True)]
    expected, log_exposure = np.empty(age.shape), np.empty_like(count)
    for _ in range(ROUNDS):
        of_stimulus = np.exp(_drive(x, w, ceiling) + w[:, -1])
        for cell, group in enumerate(groups):
            hazard = of_stimulus[:, cell] * np.exp(inputs.traces[steps, cell] @ traces[cell])
            expected[cell] = np.bincount(group.ravel(), np.repeat(hazard, STEP), minlength=N_AGES)
        age = _ages(np.array(hits), expected)
        for cell, group in enumerate(groups):
            log_bins = np.log(np.exp(age[cell])[group].sum(axis=1))
            seen, alone = inputs.traces[steps, cell], of_stimulus[:, cell] * np.exp(log_bins)
            traces[cell] = _traces(alone, seen, count[:, cell], traces[cell])
            log_exposure[:, cell] = log_bins + seen @ traces[cell]
        w, ridge = _newton(x, count, log_exposure, ridge, w, ceiling)
        ceiling, came = _ceilings(x, count, log_exposure, w)
    return _weights(w, scale, ceiling, count.sum(axis=0) / came, traces, age, ridge)


def log_hazard(inputs: Inputs, weights: dict[str, np.ndarray], steps: np.ndarray) -> np.ndarray:
    """Log of spikes a bin of the 8 bins of steps (S,), given all before each: (S, C, 8)."""
    filters = weights["filters"].reshape(inputs.n_cells, -1)
    of_step = inputs.shown(steps).reshape(len(steps), -1) @ filters.T
    of_step = np.minimum(of_step, weights["ceiling"].T) + weights["bias"].T
    of_step = of_step + (inputs.traces[steps] * weights["traces"]).sum(axis=2)
    cell = np.arange(inputs.n_cells)[:, None]
    return of_step[..., None] + weights["age"][cell, inputs.age(steps)]


def _weights(w, scale, ceiling, more, traces, age, ridge) -> dict[str, np.ndarray]:
    """What a model is, by name, with filters and bias from weights (C, F) of features; more (C,): by how much
    more spikes came than these expect."""
    of_bumps = (w[:, :-1] / scale).reshape(len(w), -1, N_BASES)
    return {
        "filters": (of_bumps @ raised_cosines())[..., ::-1].astype(np.float32),
        "ceiling": ceiling[:, None],
        "bias": w[:, -1:] + np.log(more).astype(np.float32)[:, None],
        "traces": traces,
        "age": age,
        "ridge": ridge,
    }


def _drive(x, w, ceiling) -> np.ndarray:
    """What the stimulus does by weights (C, F) of features (T, F), at most the ceiling: (T, C)."""
    return np.minimum(x[:, :-1] @ w[:, :-1].T, np.float32(ceiling))


def _ceilings(x, count, log_exposure, w) -> tuple[np.ndarray, np.ndarray]:
    """The ceiling under which the spikes (T, C) are likeliest, and how many are expected: (C,) each."""
    losses, expected = [], []
    for ceiling in CEILINGS:
        log = _drive(x, w, ceiling) + (w[:, -1] + np.float32(log_exposure))
        log = np.minimum(log, MOST)
        expected.append(np.exp(log).sum(axis=0, dtype=float))
        losses.append(expected[-1] - (count * log).sum(axis=0, dtype=float))
    best = np.argmin(losses, axis=0)
    return np.array(CEILINGS, np.float32)[best], np.array(expected)[best, np.arange(len(w))]


def _newton(x, count, log_exposure, ridge, w, ceiling) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, F) of most penalised Poisson likelihood of counts (T, C), by Newton's method, and the
    ridge (F,) of each: 1 over the mean square that it has among cells, as far as their spikes tell it
    (MacKay 1992, Neural Comput 4:415). Steps above the ceiling (C,) tell nothing; the curvature is that of
    the last large step."""
    moved, curvature = np.inf, np.empty((*w.shape, w.shape[1]))
    step, told = np.empty((2, *w.shape))
    for _ in range(STEPS):
        drive = _drive(x, w, ceiling)
        below = drive < ceiling
        log = np.minimum(drive + (w[:, -1] + np.float32(log_exposure)), MOST)
        expected = np.exp(log) * below
        slope = (count * below - expected).T @ x - ridge * w
        if moved > LARGE:
            weight = np.sqrt(expected).T.copy()
            for cell, of in enumerate(curvature):
                scaled = x * weight[cell, :, None]  # a product with itself takes half the work
                of[:] = scaled.T @ scaled
        for cell, of in enumerate(curvature):
            spread = np.linalg.inv(of + np.diag(ridge + 1e-6))
            step[cell], told[cell] = spread @ slope[cell], 1 - ridge * np.diag(spread)
        longest = np.abs(step).max(axis=1, keepdims=True)
        w = (w + step * np.minimum(1.0, 2 / longest)).astype(np.float32)
        square = np.maximum(np.square(w[:, :-1], dtype=float).sum(axis=0), 1e-12)
        ridge = np.append(np.clip(told[:, :-1].sum(axis=0) / square, 1.0, MOST_RIDGE), 0.0)
        if (moved := longest.max()) < NEAR:
            break
    return w, ridge


def _ages(hits, expected) -> np.ndarray:
    """What each group of ages adds (C, N_AGES), of its spikes and of how many are expected without. A cell
    leans on what all have by as many spikes as tell cells apart: the more alike they are, the more."""
    hits_of_all = np.maximum(hits.sum(axis=0), FEWEST)
    common = hits_of_all / np.maximum(expected.sum(axis=0), 1e-9)
    by_chance = common * expected
    apart = np.maximum(((hits - by_chance) ** 2 - by_chance).sum(axis=0), 0)
    alike = (by_chance**2).sum(axis=0) / np.maximum(apart, 1e-9)
    alike = np.clip(alike, 1e-9, MOST_ALIKE)
    return np.maximum(np.log((hits + alike) / (expected + alike / common)), LEAST).astype(
        np.float32
    )


def _traces(of_stimulus, seen, count, traces) -> np.ndarray:
    """What each of the traces `seen` (T, 3) adds, given how many spikes are expected without (T,)."""
    for _ in range(3):
        expected = of_stimulus * np.exp(seen @ traces)
        curvature = (seen * expected[:, None]).T @ seen + DOUBT * np.eye(len(traces))
        traces = traces + np.linalg.solve(curvature, seen.T @ (count - expected) - DOUBT * traces)
    return traces
