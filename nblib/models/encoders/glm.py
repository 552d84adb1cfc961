"""The baselines of spike prediction, a model a cell: LNP, and the GLM that also knows the cell's spikes.

Source: Pillow and others 2008, Nature 454:995. Fitted by Newton's method to the Poisson likelihood.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from nblib.prepare.continuous import STEP
from nblib.prepare.encoding.history import AGE, LAGS, N_AGES, TAUS, Inputs

N_BASES = 12  # raised cosines a channel, over the lags
RIDGES = (30.0, 3.0)  # tried in turn; validation chooses
HIGHEST = 3.0  # log of spikes a bin; no step of Newton's says more
STEPS = 9


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


def fit_cells(inputs: Inputs, history: bool, seed: int = 0) -> dict[str, np.ndarray]:
    """What adds up to the log hazard of all cells: filters (C, channel, LAGS) of the stimulus, the latest
    last, and bias (C, 1); traces (C, 3) and age (C, N_AGES) of the cell's spikes, 0 without history."""
    (x, scale), weights = stimulus_features(inputs), []
    phase = np.random.default_rng([seed, 6]).integers(0, STEP, len(x))
    for cell in range(inputs.n_cells):
        rows = {role: _rows(inputs, x, cell, role, history, phase) for role in ("train", "val")}
        n = rows["train"][0].shape[1]
        w = np.zeros(n, np.float32)
        w[x.shape[1] - 1] = np.log(inputs.rate[cell])
        best, kept = np.inf, w
        for ridge in RIDGES:
            penalty = np.full(n, ridge)
            penalty[x.shape[1] - 1] = 0  # the rate
            penalty[x.shape[1] + len(TAUS) :] = 0.3 * np.sqrt(ridge)
            w = _newton(*rows["train"], penalty, w)
            features, count, bins = rows["val"]
            said = np.clip(features @ w, -20, HIGHEST)
            if (loss := (bins * np.exp(said) - count * said).sum()) < best:
                best, kept = loss, w
        weights.append(np.pad(kept, (0, x.shape[1] + len(TAUS) + N_AGES - n)))
    n_bumps = x.shape[1] - 1
    ends = [n_bumps, n_bumps + 1, n_bumps + 1 + len(TAUS)]
    of_bumps, bias, traces, age = np.split(np.array(weights), ends, axis=1)
    of_bumps = (of_bumps / scale).reshape(len(weights), -1, N_BASES)
    filters = (of_bumps @ raised_cosines())[..., ::-1].astype(np.float32)
    return {"filters": filters, "bias": bias, "traces": traces, "age": age}


def log_hazard(inputs: Inputs, weights: dict[str, np.ndarray], steps: np.ndarray) -> np.ndarray:
    """Log of spikes a bin of the 8 bins of steps (S,), given all before each: (S, C, 8)."""
    filters = weights["filters"].reshape(inputs.n_cells, -1)
    of_step = inputs.shown(steps).reshape(len(steps), -1) @ filters.T + weights["bias"].T
    of_step = of_step + (inputs.traces[steps] * weights["traces"]).sum(axis=2)
    cell = np.arange(inputs.n_cells)[:, None]
    return of_step[..., None] + weights["age"][cell, inputs.age(steps)]


def _rows(inputs: Inputs, x: np.ndarray, cell: int, role: str, history: bool, phase: np.ndarray):
    """Features, spikes and bins of the rows that a cell is fitted to. A step is one row; with history a
    row is a spike, or one bin that stands for the 8 of its step."""
    steps = inputs.steps[role]
    if not history:
        count = inputs.spikes[steps, :, cell].sum(axis=1)
        return x[steps], count.astype(np.float32), np.full(len(steps), STEP, np.float32)
    at, bin_ = np.nonzero(inputs.spikes[steps, :, cell])
    at, bin_ = np.r_[steps[at], steps], np.r_[bin_, phase[steps]]
    n = len(at) - len(steps)
    age = np.eye(N_AGES, dtype=np.float32)[AGE[inputs.since[at, bin_, cell]]]
    fired = np.arange(len(at)) < n
    features = np.concatenate([x[at], inputs.traces[at, cell], age], axis=1)
    return features, fired.astype(np.float32), np.where(fired, 0, STEP).astype(np.float32)


def _newton(x, count, bins, penalty, w) -> np.ndarray:
    """Weights of most penalised Poisson likelihood: log of the rate is x @ w, over `bins`."""
    for _ in range(STEPS):
        expected = bins * np.exp(np.clip(x @ w, -20, HIGHEST))
        slope = x.T @ (count - expected) - penalty * w
        scaled = x * np.sqrt(expected)[:, None]  # a product with itself takes half the work
        curvature = scaled.T @ scaled + np.diag(penalty + 1e-6)
        step = np.linalg.solve(curvature.astype(float), slope.astype(float))
        w = (w + step * min(1.0, 2 / np.abs(step).max())).astype(np.float32)
        if np.abs(step).max() < 1e-3:
            break
    return w
