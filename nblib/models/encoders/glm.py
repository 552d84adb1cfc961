"""The baselines of spike prediction, a model a cell: LNP, and the GLM that also knows the cell's spikes.

Source: Pillow and others 2008, Nature 454:995. Fitted by Newton's method to the Poisson likelihood.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from nblib.prepare.continuous import STEP
from nblib.prepare.decoder_inputs import ROLES
from nblib.prepare.encoding.history import AGE, LAGS, N_AGES, TAUS, Inputs

N_BASES = 24  # raised cosines a channel, over the lags
RIDGES = (300.0, 100.0, 30.0, 10.0)  # tried in turn; validation chooses, cell by cell
CEILINGS = (np.inf, 4.0, 3.5, 3.0, 2.5)  # of the log of what a stimulus does; train chooses
MOST = np.float32(3.0 + np.log(STEP))  # log of spikes a step; no step of Newton's says more
STEPS, LARGE, NEAR = 8, 0.2, 0.03  # of Newton's method: at most, a large one, and one that ends it
DOUBT = 1.0  # spikes that the history of all cells counts for in that of a cell
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
    age (C, N_AGES) of a cell's spikes, here 0. Beside them ridge (C, 1), as validation chose it."""
    x, scale = stimulus_features(inputs)
    seen, new = ((x[inputs.steps[role]], inputs.counts[inputs.steps[role]]) for role in ROLES[:2])
    n_cells = inputs.n_cells
    w = np.zeros((n_cells, x.shape[1]), np.float32)
    w[:, -1] = np.log(inputs.rate)
    tried = []
    for ridge in RIDGES:
        w = _newton(*seen, np.log(STEP), np.full((n_cells, 1), ridge), w)
        tried.append((w, _losses(*new, np.log(STEP), w)[0]))
    best = np.argmin([loss for _, loss in tried], axis=0)
    w = np.array([w for w, _ in tried])[best, np.arange(n_cells)]
    traces, age = (np.zeros((n_cells, n), np.float32) for n in (len(TAUS), N_AGES))
    ridge = np.array(RIDGES, np.float32)[best, None]
    return _weights(*seen, np.log(STEP), w, scale, traces, age, ridge)


def with_history(inputs: Inputs, lnp: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same of a GLM: it begins where the LNP ends, and fits by turns what a cell's spikes add and what
    the stimulus does. Every bin counts."""
    (x, scale), steps = stimulus_features(inputs), inputs.steps["train"]
    x, count = x[steps], inputs.counts[steps]
    filters = lnp["filters"].reshape(inputs.n_cells, -1, LAGS)[..., ::-1]
    of_bumps = filters @ np.linalg.pinv(raised_cosines())
    w = np.column_stack([of_bumps.reshape(len(filters), -1) * scale, lnp["bias"]])
    w, traces, age = w.astype(np.float32), lnp["traces"].copy(), lnp["age"].copy()
    groups = [AGE[inputs.since[steps, :, cell]].astype(np.uint8) for cell in range(len(w))]
    fired = [inputs.spikes[steps, :, cell] > 0 for cell in range(len(w))]
    hits = [np.bincount(at[of], minlength=N_AGES) for at, of in zip(groups, fired, strict=True)]
    expected, log_exposure = np.empty(age.shape), np.empty_like(count)
    for _ in range(ROUNDS):
        of_stimulus = np.exp(x @ w.T)
        for cell, group in enumerate(groups):
            hazard = of_stimulus[:, cell] * np.exp(inputs.traces[steps, cell] @ traces[cell])
            expected[cell] = np.bincount(group.ravel(), np.repeat(hazard, STEP), minlength=N_AGES)
        common = np.maximum(np.sum(hits, axis=0), 1e-9) / np.maximum(expected.sum(axis=0), 1e-9)
        age = np.log((hits + DOUBT * common) / (expected + DOUBT)).astype(np.float32)
        age = np.maximum(age, LEAST)
        for cell, group in enumerate(groups):
            log_bins = np.log(np.exp(age[cell])[group].sum(axis=1))
            seen, alone = inputs.traces[steps, cell], of_stimulus[:, cell] * np.exp(log_bins)
            traces[cell] = _traces(alone, seen, count[:, cell], traces[cell])
            log_exposure[:, cell] = log_bins + seen @ traces[cell]
        w = _newton(x, count, log_exposure, lnp["ridge"], w)
    return _weights(x, count, log_exposure, w, scale, traces, age, lnp["ridge"])


def log_hazard(inputs: Inputs, weights: dict[str, np.ndarray], steps: np.ndarray) -> np.ndarray:
    """Log of spikes a bin of the 8 bins of steps (S,), given all before each: (S, C, 8)."""
    filters = weights["filters"].reshape(inputs.n_cells, -1)
    of_step = inputs.shown(steps).reshape(len(steps), -1) @ filters.T
    of_step = np.minimum(of_step, weights["ceiling"].T) + weights["bias"].T
    of_step = of_step + (inputs.traces[steps] * weights["traces"]).sum(axis=2)
    cell = np.arange(inputs.n_cells)[:, None]
    return of_step[..., None] + weights["age"][cell, inputs.age(steps)]


def _weights(x, count, log_exposure, w, scale, traces, age, ridge) -> dict[str, np.ndarray]:
    """What a model is, by name. Filters, ceiling and bias follow from the weights (C, F) of features: the
    ceiling under which the train steps are likeliest, and as many spikes below it as came."""
    losses = [_losses(x, count, log_exposure, w, ceiling) for ceiling in CEILINGS]
    best = np.argmin([loss for loss, _ in losses], axis=0)
    expected = np.array([n for _, n in losses])[best, np.arange(len(w))]
    of_bumps = (w[:, :-1] / scale).reshape(len(w), -1, N_BASES)
    return {
        "traces": traces,
        "age": age,
        "ridge": ridge,
        "filters": (of_bumps @ raised_cosines())[..., ::-1].astype(np.float32),
        "ceiling": np.array(CEILINGS, np.float32)[best, None],
        "bias": w[:, -1:] + np.log(count.sum(axis=0) / expected).astype(np.float32)[:, None],
    }


def _losses(x, count, log_exposure, w, ceiling=np.inf) -> tuple[np.ndarray, np.ndarray]:
    """Nats of the spikes (T, C), less a constant, and how many are expected: (C,) each."""
    log = np.minimum(x[:, :-1] @ w[:, :-1].T, np.float32(ceiling)) + w[:, -1]
    log = np.minimum(log + np.float32(log_exposure), MOST)
    expected = np.exp(log).sum(axis=0, dtype=float)
    return expected - (count * log).sum(axis=0, dtype=float), expected


def _newton(x, count, log_exposure, ridge, w) -> np.ndarray:
    """Weights (C, F) of most penalised Poisson likelihood of counts (T, C), by Newton's method; the
    curvature is that of the last large step."""
    penalty = np.broadcast_to(ridge, w.shape).copy()
    penalty[:, -1] = 0  # the rate
    moved = np.inf
    for _ in range(STEPS):
        expected = np.exp(np.minimum(x @ w.T + np.float32(log_exposure), MOST))
        slope = (count - expected).T @ x - penalty * w
        if moved > LARGE:
            weight = np.sqrt(expected).T.copy()
            curvature = np.empty((*w.shape, w.shape[1]))
            for cell, of in enumerate(curvature):
                scaled = x * weight[cell, :, None]  # a product with itself takes half the work
                of[:] = scaled.T @ scaled + np.diag(penalty[cell] + 1e-6)
        step = np.linalg.solve(curvature, slope[..., None].astype(float))[..., 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        w = (w + step * np.minimum(1.0, 2 / longest)).astype(np.float32)
        if (moved := longest.max()) < NEAR:
            break
    return w


def _traces(of_stimulus, seen, count, traces) -> np.ndarray:
    """What each of the traces `seen` (T, 3) adds, given how many spikes are expected without (T,)."""
    for _ in range(3):
        expected = of_stimulus * np.exp(seen @ traces)
        curvature = (seen * expected[:, None]).T @ seen + DOUBT * np.eye(len(traces))
        traces = traces + np.linalg.solve(curvature, seen.T @ (count - expected) - DOUBT * traces)
    return traces
